use super::*;
use crate::rng::Stream;

const HUGE: u64 = 1 << 32;

/// Lists with the tables' rows.
fn lists(tables: &[&[u32]]) -> RowLists {
    let mut lists = RowLists::new();
    tables.iter().for_each(|rows| lists.push_table(rows));
    lists
}

fn encoded(lists: &RowLists, table_rows: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(lists, table_rows, &mut out);
    out
}

/// Up to `count` different rows of a table of `extent` rows, where `spread` packs them into its first rows.
fn random_rows(stream: Stream, count: u64, extent: u64, spread: u64) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..count).map(|i| stream.below(i, spread.clamp(1, extent)) as u32).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Tables of many shapes: (rows of the table, touched rows).
fn shapes() -> Vec<(u64, Vec<u32>)> {
    let stream = Stream::new(7, 1);
    let mut shapes = vec![
        (0, vec![]),
        (HUGE, vec![]),
        (1, vec![0]),
        (HUGE, vec![0]),
        (HUGE, vec![u32::MAX]),
        (HUGE, vec![0, u32::MAX]),
        (HUGE, vec![u32::MAX - 1, u32::MAX]),
        (u64::MAX, vec![5, u32::MAX]),
        (64, (0..64).collect()),
        (65, (1..65).collect()),
        (1 << 20, (0..128).map(|i| i * 8191).collect()),
    ];
    for bits in 0..32 {
        for row in [(1 << bits) - 1, 1 << bits] {
            shapes.push((HUGE, vec![row]));
            shapes.push((u64::from(row) + 1, vec![row]));
        }
    }
    for count in [1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000] {
        shapes.push((u64::from(count), (0..count).collect()));
        shapes.push((HUGE, (u32::MAX - count..u32::MAX).collect()));
        for (i, extent) in [u64::from(count) + 1, 2 * u64::from(count), 5000, 100_000, 1 << 31, HUGE].into_iter().enumerate() {
            for (j, spread) in [extent, extent / 2, 3 * u64::from(count)].into_iter().enumerate() {
                let sub = stream.sub(u64::from(count)).sub(10 * i as u64 + j as u64);
                shapes.push((extent, random_rows(sub, u64::from(count), extent, spread)));
            }
        }
        // No gap but the last: widths 0 and 32 in one list.
        shapes.push((HUGE, (0..count).chain([u32::MAX]).collect()));
    }
    shapes
}

/// One table written in `code`.
fn forced(rows: &[u32], extent: u64, code: Code) -> Vec<u8> {
    let mut out = Vec::new();
    write(rows, extent.min(MAX_ROWS), code, &mut out);
    out
}

fn refused(bytes: &[u8], extent: u64, most: u64, words: &str) {
    let error = decode(bytes, &[extent], &[most]).unwrap_err();
    assert!(error.contains(words), "`{words}` is not in: {error}");
}

/// What every decoded list promises.
fn assert_sound(lists: &RowLists, table_rows: &[u64], most: &[u64]) {
    assert_eq!((lists.tables(), lists.offsets()[0]), (table_rows.len(), 0));
    assert_eq!(lists.offsets()[lists.tables()], lists.len());
    for (k, (&extent, &most)) in table_rows.iter().zip(most).enumerate() {
        let rows = lists.table(k);
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "table {k} is not increasing");
        assert!(rows.iter().all(|&row| u64::from(row) < extent) && rows.len() as u64 <= most, "table {k}");
    }
}

#[test]
fn lists_hold_their_tables() {
    let mut l = lists(&[&[1, 5], &[], &[0]]);
    assert_eq!((l.tables(), l.len(), l.is_empty()), (3, 3, false));
    assert_eq!((l.table(0), l.table(1), l.table(2)), (&[1, 5][..], &[][..], &[0][..]));
    assert_eq!((l.rows(), l.offsets()), (&[1, 5, 0][..], &[0, 2, 2, 3][..]));
    l.clear();
    assert_eq!(l, RowLists::default());
}

#[test]
#[should_panic(expected = "rows of table 1 are not strictly increasing")]
fn a_row_that_stands_twice_is_no_list() {
    lists(&[&[1], &[4, 4]]);
}

#[test]
#[should_panic(expected = "table 0 has 4 rows, not row Some(4)")]
fn a_row_outside_its_table_is_not_written() {
    encoded(&lists(&[&[4]]), &[4]);
}

#[test]
fn the_bytes_are_those_of_the_description() {
    let table_rows = [9, 3, 20, 1 << 20, HUGE];
    let sparse: Vec<u32> = vec![1, 2, 300_000];
    let l = lists(&[&[], &[0, 1, 2], &[0, 9, 10, 19], &sparse, &[3, 4, 9]]);
    let bitmap = [2, 4, 0b0000_0001, 0b0000_0110, 0b0000_1000];
    let varints = [4, 3, 1, 0, 0xdd, 0xa7, 0x12]; // 300_000 - 2 - 1 = 0b10010_0100111_1011101
    let packed = [3, 3, 3, 0b00_000_011, 0b1]; // 3, 0, 4 in three bits each
    let varints_of_3 = [4, 3, 3, 0, 4];
    let expected: Vec<u8> = [&[0u8, 1][..], &bitmap, &varints, &packed].concat();
    let bytes = encoded(&l, &table_rows);
    assert_eq!(bytes, expected);
    assert_eq!(packed.len(), varints_of_3.len(), "of equals the first code is taken");
    assert_eq!(decode(&bytes, &table_rows, &[9; 5]).unwrap(), l);
}

#[test]
fn lists_of_every_shape_come_back() {
    let shapes = shapes();
    let table_rows: Vec<u64> = shapes.iter().map(|(extent, _)| *extent).collect();
    let most: Vec<u64> = shapes.iter().map(|(_, rows)| rows.len() as u64).collect();
    let all = lists(&shapes.iter().map(|(_, rows)| &rows[..]).collect::<Vec<_>>());
    let bytes = encoded(&all, &table_rows);
    assert_eq!(decode(&bytes, &table_rows, &most).unwrap(), all);
    assert!(bytes.len() as u64 <= most_bytes(&table_rows, &most));
    for (extent, rows) in &shapes {
        let bytes = encoded(&lists(&[rows]), &[*extent]);
        let back = decode(&bytes, &[*extent], &[rows.len() as u64]).unwrap();
        assert_eq!(back.table(0), rows, "{} rows of {extent}", rows.len());
    }
}

#[test]
fn every_code_comes_back_and_none_is_shorter_than_the_one_taken() {
    let mut taken = [0; 5];
    for (extent, rows) in shapes() {
        let (extent, best) = (extent.min(MAX_ROWS), encoded(&lists(&[&rows]), &[extent]));
        taken[usize::from(best[0])] += 1;
        for (code, size) in Code::LISTS.into_iter().zip(sizes(&rows, extent)) {
            let (mut count, huge) = (Vec::new(), code == Code::Bitmap && extent > 1 << 20);
            write_varint(rows.len() as u64, &mut count);
            let expected = 1 + count.len() as u64 + size;
            assert!(rows.is_empty() || best.len() as u64 <= expected, "{} rows of {extent}", rows.len());
            if rows.is_empty() || huge {
                continue;
            }
            let bytes = forced(&rows, extent, code);
            assert_eq!(bytes.len() as u64, expected, "{code:?}, {} rows of {extent}", rows.len());
            assert_eq!(decode(&bytes, &[extent], &[extent]).unwrap().table(0), rows, "{code:?}, {} rows of {extent}", rows.len());
        }
    }
    assert!(taken.iter().all(|&n| n > 0), "shapes for every code: {taken:?}");
}

#[test]
fn memory_is_used_again() {
    let (first, second) = (lists(&[&[1, 2, 3], &[7]]), lists(&[&[5]]));
    let mut into = RowLists::new();
    decode_into(&encoded(&first, &[10, 10]), &[10, 10], &[3, 3], &mut into).unwrap();
    assert_eq!(into, first);
    decode_into(&encoded(&second, &[10]), &[10], &[3], &mut into).unwrap();
    assert_eq!(into, second);
    assert!(decode_into(&[4, 1, 1, 4, 2, 1, 9], &[10, 10], &[3, 3], &mut into).is_err());
    assert_eq!(into, RowLists::new(), "nothing half read is left");
}

#[test]
fn counts_above_what_is_allowed_are_refused() {
    refused(&forced(&[1, 2, 3], 100, Code::Varints), 100, 2, "table 0: 3 rows of 100; a batch touches at most 2");
    refused(&[1], 100, 99, "100 rows of 100; a batch touches at most 99");
    refused(&[4, 4, 0, 0, 0, 0], 3, 100, "4 rows of 3");
    refused(&[3, 0xff, 0xff, 0xff, 0xff, 0x7f, 0], HUGE, u64::MAX, "34359738367 rows of 4294967296");
    let lists = [0, 1, 0];
    let error = decode(&lists, &[5, 5, 5], &[5, 4, 5]).unwrap_err();
    assert_eq!(error, "sent bad rows of table 1: 5 rows of 5; a batch touches at most 4");
}

#[test]
fn counts_that_the_bytes_cannot_hold_take_no_memory() {
    let count = [0x80, 0x80, 0x80, 0x80, 0x08]; // 2^31
    for (code, words) in [(2, "536870912 bytes are needed, 5 are left"), (3, "16777216 blocks, in 5 bytes"), (4, "announced in 5 bytes")] {
        let bytes = [&[code][..], &count, &[0; 5]].concat();
        let mut into = RowLists::new();
        let error = decode_into(&bytes, &[HUGE], &[HUGE], &mut into).unwrap_err();
        assert!(error.contains(words), "{error}");
        assert_eq!(into.rows.capacity(), 0);
    }
}

#[test]
fn unknown_codes_and_empty_lists_are_refused() {
    refused(&[5], 10, 10, "there is no code 5");
    refused(&[255, 1, 0], 10, 10, "there is no code 255");
    refused(&[1], 0, 10, "no row, as All");
    refused(&[2, 0, 0, 0], 10, 10, "no row, as Bitmap");
    refused(&[3, 0], 10, 10, "no row, as Packed");
    refused(&[4, 0], 10, 10, "no row, as Varints");
}

#[test]
fn rows_outside_their_table_are_refused() {
    refused(&[4, 1, 10], 10, 10, "row 10 of 10");
    refused(&[4, 2, 9, 0], 10, 10, "row 10 of 10");
    refused(&[4, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, 0], HUGE, 10, "row 4294967296 of 4294967296");
    refused(&[4, 1, 0xff, 0xff, 0xff, 0xff, 0x7f], HUGE, 10, "row 34359738367 of 4294967296");
    refused(&[3, 1, 4, 10], 10, 10, "row 10 of 10");
    refused(&[3, 2, 4, 9], 10, 10, "row 10 of 10");
    // 128 deltas of 2^32 - 1 do not come round to a row of the table.
    let wide = [&[3, 0x80, 0x01, 32][..], &[0xff; 512]].concat();
    refused(&wide, HUGE, 200, "row 549755813887 of 4294967296");
}

#[test]
fn needless_bytes_and_bits_are_refused() {
    refused(&[4, 0x81, 0x00, 3], 10, 10, "the varint of 1 has 2 bytes, which are too many");
    refused(&[4, 1, 0x83, 0x80, 0x00], 10, 10, "the varint of 3 has 3 bytes");
    refused(&[4, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], HUGE, 10, "a varint has more than 5 bytes");
    refused(&[3, 1, 4, 7], 10, 10, "deltas of 3 bits in 4");
    refused(&[3, 1, 1, 0], 10, 10, "deltas of 0 bits in 1");
    refused(&[3, 1, 33, 0, 0, 0, 0, 0], HUGE, 10, "deltas of 33 bits");
    refused(&[3, 1, 255, 0, 0, 0, 0, 0], HUGE, 10, "deltas of 255 bits");
    refused(&[3, 1, 3, 0b0001_0111], 10, 10, "bits are set after the end of a block");
    refused(&[2, 2, 0b0000_0001, 0b0000_0100], 10, 10, "bits are set after the end of the bitmap");
}

#[test]
fn a_bitmap_holds_as_many_rows_as_announced() {
    refused(&[2, 2, 0b0000_0001, 0], 10, 10, "2 rows announced, 1 in the bitmap");
    refused(&[2, 1, 0b1000_0001, 0], 10, 10, "1 rows announced, 2 in the bitmap");
}

#[test]
fn all_bytes_are_read() {
    let bytes = [encoded(&lists(&[&[1], &[2]]), &[10, 10]), vec![0, 0]].concat();
    assert_eq!(decode(&bytes, &[10, 10], &[9, 9]).unwrap_err(), "sent 2 bytes after the rows of all 2 tables");
    assert_eq!(decode(&[0], &[], &[]).unwrap_err(), "sent 1 bytes after the rows of all 0 tables");
    assert_eq!(decode(&[], &[], &[]), Ok(RowLists::new()));
}

/// Every code, with short blocks, long ones and a short one after a long one.
fn samples() -> (Vec<u64>, Vec<u64>, RowLists, Vec<u8>) {
    let stream = Stream::new(11, 2);
    let long = random_rows(stream, 150, 1 << 31, 1 << 31);
    let tables: [(u64, &[u32], Code); 9] = [
        (10, &[], Code::Empty),
        (4, &[0, 1, 2, 3], Code::All),
        (21, &[0, 9, 20], Code::Bitmap),
        (64, &[0, 9, 63], Code::Bitmap),
        (1000, &[5, 7, 300], Code::Packed),
        (HUGE, &[0, 1, 2], Code::Packed),
        (1 << 31, &long, Code::Packed),
        (1 << 31, &long[..20], Code::Varints),
        (HUGE, &[3, 200, u32::MAX], Code::Varints),
    ];
    let (table_rows, most) = tables.iter().map(|(extent, rows, _)| (*extent, rows.len() as u64 + 2)).unzip();
    let lists = lists(&tables.map(|(_, rows, _)| rows));
    let bytes = tables.iter().flat_map(|(extent, rows, code)| forced(rows, *extent, *code)).collect();
    (table_rows, most, lists, bytes)
}

#[test]
fn what_is_cut_is_refused() {
    let (table_rows, most, lists, bytes) = samples();
    assert_eq!(decode(&bytes, &table_rows, &most).unwrap(), lists);
    for end in 0..bytes.len() {
        let error = decode(&bytes[..end], &table_rows, &most).unwrap_err();
        assert!(error.starts_with("sent bad rows of table "), "{end} bytes: {error}");
    }
    refused(&[4, 2, 1, 0x80], 1000, 10, "the bytes end inside a varint, after 1 of its bytes");
    refused(&[3, 3, 7, 1, 2], 1000, 10, "3 bytes are needed, 2 are left");
    refused(&[], 1000, 10, "1 bytes are needed, 0 are left");
}

#[test]
fn a_changed_byte_is_refused_or_gives_other_sound_lists() {
    let (table_rows, most, lists, bytes) = samples();
    let (mut accepted, mut into) = (0, RowLists::new());
    for at in 0..bytes.len() {
        for change in 1..=255 {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            if decode_into(&bytes, &table_rows, &most, &mut into).is_ok() {
                assert_sound(&into, &table_rows, &most);
                assert_ne!(into, lists, "byte {at} ^ {change}: two ways to write the same lists");
                accepted += 1;
            }
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn random_bytes_are_refused_or_give_sound_lists() {
    let (table_rows, most) = ([5, 40, 1000, HUGE], [5, 30, 200, 200]);
    let (stream, mut accepted) = (Stream::new(5, 3), 0);
    for round in 0..200_000 {
        let s = stream.sub(round);
        let bytes: Vec<u8> = (0..8 + s.below(0, 24)).map(|i| s.below(i + 1, if s.bits(100) % 2 == 0 { 6 } else { 256 }) as u8).collect();
        if let Ok(lists) = decode(&bytes, &table_rows, &most) {
            assert_sound(&lists, &table_rows, &most);
            assert!(encoded(&lists, &table_rows).len() <= bytes.len());
            accepted += 1;
        }
    }
    assert!(accepted > 0);
}

#[test]
fn no_lists_are_longer_than_the_bound() {
    for (extent, rows) in shapes() {
        let bytes = encoded(&lists(&[&rows]), &[extent]).len() as u64;
        for most in [rows.len() as u64, rows.len() as u64 + 1, 2 * rows.len() as u64 + 100, u64::MAX] {
            assert!(bytes <= most_bytes(&[extent], &[most]), "{} rows of {extent}, at most {most}", rows.len());
        }
    }
    // A table whose every list can be tried.
    for set in 0u32..1 << 12 {
        let rows: Vec<u32> = (0..12).filter(|row| set >> row & 1 == 1).collect();
        assert!(encoded(&lists(&[&rows]), &[12]).len() as u64 <= most_bytes(&[12], &[rows.len() as u64]));
    }
}

#[test]
fn the_bound_is_small_and_saturates() {
    assert_eq!(most_bytes(&[], &[]), 0);
    assert_eq!(most_bytes(&[10, 0], &[0, 10]), 2);
    assert_eq!(most_bytes(&[16], &[u64::MAX]), 6 + 2);
    assert_eq!(most_bytes(&[HUGE], &[1]), 6 + 5);
    assert_eq!(most_bytes(&[1 << 20], &[129]), 6 + (1 + 128 * 20 / 8) + (1 + 3));
    assert_eq!(most_bytes(&[u64::MAX], &[u64::MAX]), 6 + (1 << 29));
}
