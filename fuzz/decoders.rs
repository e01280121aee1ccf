//! What the fuzz targets feed: every decoder of bytes from outside. None may panic, hang, or take memory
//! that the bytes do not bear out. `tests/formats` runs the same functions on damaged files for a second or two.
#![allow(dead_code, reason = "each target uses one")]

use dqrm::config::{Data, Format, OnBadRow, Schema};
use dqrm::data::ids::Mapper;
use dqrm::data::parquet as columnar;
use dqrm::data::text::{Input, Labels, RawBlock, Reader};
use dqrm::data::{Block, Samples, dataset};
use dqrm::dist::frame;
use dqrm::dist::ids as worker;
use dqrm::dist::launch::{self, Flags, hosts};
use dqrm::packed::Packed;
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;

/// A packed model.
pub(crate) fn packed(bytes: &[u8]) {
    if let Ok(packed) = Packed::decode(Arc::new(bytes.to_vec())) {
        let _ = packed.verify();
        let shape = packed.manifest().shape.clone();
        for k in 0..shape.tables() {
            assert_eq!(packed.table_rows(k, shape.rows[k] - 1, 1).len(), shape.dim);
        }
        let _ = Mapper::from_bytes(packed.ids());
    }
}

/// The header of a checkpoint.
pub(crate) fn checkpoint(bytes: &[u8]) {
    let _ = dqrm::checkpoint::decode(bytes, bytes.len() as u64);
}

/// An id mapping.
pub(crate) fn ids(bytes: &[u8]) {
    if let Ok(mapper) = Mapper::from_bytes(bytes) {
        assert_eq!(mapper.to_bytes(), bytes, "what is read is written again the same");
    }
}

/// The pickle of a PyTorch file.
pub(crate) fn pickle(bytes: &[u8]) {
    let _ = dqrm::import::pickle::decode(bytes);
}

/// Weights of PyTorch, in either format.
pub(crate) fn archive(bytes: &[u8]) {
    let _ = dqrm::import::check(bytes);
}

/// Settings in TOML.
pub(crate) fn settings(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = dqrm::config_file::parse(text, "fuzz");
    }
}

/// Delimited text, plain or gzip; a few rows of it, since gzip may stand for a lot.
pub(crate) fn text(bytes: &[u8]) {
    let stream = Input::stream("fuzz", Box::new(std::io::Cursor::new(bytes.to_vec())));
    let schema = Schema { multi_hot: vec![dqrm::config::Column::Number(4)], ..Schema::criteo(1, 1) };
    let Ok(reader) = Reader::new(vec![stream], &schema, Labels::Optional, OnBadRow::Skip) else { return };
    let (mut reader, mut block) = (reader.limited(Some(&[100, 100])), RawBlock::new());
    while let Ok(1..) = reader.read(&mut block, 64) {
        assert_eq!(block.offsets.len(), 2 * block.samples + 1);
        if block.samples > 1000 {
            break;
        }
    }
}

/// A folder to put bytes into, for readers that map files. It goes when it is dropped.
fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("dqrm-fuzz-").tempdir().expect("a folder for temporary files")
}

/// Parquet, under the usual names of columns.
pub(crate) fn parquet(bytes: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("input.parquet");
    std::fs::write(&path, bytes).expect("a temporary file");
    let file = path.display().to_string();
    let Ok(schema) = columnar::usual_schema(&file) else { return };
    let Ok(mut reader) = columnar::Reader::new(&[file], &schema, Labels::Optional, OnBadRow::Skip, None) else { return };
    let mut block = RawBlock::new();
    while let Ok(1..) = reader.read(&mut block, 64) {
        assert_eq!(block.offsets.len(), schema.tables() * block.samples + 1);
        assert_eq!((block.dense.len(), block.labels.len()), (schema.dense.len() * block.samples, block.samples));
        if block.samples > 100_000 {
            break;
        }
    }
}

/// Rows of a small folder of prepared data, with multi-hot columns.
const PREPARED_ROWS: u64 = 40;

/// The files of that folder, as `dqrm prepare` makes them.
fn prepared_files() -> &'static [(&'static str, Vec<u8>)] {
    static FILES: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let scratch = scratch();
        let (text, folder) = (scratch.path().join("rows.tsv"), scratch.path().join("made"));
        let lines: String = (0..PREPARED_ROWS).map(|i| format!("{}\t{i}\t{}\t{},{}\n", i % 2, i % 7, i % 5, i % 3)).collect();
        std::fs::write(&text, lines).expect("a temporary file");
        let data = Data { files: vec![text.display().to_string()], format: Format::Text, ..Data::default() };
        let schema = Schema { multi_hot: vec![dqrm::config::Column::Number(4)], ..Schema::criteo(1, 1) };
        let making = dataset::Making { stop: None, restart: true, mark_every: None, watch: &mut |_, _, _| {} };
        dataset::to_folder(&data, &schema, None, None, &folder, making).expect("rows that can be prepared");
        let read = |name| (name, std::fs::read(folder.join(name)).expect("a file that was prepared"));
        ["rows.bin", "index.bin", "ids.bin", "sums.bin", "meta.json"].map(read).to_vec()
    })
}

/// Prepared data: the bytes are differences to the files of a sound folder, one behind the other; what is left over lengthens
/// the last.
pub(crate) fn prepared(bytes: &[u8]) {
    let (folder, mut changes) = (scratch(), bytes.iter());
    for (name, file) in prepared_files() {
        let mut file: Vec<u8> = file.iter().map(|byte| byte ^ changes.next().unwrap_or(&0)).collect();
        if *name == "meta.json" {
            file.extend(changes.by_ref());
        }
        std::fs::write(folder.path().join(name), file).expect("a temporary file");
    }
    let Ok(prepared) = dataset::open_folder(folder.path()) else { return };
    for row in 0..prepared.len() {
        let mut block = Block::new();
        if prepared.fetch(&[row], &mut block).is_ok() {
            assert_eq!((block.samples, block.offsets.len()), (1, prepared.rows().len() + 1));
        }
    }
    let _ = prepared.verify(&|_, _| {});
}

/// The tables of [`worker_ids`]: rows, and how many of them may be touched.
pub(crate) const WORKER_TABLES: ([u64; 6], [u64; 6]) = ([0, 3, 40, 1000, 1 << 20, 1 << 32], [9, 9, 40, 300, 300, 300]);

/// The rows that a worker's batch touches.
pub(crate) fn worker_ids(bytes: &[u8]) {
    let (table_rows, most) = WORKER_TABLES;
    let Ok(lists) = worker::decode(bytes, &table_rows, &most) else { return };
    for k in 0..table_rows.len() {
        let rows = lists.table(k);
        assert!(rows.len() as u64 <= most[k] && rows.is_sorted_by(|a, b| a < b));
        assert!(rows.last().is_none_or(|&row| u64::from(row) < table_rows[k]));
    }
    let mut again = Vec::new();
    worker::encode(&lists, &table_rows, &mut again);
    assert!(again.len() <= bytes.len(), "nothing that is read is shorter than what is written");
    assert!(again.len() as u64 <= worker::most_bytes(&table_rows, &most));
    assert_eq!(worker::decode(&again, &table_rows, &most), Ok(lists));
}

/// What a peer sends, rank 1 in attempt 0: the first byte says into how long pieces the others are cut.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else { return };
    let read = |piece: usize| {
        let mut limits = frame::Limits::none();
        limits.allow(frame::Kind::Ids, 1 << 16);
        limits.allow(frame::Kind::Rows, 64);
        let (mut reader, mut found) = (frame::Reader::new(limits, 1, 0), Vec::new());
        for bytes in stream.chunks(piece) {
            reader.push(bytes);
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => found.push(frame),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error), false),
                }
            }
        }
        (found, None, reader.is_empty())
    };
    let cut = read(1 + usize::from(piece));
    assert_eq!(cut, read(stream.len().max(1)), "frames do not depend on how they come");
    let whole: usize = cut.0.iter().map(|frame| frame.encode().len()).sum();
    assert!(stream.starts_with(&cut.0.iter().flat_map(frame::Frame::encode).collect::<Vec<u8>>()));
    assert_eq!(cut.2, cut.1.is_none() && whole == stream.len());
}

/// A compressed list of hosts.
pub(crate) fn hosts(bytes: &[u8]) {
    if let Ok(found) = std::str::from_utf8(bytes).map_err(|_| ()).and_then(|text| hosts::expand(text).map_err(|_| ())) {
        assert!(!found.is_empty() && found.len() <= hosts::MAX_HOSTS && found.iter().all(|host| !host.is_empty()));
    }
}

/// What launchers leave in the environment, a variable a line.
pub(crate) fn environment(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let env = |name: &str| text.lines().filter_map(|line| line.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v.to_owned());
    let both = Flags { rank: Some(1), world: Some(2), ..Flags::default() };
    for flags in [Flags::default(), Flags { world: Some(4), ..Flags::default() }, both] {
        match launch::from(&flags, &env) {
            Ok(Some(found)) => {
                assert!(found.rank < found.world && found.world as u64 <= launch::MAX_WORLD);
                assert!(found.local_rank < found.local_world && found.local_world <= found.world);
                let place = found.rendezvous.map_or(1, |place| place.ports.iter().filter(|&&port| port != 0).count());
                assert!((1..=4).contains(&place) && found.job.len() <= 256);
            }
            Ok(None) => {}
            Err(error) => assert!(error.to_string().len() < 2000, "{error}"),
        }
    }
    let _ = launch::secret(None, &env);
}
