//! How good models become: the second half of table 4, tables 6 and 10. All workers are played in turn on one device, which
//! gives the same bits as real ones.

use super::Args;
use super::cost::SCHEMES;
use super::runs::{FP32, INT8, INT8_PLAIN, INT8_ROWS, Quality, Runs, Scheme};
use dqrm::Result;
use dqrm::metrics::Summary;

/// The rows of table 6.
const TABLE_6: [Scheme; 4] = [FP32, INT8_ROWS, INT8_PLAIN, INT8];
/// The workers of table 10.
const COUNTS: [usize; 3] = [2, 4, 8];

/// Runs that a table needs: how gradients travel, workers, samples of each.
type Plan = Vec<(Scheme, usize, usize)>;

pub(crate) fn plan_4(args: &Args) -> Plan {
    SCHEMES.iter().map(|&s| (s, args.workers, args.batch)).collect()
}

pub(crate) fn plan_6(args: &Args) -> Plan {
    TABLE_6.iter().map(|&s| (s, args.workers, args.batch)).collect()
}

/// The global batch is the same for all.
pub(crate) fn plan_10(args: &Args) -> Plan {
    let global = args.workers * args.batch;
    COUNTS.iter().flat_map(|&count| [FP32, INT8].map(|s| (s, count, global / count))).collect()
}

/// The runs of all seeds; empty when one of them did not converge.
fn all_seeds(runs: &mut Runs, (scheme, count, batch): &(Scheme, usize, usize)) -> Result<Vec<Quality>> {
    let seeds = runs.args.seeds.clone();
    let found: Option<Vec<Quality>> = seeds.iter().map(|&seed| runs.quality(scheme, *count, *batch, seed)).collect::<Result<_>>()?;
    Ok(found.unwrap_or_default())
}

fn mean(all: &[Quality], f: impl Fn(&Quality) -> f64) -> f64 {
    all.iter().map(f).sum::<f64>() / all.len() as f64
}

fn auc(summary: &Summary) -> f64 {
    summary.auc.unwrap_or(f64::NAN)
}

fn seeds(args: &Args) -> String {
    let text: Vec<String> = args.seeds.iter().map(u64::to_string).collect();
    format!("{} epochs, seeds {}", args.epochs, text.join(", "))
}

pub(crate) fn print_4(runs: &mut Runs) -> Result<()> {
    let args = runs.args.clone();
    println!("\n### Quality: {} workers, {} samples each, {}\n", args.workers, args.batch, seeds(&args));
    println!("| gradients | train loss | accuracy, end | AUC, end | AUC, best on validation |\n|---|---|---|---|---|");
    for plan in plan_4(&args) {
        let all = all_seeds(runs, &plan)?;
        if all.is_empty() {
            println!("| {} | did not converge | | | |", plan.0.name);
            continue;
        }
        let (loss, accuracy) = (mean(&all, |q| q.loss), 100.0 * mean(&all, |q| q.end.accuracy));
        let [end, best] = [mean(&all, |q| auc(&q.end)), mean(&all, |q| auc(&q.best))];
        println!("| {} | {loss:.4} | {accuracy:.2} % | {end:.4} | {best:.4} |", plan.0.name);
    }
    println!("\nMeans of the seeds. Train loss: mean of the last epoch; the rest is of the test part.");
    Ok(())
}

pub(crate) fn print_6(runs: &mut Runs) -> Result<()> {
    let args = runs.args.clone();
    let of_seeds: Vec<String> = args.seeds.iter().map(|seed| format!("seed {seed}")).collect();
    let columns = of_seeds.join(" | ");
    println!("\n### Which gradients are quantized: {} workers, {} samples each, {}\n", args.workers, args.batch, seeds(&args));
    println!("| gradients | AUC, best on validation | {columns} | AUC, end | {columns} | accuracy, end |");
    println!("|---|---{0}|---{0}|---|", "|---".repeat(args.seeds.len()));
    for plan in plan_6(&args) {
        let all = all_seeds(runs, &plan)?;
        if all.is_empty() {
            println!("| {} | did not converge |", plan.0.name);
            continue;
        }
        let each = |f: fn(&Quality) -> f64| all.iter().map(|q| format!("{:.4}", f(q))).collect::<Vec<_>>().join(" | ");
        let [best, end] = [mean(&all, |q| auc(&q.best)), mean(&all, |q| auc(&q.end))];
        println!(
            "| {} | {best:.4} | {} | {end:.4} | {} | {:.2} % |",
            plan.0.name,
            each(|q| auc(&q.best)),
            each(|q| auc(&q.end)),
            100.0 * mean(&all, |q| q.end.accuracy)
        );
    }
    println!("\nAUC of the test part: mean of the seeds, then each.");
    Ok(())
}

pub(crate) fn print_10(runs: &mut Runs) -> Result<()> {
    let args = runs.args.clone();
    println!("\n### 2, 4 and 8 workers, {} samples in a step of all together, {}\n", args.workers * args.batch, seeds(&args));
    println!(
        "| workers | samples each | gradients | train loss | drop | accuracy | drop | AUC, end | drop | AUC, best on validation | drop |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut fp32 = None;
    for plan in plan_10(&args) {
        let head = format!("| {} | {} | {} |", plan.1, plan.2, plan.0.name);
        let all = all_seeds(runs, &plan)?;
        let before = fp32.take();
        if all.is_empty() {
            println!("{head} did not converge |");
            continue;
        }
        let found =
            [mean(&all, |q| q.loss), 100.0 * mean(&all, |q| q.end.accuracy), mean(&all, |q| auc(&q.end)), mean(&all, |q| auc(&q.best))];
        if !plan.0.mlps.quantized() {
            fp32 = Some(found);
        }
        let drop = |i: usize, digits: usize| before.map_or(String::new(), |b: [f64; 4]| format!("{:+.digits$}", b[i] - found[i]));
        println!(
            "{head} {:.4} | {} | {:.2} % | {} | {:.4} | {} | {:.4} | {} |",
            found[0],
            drop(0, 4),
            found[1],
            drop(1, 2),
            found[2],
            drop(2, 4),
            found[3],
            drop(3, 4)
        );
    }
    println!(
        "\nMeans of the seeds. A drop is FP32 less INT8. Rows are summed by everybody for 2 and 4 workers, by their owners for 8. In FP32 \
         the number of workers changes nothing but the order of sums, so what differs there is noise."
    );
    Ok(())
}
