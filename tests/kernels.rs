//! Every kernel: valid for a browser, laid out as Rust says, equal to its twin on every engine.

mod common;

use common::gpu;
use dqrm::lab::compare::{check, reference};
use dqrm::lab::describe::{cases_of, runs};
use dqrm::lab::inspect::Shader;
use dqrm::lab::{self, describe};
use dqrm::ops::{cases, kernels, shapes};
use pollster::block_on;

#[test]
fn shaders_are_valid_without_any_extension_and_laid_out_as_rust_says() {
    for kernel in kernels() {
        let shader = Shader::parse(kernel, &describe::file(kernel)).unwrap_or_else(|finding| panic!("{finding}"));
        let findings = shader.findings(kernel);
        assert!(findings.is_empty(), "{}", findings[0]);
    }
}

#[test]
fn every_kernel_has_a_case_and_a_shape() {
    let all = cases();
    for kernel in kernels() {
        assert!(all.iter().any(|case| runs(case, kernel)), "no case runs {}", kernel.name);
    }
    let shapes: Vec<_> = kernels().iter().map(|k| k.op).collect::<std::collections::BTreeSet<_>>().into_iter().flat_map(shapes).collect();
    let mut left = kernels();
    for shape in shapes {
        let case = shape();
        left.retain(|kernel| !runs(&case, kernel));
    }
    assert!(left.is_empty(), "no shape runs {left:?}");
}

#[test]
fn twins_write_all_they_should_and_nothing_else() {
    for case in cases() {
        let expected = block_on(reference(&case)).unwrap();
        let mut engine = block_on(lab::load(None, case.plan.clone())).unwrap();
        let verdict = block_on(check(&case, &expected, &mut *engine)).unwrap();
        assert!(verdict.faults.is_empty(), "{}: {}", case.name, verdict.faults[0]);
    }
}

#[test]
fn shaders_agree_with_their_twins() {
    let Some(adapter) = gpu() else { return };
    let mut compared = 0;
    for case in cases_of(&kernels(), cases()) {
        let expected = block_on(reference(&case)).unwrap();
        let mut engine = block_on(lab::load(Some(&adapter), case.plan.clone())).unwrap();
        let verdict = block_on(check(&case, &expected, &mut *engine)).unwrap();
        assert!(verdict.faults.is_empty(), "{}: {}", case.name, verdict.faults[0]);
        compared += verdict.compared;
    }
    assert!(compared > 1_000_000, "only {compared} values were compared");
}
