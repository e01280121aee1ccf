//! A case: a tiny plan with its inputs, what to compare afterwards and how close it must be.

use crate::config::KAGGLE_ROWS;
use crate::plan::{Elem, Plan, Role, StepUniform, View};
use crate::rng::Stream;

/// Words behind each buffer that nobody may touch.
pub const GUARD: usize = 64;
/// What outputs and guards hold before a case runs: a quiet NaN nobody computes.
pub const POISON: u32 = 0x7fc0_dead;

/// How close two engines must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Relative part.
    pub relative: f32,
    /// Absolute part.
    pub absolute: f32,
    /// Why this much.
    pub reason: &'static str,
}

/// Bit for bit.
pub const EXACT: Tolerance = Tolerance { relative: 0.0, absolute: 0.0, reason: "copies, comparisons or single roundings only" };

/// A few roundings.
pub const ELEMENTWISE: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-6, reason: "a few roundings, fused or not" };

/// Sums of `n` terms of about unit size in another order.
pub fn sums(n: usize) -> Tolerance {
    Tolerance { relative: 1e-5, absolute: 1e-6 * (n as f32).sqrt().max(1.0), reason: "another order of summation" }
}

/// One check of an op: its recorded commands with data.
#[derive(Debug)]
pub struct Case {
    /// Op, kernel and shape.
    pub name: String,
    /// One phase.
    pub plan: Plan,
    /// What the host writes first.
    pub inputs: Vec<(View, Vec<u32>)>,
    /// What is compared afterwards.
    pub checks: Vec<(View, Tolerance)>,
    /// The step.
    pub step: StepUniform,
}

impl Case {
    /// A case for a step of `batch` samples and `touched` rows.
    pub fn new(name: impl Into<String>, batch: usize, touched: usize) -> Case {
        let mut plan = Plan::new();
        plan.phase("case");
        let step = StepUniform { lr: 0.25, lr_rows: 0.5, adam_1: 1.5, adam_2: 2.5, ..StepUniform::evaluate(batch, touched) };
        Case { name: name.into(), plan, inputs: Vec::new(), checks: Vec::new(), step }
    }

    /// A buffer that holds `words`.
    pub fn words(&mut self, name: &str, words: Vec<u32>, elem: Elem) -> View {
        let view = self.plan.buffer(name, "", words.len() + GUARD, elem, Role::Persistent).slice(0, words.len().max(1));
        self.inputs.push((view, words));
        view
    }

    /// A buffer of integers.
    pub fn u32s(&mut self, name: &str, values: Vec<u32>) -> View {
        self.words(name, values, Elem::U32)
    }

    /// A buffer of given floats.
    pub fn f32s(&mut self, name: &str, values: Vec<f32>) -> View {
        self.words(name, values.into_iter().map(f32::to_bits).collect(), Elem::F32)
    }

    /// A buffer of `len` floats in -1..1, the same every time.
    pub fn random(&mut self, name: &str, len: usize) -> View {
        let values = random(name, len);
        self.f32s(name, values)
    }

    /// A buffer that the case writes, filled with [`POISON`] before.
    pub fn output(&mut self, name: &str, len: usize) -> View {
        let len = len.max(1);
        self.plan.buffer(name, "", len + GUARD, Elem::F32, Role::Persistent).slice(0, len)
    }

    /// The same for integers; they are compared bit for bit.
    pub fn output_u32(&mut self, name: &str, len: usize) -> View {
        let len = len.max(1);
        self.plan.buffer(name, "", len + GUARD, Elem::U32, Role::Persistent).slice(0, len)
    }

    /// Compares a view afterwards.
    pub fn check(&mut self, view: View, tolerance: Tolerance) {
        self.checks.push((view, tolerance));
    }
}

/// Rows of the Kaggle model's 26 tables, at most 100,000 each: 53 MB at width 16, more than caches hold.
pub fn kaggle_rows() -> [u64; 26] {
    KAGGLE_ROWS.map(|rows| rows.min(100_000))
}

/// `len` floats in -1..1 that depend on `name` only.
pub fn random(name: &str, len: usize) -> Vec<f32> {
    let stream = Stream::new(len as u64, name.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(b as u64)));
    (0..len as u64).map(|i| (2.0 * stream.uniform(i) - 1.0) as f32).collect()
}
