//! Files that lie about sizes: one test for each lie.

use super::limits::{self, Chunk, MAX_PAGE, MAX_VALUES};
use super::tests::{MESSAGE, leaves, written};
use super::values::Limited;
use super::*;
use parquet::basic::{Encoding, Type as Physical};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::file::properties::{WriterProperties, WriterVersion};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field with a whole number, `step` behind the one before.
fn field(step: u8, value: i64) -> Vec<u8> {
    [vec![step << 4 | 5], varint((value << 1 ^ value >> 63) as u64)].concat()
}

/// The header of a data page (5), a dictionary (7) or a newer data page (8).
fn header(kind: u8, decompressed: i64, compressed: i64, values: i64) -> Vec<u8> {
    let number = [(5, 0), (7, 2), (8, 3)].into_iter().find(|(k, _)| *k == kind).map_or(0, |(_, number)| number);
    // what else the decoder asks for: how values and levels are written
    let more = if kind == 7 { vec![] } else { [field(1, 3), field(1, 3)].concat() };
    let inner = [vec![(kind - 3) << 4 | 12], field(1, values), field(1, 0), more, vec![0]].concat();
    [field(1, number), field(1, decompressed), field(1, compressed), inner, vec![0]].concat()
}

const INTS: Chunk = Chunk { kind: Physical::INT32, list: false, lz4: false };

fn refused(bytes: &[u8], chunk: Chunk, says: &str) {
    let error = limits::pages(bytes, chunk).unwrap_err();
    assert!(error.contains(says), "{error}");
}

/// A file that says of its first column's first page what `header` says, and everything else as it was.
fn forged(folder: &Path, header: &[u8]) -> Result<usize> {
    let path = folder.join("forged.parquet");
    let file = written(&path, MESSAGE, Compression::SNAPPY, &[leaves()]);
    let schema = usual_schema(&file).unwrap();
    let (start, length) = open(&file).unwrap().metadata().row_group(0).column(0).byte_range();
    let mut bytes = std::fs::read(&path).unwrap();
    let chunk = &mut bytes[start as usize..(start + length) as usize];
    chunk[..header.len()].copy_from_slice(header);
    std::fs::write(&path, bytes).unwrap();
    let (mut raw, mut reader) = (RawBlock::new(), Reader::new(&[file], &schema, Labels::Required, OnBadRow::Error, None)?);
    while reader.read(&mut raw, 100)? > 0 {}
    Ok(raw.samples)
}

#[test]
fn a_page_of_two_gigabytes_is_refused_before_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let error = forged(folder.path(), &header(5, i64::from(i32::MAX), 4, 4)).unwrap_err().to_string();
    assert!(error.contains("forged.parquet`, row group 0: column `\"label\"`: a page says that it has 2147483647 bytes when"), "{error}");
    assert!(error.contains(&format!("at most {MAX_PAGE} are possible")), "{error}");
    refused(&header(5, MAX_PAGE as i64 + 1, 0, 1), INTS, "when decompressed; at most");
    assert_eq!(limits::pages(&header(5, MAX_PAGE as i64, 0, 1), INTS), Ok(MAX_PAGE));
}

#[test]
fn a_page_longer_than_its_column_is_refused() {
    refused(&header(5, 100, 100, 1), INTS, "says that it has 100 bytes, but 0 follow");
    let second = [header(5, 3, 3, 1), vec![1, 2, 3], header(8, 4, 4, 1), vec![1, 2, 3]].concat();
    refused(&second, INTS, "says that it has 4 bytes, but 3 follow");
    refused(&header(5, 3, -3, 1), INTS, "it has -3 bytes");
    refused(&header(5, -3, 0, 1), INTS, "it has -3 bytes");
}

#[test]
fn a_damaged_page_header_is_refused() {
    let whole = header(5, 0, 0, 1);
    for end in 1..whole.len() {
        refused(&whole[..end], INTS, "header is damaged");
    }
}

/// A field with its number in full, of this type.
fn full(id: i64, kind: u8, value: i64) -> Vec<u8> {
    [vec![kind], varint((id << 1 ^ id >> 63) as u64), field(1, value).split_off(1)].concat()
}

/// A data page whose header says `size` where the bytes when decompressed belong.
fn sized(size: &[u8]) -> Vec<u8> {
    [&field(1, 0), size, &header(5, 0, 4, 4)[4..]].concat()
}

#[test]
fn a_size_under_another_type_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let large = field(1, i64::from(i32::MAX));
    assert_eq!(sized(&large), header(5, i64::from(i32::MAX), 4, 4));
    for kind in (0..16).filter(|&kind| kind != 5) {
        let lie = sized(&[&[0x10 | kind], &large[1..]].concat());
        refused(&lie, INTS, "header is damaged");
        let error = forged(folder.path(), &lie).unwrap_err().to_string();
        assert!(error.contains("forged.parquet`, row group 0: column `\"label\"`: a page's header is damaged"), "{error}");
    }
    let values = [header(5, 9, 9, i64::from(i32::MAX)), vec![0; 9]].concat();
    let place = header(5, 9, 9, 0).len() - 10;
    assert_eq!(values[place..place + 2], [0x15, 0xfe]);
    for kind in [4, 6] {
        let mut lie = values.clone();
        lie[place] = 0x10 | kind;
        refused(&lie, Chunk { list: true, ..INTS }, "header is damaged");
    }
}

#[test]
fn a_size_that_comes_twice_is_refused() {
    let large = i64::from(i32::MAX);
    refused(&sized(&[field(1, 4), full(2, 5, large)].concat()), INTS, "header is damaged");
    refused(&sized(&[full(3, 5, 4), full(2, 5, large)].concat()), INTS, "header is damaged");
    let two = header(5, 4, 0, 4);
    let (end, second) = (two.len() - 1, header(8, 4, 0, 4).split_off(6));
    assert_eq!(second[0], 0x5c);
    refused(&[&two[..end], &[0x3c], &second[1..]].concat(), INTS, "header is damaged");
}

#[test]
fn a_field_whose_number_has_more_than_sixteen_bits_is_refused() {
    refused(&sized(&full(65_538, 5, i64::from(i32::MAX))), INTS, "header is damaged");
    assert_eq!(limits::pages(&[sized(&full(2, 5, 4)), vec![0; 4]].concat(), INTS), Ok(4));
}

#[test]
fn numbers_of_more_than_32_bits_are_refused() {
    let more = 1 << 32;
    refused(&header(5, more, 0, 1), INTS, "header is damaged");
    refused(&header(5, 0, more, 1), INTS, "header is damaged");
    refused(&header(5, 0, 0, more + 1), INTS, "header is damaged");
    refused(&header(7, 0, 0, more), INTS, "header is damaged");
}

#[test]
fn negative_counts_and_levels_are_refused() {
    refused(&header(5, 0, 0, -1), INTS, "says that it has -1 values");
    refused(&header(8, 0, 0, -1), INTS, "says that it has -1 values");
    refused(&header(7, 0, 0, -1), INTS, "a dictionary says that it has -1 values");
    let levels = |first: i64, second: i64| {
        let head = header(8, 4, 4, 4);
        let tail = [field(1, first), field(1, second), vec![0, 0, 9, 9, 9, 9]].concat();
        [&head[..head.len() - 2], &tail].concat()
    };
    refused(&levels(-1, 2), INTS, "says that it has -1 bytes of levels");
    refused(&levels(2, -1), INTS, "says that it has -1 bytes of levels");
    refused(&levels(2, 3), INTS, "says that it has 5 bytes of levels in 4 bytes");
    assert_eq!(limits::pages(&levels(2, 2), INTS), Ok(4));
}

#[test]
fn a_dictionary_of_more_values_than_bytes_is_refused() {
    refused(&[header(7, 16, 16, i64::from(i32::MAX)), vec![0; 16]].concat(), INTS, "2147483647 values in 16 bytes");
    refused(&[header(7, 16, 16, 5), vec![0; 16]].concat(), INTS, "5 values in 16 bytes");
    refused(&[header(7, 16, 16, 3), vec![0; 16]].concat(), Chunk { kind: Physical::INT64, ..INTS }, "3 values in 16 bytes");
    assert_eq!(limits::pages(&[header(7, 16, 16, 4), vec![0; 16]].concat(), INTS), Ok(16 + 4 * 32));
}

#[test]
fn a_page_of_endless_lists_is_refused() {
    let page = [header(5, 9, 9, i64::from(i32::MAX)), vec![0; 9]].concat();
    refused(&page, Chunk { list: true, ..INTS }, "2147483647 values of lists; at most");
    assert!(limits::pages(&page, INTS).is_ok(), "elsewhere it is not decoded at once");
}

/// Pages that hold nothing but say that they hold many values.
struct Many(u32);

impl Iterator for Many {
    type Item = parquet::errors::Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Many {
    fn get_next_page(&mut self) -> parquet::errors::Result<Option<Page>> {
        let (encoding, level) = (Encoding::PLAIN, Encoding::RLE);
        let (def_level_encoding, rep_level_encoding) = (level, level);
        let page =
            Page::DataPage { buf: Bytes::new(), num_values: self.0, encoding, def_level_encoding, rep_level_encoding, statistics: None };
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> parquet::errors::Result<Option<PageMetadata>> {
        Ok(None)
    }

    fn skip_next_page(&mut self) -> parquet::errors::Result<()> {
        Ok(())
    }
}

#[test]
fn a_list_that_goes_on_over_many_pages_is_refused() {
    let budget = Arc::new(AtomicU64::new(MAX_VALUES));
    let pages = |budget| Limited { pages: Box::new(Many(1 << 20)), left: (1, 1 << 40), budget, texts: None };
    let endless = pages(Some(budget)).take(100).find_map(std::result::Result::err).unwrap().to_string();
    assert!(endless.contains("more than 8388608 values"), "{endless}");
    assert!(pages(None).take(100).all(|page| page.is_ok()), "elsewhere rows are decoded some at a time");
    let footer = Limited { left: (1, 3 << 20), ..pages(None) }.take(100).find_map(std::result::Result::err).unwrap().to_string();
    assert!(footer.contains("more than the footer says"), "{footer}");
}

fn file(footer: &[u8]) -> Vec<u8> {
    [b"PAR1", footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat()
}

/// The beginning of a footer whose schema has groups with these numbers of children.
fn schema(children: &[i64]) -> Vec<u8> {
    let element = |&n: &i64| [vec![0x48, 1, b'x'], field(1, n), vec![0]].concat();
    let elements = children.iter().flat_map(element).collect();
    [field(1, 2), vec![0x19, 0xfc], varint(children.len() as u64), elements, vec![0]].concat()
}

#[test]
fn a_schema_that_promises_columns_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let lies: [(Vec<i64>, &str); 5] = [
        (vec![i64::from(i32::MAX)], "says that it has 2147483647 columns, but 0 elements follow"),
        (vec![2, 0], "says that it has 2 columns, but 1 elements follow"),
        (vec![-1, 0], "says that it has -1 columns"),
        ([vec![1; 40], vec![0]].concat(), "more than 32 deep"),
        (vec![0; 70_000], "70000 elements; at most 65536"),
    ];
    for (children, says) in lies {
        std::fs::write(&path, file(&schema(&children))).unwrap();
        let error = usual_schema(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(limits::footer(&file(&schema(&[2, 1, 0, 0]))), Ok(()));
    assert!(limits::footer(&file(&schema(&[1, 0])[..4])).unwrap_err().contains("damaged"));
    for nothing in [&b""[..], b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1"] {
        assert_eq!(limits::footer(nothing), Ok(()), "left to the decoder");
    }
}

#[test]
fn a_schema_under_other_types_or_numbers_is_refused() {
    let whole = schema(&[2, 0, 0]);
    assert_eq!(limits::footer(&file(&whole)), Ok(()));
    let damaged = |bytes: &[u8], what: &str| assert_eq!(limits::footer(&file(bytes)), Err("its footer is damaged".into()), "{what}");
    // version; list of elements; elements of name and number of children
    assert_eq!(whole[..9], [0x15, 4, 0x19, 0xfc, 3, 0x48, 1, b'x', 0x15]);
    for (at, byte, what) in [
        (0, 0x18, "a version that is text"),
        (2, 0x1a, "a set of elements"),
        (3, 0xf8, "elements that are texts"),
        (5, 0x4c, "a name that is a structure"),
        (8, 0x16, "children of 64 bits"),
        (8, 0x14, "children of 16 bits"),
    ] {
        let mut lie = whole.clone();
        lie[at] = byte;
        damaged(&lie, what);
    }
    let element = |rest: &[u8]| [&[0x15, 4, 0x19, 0x1c, 0x48, 1, b'x'], rest, &[0, 0]].concat();
    assert_eq!(limits::footer(&file(&element(&field(1, 0)))), Ok(()));
    damaged(&element(&[field(1, 0), full(5, 5, 9)].concat()), "children twice");
    damaged(&element(&full(65_541, 5, 9)), "a number of seventeen bits");
    damaged(&element(&field(1, 1 << 32)), "children of 33 bits");
    // logical types: text; a moment in milliseconds; a whole number
    for honest in [&[0x6c, 0x1c, 0, 0][..], &[0x6c, 0x8c, 0x11, 0x1c, 0x1c, 0, 0, 0, 0], &[0x6c, 0xac, 0x13, 32, 0x11, 0, 0]] {
        assert_eq!(limits::footer(&file(&element(honest))), Ok(()), "{honest:?}");
    }
    for lie in [&[0x6c, 0x18, 0, 0][..], &[0x6c, 0x8c, 0x11, 0x1c, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x6c, 0xac, 0x18, 0, 0, 0]] {
        damaged(&element(lie), &format!("{lie:?}"));
    }
}

#[test]
fn lz4_frames_are_refused() {
    for magic in [0x184d_2204u32, 0x184c_2102, 0x184d_2a53] {
        let page = [header(5, 9, 8, 1), magic.to_le_bytes().to_vec(), vec![0; 4]].concat();
        refused(&page, Chunk { lz4: true, ..INTS }, "LZ4 frames");
        assert!(limits::pages(&page, INTS).is_ok(), "other data may begin so");
    }
}

/// A page of texts without levels.
fn text_page(encoding: Encoding, bytes: Vec<u8>, num_values: u32) -> Page {
    let (def_level_encoding, rep_level_encoding) = (Encoding::RLE, Encoding::RLE);
    Page::DataPage { buf: bytes.into(), num_values, encoding, def_level_encoding, rep_level_encoding, statistics: None }
}

/// `count` lengths, all `value`.
fn lengths(count: u64, value: u64) -> Vec<u8> {
    [vec![0x80, 1, 4], varint(count), varint(value << 1), [0, 0, 0, 0, 0].repeat(count.saturating_sub(1).div_ceil(128) as usize)].concat()
}

#[test]
fn more_lengths_than_values_are_refused() {
    let two = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    for (encoding, bytes) in [
        (Encoding::DELTA_LENGTH_BYTE_ARRAY, [vec![0x80, 1, 4], varint(1 << 40), varint(2)].concat()),
        (Encoding::DELTA_BYTE_ARRAY, two(lengths(11, 0), lengths(10, 1))),
        (Encoding::DELTA_BYTE_ARRAY, two(lengths(10, 0), lengths(11, 1))),
    ] {
        let error = limits::texts(&text_page(encoding, bytes, 10), 0, 0).unwrap_err();
        assert!(error.contains("more than its header says"), "{error}");
    }
    assert_eq!(limits::texts(&text_page(Encoding::DELTA_BYTE_ARRAY, two(lengths(10, 0), lengths(10, 1)), 10), 0, 0), Ok(()));
}

#[test]
fn endless_lengths_of_empty_texts_are_refused() {
    for (count, fits) in [(MAX_VALUES, true), (MAX_VALUES + 1, false)] {
        let page = text_page(Encoding::DELTA_LENGTH_BYTE_ARRAY, lengths(count, 0), u32::MAX);
        let found = limits::texts(&page, 0, 0);
        assert_eq!(found.is_ok(), fits, "{found:?}");
        assert!(fits || found.unwrap_err().contains("or more than 8388608; if they are that many, write the file with smaller pages"));
    }
}

#[test]
fn texts_that_repeat_a_long_one_are_refused() {
    let bytes = [lengths(200, 1 << 20), lengths(200, 0)].concat();
    let error = limits::texts(&text_page(Encoding::DELTA_BYTE_ARRAY, bytes, 200), 0, 0).unwrap_err();
    assert!(error.contains("209715200 + 0 bytes; at most 67108864"), "{error}");
}

#[test]
fn honest_texts_of_every_encoding_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let message = "message m { required float I1; optional binary C1 (STRING); required int32 label; }";
    let names = ["c0ffee", "c0ffef", "c0ff", "09", "ff"];
    let rows = 3000;
    let present: Vec<usize> = (0..rows).filter(|r| r % 7 > 0).collect();
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for encoding in [Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
            let leaves = vec![
                super::tests::Leaf::Float(vec![0.5; rows], vec![]),
                super::tests::Leaf::Text(
                    present.iter().map(|r| names[r * r % 5]).collect(),
                    (0..rows).map(|r| i16::from(r % 7 > 0)).collect(),
                ),
                super::tests::Leaf::Int(vec![1; rows], vec![], vec![]),
            ];
            let properties = WriterProperties::builder().set_writer_version(version).set_dictionary_enabled(false).set_encoding(encoding);
            // the other columns are numbers
            let plain = ["I1", "label"].into_iter().fold(properties, |p, name| p.set_column_encoding(name.into(), Encoding::PLAIN));
            let file = super::tests::written_with(&folder.path().join("a.parquet"), message, plain.build(), &[leaves]);
            let schema = usual_schema(&file).unwrap();
            let mut reader = Reader::new(&[file], &schema, Labels::Required, OnBadRow::Error, None).unwrap();
            let mut raw = RawBlock::new();
            while reader.read(&mut raw, 1000).unwrap() > 0 {}
            let key = |r: usize| if !r.is_multiple_of(7) { u64::from_str_radix(names[r * r % 5], 16).unwrap() } else { 0 };
            assert!(raw.keys.iter().copied().eq((0..rows).map(key)), "{encoding} {version:?}");
        }
    }
}
