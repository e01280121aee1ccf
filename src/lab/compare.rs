//! A case on an engine against the twins. Before a run every buffer is filled with a NaN that nobody
//! computes; so what was not written, or written behind a buffer's end, shows. A second run must give
//! the same bytes.

use crate::engine::Engine;
use crate::engine::cpu::CpuEngine;
use crate::error::Result;
use crate::ops::Case;
use crate::ops::case::{GUARD, POISON, Tolerance};
use crate::plan::schedule::Schedule;
use crate::plan::{Access, BufferId, Elem, View};
use std::fmt;

/// What every buffer of a case holds after a run, guard words included.
pub type Memory = Vec<Vec<u32>>;

/// Four bytes of a buffer, shown as what the buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The bytes.
    pub bits: u32,
    /// How to read them.
    pub elem: Elem,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.elem {
            Elem::F32 if f32::from_bits(self.bits).is_nan() => write!(f, "NaN (0x{:08x})", self.bits),
            Elem::F32 => write!(f, "{:?}", f32::from_bits(self.bits)),
            Elem::U32 => write!(f, "{} (0x{:x})", self.bits, self.bits),
        }
    }
}

/// Something wrong that a case showed. `buffer` is the buffer's name in the case, `kernel` the one that wrote it last.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Values that are not the twin's.
    Differs {
        /// Buffer.
        buffer: String,
        /// Kernel.
        kernel: &'static str,
        /// The first element that differs, counted in the buffer.
        index: usize,
        /// The twin's value.
        expected: Word,
        /// The value found.
        found: Word,
        /// What was allowed.
        tolerance: Tolerance,
        /// Elements that differ.
        count: usize,
        /// Elements compared.
        of: usize,
    },
    /// Elements that should have been written.
    Unwritten {
        /// Buffer.
        buffer: String,
        /// Kernel.
        kernel: &'static str,
        /// The first of them.
        index: usize,
        /// How many.
        count: usize,
        /// Elements that should have been written.
        of: usize,
    },
    /// Words behind the end of a buffer that were written.
    Beyond {
        /// Buffer.
        buffer: String,
        /// Kernel.
        kernel: &'static str,
        /// The first of them, counted from the buffer's first element.
        index: usize,
        /// The buffer's elements.
        len: usize,
    },
    /// A second run with the same data gave other bytes.
    Unsteady {
        /// Buffer.
        buffer: String,
        /// Kernel.
        kernel: &'static str,
        /// The first element that changed.
        index: usize,
        /// The value after the first run.
        first: Word,
        /// The value after the second run.
        second: Word,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Differs { buffer, kernel, index, expected, found, tolerance, count, of } => {
                write!(f, "`{kernel}`: `{buffer}`[{index}] is {found}, expected {expected}; {count} of {of} values differ by more than ")?;
                match tolerance {
                    Tolerance { relative: 0.0, absolute: 0.0, .. } => write!(f, "nothing")?,
                    Tolerance { relative, absolute, .. } => write!(f, "{relative:e} of the value + {absolute:.1e}")?,
                }
                write!(f, " ({})", tolerance.reason)
            }
            Fault::Unwritten { buffer, kernel, index, count, of } => {
                write!(f, "`{kernel}`: {count} of {of} values of `{buffer}` were not written, the first is [{index}]")
            }
            Fault::Beyond { buffer, kernel, index, len } => {
                write!(f, "`{kernel}`: wrote `{buffer}`[{index}], which has {len} elements")
            }
            Fault::Unsteady { buffer, kernel, index, first, second } => {
                write!(f, "`{kernel}`: `{buffer}`[{index}] was {first}, and {second} in a second run with the same data")
            }
        }
    }
}

/// What a case showed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verdict {
    /// Values compared.
    pub compared: usize,
    /// The largest error that was allowed, as a share of what was allowed: 0 (no difference) to 1.
    pub largest: f32,
    /// What is wrong; empty when all is well.
    pub faults: Vec<Fault>,
}

/// Runs a case; gives the whole content of every buffer.
///
/// # Errors
/// What the device says.
pub async fn run(case: &Case, engine: &mut dyn Engine) -> Result<Memory> {
    let views: Vec<View> = case.plan.buffers.iter().enumerate().map(|(i, b)| View { buffer: BufferId(i), offset: 0, len: b.len }).collect();
    for view in &views {
        engine.write(*view, &vec![POISON; view.len])?;
    }
    case.inputs.iter().try_for_each(|(view, words)| engine.write(*view, words))?;
    engine.run(&[0], &case.step)?;
    let mut memory = Vec::new();
    for view in views {
        memory.push(engine.read(view).await?);
    }
    Ok(memory)
}

/// What the twins compute.
///
/// # Errors
/// A plan that breaks a rule.
pub async fn reference(case: &Case) -> Result<Memory> {
    let schedule = Schedule::new(case.plan.clone(), &CpuEngine::limits(None))?;
    run(case, &mut CpuEngine::load(schedule)).await
}

/// Runs a case twice on `engine` and looks at everything: `expected` is what [`reference`](fn@reference) gave for it.
///
/// # Errors
/// What the device says. Wrong results are no errors but faults.
pub async fn check(case: &Case, expected: &Memory, engine: &mut dyn Engine) -> Result<Verdict> {
    let first = run(case, engine).await?;
    let mut verdict = Verdict { faults: beyond(case, &first), ..Verdict::default() };
    for (view, tolerance) in &case.checks {
        differences(case, *view, *tolerance, expected, &first, &mut verdict);
    }
    let second = run(case, engine).await?;
    verdict.faults.extend(unsteady(case, &first, &second));
    Ok(verdict)
}

/// How far two values are apart as a share of what is allowed; more than 1 when they differ.
pub fn distance(expected: u32, found: u32, elem: Elem, tolerance: Tolerance) -> f32 {
    let (x, y) = (f32::from_bits(expected), f32::from_bits(found));
    if expected == found || (elem == Elem::F32 && x.is_nan() && y.is_nan() && expected != POISON && found != POISON) {
        return 0.0;
    }
    if elem == Elem::U32 || !x.is_finite() || !y.is_finite() {
        return f32::INFINITY;
    }
    let bound = tolerance.absolute + tolerance.relative * x.abs().max(y.abs());
    let apart = (x - y).abs();
    if apart == 0.0 { 0.0 } else { apart / bound }
}

/// The kernel that writes a buffer last.
fn writer(case: &Case, buffer: BufferId) -> &'static str {
    let writes =
        |c: &&crate::plan::Command| c.kernel.bindings.iter().zip(&c.views).any(|(b, v)| b.access != Access::Read && v.buffer == buffer);
    let last = case.plan.phases[0].commands.iter().rfind(writes);
    last.map_or("no kernel", |c| c.kernel.name)
}

fn beyond(case: &Case, memory: &Memory) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (i, (buffer, words)) in case.plan.buffers.iter().zip(memory).enumerate() {
        let len = buffer.len - GUARD;
        if let Some(at) = words[len..].iter().position(|&w| w != POISON) {
            faults.push(Fault::Beyond { buffer: buffer.name.clone(), kernel: writer(case, BufferId(i)), index: len + at, len });
        }
    }
    faults
}

fn differences(case: &Case, view: View, tolerance: Tolerance, expected: &Memory, found: &Memory, verdict: &mut Verdict) {
    let declared = &case.plan.buffers[view.buffer.0];
    let (buffer, kernel, elem) = (declared.name.clone(), writer(case, view.buffer), declared.elem);
    let range = view.offset..view.offset + view.len;
    let (mut unwritten, mut first_unwritten) = (0, 0);
    let (mut wrong, mut first_wrong) = (0, 0);
    for i in range.clone() {
        let (a, b) = (expected[view.buffer.0][i], found[view.buffer.0][i]);
        if b == POISON {
            first_unwritten = if unwritten == 0 { i } else { first_unwritten };
            unwritten += 1;
            continue;
        }
        let distance = distance(a, b, elem, tolerance);
        if distance <= 1.0 {
            verdict.largest = verdict.largest.max(distance);
        } else {
            first_wrong = if wrong == 0 { i } else { first_wrong };
            wrong += 1;
        }
    }
    verdict.compared += view.len;
    if unwritten > 0 {
        let fault = Fault::Unwritten { buffer: buffer.clone(), kernel, index: first_unwritten, count: unwritten, of: view.len };
        verdict.faults.push(fault);
    }
    if wrong > 0 {
        let word = |memory: &Memory| Word { bits: memory[view.buffer.0][first_wrong], elem };
        let (expected, found) = (word(expected), word(found));
        verdict.faults.push(Fault::Differs { buffer, kernel, index: first_wrong, expected, found, tolerance, count: wrong, of: view.len });
    }
}

fn unsteady(case: &Case, first: &Memory, second: &Memory) -> Option<Fault> {
    for (i, (a, b)) in first.iter().zip(second).enumerate() {
        if let Some(index) = a.iter().zip(b).position(|(a, b)| a != b) {
            let declared = &case.plan.buffers[i];
            let word = |bits| Word { bits, elem: declared.elem };
            let (first, second) = (word(a[index]), word(b[index]));
            return Some(Fault::Unsteady { buffer: declared.name.clone(), kernel: writer(case, BufferId(i)), index, first, second });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::case::EXACT;

    #[test]
    fn infinities_are_close_to_nothing_but_themselves() {
        let tolerance = Tolerance { relative: 1e-3, absolute: 1e-3, reason: "" };
        let same = |x: f32, y: f32| distance(x.to_bits(), y.to_bits(), Elem::F32, tolerance) <= 1.0;
        assert!(same(1.0, 1.0005) && same(0.0, -0.0) && same(f32::INFINITY, f32::INFINITY) && same(f32::NAN, -f32::NAN));
        assert!(!same(1.0, 1.1) && !same(f32::MAX, f32::MIN));
        for far in [1.0, f32::MAX, f32::NEG_INFINITY, f32::NAN] {
            assert!(!same(f32::INFINITY, far) && !same(far, f32::INFINITY), "{far}");
        }
        let poison = f32::from_bits(POISON);
        assert!(!same(poison, f32::NAN) && !same(1.0, poison));
    }

    #[test]
    fn integers_and_exact_values_have_no_tolerance() {
        let loose = Tolerance { relative: 1.0, absolute: 1.0, reason: "" };
        assert_eq!(distance(5, 5, Elem::U32, loose), 0.0);
        assert!(distance(5, 6, Elem::U32, loose) > 1.0);
        let next = f32::from_bits(1f32.to_bits() + 1);
        assert!(distance(1f32.to_bits(), next.to_bits(), Elem::F32, EXACT) > 1.0);
    }

    /// A case of 8 doubled values, and what memory would hold if all went well.
    fn doubled() -> (Case, Memory) {
        let mut case = Case::new("doubled", 1, 0);
        let view = case.output("out", 8);
        case.check(view, EXACT);
        let mut words = vec![POISON; 8 + GUARD];
        (0..8).for_each(|i| words[i] = (2.0 * i as f32).to_bits());
        (case, vec![words])
    }

    fn faults(found: &Memory) -> Vec<Fault> {
        let (case, expected) = doubled();
        let mut verdict = Verdict { faults: beyond(&case, found), ..Verdict::default() };
        differences(&case, case.checks[0].0, case.checks[0].1, &expected, found, &mut verdict);
        verdict.faults.extend(unsteady(&case, &expected, found));
        verdict.faults
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let good = doubled().1;
        assert!(faults(&good).is_empty());
        let with = |index: usize, bits: u32| {
            let mut memory = good.clone();
            memory[0][index] = bits;
            faults(&memory)
        };
        let shown = |faults: &[Fault]| faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n");
        let wrong = shown(&with(3, 7f32.to_bits()));
        assert!(wrong.contains("`out`[3] is 7.0, expected 6.0; 1 of 8 values differ"), "{wrong}");
        assert!(matches!(with(5, POISON)[..], [Fault::Unwritten { index: 5, count: 1, of: 8, .. }, Fault::Unsteady { index: 5, .. }]));
        let beyond = shown(&with(9, 0));
        assert!(beyond.contains("wrote `out`[9], which has 8 elements"), "{beyond}");
    }
}
