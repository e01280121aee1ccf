//! Matrix products in registers, for adapters whose subgroups have eight lanes or more: rows pass from lane to lane.

use super::cooperative::{NN, NN_GATED, NT, room};
use super::variants::Fours;
use crate::plan::variant::{Form, Job, MadeFor, Subgroups, Variant, always};

const SOURCE: &str = include_str!("../../../shaders/variants/matmul_subgroups.wgsl");

/// Rows and columns of results that a workgroup computes.
const fn tile(of: usize) -> [usize; 2] {
    if of == NT { [32, 32] } else { [16, 256] }
}

const fn entry(of: usize) -> &'static str {
    match of {
        NT => "matmul_nt_subgroups",
        NN => "matmul_nn_subgroups",
        NN_GATED => "matmul_nn_gated_subgroups",
        _ => "matmul_tn_subgroups",
    }
}

fn grid<const OF: usize>(job: &Job<'_>) -> [u32; 3] {
    let [rows, columns, _] = room::<OF>(job);
    [columns.div_ceil(tile(OF)[1]) as u32, rows.div_ceil(tile(OF)[0]) as u32, 1]
}

/// The widths are multiples of these, and there are no more workgroups than any device dispatches.
fn suits<const OF: usize, const INPUTS: usize, const OUTPUTS: usize>(job: &Job<'_>) -> bool {
    let widths = job.param(0).is_multiple_of(INPUTS) && job.param(1).is_multiple_of(OUTPUTS);
    widths && grid::<OF>(job).iter().all(|&groups| groups <= 65_535)
}

/// The variant of one kernel for widths of one kind.
pub(super) const fn variant<const OF: usize>(name: &'static str, widths: Fours, forms: &'static [Form]) -> Variant {
    Variant {
        name,
        entry: entry(OF),
        consts: "",
        source: SOURCE,
        shared: widths.shared(),
        workgroup: if OF == NT { [128, 1, 1] } else { [64, 1, 1] },
        subgroup: Some(Subgroups::AtLeast(8)),
        cooperative: None,
        stages: None,
        made_for: MadeFor::Hardware,
        forms,
        suits: match widths {
            Fours::Both => suits::<OF, 4, 4>,
            Fours::Outputs => suits::<OF, 1, 4>,
            Fours::Any => suits::<OF, 1, 1>,
        },
        worth: always,
        grid: grid::<OF>,
    }
}
