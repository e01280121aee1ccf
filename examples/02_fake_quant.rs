//! The INT4 quantizer as a staircase, and why training through it needs the straight-through
//! estimator: the true derivative is 0 on every tread, the estimator says 1 everywhere.
//!
//! ```text
//! cargo run --example 02_fake_quant
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use dqrm::quant::{self, Bits};

/// Columns of the plots.
const WIDTH: usize = 97;

/// A text plot of `WIDTH` columns, one row per entry of `levels` (the highest first).
fn plot(levels: &[f32], label: impl Fn(f32) -> String, curves: &[(char, &dyn Fn(usize) -> f32)]) {
    let nearest = |y: f32| {
        let distance = |i: &usize| (levels[*i] - y).abs();
        (0..levels.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("a level")
    };
    let mut canvas = vec![vec![' '; WIDTH]; levels.len()];
    for (mark, curve) in curves {
        for column in 0..WIDTH {
            canvas[nearest(curve(column))][column] = *mark;
        }
    }
    for (level, row) in levels.iter().zip(canvas) {
        println!("{:>8} |{}", label(*level), row.into_iter().collect::<String>().trim_end());
    }
}

fn main() {
    let n = Bits::B4.max_code() as f32;
    // the largest weight of the group is 0.7, so a step is 0.1; the weights plotted reach further,
    // as those of a table do whose scale is some steps old
    let scale = quant::scale(0.7, Bits::B4.max_code());
    let quantized = |w: f32| quant::fake_quant(w, scale, 1.0 / scale, n);
    let weight = |column: usize| (column as f32 / (WIDTH - 1) as f32 * 2.4) - 1.2;

    println!("INT4: scale {scale} = 0.7 / {n}, codes {}..={n}, ties to even\n", -n - 1.0);
    println!("    code | `#` quantized weight, `.` the weight itself");
    let codes: Vec<f32> = (-12..=12).rev().map(|q| q as f32).collect();
    plot(&codes, |q| format!("{q:+}"), &[('.', &|c| weight(c) / scale), ('#', &|c| quantized(weight(c)) / scale)]);
    println!("  weight +{}", "-".repeat(WIDTH));
    println!("          {:<48}0{:>48}", weight(0), weight(WIDTH - 1));

    // a difference quotient over 0.002: 0 on the treads, 50 where the interval holds a riser
    let narrow = |w: f32| (quantized(w + 0.001) - quantized(w - 0.001)) / 0.002;
    // over two whole steps: what the staircase does on average
    let wide = |w: f32| (quantized(w + scale) - quantized(w - scale)) / (2.0 * scale);
    println!("\n   slope | `=` straight-through, `o` over two steps, `_` over 0.002");
    let slopes = [50.0, 1.5, 1.0, 0.5, 0.0];
    plot(&slopes, |s| format!("{s}"), &[('_', &|c| narrow(weight(c))), ('o', &|c| wide(weight(c))), ('=', &|_| 1.0)]);

    let flat = (0..WIDTH).filter(|&c| narrow(weight(c)).abs() < 1e-3).count();
    println!("\nThe quantizer is flat at {flat} of {WIDTH} places, so its own derivative would stop learning.");
    println!("The straight-through estimator passes the gradient on unchanged: right on average inside");
    println!("the range, and outside it too, where it lets a clamped weight come back.");
}
