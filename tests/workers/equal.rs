use crate::job::{Named, Play, config, differing, run, trained, weights};
use dqrm::config::{GradientScale, LrRule, RowSums, Workers};
use dqrm::quant::Bits;
use dqrm::train::Start;

/// FP32 exchange.
fn exact(count: usize) -> Workers {
    Workers { row_bits: Bits::None, mlp_bits: Bits::None, ..config(count, 1).workers }
}

/// The largest difference of two runs' weights, relative to the largest weight of the tensor.
fn difference(a: &[Named], b: &[Named]) -> f32 {
    let of_tensor = |((name, a), (other, b)): (&Named, &Named)| {
        assert_eq!((name, a.len()), (other, b.len()));
        let largest = a.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
    };
    a.iter().zip(b).map(of_tensor).fold(0.0, f32::max)
}

#[test]
fn workers_with_fp32_exchange_train_the_model_of_one_with_all_samples() {
    // FP32 weights, so that no rounding of a weight turns a difference in the last bit into a whole code.
    let mut alone = config(0, 48);
    (alone.quant.embedding_bits, alone.quant.mlp_bits) = (Bits::None, Bits::None);
    let (folder, outcome) = trained(&alone, Play::Alone);
    let wanted = weights(folder.path());
    for count in [2, 3, 4] {
        for rows in [RowSums::Gather, RowSums::Owner] {
            let mut config = alone.clone();
            config.train.batch = 48 / count;
            config.workers = Workers { rows, ..exact(count) };
            let (folder, found) = trained(&config, Play::InProcess);
            let (off, steps) = (difference(&wanted, &weights(folder.path())), found.steps);
            assert_eq!((steps, outcome.steps), (200, 200));
            assert!(off < 2e-5, "{count} workers, {rows:?}: {off}");
            let auc = |o: &dqrm::train::Outcome| o.validation.as_ref().unwrap().summary.auc.unwrap();
            assert!((auc(&found) - auc(&outcome)).abs() < 1e-3, "the evaluation is that of all batches");
        }
    }
}

#[test]
fn logical_workers_give_the_bytes_of_real_ones() {
    let kinds = [
        exact(3),
        Workers { ..config(3, 1).workers },
        Workers { feedback: false, ..config(3, 1).workers },
        Workers { rows: RowSums::Owner, ..config(3, 1).workers },
        Workers { row_bits: Bits::B4, mlp_bits: Bits::B4, ..config(3, 1).workers },
        Workers { row_bits: Bits::B16, mlp_bits: Bits::B16, ..config(2, 1).workers },
        Workers { scale: GradientScale::Average, ..config(3, 1).workers },
        Workers { lr_rule: LrRule::Linear, ..config(6, 1).workers },
        config(1, 1).workers,
    ];
    for workers in kinds {
        let mut config = config(workers.count, 16);
        config.workers = workers;
        let [(real, _), (logical, _)] = [Play::InProcess, Play::Simulated].map(|play| trained(&config, play));
        assert!(differing(real.path(), logical.path()).is_empty(), "{:?}", config.workers);
        let (again, _) = trained(&config, Play::InProcess);
        assert!(differing(real.path(), again.path()).is_empty(), "twice: {:?}", config.workers);
    }
}

#[test]
fn a_job_that_was_stopped_and_resumed_ends_with_the_same_bytes() {
    for play in [Play::InProcess, Play::Simulated] {
        let mut config = config(3, 16);
        let (whole, _) = trained(&config, play);
        config.train.max_steps = 77;
        let (folder, _) = trained(&config, play);
        config.train.max_steps = 200;
        run(&config, play, &folder.path().join("run"), Start::Resume).unwrap();
        let bytes = |folder: &tempfile::TempDir| std::fs::read(folder.path().join("run/last.safetensors")).unwrap();
        assert!(bytes(&whole) == bytes(&folder), "{play:?}: {:?}", differing(whole.path(), folder.path()));
    }
}

#[test]
fn a_worker_without_samples_at_the_end_of_an_epoch_changes_nothing() {
    // 6,290 samples in global batches of 48 leave two for three workers: rank 0 gets none.
    let mut alone = config(0, 48);
    alone.data.synthetic.samples = 6989;
    (alone.train.epochs, alone.train.max_steps) = (2, 0);
    (alone.quant.embedding_bits, alone.quant.mlp_bits) = (Bits::None, Bits::None);
    let (one, outcome) = trained(&alone, Play::Alone);
    assert_eq!(outcome.steps, 2 * 132, "131 whole batches and a rest");
    let mut three = alone.clone();
    (three.train.batch, three.workers) = (16, exact(3));
    let (folder, _) = trained(&three, Play::InProcess);
    assert!(difference(&weights(one.path()), &weights(folder.path())) < 2e-5);
    three.workers = config(3, 1).workers;
    let [(real, _), (logical, _)] = [Play::InProcess, Play::Simulated].map(|play| trained(&three, play));
    assert!(differing(real.path(), logical.path()).is_empty());
}

#[test]
fn another_number_of_workers_goes_on_with_a_run() {
    let mut config = config(4, 12);
    config.train.max_steps = 60;
    let (folder, _) = trained(&config, Play::InProcess);
    (config.workers.count, config.train.max_steps) = (2, 200);
    let outcome = run(&config, Play::InProcess, &folder.path().join("run"), Start::Resume).unwrap();
    assert_eq!(outcome.steps, 200);
    // 60 steps of 48 samples are 120 of 24: the journal's lines stand at steps of the two
    let header = dqrm::checkpoint::Checkpoint::open(&folder.path().join("run/last.safetensors")).unwrap().header;
    assert_eq!((header.step, header.workers), (200, 2));
    let mut file = dqrm::checkpoint::Checkpoint::open(&folder.path().join("run/last.safetensors")).unwrap();
    let losses = file.header.entry("dqrm.window.losses").unwrap().shape[0] as usize;
    let mut values = vec![0.0; losses];
    file.read("dqrm.window.losses", 0, &mut values).unwrap();
    assert_eq!(losses, 60 + 80, "steps of the first part, then those from step 120 on");
    let names: Vec<String> =
        crate::job::tensors(folder.path()).into_iter().map(|t| t.0).filter(|n| n.starts_with("dqrm.errors.")).collect();
    assert_eq!(names, ["dqrm.errors.0", "dqrm.errors.1", "dqrm.errors.sums"], "error feedback of two ranks");
}

#[test]
fn workers_on_different_engines_keep_one_model() {
    if !crate::job::has_adapter() {
        return;
    }
    // Rank 0 on the CPU engine, rank 1 on an adapter: what is summed is the same, and so is what it is added to.
    let config = config(2, 24);
    crate::job::run_mixed(&config).unwrap();
}

/// Codes of all rows follow each other without a gap on the device, but rows travel in whole bytes.
#[test]
fn rows_of_odd_width_are_refused_in_four_bits() {
    let mut odd = config(2, 16);
    (odd.model.dim, odd.model.bottom, odd.train.max_steps) = (Some(3), Some(vec![9, 3]), 2);
    let folder = tempfile::tempdir().unwrap();
    let mut played = |bits: Bits, name: &str| {
        odd.workers.row_bits = bits;
        run(&odd, Play::Simulated, &folder.path().join(name), Start::Fresh)
    };
    played(Bits::B8, "eight").unwrap();
    assert!(played(Bits::B4, "four").unwrap_err().to_string().contains("odd width 3"));
}

#[test]
fn a_finished_job_is_made_longer_whatever_its_best_auc_is() {
    // All ranks must find the same evaluation not better than the best so far, to the last bit of it.
    for seed in [84, 107, 129, 131] {
        let mut longer = config(2, 48);
        (longer.seed, longer.train.max_steps, longer.train.epochs) = (seed, 0, 1);
        let (folder, _) = trained(&longer, Play::InProcess);
        longer.train.epochs = 2;
        let outcome = run(&longer, Play::InProcess, &folder.path().join("run"), Start::Resume).unwrap();
        assert_eq!(outcome.steps, 2 * 66);
    }
}

#[test]
fn error_feedback_of_large_mlps_is_saved() {
    let mut large = config(2, 4);
    large.model.bottom = Some(vec![3000, 3000, 4]);
    (large.train.max_steps, large.data.synthetic.samples) = (1, 2000);
    let (folder, _) = trained(&large, Play::InProcess);
    let errors: Vec<_> = crate::job::tensors(folder.path()).into_iter().filter(|t| t.0.starts_with("dqrm.errors.")).collect();
    assert!(errors.len() == 3 && errors.iter().all(|(_, values)| values.len() > 9_000_000));
    assert!(errors[1].1.iter().any(|v| *v != 0.0), "of rank 1, through the slices");
}

#[test]
fn workers_are_not_tuned() {
    let config = dqrm::train::resolve(&config(2, 64)).unwrap();
    let data = dqrm::train::assemble(&config, &mut |_, _, _| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let tuning = dqrm::tuning_file::Tuning { mode: dqrm::tuning_file::Tune::Cached, cache: None };
    let ranks = dqrm::train::Ranks::Simulated { network: None };
    let options = dqrm::train::Options { dir: folder.path().join("run"), start: Start::Fresh, stop: &stop, ranks, profile: 0, tuning };
    let error = dqrm::train::run_on(&config, data, options, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("--tune"), "{error}");
    assert!(!folder.path().join("run").exists());
}
