use super::*;
use crate::config::{Column, Format, IdText, OnBadRow};
use crate::data::{Block, Samples};
use crate::rng::Stream;
use std::io::Write;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().into()
    }

    fn data(&self, files: Vec<String>) -> Data {
        let cache = self.0.path().join("cache").to_str().unwrap().into();
        Data { files, format: Format::Criteo, cache, ..Data::default() }
    }

    fn entries(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.0.path().join("cache")) else { return Vec::new() };
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn quiet(_: u64, _: u64, _: u64) {}

fn open_quietly(data: &Data, schema: &Schema) -> Result<Prepared> {
    open(data, schema, None, None, &mut quiet)
}

fn fetched(prepared: &Prepared, indices: &[u64]) -> Block {
    let mut block = Block::new();
    prepared.fetch(indices, &mut block).unwrap();
    block
}

/// Criteo lines with one dense and two categories.
fn lines(n: u64, distinct: u64) -> Vec<u8> {
    let s = Stream::new(3, 4);
    (0..n).flat_map(|i| format!("{}\t{i}\t{:x}\t{:x}\n", i % 2, s.below(2 * i, distinct), 7 + s.below(2 * i + 1, 3)).into_bytes()).collect()
}

#[test]
fn parts_cover_everything_in_order() {
    for (n, split) in
        [(10, [0.8, 0.1, 0.1]), (1, [0.8, 0.1, 0.1]), (7, [1.0, 0.0, 0.0]), (45_840_617, [0.857, 0.0715, 0.0715]), (3, [0.5, 0.5, 0.0])]
    {
        let p = Parts::new(n, split);
        assert_eq!((p.train.start, p.train.end, p.validation.end, p.test.end), (0, p.validation.start, p.test.start, n), "{p:?}");
        assert!(split[1] > 0.0 || p.validation.is_empty());
        assert!(split[2] > 0.0 || p.test.is_empty());
    }
    assert_eq!(Parts::new(10, [0.8, 0.1, 0.1]), Parts { train: 0..8, validation: 8..9, test: 9..10 });
    assert_eq!(Parts::new(9, [0.999_999_9, 0.0, 0.0]).train, 0..9);
}

#[test]
fn ids_unknown_to_the_training_part_are_row_0() {
    let folder = Folder::new();
    let text = b"1\t0\ta\t1\n0\t1\tb\t1\n1\t2\ta\t1\n0\t3\tc\t2\n0\t4\td\t1\n1\t5\tb\t9\n";
    let data = Data { split: [0.5, 0.5, 0.0], ..folder.data(vec![folder.file("a", &text[..16]), folder.file("b", &text[16..])]) };
    let prepared = open_quietly(&data, &Schema::criteo(1, 2)).unwrap();
    assert_eq!(prepared.parts(), Parts { train: 0..3, validation: 3..6, test: 6..6 });
    assert_eq!((prepared.rows(), prepared.len(), prepared.dense(), prepared.max_bag()), (&[3, 2][..], 6, 1, &[1, 1][..]));
    let block = fetched(&prepared, &[0, 1, 2, 3, 4, 5]);
    assert_eq!(block.ids, [1, 1, 2, 1, 1, 1, 0, 0, 0, 1, 2, 0]);
    assert_eq!(block.labels, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!(block.dense, (1..7).map(|i| (i as f32).ln()).collect::<Vec<_>>());
    assert_eq!(fetched(&prepared, &[5, 0, 3]).ids, [2, 0, 1, 1, 0, 0]);
    let again = Mapper::from_bytes(&prepared.mapper().to_bytes()).unwrap();
    assert_eq!([0xa, 0xb, 0xc, 0xd].map(|key| again.row(0, key)), [1, 2, 0, 0]);
    for bad in [6, u64::MAX] {
        assert!(prepared.fetch(&[bad], &mut Block::new()).unwrap_err().to_string().contains("does not exist"));
    }
}

#[test]
fn the_training_parts_keys_are_counted_exactly_across_blocks() {
    let folder = Folder::new();
    let (n, text) = (10_000u64, lines(10_000, 1 << 40));
    let file = folder.file("a", &text);
    for train in [1u64, 4095, 4096, 4097, 8192, 9999, 10_000] {
        let share = train as f64 / n as f64;
        let data = Data { split: [share, 1.0 - share, 0.0], ..folder.data(vec![file.clone()]) };
        let prepared = open_quietly(&data, &Schema::criteo(1, 2)).unwrap();
        assert_eq!(prepared.parts().train.end, train);
        assert_eq!(prepared.rows()[0], train + 1, "every first key is new");
        let block = fetched(&prepared, &[train - 1, train.min(n - 1)]);
        assert_eq!((block.ids[0] as u64, block.ids[2] as u64), (train, if train < n { 0 } else { n }));
    }
}

#[test]
fn reading_at_random_equals_reading_in_order() {
    let folder = Folder::new();
    let prepared = open_quietly(&folder.data(vec![folder.file("a", &lines(3000, 500))]), &Schema::criteo(1, 2)).unwrap();
    let all = fetched(&prepared, &(0..3000).collect::<Vec<_>>());
    let order: Vec<u64> = (0..3000).rev().collect();
    let reversed = fetched(&prepared, &order);
    for i in 0..3000 {
        assert_eq!(all.ids[2 * i..2 * i + 2], reversed.ids[2 * (2999 - i)..2 * (2999 - i) + 2]);
    }
    assert_eq!(all.dense.iter().rev().copied().collect::<Vec<_>>(), reversed.dense);
}

#[test]
fn multi_hot_bags_come_back() {
    let folder = Folder::new();
    let n = Column::Number;
    let schema = Schema {
        separator: ",".into(),
        dense: vec![n(2)],
        categorical: vec![n(3)],
        multi_hot: vec![n(4), n(5)],
        multi_hot_separator: "|".into(),
        id_text: IdText::Int,
        ..Schema::default()
    };
    let file = folder.file("a", b"1,1,4,7|8|7,\n0,2,5,,3\n1,3,4,9|7,3|3\n0,4,6,8,1\n");
    let data = Data { format: Format::Text, split: [0.5, 0.25, 0.25], ..folder.data(vec![file]) };
    let prepared = open_quietly(&data, &schema).unwrap();
    assert_eq!((prepared.rows(), prepared.max_bag()), (&[3, 3, 2][..], &[1, 3, 2][..]));
    let block = fetched(&prepared, &[0, 1, 2, 3]);
    assert_eq!(block.offsets, [0, 1, 4, 4, 5, 5, 6, 7, 9, 11, 12, 13, 14]);
    assert_eq!(block.ids, [1, 1, 2, 1, 2, 1, 1, 0, 1, 1, 1, 0, 2, 0]);
    assert_eq!(fetched(&prepared, &[2]).ids, [1, 0, 1, 1, 1]);

    let modulo = Data { ids: Ids::Modulo, ..data.clone() };
    let prepared = open(&modulo, &schema, Some(&[2, 5, 3]), None, &mut quiet).unwrap();
    assert_eq!(fetched(&prepared, &[0, 3]).ids, [0, 2, 3, 2, 0, 3, 1]);
    assert_eq!(prepared.rows(), [2, 5, 3]);
    let prepared = open(&data, &schema, None, Some(2), &mut quiet).unwrap();
    assert_eq!((prepared.rows(), fetched(&prepared, &[0, 3]).ids), (&[2, 2, 2][..], vec![1, 1, 1, 1, 0, 1, 0]));
    assert!(open(&modulo, &schema, None, None, &mut quiet).is_err() && open(&modulo, &schema, Some(&[2]), None, &mut quiet).is_err());
}

#[test]
fn the_cache_is_used_again_until_something_changes() {
    let folder = Folder::new();
    let file = folder.file("a", &lines(100, 50));
    let (data, schema) = (folder.data(vec![file.clone()]), Schema::criteo(1, 2));
    let mut calls = Vec::new();
    let mut count = |data: &Data| {
        let before = calls.len();
        let prepared = open(data, &schema, None, None, &mut |done, total, rows| calls.push((done, total, rows))).unwrap();
        (prepared.len(), calls.len() - before)
    };
    assert_eq!((count(&data), count(&data)), ((100, 2), (100, 0)));
    assert_eq!(count(&Data { split: [0.6, 0.2, 0.2], ..data.clone() }), (100, 2));
    std::fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(&lines(1, 50)).unwrap();
    assert_eq!(count(&data), (101, 2));
    let bytes = std::fs::metadata(&file).unwrap().len();
    assert_eq!(calls.last(), Some(&(bytes, bytes, 101)));
}

#[test]
fn a_damaged_cache_is_made_again() {
    let folder = Folder::new();
    let (data, schema) = (folder.data(vec![folder.file("a", &lines(100, 50))]), Schema::criteo(1, 2));
    let path = open_quietly(&data, &schema).unwrap().path().to_path_buf();
    let good = fetched(&open_quietly(&data, &schema).unwrap(), &[1, 50, 99]);
    for name in [ROWS, IDS, SUMS, META] {
        let bytes = std::fs::read(path.join(name)).unwrap();
        std::fs::write(path.join(name), &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(fetched(&open_quietly(&data, &schema).unwrap(), &[1, 50, 99]), good, "{name} cut");
        std::fs::remove_file(path.join(name)).unwrap();
        assert_eq!(fetched(&open_quietly(&data, &schema).unwrap(), &[1, 50, 99]), good, "{name} gone");
    }
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, b"a file in the way").unwrap();
    assert!(open_quietly(&data, &schema).is_ok());
}

#[test]
fn sizes_that_are_not_the_schemas_are_not_believed() {
    let folder = Folder::new();
    let n = Column::Number;
    let schema = Schema { dense: vec![n(2)], categorical: vec![n(3)], multi_hot: vec![n(4)], width: Some(4), ..Schema::default() };
    let data = folder.data(vec![folder.file("a", b"1\t1\ta\tb,c\n0\t2\tc\tb\n1\t3\ta\t\n")]);
    let path = open_quietly(&data, &schema).unwrap().path().join(META);
    let good = fetched(&open_quietly(&data, &schema).unwrap(), &[0, 1, 2]);
    let whole: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let lies = [
        ("max_bag", serde_json::json!([1, 1u64 << 40])),
        ("max_bag", serde_json::json!([2, 2])),
        ("max_bag", serde_json::json!([1, 0])),
        ("max_bag", serde_json::json!([1])),
        ("dense", serde_json::json!(u64::MAX)),
        ("dense", serde_json::json!(0)),
        ("multi_hot", serde_json::json!(2)),
        ("multi_hot", serde_json::json!(0)),
        ("modulo", serde_json::json!(true)),
        ("width", serde_json::json!(5)),
    ];
    for (key, value) in lies {
        let mut meta = whole.clone();
        meta[key] = value;
        let forged: Meta = serde_json::from_value(meta).unwrap();
        std::fs::write(&path, forged.to_text().unwrap()).unwrap();
        let fingerprint = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let error = Prepared::load(path.parent().unwrap(), Some(fingerprint), &schema).unwrap_err().to_string();
        assert!(error.contains("contradicts"), "{key}: {error}");
        let again = open_quietly(&data, &schema).unwrap();
        assert_eq!((fetched(&again, &[0, 1, 2]), again.max_bag()), (good.clone(), &[1, 2][..]), "{key}");
    }
    let mut meta = whole.clone();
    meta["longest"] = serde_json::json!(u64::MAX);
    std::fs::write(&path, meta.to_string()).unwrap();
    assert_eq!(fetched(&open_quietly(&data, &schema).unwrap(), &[0, 1, 2]), good);
    let wrong = open_quietly(&data, &Schema { width: Some(5), ..schema.clone() }).unwrap_err().to_string();
    assert!(wrong.contains("4 columns, but 5 are expected"), "{wrong}");
}

#[test]
fn damaged_records_are_noticed() {
    let folder = Folder::new();
    let schema =
        Schema { multi_hot: vec![Column::Number(3)], multi_hot_separator: "|".into(), dense: vec![Column::Number(2)], ..Schema::default() };
    let data = folder.data(vec![folder.file("a", b"1\t1\ta|b\n0\t2\tc\n1\t3\ta\n")]);
    let path = open_quietly(&data, &schema).unwrap().path().to_path_buf();
    let whole = [ROWS, INDEX].map(|name| std::fs::read(path.join(name)).unwrap());
    for (file, at) in [(0, 8), (0, 11), (0, 28), (1, 0), (1, 8), (1, 15), (1, 24)] {
        let mut bytes = whole[file].clone();
        bytes[at] ^= 0x85;
        std::fs::write(path.join([ROWS, INDEX][file]), &bytes).unwrap();
        let prepared = open_quietly(&data, &schema).unwrap();
        let error = prepared.fetch(&[0, 2, 1], &mut Block::new()).unwrap_err().to_string();
        assert!(error.contains("is damaged; delete the folder"), "{file} {at}: {error}");
        std::fs::write(path.join([ROWS, INDEX][file]), &whole[file]).unwrap();
    }
}

#[test]
fn failures_leave_nothing_in_the_cache() {
    let folder = Folder::new();
    let schema = Schema::criteo(1, 2);
    let fails = |text: &[u8], on_bad_row: OnBadRow| {
        let data = Data { on_bad_row, ..folder.data(vec![folder.file("a", text)]) };
        let error = open_quietly(&data, &schema).unwrap_err().to_string();
        assert!(folder.entries().is_empty(), "{:?}", folder.entries());
        error
    };
    assert!(fails(b"1\t1\t1\t1\n1\t1\n", OnBadRow::Error).contains("line 2, column 0: 2 columns"));
    assert!(fails(b"x\n", OnBadRow::Skip).contains("holds no row; 1 lines are malformed, the first: "));
    assert!(fails(b"", OnBadRow::Skip).contains("the file is empty"));
    let gone = folder.data(vec![folder.0.path().join("gone").to_str().unwrap().into()]);
    assert!(open_quietly(&gone, &schema).unwrap_err().to_string().starts_with("cannot read"));
    let dir = folder.data(vec![folder.0.path().to_str().unwrap().into()]);
    assert!(open_quietly(&dir, &schema).unwrap_err().to_string().contains("not a regular file"));
    assert!(open_quietly(&folder.data(Vec::new()), &schema).is_err());
    let blocked = Data { cache: folder.file("in the way", b""), ..folder.data(vec![folder.file("a", &lines(5, 5))]) };
    assert!(open_quietly(&blocked, &schema).unwrap_err().to_string().starts_with("cannot create"));
}

#[test]
fn several_may_prepare_the_same_data_at_once() {
    let folder = Folder::new();
    let (data, schema) = (folder.data(vec![folder.file("a", &lines(20_000, 500))]), Schema::criteo(1, 2));
    let blocks: Vec<Block> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fetched(&open_quietly(&data, &schema).unwrap(), &[0, 19_999]))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(blocks.iter().all(|b| *b == blocks[0]));
    assert_eq!(folder.entries().len(), 1);
}

#[test]
fn malformed_lines_are_skipped_and_counted() {
    let folder = Folder::new();
    let text = [&lines(50, 9)[..], b"bad\n", &lines(50, 9)].concat();
    let data = Data { on_bad_row: OnBadRow::Skip, ..folder.data(vec![folder.file("a", &text)]) };
    for _ in 0..2 {
        let prepared = open_quietly(&data, &Schema::criteo(1, 2)).unwrap();
        assert_eq!((prepared.len(), prepared.skipped(), prepared.messages().len()), (100, 1, 1));
        assert!(prepared.messages()[0].contains("line 51"));
    }
}

#[test]
fn the_real_sample_is_read_whole() {
    let Some(path) = std::env::var_os("DQRM_CRITEO").map(PathBuf::from) else {
        // Past the capture of test output, so that it is seen.
        let text = "the_real_sample_is_read_whole skipped: DQRM_CRITEO names no file (117,547 rows of Criteo Kaggle)";
        return writeln!(std::io::stderr(), "{text}").expect("standard error is open");
    };
    let folder = Folder::new();
    let data = Data { split: [0.8, 0.1, 0.1], ..folder.data(vec![path.to_str().unwrap().into()]) };
    let prepared = open_quietly(&data, &Schema::criteo(13, 26)).unwrap();
    assert_eq!((prepared.len(), prepared.skipped()), (117_547, 0));
    let block = fetched(&prepared, &(0..prepared.len()).collect::<Vec<_>>());
    let rate = block.labels.iter().sum::<f32>() / block.samples as f32;
    assert!((rate - 0.256).abs() < 0.001, "{rate}");
    assert!(block.ids.iter().enumerate().all(|(i, &id)| (id as u64) < prepared.rows()[i % 26]));
    let train = &block.ids[..prepared.parts().train.end as usize * 26];
    assert!(train.iter().all(|&id| id > 0), "the training part knows all its ids");
}

/// Settings, files and the folder to make.
fn made(folder: &Folder, data: &Data, name: &str, making: Making<'_, '_>) -> Result<Prepared> {
    to_folder(data, &Schema::criteo(1, 2), None, None, &folder.0.path().join(name), making)
}

fn simply<'a, 'w>(watch: &'a mut Watch<'w>) -> Making<'a, 'w> {
    Making { stop: None, restart: false, mark_every: Some(1), watch }
}

/// All files of a folder.
fn contents(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(p).unwrap())).collect()
}

/// Several pieces of lines in each of three files, one of them gzip.
fn large(folder: &Folder) -> Data {
    let text = lines(400_000, 90_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text[..text.len() / 2]).unwrap();
    let files = [("a", text.clone()), ("b.gz", gzip.finish().unwrap()), ("c", [b"bad\n", &text[text.len() / 3..]].concat())];
    let end = |text: Vec<u8>| if text[0] == 0x1f { text } else { text[..=text.iter().rposition(|&c| c == b'\n').unwrap()].to_vec() };
    let files = files.map(|(name, text)| folder.file(name, &end(text))).to_vec();
    Data { on_bad_row: OnBadRow::Skip, ..folder.data(files) }
}

#[test]
fn an_interrupted_preparation_goes_on_to_the_same_bytes() {
    let folder = Folder::new();
    let data = large(&folder);
    let whole = made(&folder, &data, "whole", Making { mark_every: None, ..simply(&mut quiet) }).unwrap();
    assert!(whole.skipped() >= 1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut attempts, mut calls, mut reached) = (0, 0, 0);
    let parts = loop {
        stop.store(false, Ordering::Relaxed);
        attempts += 1;
        let mut watch = |done: u64, _: u64, rows: u64| {
            assert!(rows >= reached && done >= u64::from(rows > 0), "the rows of the last mark are not made again");
            reached = rows;
            calls += 1;
            stop.store(calls % 3 == 0, Ordering::Relaxed);
        };
        match made(&folder, &data, "parts", Making { stop: Some(&stop), ..simply(&mut watch) }) {
            Err(Error::Interrupted(_)) => {}
            result => break result.unwrap(),
        }
        // what a killed program leaves behind its last mark
        let work = folder.0.path().join("parts.partial");
        for name in [ROWS, crate::data::progress::KEYS] {
            let mut file = std::fs::OpenOptions::new().append(true).open(work.join(name)).unwrap();
            file.write_all(b"written behind the mark").unwrap();
        }
    };
    assert!(attempts >= 3, "{attempts} attempts");
    assert!(contents(parts.path()) == contents(whole.path()), "the bytes are the same");
    assert!(!folder.0.path().join("parts.partial").exists());
    parts.verify(&|_, _| {}).unwrap();
}

#[test]
fn a_beginning_is_continued_only_by_the_same_preparation() {
    let folder = Folder::new();
    let data = large(&folder);
    let stop = std::sync::atomic::AtomicBool::new(true);
    let begin = || made(&folder, &data, "out", Making { stop: Some(&stop), ..simply(&mut quiet) }).unwrap_err();
    assert!(matches!(begin(), Error::Interrupted(_)));
    let other = Data { split: [0.5, 0.25, 0.25], ..data.clone() };
    let error = made(&folder, &other, "out", simply(&mut quiet)).unwrap_err().to_string();
    assert!(error.contains("is the beginning of another preparation") && error.contains("--restart"), "{error}");
    let path = folder.0.path().join("out.partial").join(crate::data::progress::PROGRESS);
    let good = std::fs::read_to_string(&path).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        good.replacen(from, to, 1)
    };
    for lie in [
        "{".into(),
        changed("\"known\":[", "\"known\":[1,"),
        changed("\"max_bag\":[1,1]", "\"max_bag\":[1]"),
        changed("\"log\":", "\"log\":9999999"),
        changed("\"log\":", "\"log\":-"),
        changed("\"bytes\":[", "\"bytes\":[9999999"),
        changed("\"at\":", "\"at\":9999999"),
    ] {
        std::fs::write(&path, &lie).unwrap();
        let error = made(&folder, &data, "out", simply(&mut quiet)).unwrap_err().to_string();
        assert!(["cannot be continued", "has only", "it has changed"].iter().any(|says| error.contains(says)), "{lie}: {error}");
    }
    std::fs::write(&path, "{").unwrap();
    let prepared = made(&folder, &other, "out", Making { restart: true, ..simply(&mut quiet) }).unwrap();
    assert_eq!(prepared.settings().split, other.split);
    let again = made(&folder, &other, "out", simply(&mut quiet)).unwrap_err().to_string();
    assert!(again.contains("holds prepared data already"), "{again}");
}

#[test]
fn a_damaged_byte_is_found_wherever_it_is() {
    let folder = Folder::new();
    let schema =
        Schema { multi_hot: vec![Column::Number(3)], multi_hot_separator: "|".into(), dense: vec![Column::Number(2)], ..Schema::default() };
    let text: Vec<u8> = (0..300_000).flat_map(|i| format!("1\t{i}\t{}|{}\n", i % 900, i % 11).into_bytes()).collect();
    let data = Data { format: Format::Text, ..folder.data(vec![folder.file("a", &text)]) };
    let out = folder.0.path().join("out");
    let prepared = to_folder(&data, &schema, None, None, &out, simply(&mut quiet)).unwrap();
    prepared.verify(&|_, _| {}).unwrap();
    let size = |name: &str| std::fs::metadata(out.join(name)).unwrap().len() as usize;
    let places = [(ROWS, 0), (ROWS, size(ROWS) - 1), (ROWS, 1 << 22), (INDEX, 9), (IDS, 40), (SUMS, 50), (META, 30), (META, 200)];
    for (name, at) in places {
        let good = std::fs::read(out.join(name)).unwrap();
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(out.join(name), &bytes).unwrap();
        let error = open_folder(&out).and_then(|p| p.verify(&|_, _| {})).unwrap_err().to_string();
        assert!(error.contains(name), "{name} {at}: {error}");
        std::fs::write(out.join(name), &good).unwrap();
    }
    open_folder(&out).unwrap().verify(&|_, _| {}).unwrap();
}

#[test]
fn every_altered_byte_is_an_error_or_changes_nothing() {
    let folder = Folder::new();
    let schema =
        Schema { multi_hot: vec![Column::Number(3)], multi_hot_separator: "|".into(), dense: vec![Column::Number(2)], ..Schema::default() };
    let text: Vec<u8> = (0..20).flat_map(|i| format!("1\t{i}\t{}|{}\n", i % 9, i % 4).into_bytes()).collect();
    let data = Data { format: Format::Text, ..folder.data(vec![folder.file("a", &text)]) };
    let out = folder.0.path().join("out");
    to_folder(&data, &schema, None, None, &out, simply(&mut quiet)).unwrap();
    let read = || {
        let (prepared, mut block) = (open_folder(&out)?, Block::new());
        prepared.fetch(&(0..prepared.len()).collect::<Vec<_>>(), &mut block)?;
        Ok::<_, Error>((prepared.verify(&|_, _| {}).is_ok(), block))
    };
    let (sound, whole) = read().unwrap();
    assert!(sound && whole.samples == 20);
    for name in [ROWS, INDEX, IDS, SUMS, META] {
        let good = std::fs::read(out.join(name)).unwrap();
        let mut unnoticed = 0;
        for at in 0..good.len() {
            for change in [1, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                std::fs::write(out.join(name), &bytes).unwrap();
                // what is not verified may hold other values, but none that does not belong into its table
                if let Ok((sound, block)) = read() {
                    assert!(!sound || block == whole, "{name} {at}");
                    assert_eq!(block.offsets.len(), block.samples + 1);
                    unnoticed += usize::from(sound);
                }
            }
        }
        assert_eq!(unnoticed, 0, "{name}");
        for end in 0..good.len() {
            std::fs::write(out.join(name), &good[..end]).unwrap();
            assert!(read().is_err(), "{name} cut at {end}");
        }
        std::fs::write(out.join(name), &good).unwrap();
    }
}
