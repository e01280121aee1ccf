//! What is known of a kernel: its formula (from the comment at the top of its shader), its texts, its
//! cases.

use crate::ops::Case;
use crate::plan::Kernel;
use crate::plan::kernel::shared;

/// A kernel's file.
pub fn file(kernel: &Kernel) -> String {
    format!("shaders/{}.wgsl", kernel.op)
}

/// The file of a shared text.
pub fn shared_file(text: &str) -> &'static str {
    shared::FILES.iter().find(|(_, known)| *known == text).map_or("a shared text", |(name, _)| name)
}

/// The size of a workgroup for people: `64`, `8 x 8`.
pub fn size(workgroup: [u32; 3]) -> String {
    let last = workgroup.iter().rposition(|&n| n > 1).unwrap_or(0);
    workgroup[..=last].iter().map(u32::to_string).collect::<Vec<_>>().join(" x ")
}

/// The comment at the top of a shader, line by line, without slashes.
fn header(source: &str) -> impl Iterator<Item = &str> {
    source.lines().map_while(|line| line.strip_prefix("//"))
}

/// What an op's shader says of it first: a sentence or two.
pub fn title(kernel: &Kernel) -> String {
    let lines = header(kernel.source).take_while(|line| !line.starts_with("  "));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// The formula of a kernel, line by line: what stands behind its name in the comment at the top of its
/// shader, `//   NAME  FORMULA`, and lines below that are indented further. Empty when there is none.
pub fn formula(kernel: &Kernel) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = header(kernel.source).skip_while(|line| line.split_whitespace().next() != Some(kernel.name) || indent(line) < 2);
    let Some(first) = lines.next() else { return Vec::new() };
    let start = indent(first);
    let column = start + kernel.name.len();
    let more = lines.take_while(|line| indent(line) > start);
    // What is indented as the formula stays in line with it.
    let base = column + indent(&first[column..]);
    let cut = |line: &str| line[base.min(indent(line))..].trim_end().to_string();
    std::iter::once(first[base..].trim_end().to_string()).chain(more.map(cut)).collect()
}

/// The cases that run one of `kernels`.
pub fn cases_of(kernels: &[&Kernel], all: Vec<Case>) -> Vec<Case> {
    all.into_iter().filter(|case| kernels.iter().any(|kernel| runs(case, kernel))).collect()
}

/// True when a case runs this kernel.
pub fn runs(case: &Case, kernel: &Kernel) -> bool {
    case.plan.phases.iter().flat_map(|p| &p.commands).any(|c| c.kernel == kernel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    fn named(name: &str) -> &'static Kernel {
        ops::kernels().into_iter().find(|k| k.name == name).unwrap()
    }

    #[test]
    fn every_kernel_has_a_formula_and_a_title() {
        for kernel in ops::kernels() {
            let formula = formula(kernel);
            assert!(formula.first().is_some_and(|line| !line.is_empty()), "{} has no line `//   {}  FORMULA`", file(kernel), kernel.name);
            assert!(!title(kernel).is_empty(), "{}", kernel.name);
        }
    }

    #[test]
    fn formulas_end_where_the_next_begins() {
        assert_eq!(formula(named("row_sgd")), ["w -= lr g"]);
        assert_eq!(formula(named("loss_gradient")).len(), 3);
        let adam = formula(named("dense_adam"));
        assert_eq!(
            adam,
            ["m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2", "w -= lr (m c1) / (sqrt(v c2) + eps),  c_i = 1 / (1 - b_i^t)"]
        );
        assert_eq!(
            title(named("row_adagrad")),
            "Optimizer steps on touched rows, in place, one dispatch for each shard. Each row occurs once, so no two invocations meet and no atomics are needed."
        );
    }

    #[test]
    fn every_shared_text_has_its_file() {
        for kernel in ops::kernels() {
            for text in kernel.shared {
                assert!(shared_file(text).starts_with("shaders/shared/"), "{}", kernel.name);
            }
        }
    }
}
