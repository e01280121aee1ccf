//! `dqrm kernels check`.

use super::super::live::grouped;
use super::super::print;
use super::{Bench, LabArgs};
use crate::error::{Error, Result};
use crate::lab::compare::{self, Verdict};
use crate::lab::swap::Swap;
use crate::lab::{self, describe};
use crate::ops::{self, Case};
use crate::plan::Kernel;
use clap::Args;
use std::fmt::Write;

const EXAMPLES: &str = "\
Examples:
  dqrm kernels check                                         all kernels on all cases
  dqrm kernels check matmul loss_gradient --device nvidia
  dqrm kernels check --swap matmul=my_matmul.wgsl --watch
  dqrm kernels check --swap matmul_nt=tiled.wgsl

A case is a small plan with data. It runs on the device and with the twins, and its results must
agree within the case's tolerance. Before it, all buffers hold a NaN that nobody computes, with 64
more words behind each: what is not written, or written where it should not be, is found. A second
run must give the same bytes.

A replacement has the entry points, parameters and bindings of the original (see `dqrm kernels list
NAME`); kernels of an op that it leaves out keep their text. Shared texts are put behind it unless
it brings them itself. The grid stays that of the original; a line in the file changes it:
  //@ grid matmul_nt: x / 2, y * 4     half of the workgroups in x, four times as many in y";

/// Settings of `dqrm kernels check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Kernels, device, replacements
    #[command(flatten)]
    pub lab: LabArgs,
}

/// Compares kernels with their twins on all their cases.
pub(super) fn run(bench: &Bench, swaps: &[Swap]) -> Result<()> {
    print(&bench.title(swaps))?;
    let kernels: Vec<&Kernel> = bench.kernels(swaps).collect();
    let cases = describe::cases_of(&kernels, ops::cases());
    let (mut failed, mut values) = (0, 0);
    for case in &cases {
        let verdict = verdict(bench, case, swaps)?;
        values += verdict.compared;
        failed += usize::from(!verdict.faults.is_empty());
        print(&describe_verdict(case, &verdict))?;
    }
    let names = if kernels.len() == 1 { "1 kernel".into() } else { format!("{} kernels", kernels.len()) };
    match failed {
        0 => print(&format!("{names}, {} cases, {} values: all as the twins say\n", cases.len(), grouped(values as u64))),
        _ => Err(Error::Shader(format!("{failed} of {} cases of {names} went wrong", cases.len()))),
    }
}

/// Runs a case, with replacements, against the twins.
pub(super) fn verdict(bench: &Bench, case: &Case, swaps: &[Swap]) -> Result<Verdict> {
    let mut plan = case.plan.clone();
    swaps.iter().for_each(|swap| swap.apply(&mut plan));
    pollster::block_on(async {
        let expected = compare::reference(case).await?;
        let mut engine = lab::load(bench.adapter.as_ref(), plan).await?;
        compare::check(case, &expected, &mut *engine).await
    })
}

fn describe_verdict(case: &Case, verdict: &Verdict) -> String {
    let mut out = String::new();
    let values = grouped(verdict.compared as u64);
    if verdict.faults.is_empty() {
        let error = match verdict.largest {
            0.0 => "no difference".into(),
            share => format!("largest error {:.1} % of the tolerance", 100.0 * share),
        };
        let _ = writeln!(out, "ok       {:<58} {values:>9} values, {error}", case.name);
    } else {
        let _ = writeln!(out, "WRONG    {}", case.name);
        verdict.faults.iter().for_each(|fault| {
            let _ = writeln!(out, "         {fault}");
        });
    }
    out
}
