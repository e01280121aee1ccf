//! Files altered at random, from a fixed seed: whatever comes, an answer comes soon, and no panic.

use super::hostile::{entries, honest, pickle, zip};
use crate::decoders;
use dqrm::config::Config;
use dqrm::data::Block;
use dqrm::data::ids::Mapper;
use dqrm::data::text::RawBlock;
use dqrm::dist::frame::{Frame, Kind};
use dqrm::dist::ids::{self, RowLists};
use dqrm::import::{check, pickle as pickles};

const ROUNDS: usize = 30_000;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// One to four changes: bits, words that are extreme, cuts, pieces of another file, pieces left out.
fn mutate(random: &mut Random, base: &[u8], other: &[u8]) -> Vec<u8> {
    let mut file = base.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(file.len());
        match random.below(7) {
            0 | 1 if !file.is_empty() => file[at] ^= 1 << random.below(8),
            2 if !file.is_empty() => file[at] = random.below(256) as u8,
            3 => {
                let word = [0u64, 1, u64::MAX, i64::MAX as u64, u32::MAX.into(), 0x8000_0000, 1 << 40][random.below(7)].to_le_bytes();
                let len = [2, 4, 8][random.below(3)].min(file.len() - at);
                file[at..at + len].copy_from_slice(&word[..len]);
            }
            4 => file.truncate(at),
            5 => {
                let from = random.below(other.len());
                let len = random.below(64).min(other.len() - from);
                file.splice(at..at, other[from..from + len].iter().copied());
            }
            _ => {
                let len = random.below(32).min(file.len() - at);
                file.drain(at..at + len);
            }
        }
    }
    file
}

/// Runs `try_one` on many altered inputs; gives how many were accepted.
fn rounds(seed: u64, bases: &[Vec<u8>], try_one: impl Fn(&[u8]) -> bool) -> usize {
    let (mut random, mut accepted) = (Random(seed), 0);
    for _ in 0..ROUNDS {
        let (a, b) = (random.below(bases.len()), random.below(bases.len()));
        let file = mutate(&mut random, &bases[a], &bases[b]);
        accepted += usize::from(try_one(&file));
    }
    accepted
}

#[test]
fn altered_files_give_an_answer() {
    let own = zip(&entries(&pickle(&honest(), b"")));
    let mut bases = vec![own.clone(), own];
    for name in ["unchecked.pt", "shared.pt", "transposed.pt", "half.pt", "small.safetensors", "half.safetensors"] {
        bases.push(std::fs::read(super::folder().join(name)).unwrap());
    }
    let accepted = rounds(1, &bases, |file| check(file).is_ok());
    assert!(accepted > 0 && accepted < ROUNDS, "{accepted} of {ROUNDS}");
}

#[test]
fn altered_pickles_give_an_answer() {
    let more = b"X\x01\x00\x00\x00ccnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R(K\x03NtbccN\x85\x94q\x05h\x05s";
    let bases = [
        pickle(&honest(), b""),
        pickle(&honest()[..1], b"q\x01"),
        pickle(&honest(), more),
        pickle(&[], b"]q\x00(K\x01K\x02eq\x01h\x00\x86"),
    ];
    let in_a_file = |bytes: &[u8]| {
        let _ = check(&zip(&entries(bytes)));
        pickles::decode(bytes).is_ok()
    };
    let accepted = rounds(2, &bases, in_a_file);
    assert!(accepted > 0 && accepted < ROUNDS, "{accepted} of {ROUNDS}");
}

/// Feeds one decoder with altered forms of `bases`.
fn feed(seed: u64, bases: &[Vec<u8>], decoder: fn(&[u8])) {
    bases.iter().for_each(|base| decoder(base));
    rounds(seed, bases, |bytes| {
        decoder(bytes);
        true
    });
}

#[test]
fn altered_packed_models_and_checkpoints_give_an_answer() {
    let packed = std::fs::read(super::folder().join("../packed/v1.safetensors")).unwrap();
    let plain = std::fs::read(super::folder().join("small.safetensors")).unwrap();
    feed(3, std::slice::from_ref(&packed), decoders::packed);
    feed(4, &[packed, plain], decoders::checkpoint);
}

#[test]
fn altered_mappings_settings_and_rows_give_an_answer() {
    let dictionary = Mapper::dictionary(2, Some(9));
    let block = RawBlock { samples: 1, labels: vec![None], dense: vec![], offsets: vec![0, 2, 3], keys: vec![7, 8, 9] };
    let mut out = Block::new();
    dictionary.map(&block, &mut out).unwrap();
    let ids = [dictionary.to_bytes(), Mapper::modulo(&[3, 4]).to_bytes(), Mapper::direct(&[3, 4]).to_bytes()];
    feed(5, &ids, decoders::ids);
    let settings = dqrm::config_file::to_text(&Config::default()).unwrap().into_bytes();
    feed(6, &[settings, b"[model]\nrows = [1, 2]\n[data.schema]\ndense = [\"a\", 2]\n".to_vec()], decoders::settings);
    let text = b"1\t5\t0a\t1,2,3\n0\t\t63\t\n1\t7\t1\n".to_vec();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zipped, &text).unwrap();
    feed(7, &[text, zipped.finish().unwrap()], decoders::text);
}

#[test]
fn altered_prepared_data_gives_an_answer() {
    let mut random = Random(9);
    for _ in 0..2_000 {
        let mut changes = vec![0; random.below(8_000)];
        for _ in 0..=random.below(3) {
            let at = random.below(changes.len());
            changes.iter_mut().skip(at).take(1 + random.below(8)).for_each(|byte| *byte = random.below(256) as u8);
        }
        decoders::prepared(&changes);
    }
}

#[test]
fn altered_messages_of_workers_give_an_answer() {
    let rows = |n: u32, step: u32| (0..n).map(|i| i * step).collect::<Vec<u32>>();
    let tables = [
        [vec![], vec![0, 1, 2], rows(20, 2), rows(5, 190), rows(150, 6000), rows(300, 1 << 23)],
        [vec![], vec![1], rows(40, 1), rows(140, 7), vec![1 << 19], vec![3, 200, u32::MAX]],
    ];
    let coded = tables.map(|tables| {
        let (mut lists, mut bytes) = (RowLists::new(), Vec::new());
        tables.iter().for_each(|rows| lists.push_table(rows));
        ids::encode(&lists, &decoders::WORKER_TABLES.0, &mut bytes);
        assert_eq!(ids::decode(&bytes, &decoders::WORKER_TABLES.0, &decoders::WORKER_TABLES.1), Ok(lists));
        bytes
    });
    feed(8, &coded, decoders::worker_ids);
    let frame = |kind, payload| Frame { kind, part: 0, attempt: 0, from: 1, step: 3, payload }.encode();
    let frames = [
        frame(Kind::Ids, coded[0][..40].to_vec()),
        frame(Kind::Rows, vec![7; 64]),
        frame(Kind::Alive, vec![]),
        frame(Kind::Bye, b"full disk".to_vec()),
    ];
    let streams: Vec<Vec<u8>> = [0, 6, 31, 99, 255].map(|piece| [&[piece][..], &frames.concat()].concat()).into();
    feed(9, &streams, decoders::frames);
}

#[test]
fn altered_environments_and_host_lists_give_an_answer() {
    let lists = ["gnode[10,20,25,37]", "a[001-004,7]-x,b3", "r[1-2]n[00-01]", "node1.example.org"];
    feed(10, &lists.map(|list| list.as_bytes().to_vec()), decoders::hosts);
    let environments = [
        "RANK=3\nWORLD_SIZE=4\nLOCAL_RANK=1\nLOCAL_WORLD_SIZE=2\nMASTER_ADDR=node1\nMASTER_PORT=29555\nTORCHELASTIC_USE_AGENT_STORE=True\n",
        "OMPI_COMM_WORLD_RANK=2\nOMPI_COMM_WORLD_SIZE=3\nOMPI_COMM_WORLD_LOCAL_RANK=2\nOMPI_COMM_WORLD_LOCAL_SIZE=3\nPMIX_NAMESPACE=7\n",
        "PMI_RANK=1\nPMI_SIZE=2\nMPI_LOCALRANKID=1\nMPI_LOCALNRANKS=2\nDQRM_JOB=x\nDQRM_ATTEMPT=1\nDQRM_RDZV_PORT=9\n",
        "SLURM_STEP_ID=0\nSLURM_PROCID=5\nSLURM_STEP_NUM_TASKS=7\nSLURM_LOCALID=1\nSLURM_NODEID=2\nSLURM_STEP_TASKS_PER_NODE=2(x3),1\nSLURM_JOB_ID=9\nSLURM_STEP_NODELIST=gnode[08-10,12]\n",
        "JOB_COMPLETION_INDEX=2\nDQRM_WORLD_SIZE=4\nDQRM_RDZV=[fd00::2]:29500\nDQRM_SECRET=0123456789abcdef\n",
    ];
    feed(11, &environments.map(|env| env.as_bytes().to_vec()), decoders::environment);
}
