//! Tables on the host give the same bytes as tables on the device.

use crate::{Setup, assert_same_bytes, devices, everything, read, small_config, small_model};
use dqrm::config::{Config, DenseOptimizer, Device, EmbeddingScale, Method, Model, Optim, RowOptimizer, TablePlace};
use dqrm::data::Samples;
use dqrm::host_tables::HostTables;
use dqrm::quant::Bits;
use dqrm::session::{RowLayout, Session};
use pollster::block_on;

/// The same settings with tables on the host: in a file of a folder that lives as long as the test, with bytes for rows that wait to be
/// written, or in memory.
fn hosted(setup: &Setup, device: &Device, file: Option<(&tempfile::TempDir, u64)>) -> Session {
    let mut config = Config { device: device.clone(), ..setup.config.clone() };
    config.model.tables = TablePlace::Host;
    let layout = RowLayout::of(&setup.shape, &config);
    let in_file = |(dir, held): (&tempfile::TempDir, u64)| HostTables::create_holding(dir.path(), layout.clone(), held);
    let store = file.map_or_else(|| HostTables::in_memory(layout.clone()), in_file).unwrap();
    let mut session = block_on(Session::load_hosted(&setup.shape, &config, setup.clicks.max_bag(), Box::new(store), false)).unwrap();
    session.initialise(5, &mut |_, _| {}).unwrap();
    session
}

/// Trains with batches announced one ahead, but for every fifth, and with evaluations in between. Gives losses and logits.
fn train(setup: &Setup, session: &mut Session, steps: std::ops::Range<u64>) -> Vec<f32> {
    let mut results = Vec::new();
    for step in steps {
        let batch = setup.batch(session.tables(), step);
        if !step.is_multiple_of(5) {
            let next = setup.batch(session.tables(), step + 1);
            session.announce(&next);
        }
        session.train_step(step, &batch).unwrap();
        if step % 16 == 9 {
            session.begin_evaluation().unwrap();
            let batch = setup.batch(session.tables(), 700 + step);
            results.extend(block_on(session.logits(&batch)).unwrap());
        }
        results.extend(block_on(session.history()).unwrap().into_iter().flat_map(|r| r.logits));
    }
    results
}

fn assert_equal(what: &str, setup: &Setup, device: &Device, steps: u64) {
    let dir = tempfile::tempdir().unwrap();
    let run = |mut session: Session| (train(setup, &mut session, 0..steps), everything(&mut session));
    let on_device = run(setup.session(device));
    let places = [("memory", None), ("file", Some((&dir, 1 << 20))), ("file, few rows wait", Some((&dir, 4_000)))];
    for (place, file) in places {
        let on_host = run(hosted(setup, device, file));
        assert!(on_device.0.iter().zip(&on_host.0).all(|(a, b)| a.to_bits() == b.to_bits()), "{what} {device:?} {place}: logits differ");
        assert_same_bytes(&format!("{what} {device:?} {place}"), &on_device.1, &on_host.1);
    }
}

#[test]
fn long_runs_give_the_same_bytes_as_tables_on_the_device() {
    for device in devices() {
        for (embedding, dense) in [(RowOptimizer::Sgd, DenseOptimizer::Sgd), (RowOptimizer::Rwsadagrad, DenseOptimizer::Adam)] {
            let mut config = small_config(Bits::B4, 32);
            config.quant.period = 7;
            config.optim = Optim { embedding, dense, lr: 0.05, ..Optim::default() };
            let setup = Setup::new(Model { rows: Some(vec![50, 3, 2000, 1]), ..small_model() }, config, 3);
            assert_equal(&format!("{embedding:?}"), &setup, &device, 210);
        }
    }
}

/// A change of settings.
type Edit<'a> = &'a dyn Fn(&mut Config);

#[test]
fn every_setting_that_touches_tables_gives_the_same_bytes() {
    let edits: [(&str, Edit<'_>); 7] = [
        ("FP32", &|c| (c.quant.embedding_bits, c.quant.mlp_bits) = (Bits::None, Bits::None)),
        ("Adagrad, 8 bits", &|c| (c.optim.embedding, c.quant.embedding_bits) = (RowOptimizer::Adagrad, Bits::B8)),
        ("hawq", &|c| c.quant.method = Method::Hawq),
        ("ptq", &|c| c.quant.method = Method::Ptq),
        ("pact", &|c| c.quant.method = Method::Pact),
        ("scales of rows", &|c| c.quant.embedding_scale = EmbeddingScale::Row),
        ("sums quantized, larger evaluations", &|c| (c.quant.pool_then_quantize, c.train.eval_batch) = (true, 64)),
    ];
    for (what, edit) in edits {
        let mut config = small_config(Bits::B4, 16);
        edit(&mut config);
        if config.quant.method != Method::Dqrm || config.quant.embedding_scale == EmbeddingScale::Row {
            config.quant.period = 200; // the default; these have no period
        }
        let setup = Setup::new(small_model(), config, 2);
        for device in devices() {
            assert_equal(what, &setup, &device, 24);
        }
    }
}

#[test]
fn tensors_go_from_one_place_to_the_other() {
    for device in devices() {
        let mut config = small_config(Bits::B4, 16);
        config.optim.embedding = RowOptimizer::Rwsadagrad;
        let setup = Setup::new(small_model(), config, 2);
        let dir = tempfile::tempdir().unwrap();
        let mut first = hosted(&setup, &device, None);
        train(&setup, &mut first, 0..20);
        let kept = everything(&mut first);
        let mut whole = setup.session(&device);
        let mut again = hosted(&setup, &device, Some((&dir, 4_000)));
        for (name, values) in &kept {
            whole.write(name, 0, values).unwrap();
            again.write(name, 0, values).unwrap();
        }
        let results = [&mut first, &mut whole, &mut again].map(|session| (train(&setup, session, 20..40), everything(session)));
        for (losses, tensors) in &results[1..] {
            assert_eq!(*losses, results[0].0, "{device:?}");
            assert_same_bytes(&format!("{device:?}"), &results[0].1, tensors);
        }
    }
}

#[test]
fn the_device_holds_the_rows_of_a_step_only() {
    let model = Model { rows: Some(vec![50, 3, 200_000, 1]), ..small_model() };
    let setup = Setup::new(model, small_config(Bits::B4, 16), 1);
    let dir = tempfile::tempdir().unwrap();
    let session = hosted(&setup, &Device::Cpu, Some((&dir, 0)));
    let largest = session.plan().buffers.iter().map(|b| b.len).max().unwrap();
    assert!(largest < 1000, "a buffer of {largest} elements");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name that could be left behind");
}

#[test]
fn stores_and_settings_that_do_not_fit_are_refused() {
    let setup = Setup::new(small_model(), small_config(Bits::B4, 16), 1);
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { device: Device::Cpu, ..setup.config.clone() };
    let store = |layout: RowLayout| Box::new(HostTables::create(dir.path(), layout).unwrap());
    let load = |config: &Config, layout: RowLayout| {
        let loaded = block_on(Session::load_hosted(&setup.shape, config, setup.clicks.max_bag(), store(layout), false));
        loaded.err().map(|e| e.to_string()).unwrap_or_default()
    };
    let layout = RowLayout::of(&setup.shape, &config);
    assert!(load(&config, layout.clone()).contains("Device"), "the settings say `device`");
    config.model.tables = TablePlace::Host;
    assert_eq!(load(&config, layout.clone()), "");
    assert!(load(&config, RowLayout { state: 1, ..layout.clone() }).contains("does not fit"));
    assert!(load(&config, RowLayout { rows: vec![50, 3, 200, 2], ..layout }).contains("does not fit"));
    let text = block_on(Session::load(&setup.shape, &config, setup.clicks.max_bag())).unwrap_err().to_string();
    assert!(text.contains("load_hosted"), "{text}");
    let mut session = hosted(&setup, &Device::Cpu, Some((&dir, 0)));
    assert!(session.write("emb_l.2.weight", 799, &[1.0, 2.0]).unwrap_err().to_string().contains("which has 800"));
    assert_eq!(read(&mut session, "emb_l.1.weight").len(), 12);
}
