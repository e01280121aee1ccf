use super::*;
use crate::config::{Column, IdText};
use std::io::Cursor;
use xxhash_rust::xxh3::xxh3_64;

fn reader(texts: &[&[u8]], schema: &Schema, labels: Labels, on_bad_row: OnBadRow) -> Reader {
    let input = |(i, text): (usize, &&[u8])| Input::stream(format!("part {i}"), Box::new(Cursor::new(text.to_vec())));
    Reader::new(texts.iter().enumerate().map(input).collect(), schema, labels, on_bad_row).unwrap()
}

fn read(texts: &[&[u8]], schema: &Schema, labels: Labels) -> Result<RawBlock> {
    let (mut reader, mut block) = (reader(texts, schema, labels, OnBadRow::Error), RawBlock::new());
    while reader.read(&mut block, 2)? > 0 {}
    Ok(block)
}

fn refused(text: &[u8], schema: &Schema) -> String {
    read(&[text], schema, Labels::Required).unwrap_err().to_string()
}

/// label, two dense, two hexadecimal categories
fn small() -> Schema {
    Schema::criteo(2, 2)
}

fn named() -> Schema {
    let name = |text: &str| Column::Name(text.into());
    Schema {
        separator: ",".into(),
        header: true,
        label: name("clicked"),
        label_threshold: 4.0,
        dense: vec![name("age")],
        dense_log: false,
        categorical: vec![name("city")],
        multi_hot: vec![name("genres")],
        multi_hot_separator: "|".into(),
        multi_hot_max: 3,
        id_text: IdText::Text,
        width: None,
    }
}

#[test]
fn criteo_lines_become_rows() {
    let block = read(&[b"1\t3\t\tff\t\r\n0\t\t-1\t\ta", b"0\t0\t7\t1\t2\n"], &small(), Labels::Required).unwrap();
    assert_eq!(block.labels, [Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!(block.dense, [4f32.ln(), 0.0, 0.0, 0.0, 0.0, 8f32.ln()]);
    assert_eq!(block.keys, [255, 0, 0, 10, 1, 2]);
    assert_eq!(block.offsets, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(block.samples, 3);
}

#[test]
fn named_columns_with_bags() {
    let text = b"\xef\xbb\xbfgenres,city,unused,age,clicked\na|b|a,Paris,x,30,5\n,,,-1.5,3\n";
    let block = read(&[text, b"age,clicked,genres,city\n1,4,c,Z\xfcrich\n"], &named(), Labels::Required).unwrap();
    assert_eq!(block.labels, [Some(1.0), Some(0.0), Some(1.0)]);
    assert_eq!(block.dense, [30.0, -1.5, 1.0]);
    assert_eq!(block.offsets, [0, 1, 4, 5, 5, 6, 7]);
    let h = xxh3_64;
    assert_eq!(block.keys, [h(b"Paris"), h(b"a"), h(b"b"), h(b"a"), h(b""), h(b"Z\xfcrich"), h(b"c")]);
}

#[test]
fn the_label_may_be_absent_when_that_is_allowed() {
    let block = read(&[b"3\t\tff\t\n1\t3\t\tff\t\n"], &small(), Labels::Optional).unwrap();
    assert_eq!(block.labels, [None, Some(1.0)]);
    assert_eq!((&block.dense[..2], &block.keys[..2]), (&block.dense[2..], &block.keys[2..]));
    assert!(refused(b"3\t\tff\t\n", &small()).contains("line 1, column 0: 4 columns, but 5 are expected"));
    let error = read(&[b"\tff\t\n"], &small(), Labels::Optional).unwrap_err().to_string();
    assert!(error.contains("3 columns, but 5 (or 4) are expected"), "{error}");

    let block = read(&[b"age,city,genres\n3,x,y\n"], &named(), Labels::Optional).unwrap();
    assert_eq!((block.labels, block.dense), (vec![None], vec![3.0]));

    let numbers =
        Schema { label: Column::Number(2), dense: vec![Column::Number(1)], categorical: vec![Column::Number(3)], ..Schema::default() };
    let block = read(&[b"5\tx\n6\ty\n"], &Schema { dense_log: false, ..numbers }, Labels::Optional).unwrap();
    assert_eq!((block.labels, block.dense, block.keys), (vec![None, None], vec![5.0, 6.0], vec![xxh3_64(b"x"), xxh3_64(b"y")]));
}

/// Label, one dense, one category, and two columns that are not used.
fn padded(width: Option<usize>) -> Schema {
    let n = Column::Number;
    Schema { dense: vec![n(2)], dense_log: false, categorical: vec![n(3)], id_text: IdText::Int, width, ..Schema::default() }
}

#[test]
fn lines_without_label_are_told_apart_by_the_width_of_the_data() {
    let (labelled, bare) = (b"1\t7\t8\tu\t9\n0\t5\t6\tu\t9\n", b"7\t8\tu\t9\n5\t6\tu\t9\n");
    let mut training = reader(&[labelled, labelled], &padded(None), Labels::Required, OnBadRow::Error);
    while training.read(&mut RawBlock::new(), 9).unwrap() > 0 {}
    assert_eq!(training.width(), Some(5));
    let schema = padded(training.width());
    for text in [labelled, &bare[..]] {
        let block = read(&[text], &schema, Labels::Optional).unwrap();
        assert_eq!((block.dense, block.keys), (vec![7.0, 5.0], vec![8, 6]));
    }
    for (text, labels, says) in [
        (&bare[..], Labels::Required, "4 columns, but 5 are expected"),
        (b"7\t8\tu\n", Labels::Optional, "3 columns, but 5 (or 4) are expected"),
        (b"1\t7\t8\tu\t9\t9\n", Labels::Optional, "6 columns, but 5 (or 4) are expected"),
    ] {
        let error = read(&[text], &schema, labels).unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
    let mut differing = reader(&[labelled, b"1\t7\t8\n"], &padded(None), Labels::Required, OnBadRow::Error);
    while differing.read(&mut RawBlock::new(), 9).unwrap() > 0 {}
    assert_eq!(differing.width(), None);
}

#[test]
fn a_numbered_label_may_be_absent_below_a_header() {
    let name = |text: &str| Column::Name(text.into());
    let names = Schema { header: true, dense: vec![name("age")], categorical: vec![name("item")], ..padded(None) };
    let mixed = Schema { dense: vec![Column::Number(2)], ..names.clone() };
    let bare = &b"age\titem\tu\n7\t8\tu\n"[..];
    for schema in [names.clone(), mixed.clone()] {
        for width in [None, Some(4)] {
            let schema = Schema { width, ..schema.clone() };
            for text in [bare, b"clicked\tage\titem\tu\n1\t7\t8\tu\n"] {
                if width.is_none() && schema.dense == mixed.dense && text == bare {
                    continue; // the file alone does not say what stands in its first column
                }
                let block = read(&[text], &schema, Labels::Optional).unwrap();
                assert_eq!((block.dense, block.keys), (vec![7.0], vec![8]), "{schema:?}");
            }
        }
    }
    let error = |text: &[u8], schema: &Schema, labels| read(&[text], schema, labels).unwrap_err().to_string();
    assert!(error(bare, &names, Labels::Required).contains("column 1: `age` is a feature, but stands in the label's column"));
    let wide = Schema { width: Some(4), ..names };
    assert!(error(bare, &wide, Labels::Required).contains("the header has 3 columns, but 4 are expected (data.schema.width)"));
    let label = Schema { label: name("clicked"), ..mixed };
    assert!(error(b"item\tage\n8\t7\n", &label, Labels::Optional).contains("no column `clicked` for the label"));
}

#[test]
fn each_malformed_line_is_named_with_its_place() {
    let long = [b"1\t1\t1\t1\t1\n0\t", &[b'1'; MAX_LINE][..], b"\n"].concat();
    for (text, says) in [
        (&b"1\t1\t1\t1\n"[..], "line 1, column 0: 4 columns, but 5 are expected"),
        (b"1\t1\t1\t1\t1\n\n", "line 2, column 0: 1 columns"),
        (b"1\t1\t1\t1\t1\t\n", "6 columns, but 5"),
        (b"1\tx\t1\t1\t1\n", "line 1, column 2: `x` is not a number"),
        (b"1\t1\tnan\t1\t1\n", "column 3: `nan` is not a finite"),
        (b"1\t1\t1e99\t1\t1\n", "column 3: `1e99` is not a finite"),
        (b"\t1\t1\t1\t1\n", "column 1: the label `` is not a number"),
        (b"inf\t1\t1\t1\t1\n", "column 1: the label `inf` is not a finite"),
        (b"1\t1\t1\t1\t\xff\n", "column 5: `\\xff` is not a hexadecimal"),
        (b"1\t1\t1\t12345678901234567\t1\n", "column 4: `12345678901234567` has 17 hexadecimal digits"),
        (b"1\t1\t1\t1\t1 \n", "column 5: `1 `"),
        (&long, "line 2, column 0: the line is longer than 1048576 bytes"),
        (b"", "the file is empty"),
    ] {
        let error = refused(text, &small());
        assert!(error.starts_with("part 0, line ") && error.contains(says), "{error} does not say {says}");
    }
    let header = |text: &[u8], says: &str| {
        let error = refused(text, &named());
        assert!(error.contains(says), "{error} does not say {says}");
    };
    header(b"genre,City,ages,age,clicked\n", "no column `city`; the nearest names are `City`");
    header(b"genres,city,age,clicked\n", "ends after its header");
    header(b"genres,city,age,clicked\na|b|c|d,x,1,4\n", "column 1: `a|b|c|d` has more than 3 categories");
    header(b"genres,city,age,clicked\na||c,x,1,4\n", "column 1: `a||c` has an empty category");
    header(b"genres,city,age,clicked\na,x,1,4,\n", "line 2, column 0: 5 columns, but 4");
}

#[test]
fn skipped_lines_leave_nothing_behind() {
    let long = [b"0\t", &[b'1'; 2 * MAX_LINE][..], b"\n"].concat();
    let text = [b"1\t1\t1\t1\tzz\n0\t1\t1\t1\t1\n7\n", &long[..], b"1\t1\t1\t5\t6"].concat();
    let mut reader = reader(&[&text], &small(), Labels::Required, OnBadRow::Skip);
    let mut block = RawBlock::new();
    assert_eq!(reader.read(&mut block, 1).unwrap(), 1);
    assert_eq!(reader.read(&mut block, 100).unwrap(), 1);
    assert_eq!(reader.read(&mut block, 100).unwrap(), 0);
    assert_eq!((reader.skipped(), reader.messages().len(), reader.bytes_read()), (3, 3, text.len() as u64));
    assert!(reader.messages()[1].contains("line 3, column 0: 1 columns"), "{:?}", reader.messages());
    assert_eq!((block.samples, block.keys.len(), block.offsets.len(), block.dense.len()), (2, 4, 5, 4));
    block.clear();
    assert_eq!(block, RawBlock::new());
}

#[test]
fn headers_and_empty_files_are_never_skipped() {
    for text in [&b""[..], b"a,b\n1,2\n"] {
        let mut reader = reader(&[text], &named(), Labels::Required, OnBadRow::Skip);
        assert!(reader.read(&mut RawBlock::new(), 10).is_err());
    }
}

#[test]
fn contradicting_schemas_are_refused() {
    let n = Column::Number;
    let base = Schema { dense: vec![n(2)], categorical: vec![n(3)], ..Schema::default() };
    for (schema, says) in [
        (Schema::default(), "names no dense"),
        (Schema { separator: "ab".into(), ..base.clone() }, "separator is \"ab\""),
        (Schema { separator: "\n".into(), ..base.clone() }, "one ASCII character"),
        (Schema { separator: "é".into(), ..base.clone() }, "one ASCII character"),
        (Schema { dense: vec![n(0)], ..base.clone() }, "column 0"),
        (Schema { dense: vec![n(1)], ..base.clone() }, "label's column (1) as a feature"),
        (Schema { dense: vec![n(usize::MAX)], ..base.clone() }, "beyond"),
        (Schema { dense: vec![Column::Name("age".into())], ..base.clone() }, "header = false"),
        (Schema { multi_hot: vec![n(4)], multi_hot_separator: "\t".into(), ..base.clone() }, "are both"),
        (Schema { width: Some(2), ..base.clone() }, "width is 2, but column 3 is used"),
        (Schema { width: Some(usize::MAX), ..base.clone() }, "at most 1048576 columns"),
        (Schema { multi_hot: vec![n(4)], multi_hot_max: 0, ..base.clone() }, "multi_hot_max is 0"),
        (Schema { multi_hot: vec![n(4)], multi_hot_max: 65_537, ..base }, "multi_hot_max is 65537; a bag has room for 1 to 65536"),
    ] {
        let error = Reader::new(Vec::new(), &schema, Labels::Required, OnBadRow::Error).unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let stream = crate::rng::Stream::new(9, 9);
    for seed in 0..300u64 {
        let alphabet = b"\t\t\t\t\n\n\r019afx.-,|\xff\x00\x1f";
        let s = stream.sub(seed);
        let bytes: Vec<u8> = (0..s.below(0, 400)).map(|i| alphabet[s.below(i + 1, alphabet.len() as u64) as usize]).collect();
        for (schema, labels) in [(small(), Labels::Required), (named(), Labels::Optional)] {
            let mut reader = reader(&[&bytes], &schema, labels, OnBadRow::Skip);
            let mut block = RawBlock::new();
            while reader.read(&mut block, 3).is_ok_and(|n| n > 0) {}
            assert_eq!(block.offsets.len(), block.samples * schema.tables() + 1);
            assert_eq!((block.labels.len(), block.dense.len()), (block.samples, block.samples * schema.dense.len()));
        }
    }
}
