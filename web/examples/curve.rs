//! The training of the page, on this computer: the same steps, losses and evaluations, printed as JSON.
//!
//! `cargo run --example curve -- cpu 1500 100 '{"bits": 4}'` trains 1500 steps on the CPU engine and evaluates every 100. `gpu` and part
//! of an adapter's name work too. What the settings leave out has the page's defaults.

use dqrm_web::train::{Settings, Training};
use pollster::block_on;
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, steps, every, settings] = arguments.as_slice() else {
        return Err("usage: curve DEVICE STEPS EVALUATE_EVERY SETTINGS".into());
    };
    let (steps, every): (u64, u64) = (steps.parse()?, every.parse()?);
    let mut training = block_on(Training::load(device.clone().into(), Settings::from_json(settings)?))?;
    let (mut losses, mut evaluations) = (Vec::new(), Vec::new());
    while training.done().0 < steps {
        losses.extend(block_on(training.steps(every.max(1).min(steps - training.done().0)))?);
        let (step, epoch) = training.done();
        let summary = block_on(training.evaluate())?;
        evaluations.push(json!({ "step": step, "epoch": epoch, "auc": summary.auc, "log_loss": summary.log_loss }));
    }
    println!("{}", json!({ "training": training.describe(), "losses": losses, "evaluations": evaluations }));
    Ok(())
}
