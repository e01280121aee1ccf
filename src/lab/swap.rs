//! Kernels with another text: somebody's experiment in place of the crate's own shader.

use super::finding::{Finding, Place, Severity};
#[cfg(feature = "lab")]
use super::inspect::Shader;
use super::text::{self, Text, declared};
use crate::engine::gpu::Message;
#[cfg(feature = "lab")]
use crate::error::Error;
use crate::error::Result;
use crate::plan::{Kernel, Plan};

/// A replacement for the texts of some kernels. Parameters, bindings and twins stay those of the originals; so does
/// the grid, unless a line of the text says otherwise: `//@ grid matmul_nt: x / 2, y * 4` for half of the workgroups
/// in x, rounded up, and four times as many in y.
#[derive(Debug, Clone)]
pub struct Swap {
    file: String,
    kernels: Vec<(&'static Kernel, &'static Kernel)>,
    grids: Vec<Grid>,
    notes: Vec<Finding>,
}

/// Other workgroups than the original's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grid {
    kernel: String,
    /// For x, y and z: times the first, divided by the second.
    factors: [(u32, u32); 3],
}

impl Grid {
    /// Reads what stands behind `//@ `.
    fn parse(line: &str) -> Option<Grid> {
        let (kernel, list) = line.strip_prefix("grid ")?.split_once(':')?;
        let mut factors = [(1, 1); 3];
        for part in list.split(',') {
            let mut words = part.split_whitespace();
            let axis = ["x", "y", "z"].iter().position(|axis| words.clone().next() == Some(axis))?;
            let (sign, number) = (words.nth(1)?, words.next()?.parse().ok().filter(|n| (1..=65_535).contains(n))?);
            factors[axis] = match (sign, words.next()) {
                ("*", None) => (number, 1),
                ("/", None) => (1, number),
                _ => return None,
            };
        }
        Some(Grid { kernel: kernel.trim().into(), factors })
    }

    fn of(&self, grid: [u32; 3]) -> [u32; 3] {
        std::array::from_fn(|i| grid[i].saturating_mul(self.factors[i].0).div_ceil(self.factors[i].1))
    }
}

/// The lines of a text that begin with `//@`.
fn grids(kernels: &[&'static Kernel], file: &str, source: &str) -> Result<Vec<Grid>, Finding> {
    let mut found = Vec::new();
    for (i, line) in source.lines().enumerate() {
        let Some(rest) = line.trim().strip_prefix("//@") else { continue };
        let grid = Grid::parse(rest.trim()).filter(|grid| kernels.iter().any(|k| k.name == grid.kernel));
        let grid = grid.ok_or_else(|| {
            let text = format!("`{}` should name a kernel and how many workgroups it takes", line.trim());
            let message = format!("{text}, of the original's: `//@ grid {}: x / 2, y * 4`", kernels[0].name);
            let (width, column) = (line.trim().chars().count(), 1 + line.chars().take_while(|c| c.is_whitespace()).count());
            let place = Place { file: file.into(), line: i + 1, column, width, text: line.into(), label: String::new() };
            Finding { places: vec![place], ..Finding::error(message) }
        })?;
        found.push(grid);
    }
    Ok(found)
}

impl Swap {
    /// Reads a replacement for `kernels` (all of one op, or one) that stands in `file`. Those of them that the text
    /// has no entry point for keep their own. Shared texts are put behind it as always, except those that declare
    /// a name which it declares itself.
    ///
    /// A replacement stays in memory until the program ends, as the crate's own texts do.
    ///
    /// # Errors
    /// A text that is no WGSL, that has an entry point for none of the kernels, or whose parameters or bindings are
    /// not those of a kernel: with the line and what was expected there.
    #[cfg(feature = "lab")]
    pub fn new(kernels: &[&'static Kernel], file: &str, source: &str) -> Result<Swap> {
        let (source, mut swap) = Swap::empty(kernels, file, source).map_err(|finding| Error::Shader(finding.to_string()))?;
        let mut there = Vec::new();
        for &kernel in kernels {
            let replacement = replaced(kernel, source);
            let shader = Shader::parse(&replacement, file).map_err(|finding| Error::Shader(finding.to_string()))?;
            let Some(workgroup) = shader.workgroup(kernel.name) else {
                there = shader.entry_points().map(str::to_string).collect();
                continue;
            };
            let (errors, notes): (Vec<_>, Vec<_>) = shader.findings(kernel).into_iter().partition(|f| f.severity == Severity::Error);
            if !errors.is_empty() {
                return Err(Error::Shader(errors.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n\n")));
            }
            // With a grid of its own, another workgroup is meant to be so.
            let own_grid = swap.grids.iter().any(|grid| grid.kernel == kernel.name);
            swap.notes.extend(notes.into_iter().filter(|note| !own_grid || !note.message.contains("a workgroup of")));
            swap.kernels.push((kernel, Box::leak(Box::new(Kernel { workgroup, ..replacement }))));
        }
        if swap.kernels.is_empty() {
            return Err(Error::Shader(missing(kernels, file, &there)));
        }
        Ok(swap)
    }

    /// Like `new`, without understanding the text: its errors are for a device's compiler to find, see [`Swap::told`], and a
    /// uniform with other fields shows in wrong results only.
    ///
    /// # Errors
    /// A text that has an entry point for none of the kernels, or a line for the grid that says nothing.
    pub fn unread(kernels: &[&'static Kernel], file: &str, source: &str) -> Result<Swap, Box<Finding>> {
        let (source, mut swap) = Swap::empty(kernels, file, source)?;
        let there = text::entry_points(source);
        for &kernel in kernels {
            if let Some((_, workgroup)) = there.iter().find(|(name, _)| name == kernel.name) {
                let replacement = Kernel { workgroup: workgroup.unwrap_or(kernel.workgroup), ..replaced(kernel, source) };
                swap.kernels.push((kernel, Box::leak(Box::new(replacement))));
            }
        }
        if swap.kernels.is_empty() {
            let there: Vec<String> = there.into_iter().map(|(name, _)| name).collect();
            return Err(Box::new(Finding::error(missing(kernels, file, &there))));
        }
        Ok(swap)
    }

    fn empty(kernels: &[&'static Kernel], file: &str, source: &str) -> Result<(&'static str, Swap), Box<Finding>> {
        let source: &'static str = Box::leak(source.trim_start_matches('\u{feff}').to_string().into_boxed_str());
        let grids = grids(kernels, file, source)?;
        Ok((source, Swap { file: file.into(), kernels: Vec::new(), grids, notes: Vec::new() }))
    }

    /// What a device's compiler says of the text of a replacement, with the places in the file.
    pub fn told(&self, replacement: &Kernel, messages: &[Message]) -> Vec<Finding> {
        let text = Text::new(replacement, &self.file);
        let finding = |m: &Message| Finding {
            severity: if m.error { Severity::Error } else { Severity::Note },
            places: text.line(m.line, m.column, m.width, "").into_iter().collect(),
            ..Finding::error(m.text.clone())
        };
        messages.iter().map(finding).collect()
    }

    /// The file as its user named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What is unusual but may run.
    pub fn notes(&self) -> &[Finding] {
        &self.notes
    }

    /// The kernels that have another text now.
    pub fn kernels(&self) -> impl Iterator<Item = &'static Kernel> + '_ {
        self.kernels.iter().map(|(original, _)| *original)
    }

    /// The replacement of a kernel.
    pub fn replacement(&self, kernel: &Kernel) -> Option<&'static Kernel> {
        self.kernels.iter().find(|(original, _)| *original == kernel).map(|(_, replacement)| *replacement)
    }

    /// Puts the replacements into a plan that has the originals.
    pub fn apply(&self, plan: &mut Plan) {
        for command in plan.phases.iter_mut().flat_map(|p| &mut p.commands) {
            if let Some(replacement) = self.replacement(command.kernel) {
                command.kernel = replacement;
                if let Some(grid) = self.grids.iter().rfind(|grid| grid.kernel == replacement.name) {
                    command.grid = grid.of(command.grid);
                }
            }
        }
    }
}

/// A kernel with another text. Shared texts are put behind it but for those that declare a name which it declares.
fn replaced(kernel: &'static Kernel, source: &'static str) -> Kernel {
    let own: Vec<&str> = declared(source).collect();
    let shared: Vec<&'static str> = kernel.shared.iter().copied().filter(|text| !declared(text).any(|n| own.contains(&n))).collect();
    Kernel { source, shared: Box::leak(shared.into_boxed_slice()), variants: &[], ..*kernel }
}

fn missing(kernels: &[&'static Kernel], file: &str, there: &[String]) -> String {
    let wanted = kernels.iter().map(|k| k.name).collect::<Vec<_>>().join("`, `");
    let found = if there.is_empty() { "no entry point".into() } else { format!("`{}`", there.join("`, `")) };
    format!("`{file}` has no compute entry point `{wanted}`; it has {found}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    fn kernels(name: &str) -> Vec<&'static Kernel> {
        ops::kernels().into_iter().filter(|k| k.name == name || k.op == name).collect()
    }

    fn own(name: &str) -> &'static str {
        kernels(name)[0].source
    }

    /// What is said of the op's own text with `from` replaced.
    fn said(name: &str, from: &str, to: &str) -> String {
        let source = own(name);
        assert!(source.contains(from), "{from}");
        match Swap::new(&kernels(name), "my.wgsl", &source.replace(from, to)) {
            Ok(swap) => swap.notes().iter().map(Finding::to_string).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_own_texts_can_be_swapped_in() {
        for kernel in ops::kernels() {
            let swap = Swap::new(&[kernel], "my.wgsl", kernel.source).unwrap();
            assert!(swap.notes().is_empty());
            // The whole text that is compiled will do as well: what it brings itself is not put behind it again.
            let whole = Swap::new(&[kernel], "my.wgsl", &kernel.wgsl()).unwrap();
            assert!(whole.replacement(kernel).unwrap().shared.is_empty(), "{}", kernel.name);
        }
    }

    #[test]
    fn errors_in_the_text_have_their_line() {
        let line = |from: &str| own("concat").lines().position(|l| l.contains(from)).unwrap() + 1;
        let text = said("concat", "let b = at / width;", "let b = at / ;");
        assert!(text.starts_with(&format!("my.wgsl:{}:18: expected expression", line("let b = at / width;"))), "{text}");
        assert!(text.contains("    let b = at / ;\n   |                  ^"), "{text}");
        let text = said("concat", "joined[at] = dense[", "joined[at] = tense[");
        assert!(text.starts_with(&format!("my.wgsl:{}:22: no definition in scope", line("joined[at] = dense["))), "{text}");
        let text = said("concat", "joined[at] = dense[b * concat.dim + column]", "joined[at] = column");
        assert!(text.starts_with(&format!("my.wgsl:{}:", line("joined[at] = dense["))), "{text}");
    }

    #[test]
    fn errors_behind_the_text_are_said_to_be_there() {
        let source = own("concat").trim_end().trim_end_matches('}');
        let text = Swap::new(&kernels("concat"), "my.wgsl", source).unwrap_err().to_string();
        assert!(text.starts_with("shaders/shared/") && text.contains("is put behind `my.wgsl`"), "{text}");
        let text = said("concat", "let b = at / width;", "let b = u32(code_at(at, 1u, 4u));");
        assert!(text.contains("`code_at` stands in `shaders/shared/pack.wgsl`, which is not put behind"), "{text}");
    }

    #[test]
    fn bindings_and_parameters_are_compared() {
        let text = said("concat", "@binding(2) var<storage, read> pooled", "@binding(7) var<storage, read> pooled");
        assert!(text.contains("`pooled` is @group(0) @binding(7)") && text.contains("my.wgsl:"), "{text}");
        let text = said("concat", "var<storage, read> dense", "var<storage, read_write> dense");
        assert!(text.contains("@binding(1) of `concat_forward` is `read_write` here and `read` in Rust (`dense`)"), "{text}");
        let text = said("concat", "    dim: u32,", "    dim: u32,\n    more: u32,");
        assert!(text.contains("`concat` has { tables: u32, dim: u32, more: u32 }, in Rust it is { tables: u32, dim: u32 }"), "{text}");
        let text = said("concat", "fn concat_backward", "fn backward");
        assert!(text.is_empty(), "an op's text may leave kernels out: {text}");
        let text = said("concat", "fn concat_", "fn ");
        assert!(
            text.contains("`my.wgsl` has no compute entry point `concat_forward`, `concat_backward`; it has `forward`, `backward`"),
            "{text}"
        );
        let source = own("row_scale").replace("rows: array<u32>", "rows: array<i32>").replace("rows[u]", "u32(rows[u])");
        let text = Swap::new(&kernels("row_scale"), "my.wgsl", &source).unwrap_err().to_string();
        assert!(text.contains("@binding(1) of `gather_row_scaled` is array<i32> here and array<u32> in Rust (`rows`)"), "{text}");
    }

    #[test]
    fn what_may_run_is_noted() {
        let text = said("concat", "@workgroup_size(64)", "@workgroup_size(128)");
        assert!(text.contains("a workgroup of 128, in Rust it is 64"), "{text}");
        let text = said("concat", "joined[at] = pooled[b * concat.tables * concat.dim + column - concat.dim];", "");
        assert!(text.contains("`concat_forward` does not use its binding `pooled`"), "{text}");
        let text = said("concat", "tables: u32,", "bags: u32,").replace("concat.tables", "concat.bags");
        assert!(text.contains("tables"), "{text}");
    }

    #[test]
    fn a_replacement_may_take_another_grid() {
        let source = format!("//@ grid matmul_nt: x / 2, y * 4\n{}", own("matmul"));
        let swap = Swap::new(&kernels("matmul"), "my.wgsl", &source).unwrap();
        let mut case = ops::matmul::SHAPES[0](); // 13 to 512: 16 x 4 workgroups
        let before: Vec<[u32; 3]> = case.plan.phases[0].commands.iter().map(|c| c.grid).collect();
        assert_eq!(before[0], [16, 4, 1]);
        swap.apply(&mut case.plan);
        let after: Vec<[u32; 3]> = case.plan.phases[0].commands.iter().map(|c| c.grid).collect();
        assert_eq!((after[0], &after[1..]), ([8, 16, 1], &before[1..]));
        assert_eq!(Grid::parse("grid a: x / 2").unwrap().of([3, 1, 1]), [2, 1, 1], "rounded up");
        for lie in ["grid a: w / 2", "grid a: x / 0", "grid a: x 2", "grid a", "grid a: x * 2 3", "gird a: x * 2", ""] {
            assert_eq!(Grid::parse(lie), None, "{lie}");
        }
        let text = said("matmul", "struct MatmulParams", "//@ grid matmul: x / 2\nstruct MatmulParams");
        assert!(text.starts_with("my.wgsl:10:1: ") && text.contains("`//@ grid matmul_nt: x / 2, y * 4`"), "{text}");
    }

    #[test]
    fn a_text_that_nobody_read_gives_the_same_replacement() {
        for kernel in ops::kernels() {
            let (read, unread) = (Swap::new(&[kernel], "my.wgsl", kernel.source), Swap::unread(&[kernel], "my.wgsl", kernel.source));
            let [a, b] = [read.unwrap(), unread.unwrap()].map(|swap| swap.replacement(kernel).unwrap());
            assert_eq!((a.wgsl(), a.workgroup, a.shared), (b.wgsl(), b.workgroup, b.shared), "{}", kernel.name);
        }
        let source = own("concat").replace("fn concat_", "fn ");
        let finding = Swap::unread(&kernels("concat"), "my.wgsl", &source).unwrap_err();
        assert!(finding.message.ends_with("it has `forward`, `backward`"), "{finding}");
        let finding = Swap::unread(&kernels("concat"), "my.wgsl", &format!("\n  //@ grid concat\n{source}")).unwrap_err();
        assert_eq!((finding.places[0].line, finding.places[0].column), (2, 3));
    }

    #[test]
    fn what_a_compiler_says_has_its_place_in_the_file() {
        let swap = Swap::unread(&kernels("concat_forward"), "my.wgsl", own("concat")).unwrap();
        let replacement = swap.kernels[0].1;
        let message = |line, error| Message { error, line, column: 2, width: 3, text: "no".into() };
        let behind = own("concat").matches('\n').count() + 2;
        let told = swap.told(replacement, &[message(7, true), message(behind, false), message(0, true)]);
        let places: Vec<_> = told.iter().map(|f| f.places.first().map(|p| (p.file.as_str(), p.line))).collect();
        assert!(matches!(places[..], [Some(("my.wgsl", 7)), Some((shared, 1)), None] if shared.starts_with("shaders/shared/")), "{told:?}");
        assert_eq!([told[0].severity, told[1].severity], [Severity::Error, Severity::Note]);
    }

    #[test]
    fn a_replacement_takes_the_place_of_its_kernel_only() {
        let swap = Swap::new(&kernels("concat_forward"), "my.wgsl", own("concat")).unwrap();
        let mut case = ops::concat::cases().remove(0);
        swap.apply(&mut case.plan);
        let commands = &case.plan.phases[0].commands;
        assert!(std::ptr::eq(commands[0].kernel, swap.replacement(commands[0].kernel).unwrap()));
        assert!(swap.replacement(commands[1].kernel).is_none() && commands[1].kernel.name == "concat_backward");
    }
}
