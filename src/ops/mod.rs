//! The operations: each file holds what an op computes, its parameters, its kernels, how it is
//! recorded, its twins and its cases. The list below is the registry; adding a kernel takes
//! `shaders/<op>.wgsl`, `src/ops/<op>.rs` and one word here.

use crate::plan::Kernel;

pub mod case;
mod cost;
pub(crate) mod parallel;
mod product;
mod software;

pub use case::Case;
pub use cost::{Cost, Live, cost};

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

        /// The shapes of real models at which an op's kernels are timed, each made when it is called.
        pub fn shapes(op: &str) -> &'static [fn() -> Case] {
            match op {
                $(stringify!($op) => $op::SHAPES,)*
                _ => &[],
            }
        }
    };
}

ops![
    embedding_bag,
    row_update,
    table_scale,
    fake_quant,
    layer_quant,
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
    gradient_codes,
    copy
];
