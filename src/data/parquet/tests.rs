use super::*;
use crate::config::{Column as Named, Data, Format, IdText};
use crate::data::dataset::{self, Prepared};
use crate::data::{Block, Samples};
use parquet::basic::ZstdLevel;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::sync::Arc;

/// Values of one leaf, with levels where it has any.
pub(super) enum Leaf {
    Int(Vec<i32>, Vec<i16>, Vec<i16>),
    Long(Vec<i64>, Vec<i16>, Vec<i16>),
    Float(Vec<f32>, Vec<i16>),
    Text(Vec<&'static str>, Vec<i16>),
}

/// Writes row groups of leaves.
pub(super) fn written(path: &Path, message: &str, compression: Compression, groups: &[Vec<Leaf>]) -> String {
    written_with(path, message, WriterProperties::builder().set_compression(compression).build(), groups)
}

/// The same, with these properties.
pub(super) fn written_with(path: &Path, message: &str, properties: WriterProperties, groups: &[Vec<Leaf>]) -> String {
    let schema = Arc::new(parse_message_type(message).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    for leaves in groups {
        let mut group = writer.next_row_group().unwrap();
        for leaf in leaves {
            let mut column = group.next_column().unwrap().unwrap();
            let levels = |levels: &[i16]| if levels.is_empty() { None } else { Some(levels.to_vec()) };
            match (leaf, column.untyped()) {
                (Leaf::Int(v, def, rep), ColumnWriter::Int32ColumnWriter(w)) => {
                    w.write_batch(v, levels(def).as_deref(), levels(rep).as_deref()).unwrap();
                }
                (Leaf::Long(v, def, rep), ColumnWriter::Int64ColumnWriter(w)) => {
                    w.write_batch(v, levels(def).as_deref(), levels(rep).as_deref()).unwrap();
                }
                (Leaf::Float(v, def), ColumnWriter::FloatColumnWriter(w)) => {
                    w.write_batch(v, levels(def).as_deref(), None).unwrap();
                }
                (Leaf::Text(v, def), ColumnWriter::ByteArrayColumnWriter(w)) => {
                    let v: Vec<ByteArray> = v.iter().map(|&t| ByteArray::from(t)).collect();
                    w.write_batch(&v, levels(def).as_deref(), None).unwrap();
                }
                _ => panic!("the leaf does not fit the message"),
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
    path.to_str().unwrap().into()
}

pub(super) const MESSAGE: &str = "message m { required int32 label; optional int32 I1; optional int64 C1; optional group C2 (LIST) { repeated \
                       group list { optional int32 element; } } }";

/// Rows (1, 3, 7, [1, 2]), (0, null, null, []), (1, -4, 9, null), (0, 0, 7, [2]).
pub(super) fn leaves() -> Vec<Leaf> {
    vec![
        Leaf::Int(vec![1, 0, 1, 0], vec![], vec![]),
        Leaf::Int(vec![3, -4, 0], vec![1, 0, 1, 1], vec![]),
        Leaf::Long(vec![7, 9, 7], vec![1, 0, 1, 1], vec![]),
        Leaf::Int(vec![1, 2, 2], vec![3, 3, 1, 0, 3], vec![0, 1, 0, 0, 0]),
    ]
}

fn prepared(folder: &Path, files: &[String], schema: &Schema, bad: OnBadRow) -> Result<Prepared> {
    let cache = folder.join("cache").to_str().unwrap().into();
    let data = Data { files: files.to_vec(), format: Format::Parquet, cache, on_bad_row: bad, split: [1.0, 0.0, 0.0], ..Data::default() };
    dataset::open(&data, schema, None, None, &mut |_, _, _| {})
}

fn all(prepared: &Prepared) -> Block {
    let mut block = Block::new();
    prepared.fetch(&(0..prepared.len()).collect::<Vec<_>>(), &mut block).unwrap();
    block
}

#[test]
fn columns_nulls_and_lists_become_rows() {
    let folder = tempfile::tempdir().unwrap();
    for (i, compression) in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default()), Compression::LZ4_RAW]
        .into_iter()
        .enumerate()
    {
        let file = written(&folder.path().join(format!("{i}.parquet")), MESSAGE, compression, &[leaves(), leaves()]);
        let schema = usual_schema(&file).unwrap();
        assert!(schema.dense_log && schema.id_text == IdText::Int);
        assert_eq!(schema.multi_hot, [Named::Name("C2".into())]);
        let prepared = prepared(folder.path(), std::slice::from_ref(&file), &schema, OnBadRow::Error).unwrap();
        let block = all(&prepared);
        assert_eq!(block.labels, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        assert_eq!(block.dense[..4], [4f32.ln(), 0.0, 0.0, 0.0]);
        // in first-seen order: 7, null as 0, 9; and 1, 2
        assert_eq!(block.ids[..7], [1, 1, 2, 2, 3, 1, 2]);
        assert_eq!(block.offsets[..9], [0, 1, 3, 4, 4, 5, 5, 6, 7]);
        assert_eq!(prepared.mapper().row(0, 9), 3);
        let mut reader = Reader::new(&[file], &schema, Labels::Required, OnBadRow::Error, None).unwrap();
        let (mut raw, mut mapped) = (RawBlock::new(), Block::new());
        while reader.read(&mut raw, 3).unwrap() > 0 {}
        prepared.mapper().map(&raw, &mut mapped).unwrap();
        assert_eq!(mapped, block);
    }
}

#[test]
fn many_rows_of_many_groups_equal_the_same_rows_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let message = "message m { required float x; required binary site (STRING); required int32 y; }";
    let names = ["a1", "ff", "", "09", "c0ffee"];
    let sizes = [ROUND + 7, 3, 2 * ROUND];
    let (mut text, mut groups, mut i) = (String::new(), Vec::new(), 0usize);
    for size in sizes {
        let rows: Vec<usize> = (i..i + size).collect();
        i += size;
        rows.iter().for_each(|&r| text += &format!("{}\t{}.5\t{}\n", r % 3, r % 100, names[r * r % 5]));
        groups.push(vec![
            Leaf::Float(rows.iter().map(|&r| (r % 100) as f32 + 0.5).collect(), vec![]),
            Leaf::Text(rows.iter().map(|&r| names[r * r % 5]).collect(), vec![]),
            Leaf::Int(rows.iter().map(|&r| (r % 3) as i32).collect(), vec![], vec![]),
        ]);
    }
    let file = written(&folder.path().join("a.parquet"), message, Compression::SNAPPY, &groups);
    let name = |text: &str| Named::Name(text.into());
    let schema = Schema {
        header: true,
        label: name("y"),
        dense: vec![name("x")],
        categorical: vec![name("site")],
        id_text: IdText::Hex,
        ..Schema::default()
    };
    let found = all(&prepared(folder.path(), &[file], &schema, OnBadRow::Error).unwrap());
    let path = folder.path().join("a.tsv");
    std::fs::write(&path, text).unwrap();
    let data = Data {
        files: vec![path.to_str().unwrap().into()],
        format: Format::Text,
        cache: folder.path().join("cache").to_str().unwrap().into(),
        split: [1.0, 0.0, 0.0],
        ..Data::default()
    };
    let numbered = Schema { id_text: IdText::Hex, ..Schema::criteo(1, 1) };
    let wanted = all(&dataset::open(&data, &numbered, None, None, &mut |_, _, _| {}).unwrap());
    assert!(found == wanted && found.samples == i);
}

#[test]
fn an_interrupted_preparation_of_parquet_goes_on_inside_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let rows = 3 * ROUND + 11;
    let group = || {
        vec![
            Leaf::Int((0..rows).map(|r| (r % 2) as i32).collect(), vec![], vec![]),
            Leaf::Int((0..rows).map(|r| r as i32).collect(), vec![1; rows], vec![]),
            Leaf::Long((0..rows).map(|r| (r / 5) as i64).collect(), vec![1; rows], vec![]),
            Leaf::Int((0..2 * rows).map(|r| r as i32 / 3).collect(), vec![3; 2 * rows], [0, 1].repeat(rows)),
        ]
    };
    let file = written(&folder.path().join("a.parquet"), MESSAGE, Compression::SNAPPY, &[group(), group()]);
    let schema = usual_schema(&file).unwrap();
    let data = Data { files: vec![file], format: Format::Parquet, ..Data::default() };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let make = |name: &str, every: Option<usize>| {
        let mut calls = 0;
        let mut watch = |_: u64, _: u64, _: u64| {
            calls += 1;
            stop.store(every == Some(calls), std::sync::atomic::Ordering::Relaxed);
        };
        let making = dataset::Making { stop: Some(&stop), restart: false, mark_every: Some(1 << 40), watch: &mut watch };
        dataset::to_folder(&data, &schema, None, None, &folder.path().join(name), making)
    };
    make("whole", None).unwrap();
    let mut attempts = 1;
    while let Err(error) = make("parts", Some(3)) {
        assert!(matches!(error, Error::Interrupted(_)), "{error}");
        attempts += 1;
    }
    assert!(attempts > 2, "{attempts}");
    for name in ["rows.bin", "index.bin", "ids.bin", "sums.bin", "meta.json"] {
        let [a, b] = ["whole", "parts"].map(|dir| std::fs::read(folder.path().join(dir).join(name)).unwrap());
        assert!(a == b, "{name}");
    }
}

#[test]
fn malformed_rows_are_named_or_left_out() {
    let folder = tempfile::tempdir().unwrap();
    type Edit<'a> = &'a dyn Fn(&mut Vec<Leaf>);
    let edits: [(Edit<'_>, &str); 3] = [
        (&|l| l[2] = Leaf::Long(vec![7, -9, 7], vec![1, 0, 1, 1], vec![]), "row 2, column `C1`: the category -9 is negative"),
        (
            &|l| l[3] = Leaf::Int(vec![1, 2], vec![3, 2, 1, 0, 3], vec![0, 1, 0, 0, 0]),
            "row 0, column `C2`: a category inside a list is null",
        ),
        (&|l| l[3] = Leaf::Int(vec![5; 7], vec![3, 1, 0, 3, 3, 3, 3, 3, 3], vec![0, 0, 0, 0, 1, 1, 1, 1, 1]), "has more than 4 categories"),
    ];
    for (i, (edit, says)) in edits.iter().enumerate() {
        let mut broken = leaves();
        edit(&mut broken);
        let file = written(&folder.path().join(format!("{i}.parquet")), MESSAGE, Compression::SNAPPY, &[leaves(), broken]);
        let schema = Schema { multi_hot_max: 4, ..usual_schema(&file).unwrap() };
        let error = prepared(folder.path(), std::slice::from_ref(&file), &schema, OnBadRow::Error).unwrap_err().to_string();
        assert!(error.contains("row group 1") && error.contains(says), "{error}");
        let rest = prepared(folder.path(), &[file], &schema, OnBadRow::Skip).unwrap();
        assert_eq!((rest.len(), rest.skipped(), rest.messages().len()), (7, 1, 1), "{says}");
        assert_eq!(all(&rest).labels.len(), 7);
    }
    let nan = "message m { required float label; required float I1; required int32 C1; }";
    for (label, dense, says) in [(f32::NAN, 1.0, "the label NaN"), (1.0, f32::INFINITY, "inf is not a finite")] {
        let leaves = vec![Leaf::Float(vec![label], vec![]), Leaf::Float(vec![dense], vec![]), Leaf::Int(vec![1], vec![], vec![])];
        let file = written(&folder.path().join("nan.parquet"), nan, Compression::SNAPPY, &[leaves]);
        let schema = usual_schema(&file).unwrap();
        assert!(!schema.dense_log, "numbers with fractions are used as they are");
        let error = prepared(folder.path(), &[file], &schema, OnBadRow::Error).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn schemas_that_do_not_fit_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(&folder.path().join("a.parquet"), MESSAGE, Compression::SNAPPY, &[leaves()]);
    let schema = usual_schema(&file).unwrap();
    let name = |text: &str| vec![Named::Name(text.into())];
    let fails = |schema: Schema| prepared(folder.path(), std::slice::from_ref(&file), &schema, OnBadRow::Error).unwrap_err().to_string();
    assert!(fails(Schema { dense: name("I2"), ..schema.clone() }).contains("no column `I2`; the nearest names are `I1`"));
    assert!(fails(Schema { multi_hot: vec![], categorical: name("C2"), ..schema.clone() }).contains("holds lists; name it in"));
    assert!(fails(Schema { multi_hot: name("C1"), categorical: vec![], ..schema.clone() }).contains("holds no lists"));
    assert!(fails(Schema { label: Named::Number(1), ..schema.clone() }).contains("have names"));
    let other = written(&folder.path().join("b.parquet"), "message m { required float x; }", Compression::SNAPPY, &[]);
    assert!(usual_schema(&other).unwrap_err().to_string().contains("but x; name them in [data.schema]"));
}

#[test]
fn folders_stand_for_their_files_in_natural_order() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, groups: &[Vec<Leaf>]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        written(&path, MESSAGE, Compression::SNAPPY, groups);
    };
    for name in ["days/day_10/part_0.parquet", "days/day_2/part_11.parquet", "days/day_2/part_2.parquet"] {
        put(name, &[leaves()]);
    }
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (files, split) = expand(&[at("days")]).unwrap();
    assert_eq!(files, ["days/day_2/part_2.parquet", "days/day_2/part_11.parquet", "days/day_10/part_0.parquet"].map(at));
    assert_eq!(split, None);
    put("root/test/part-0.parquet", &[leaves()]);
    put("root/train/part-1.parquet", &[leaves(), leaves()]);
    put("root/train/part-0.parquet", &[leaves()]);
    put("root/val/part-0.parquet", &[leaves()]);
    let (files, split) = expand(&[at("root")]).unwrap();
    assert_eq!(files, ["train/part-0", "train/part-1", "val/part-0", "test/part-0"].map(|n| at(&format!("root/{n}.parquet"))));
    assert_eq!(Parts::new(20, split.unwrap()), Parts { train: 0..12, validation: 12..16, test: 16..20 });
    assert!(is_parquet(&at("root")) && is_parquet("x.parquet") && !is_parquet("x.tsv"));
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(!is_parquet(&at("empty")) && expand(&[at("empty")]).is_err());
}

#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (path, stream) = (folder.path().join("a.parquet"), crate::rng::Stream::new(5, 5));
    let file = written(&path, MESSAGE, Compression::SNAPPY, &[leaves(), leaves()]);
    let (good, schema) = (std::fs::read(&path).unwrap(), usual_schema(&file).unwrap());
    let read = || {
        let mut reader = Reader::new(std::slice::from_ref(&file), &schema, Labels::Required, OnBadRow::Error, None)?;
        let mut raw = RawBlock::new();
        while reader.read(&mut raw, 100)? > 0 {}
        Ok::<usize, Error>(raw.samples)
    };
    assert_eq!(read().unwrap(), 8);
    let mut refused = 0;
    for i in 0..600u64 {
        let mut bytes = good.clone();
        if i % 3 == 0 {
            bytes.truncate(stream.below(2 * i, good.len() as u64) as usize);
        } else {
            let at = stream.below(2 * i, good.len() as u64) as usize;
            bytes[at] ^= 1 << stream.below(2 * i + 1, 8);
        }
        std::fs::write(&path, &bytes).unwrap();
        refused += usize::from(read().is_err());
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn every_altered_byte_gives_an_error_or_few_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_statistics_enabled(EnabledStatistics::None);
    let file = written_with(&path, MESSAGE, properties.build(), &[leaves()]);
    let (good, schema) = (std::fs::read(&path).unwrap(), usual_schema(&file).unwrap());
    let read = || {
        let mut reader = Reader::new(std::slice::from_ref(&file), &schema, Labels::Required, OnBadRow::Error, None)?;
        let mut raw = RawBlock::new();
        while reader.read(&mut raw, 100)? > 0 {}
        Ok::<RawBlock, Error>(raw)
    };
    assert_eq!(read().unwrap().samples, 4);
    let mut refused = 0;
    for at in 0..good.len() {
        for change in [1, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            std::fs::write(&path, &bytes).unwrap();
            match read() {
                Ok(raw) => {
                    assert!(raw.offsets.len() == 2 * raw.samples + 1 && raw.samples <= 4, "byte {at}");
                    let rooms = [raw.labels.capacity(), raw.dense.capacity(), raw.keys.capacity(), raw.offsets.capacity()];
                    assert!(rooms.iter().all(|&room| room < 1 << 10), "byte {at}: {rooms:?}");
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > good.len() / 2, "{refused}");
}
