//! The operations: each file holds what an op computes, its parameters, its kernels, how it is
//! recorded, its twins and its cases. The list below is the registry; adding a kernel takes
//! `shaders/<op>.wgsl`, `src/ops/<op>.rs` and one word here.

use crate::plan::Kernel;

pub mod case;
pub(crate) mod parallel;
mod software;

pub use case::Case;

macro_rules! ops {
    ($($op:ident),* $(,)?) => {
        $(pub mod $op;)*

        /// Every kernel of the crate.
        pub fn kernels() -> Vec<&'static Kernel> {
            [$($op::KERNELS),*].concat()
        }

        /// Every case: checked on all engines, and timed by the benchmark.
        pub fn cases() -> Vec<Case> {
            let mut cases = Vec::new();
            $(cases.extend($op::cases());)*
            cases
        }
    };
}

ops![
    embedding_bag,
    row_update,
    table_scale,
    fake_quant,
    matmul,
    interaction,
    concat,
    loss,
    dense_update,
    row_scale,
    dorefa,
    lsq,
    packed_bag,
    packed_matmul,
    gradient_codes
];
