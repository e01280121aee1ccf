//! `dqrm kernels list`.

use super::super::print;
use super::select;
use crate::error::Result;
use crate::lab::describe;
use crate::ops::{self, Case};
use crate::plan::{Access, Elem, Kernel};
use clap::Args;
use std::fmt::Write;

const EXAMPLES: &str = "\
Examples:
  dqrm kernels list
  dqrm kernels list matmul_nt                            bindings, parameters and cases
  dqrm kernels list matmul --source > my_matmul.wgsl     the text that is compiled";

/// Settings of `dqrm kernels list`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    /// Kernels or ops to show in detail [default: a table of all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Only the whole WGSL text, with the shared texts that are put behind each file
    #[arg(long, requires = "names")]
    pub source: bool,
}

/// Lists kernels.
pub(super) fn run(args: &ListArgs) -> Result<()> {
    let kernels = select(&args.names)?;
    if args.source {
        let mut texts: Vec<String> = kernels.iter().map(|k| k.wgsl()).collect();
        texts.dedup();
        return print(&texts.join("\n"));
    }
    let cases = ops::cases();
    if args.names.is_empty() {
        return print(&table(&kernels, &cases));
    }
    print(&kernels.iter().map(|k| detail(k, &cases)).collect::<Vec<_>>().join("\n"))
}

fn table(kernels: &[&Kernel], cases: &[Case]) -> String {
    let width = |of: fn(&Kernel) -> &str| kernels.iter().map(|k| of(k).len()).max().unwrap_or(0);
    let (name, op) = (width(|k| k.name), width(|k| k.op));
    let mut out = format!("{:<name$}  {:<op$}  {:>5}  {:<9}  formula\n", "kernel", "op", "cases", "workgroup");
    for kernel in kernels {
        let count = cases.iter().filter(|case| describe::runs(case, kernel)).count();
        let formula = describe::formula(kernel);
        let first = formula.first().map_or("", |line| line);
        let size = describe::size(kernel.workgroup);
        let _ = writeln!(out, "{:<name$}  {:<op$}  {count:>5}  {size:<9}  {first}", kernel.name, kernel.op);
        for line in formula.iter().skip(1) {
            let _ = writeln!(out, "{:1$}{line}", "", name + op + 22);
        }
    }
    let _ = write!(
        out,
        "\n{} kernels of {} ops. `dqrm kernels list NAME` shows bindings and cases, with --source the text.\n",
        kernels.len(),
        kernels.iter().map(|k| k.op).collect::<std::collections::BTreeSet<_>>().len()
    );
    out
}

fn detail(kernel: &Kernel, cases: &[Case]) -> String {
    let mut out = format!("{}\n  what       {}\n", kernel.name, describe::title(kernel));
    for (i, line) in describe::formula(kernel).iter().enumerate() {
        let _ = writeln!(out, "  {:<10} {line}", if i == 0 { "formula" } else { "" });
    }
    let _ = writeln!(out, "  shader     {}", describe::file(kernel));
    for (i, text) in kernel.shared.iter().enumerate() {
        let _ = writeln!(out, "  {:<10} {}", if i == 0 { "behind it" } else { "" }, describe::shared_file(text));
    }
    let _ = writeln!(out, "  twin       src/ops/{}.rs", kernel.op);
    let _ = writeln!(out, "  workgroup  {}", describe::size(kernel.workgroup));
    let params = kernel.params.iter().map(|(name, ty)| format!("{name}: {ty}")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "  binding 0  uniform {{ {params} }}");
    for (i, b) in kernel.bindings.iter().enumerate() {
        let elem = if b.elem == Elem::F32 { "f32" } else { "u32" };
        let access = match b.access {
            Access::Read => "read",
            Access::Write => "read_write, only written",
            Access::Update => "read_write, changed in place",
        };
        let _ = writeln!(out, "  {:>9}  {:<16} array<{elem}>, {access}", i + 1, b.name);
    }
    let mine: Vec<&str> = cases.iter().filter(|case| describe::runs(case, kernel)).map(|case| case.name.as_str()).collect();
    for (i, name) in mine.iter().enumerate() {
        let head = if i == 0 { format!("{} {}", mine.len(), if mine.len() == 1 { "case" } else { "cases" }) } else { String::new() };
        let _ = writeln!(out, "  {head:<10} {name}");
    }
    out
}
