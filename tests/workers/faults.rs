//! A rank of three goes wrong in every phase of the protocol: the others end soon, with an error that names it, and the
//! last checkpoint is whole.

use crate::job::{config, run_ranks};
use dqrm::Error;
use dqrm::config::{Config, RowSums, Workers};
use dqrm::dist::frame::{Frame, Kind};
use dqrm::dist::team::Patience;
use dqrm::dist::transport::{Lost, Transport};
use dqrm::train::{Outcome, Start};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What goes wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The rank is gone, as after `kill -9`.
    Dies,
    /// It sends nothing any more, and stays.
    Stalls,
    /// A byte of the frame arrives as another one.
    Flips,
    /// The frame arrives twice.
    Doubles,
    /// The payload is one byte too short, in a frame that is otherwise right.
    Shortens,
    /// The frame and all after it come late, but in time.
    Delays,
}

/// The rank that goes wrong.
const BAD: usize = 1;

#[derive(Debug)]
struct Faulty {
    /// Nothing once the rank is gone.
    inner: Option<Box<dyn Transport>>,
    fault: Fault,
    kind: Kind,
    step: u64,
    /// It has happened.
    done: bool,
}

impl Transport for Faulty {
    fn rank(&self) -> usize {
        BAD
    }

    fn world(&self) -> usize {
        3
    }

    fn send(&mut self, to: usize, frame: &Arc<[u8]>) -> Result<(), Lost> {
        let gone = Lost { rank: BAD, reason: "is gone".into() };
        let (kind, step) = (frame[5], u64::from_le_bytes(frame[16..24].try_into().unwrap()));
        if self.done && self.fault == Fault::Stalls {
            return Ok(());
        }
        let Some(inner) = &mut self.inner else { return Err(gone) };
        if self.done || kind != self.kind as u8 || step < self.step {
            return inner.send(to, frame);
        }
        if self.fault == Fault::Delays {
            std::thread::sleep(Duration::from_millis(30));
            return inner.send(to, frame);
        }
        self.done = true;
        match self.fault {
            Fault::Dies => {
                self.inner = None;
                Err(gone)
            }
            Fault::Stalls | Fault::Delays => Ok(()),
            Fault::Flips => {
                let mut bytes = frame.to_vec();
                let place = bytes.len() - 1;
                bytes[place] ^= 0x20;
                inner.send(to, &bytes.into())
            }
            Fault::Doubles => inner.send(to, frame).and_then(|()| inner.send(to, frame)),
            Fault::Shortens => {
                let payload = frame[32..frame.len() - 1].to_vec();
                let shorter = Frame { kind: self.kind, part: frame[6], attempt: 0, from: BAD as u32, step, payload };
                inner.send(to, &shorter.encode().into())
            }
        }
    }

    fn receive(&mut self, patience: Duration) -> Result<Option<(usize, Frame)>, Lost> {
        match &mut self.inner {
            Some(inner) => inner.receive(patience),
            None => Err(Lost { rank: BAD, reason: "is gone".into() }),
        }
    }

    fn flush(&mut self, _patience: Duration) {}
}

fn short() -> Patience {
    Patience { step: Duration::from_secs(2), long: Duration::from_secs(2) }
}

/// Runs three ranks with a fault; what the two others ended with, and how long it took.
fn survivors(config: &Config, fault: Fault, kind: Kind, step: u64, dir: &Path) -> (Vec<dqrm::Result<Outcome>>, Duration) {
    let wrap = |rank: usize, inner: Box<dyn Transport>| -> Box<dyn Transport> {
        if rank != BAD {
            return inner;
        }
        Box::new(Faulty { inner: Some(inner), fault, kind, step, done: false })
    };
    let began = Instant::now();
    let mut ended = run_ranks(&vec![config.clone(); 3], dir, &Start::Fresh, short(), &wrap);
    drop(ended.remove(BAD));
    (ended, began.elapsed())
}

fn small(rows: RowSums) -> Config {
    let mut config = config(3, 16);
    config.workers = Workers { rows, check_every: 4, ..config.workers };
    (config.train.max_steps, config.train.checkpoint_every, config.train.eval_every) = (12, 5, 6);
    config
}

#[test]
fn whatever_goes_wrong_the_others_end_soon_and_name_it() {
    let in_steps = [Kind::Ids, Kind::Rows, Kind::Chunk, Kind::ChunkSums, Kind::Report].map(|k| (k, RowSums::Gather));
    // Between steps: comparison of replicas and error feedback for a checkpoint, the checkpoint itself, results of an evaluation.
    let others =
        [(Kind::RowSums, RowSums::Owner), (Kind::Rows, RowSums::Owner), (Kind::Gather, RowSums::Gather), (Kind::Barrier, RowSums::Gather)];
    for (kind, rows) in in_steps.into_iter().chain(others) {
        for fault in [Fault::Dies, Fault::Stalls, Fault::Flips, Fault::Doubles, Fault::Shortens] {
            // collectives are counted from the start of the job
            let step = if [Kind::Gather, Kind::Barrier].contains(&kind) { 4 } else { 7 };
            if kind == Kind::Barrier && [Fault::Flips, Fault::Shortens].contains(&fault) {
                continue; // it has no payload
            }
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("run");
            let (ended, took) = survivors(&small(rows), fault, kind, step, &dir);
            for (rank, outcome) in [0, 2].into_iter().zip(&ended) {
                let case = format!("{fault:?} at {kind:?} ({rows:?}), seen by rank {rank}");
                let Err(error) = outcome else { panic!("{case}: went on") };
                let text = error.to_string();
                assert!(matches!(error, Error::Peer { .. }), "{case}: {text}");
                assert!(text.contains("rank 1"), "{case}: {text}");
                assert!(text.contains("step "), "{case}: {text}");
                assert!(took < Duration::from_secs(20), "{case}: {took:?}");
            }
            let last = dir.join("last.safetensors");
            if last.exists() {
                let mut file = dqrm::checkpoint::Checkpoint::open(&last).unwrap();
                file.verify().unwrap();
                assert!(file.header.step == 5 || file.header.step == 10, "{}", file.header.step);
            }
        }
    }
}

#[test]
fn a_slow_rank_changes_nothing() {
    let config = small(RowSums::Auto);
    let (whole, _) = crate::job::trained(&config, crate::job::Play::InProcess);
    for kind in [Kind::Ids, Kind::Rows, Kind::Chunk, Kind::ChunkSums, Kind::Report] {
        let folder = tempfile::tempdir().unwrap();
        let (ended, _) = survivors(&config, Fault::Delays, kind, 3, &folder.path().join("run"));
        assert!(ended.iter().all(Result::is_ok), "{kind:?}: {:?}", ended.iter().filter_map(|r| r.as_ref().err()).collect::<Vec<_>>());
        assert!(crate::job::differing(whole.path(), folder.path()).is_empty(), "{kind:?}");
    }
}

#[test]
fn a_job_goes_on_from_the_checkpoint_that_is_left() {
    let config = small(RowSums::Auto);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let (ended, _) = survivors(&config, Fault::Dies, Kind::Rows, 7, &dir);
    assert!(ended.iter().all(Result::is_err));
    let plain = |_: usize, transport: Box<dyn Transport>| transport;
    let resumed = run_ranks(&vec![config.clone(); 3], &dir, &Start::Resume, short(), &plain);
    assert!(resumed.iter().all(Result::is_ok), "{:?}", resumed.iter().filter_map(|r| r.as_ref().err()).collect::<Vec<_>>());
    let (whole, _) = crate::job::trained(&config, crate::job::Play::InProcess);
    assert!(crate::job::differing(whole.path(), folder.path()).is_empty(), "the end is that of a job that never broke");
}

#[test]
fn a_gradient_that_is_not_finite_ends_the_job_and_is_named() {
    let mut config = small(RowSums::Auto);
    config.optim.lr = 1e30;
    let folder = tempfile::tempdir().unwrap();
    let plain = |_: usize, transport: Box<dyn Transport>| transport;
    let ended = run_ranks(&vec![config; 3], &folder.path().join("run"), &Start::Fresh, short(), &plain);
    for outcome in ended {
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains("finite"), "{error}");
    }
}

#[test]
fn a_rank_of_another_job_is_named_with_what_differs() {
    type Change = fn(&mut Config);
    let changes: [(Change, &str); 6] = [
        (|c| c.seed = 9, "another seed: `9` there"),
        (|c| c.train.batch = 8, "another batch: `8` there"),
        (|c| c.quant.period = 7, "another quantization"),
        (|c| c.optim.lr = 0.5, "another optimizer"),
        (|c| c.train.max_steps = 13, "another loop"),
        (|c| c.workers.feedback = false, "another exchange"),
    ];
    for (change, says) in changes {
        let mut other = small(RowSums::Auto);
        change(&mut other);
        let configs = [small(RowSums::Auto), other, small(RowSums::Auto)];
        let folder = tempfile::tempdir().unwrap();
        let plain = |_: usize, transport: Box<dyn Transport>| transport;
        let ended = run_ranks(&configs, &folder.path().join("run"), &Start::Fresh, short(), &plain);
        let texts: Vec<String> = ended.into_iter().map(|e| e.unwrap_err().to_string()).collect();
        assert!([0, 2].iter().all(|&r: &usize| texts[r].contains("rank 1")), "{texts:?}");
        assert!(texts[0].contains(says), "{} does not say {says}", texts[0]);
    }
}

#[test]
fn replicas_that_differ_stop_the_job_and_name_the_tensor() {
    /// Changes a sum of MLP gradients on its way to one rank, in a frame that is otherwise right.
    #[derive(Debug)]
    struct Crooked(Box<dyn Transport>);
    impl Transport for Crooked {
        fn rank(&self) -> usize {
            self.0.rank()
        }
        fn world(&self) -> usize {
            self.0.world()
        }
        fn send(&mut self, to: usize, frame: &Arc<[u8]>) -> Result<(), Lost> {
            if frame[5] != Kind::ChunkSums as u8 || frame[6] != 0 || to != 2 || frame.len() < 60 {
                return self.0.send(to, frame);
            }
            let mut payload = frame[32..].to_vec();
            // the second half is codes; a unit that is never active has none that matter
            let half = payload.len() / 2;
            payload[half..].iter_mut().for_each(|code| *code = code.wrapping_add(9));
            let step = u64::from_le_bytes(frame[16..24].try_into().unwrap());
            let other = Frame { kind: Kind::ChunkSums, part: 0, attempt: 0, from: 1, step, payload };
            self.0.send(to, &other.encode().into())
        }
        fn receive(&mut self, patience: Duration) -> Result<Option<(usize, Frame)>, Lost> {
            self.0.receive(patience)
        }
        fn flush(&mut self, patience: Duration) {
            self.0.flush(patience);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let wrap =
        |rank: usize, inner: Box<dyn Transport>| -> Box<dyn Transport> { if rank == BAD { Box::new(Crooked(inner)) } else { inner } };
    let ended = run_ranks(&vec![small(RowSums::Auto); 3], &folder.path().join("run"), &Start::Fresh, short(), &wrap);
    let mut compared = 0;
    for outcome in ended {
        match outcome.unwrap_err() {
            Error::Replica { rank, tensor, step, .. } => {
                assert_eq!((rank, step, tensor.starts_with("top_l.")), (2, 4, true), "{tensor}");
                compared += 1;
            }
            // One that found it may say so before this one has compared.
            told @ Error::Peer { .. } => {
                let text = told.to_string();
                assert!(
                    text.contains("replicas differ after step 4: `top_l.") && text.contains("of rank 2 is not that of rank 0"),
                    "{text}"
                );
            }
            other => panic!("{other}"),
        }
    }
    assert!(compared > 0, "nobody compared");
}

/// What comes from rank 0 comes late.
#[derive(Debug)]
struct LateFromFirst(Box<dyn Transport>, VecDeque<(Instant, Frame)>);

impl Transport for LateFromFirst {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn world(&self) -> usize {
        self.0.world()
    }
    fn send(&mut self, to: usize, frame: &Arc<[u8]>) -> Result<(), Lost> {
        self.0.send(to, frame)
    }
    fn receive(&mut self, patience: Duration) -> Result<Option<(usize, Frame)>, Lost> {
        let end = Instant::now() + patience;
        loop {
            if self.1.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                return Ok(self.1.pop_front().map(|(_, frame)| (0, frame)));
            }
            match self.0.receive(Duration::from_millis(1))? {
                Some((0, frame)) => self.1.push_back((Instant::now() + Duration::from_millis(100), frame)),
                None if Instant::now() >= end => return Ok(None),
                None => {}
                other => return Ok(other),
            }
        }
    }
    fn flush(&mut self, patience: Duration) {
        self.0.flush(patience);
    }
}

#[test]
fn a_rank_that_gets_the_weights_later_than_others_does_not_stop_a_resumed_job() {
    let mut config = config(3, 16);
    config.train.max_steps = 20;
    let (folder, _) = crate::job::trained(&config, crate::job::Play::InProcess);
    config.train.max_steps = 23;
    let wrap = |rank: usize, inner: Box<dyn Transport>| -> Box<dyn Transport> {
        if rank == BAD { Box::new(LateFromFirst(inner, VecDeque::new())) } else { inner }
    };
    let ended = run_ranks(&vec![config; 3], &folder.path().join("run"), &Start::Resume, Patience::default(), &wrap);
    assert!(ended.iter().all(Result::is_ok), "{:?}", ended.iter().filter_map(|r| r.as_ref().err()).collect::<Vec<_>>());
}

#[test]
fn a_rank_that_fails_before_it_connects_ends_the_job() {
    let config = config(3, 16);
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let error = crate::job::run(&config, crate::job::Play::InProcess, &folder.path().join("run"), Start::Init("/nowhere".into()));
    assert!(error.unwrap_err().to_string().contains("/nowhere"));
    assert!(began.elapsed() < Duration::from_secs(20));
}
