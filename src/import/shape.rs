//! The model that a set of weights makes.

use super::names::Part;
use crate::config::{Interaction, Loss, Shape};
use std::collections::BTreeMap;

/// How the vectors meet before the top MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// Dot products of all pairs.
    Dot,
    /// The same with each vector's product with itself (DLRM's `--arch-interaction-itself`).
    Diagonal,
    /// All vectors side by side.
    Cat,
}

impl Join {
    const ALL: [Join; 3] = [Join::Dot, Join::Diagonal, Join::Cat];

    /// Width of the top MLP's input for `vectors` vectors, the dense one among them.
    fn width(self, dim: u64, vectors: u64) -> Option<u64> {
        match self {
            Join::Dot => (vectors * (vectors - 1) / 2).checked_add(dim),
            Join::Diagonal => (vectors * (vectors + 1) / 2).checked_add(dim),
            Join::Cat => vectors.checked_mul(dim),
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Join::Dot => "dot",
            Join::Diagonal => "dot with diagonal",
            Join::Cat => "cat",
        }
    }
}

/// A shape, and what the widths alone do not decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// The model.
    pub shape: Shape,
    /// The interaction taken.
    pub join: Join,
    /// Other interactions with the same width.
    pub others: Vec<Join>,
}

/// Each weight's dimensions.
pub type Dims = BTreeMap<Part, Vec<u64>>;

/// The model with these weights; `wanted` decides the interaction where several fit.
///
/// # Errors
/// Weights that are missing or do not fit each other, with their names and shapes.
pub fn infer(dims: &Dims, wanted: Option<Join>, loss: Loss) -> Result<Inferred, String> {
    let (rows, dim) = tables(dims)?;
    let bottom = mlp(dims, Part::Bottom, Part::BottomBias)?;
    let top = mlp(dims, Part::Top, Part::TopBias)?;
    let (last, width) = (Part::Bottom(2 * (bottom.len() as u32 - 2)), bottom.last().copied().unwrap_or(0));
    if width != dim {
        return Err(format!(
            "the bottom MLP gives {width} values (`{last}` has shape {:?}), but a row of `emb_l.0.weight` has {dim}; they must be equal",
            dims.get(&last).cloned().unwrap_or_default()
        ));
    }
    if top.last() != Some(&1) {
        let last = Part::Top(2 * (top.len() as u32 - 2));
        return Err(format!("the top MLP must give one value, but `{last}` has shape {:?}", dims.get(&last).cloned().unwrap_or_default()));
    }
    let input = top.first().copied().unwrap_or(0);
    let (join, others) = interaction(dims, input, dim, rows.len() as u64 + 1, wanted)?;
    let widths = |all: &[u64]| all.iter().map(|&w| usize::try_from(w)).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string());
    let shape = Shape {
        dense: usize::try_from(bottom.first().copied().unwrap_or(0)).map_err(|e| e.to_string())?,
        dim: usize::try_from(dim).map_err(|e| e.to_string())?,
        bottom: widths(&bottom)?,
        top: widths(&top)?,
        rows,
        interaction: if join == Join::Cat { Interaction::Cat } else { Interaction::Dot },
        diagonal: join == Join::Diagonal,
        loss,
    };
    shape.validate().map_err(|e| e.to_string())?;
    Ok(Inferred { shape, join, others })
}

/// Rows of each table, and the width that all have.
fn tables(dims: &Dims) -> Result<(Vec<u64>, u64), String> {
    let mut rows = Vec::new();
    let mut dim = None;
    let listed = dims.iter().filter_map(|(part, shape)| matches!(part, Part::Table(_)).then_some(shape));
    for (k, shape) in (0..).zip(listed) {
        let part = Part::Table(k);
        let Some(own) = dims.get(&part) else { return Err(missing(dims, part)) };
        let &[count, width] = own.as_slice() else { return Err(format!("`{part}` has shape {own:?}; a table has rows and a width")) };
        let first = *dim.get_or_insert(width);
        if first != width {
            return Err(format!(
                "refused: `{part}` has shape {shape:?}, but `emb_l.0.weight` has rows of {first}; all tables must have one width"
            ));
        }
        rows.push(count);
    }
    dim.map(|dim| (rows, dim)).ok_or_else(|| missing(dims, Part::Table(0)))
}

/// The widths of an MLP, its input first.
fn mlp(dims: &Dims, weight: fn(u32) -> Part, bias: fn(u32) -> Part) -> Result<Vec<u64>, String> {
    let same = |a: Part, b: Part| std::mem::discriminant(&a) == std::mem::discriminant(&b);
    let layers = dims.keys().filter(|&&p| same(p, weight(0))).count();
    let mut widths: Vec<u64> = Vec::new();
    for i in (0..).step_by(2).take(layers.max(1)) {
        let Some(shape) = dims.get(&weight(i)) else { return Err(missing(dims, weight(i))) };
        let Some(added) = dims.get(&bias(i)) else { return Err(missing(dims, bias(i))) };
        let &[outputs, inputs] = shape.as_slice() else {
            return Err(format!("`{}` has shape {shape:?}; a layer's weight has outputs and inputs", weight(i)));
        };
        if added.as_slice() != [outputs] {
            return Err(format!("`{}` has shape {added:?}, but `{}` has {shape:?}; they do not fit", bias(i), weight(i)));
        }
        match widths.last() {
            None => widths.push(inputs),
            Some(&before) if before != inputs => {
                return Err(format!(
                    "`{}` has shape {shape:?}, but the layer before it, `{}`, gives {before} values",
                    weight(i),
                    weight(i.saturating_sub(2))
                ));
            }
            Some(_) => {}
        }
        widths.push(outputs);
    }
    let biases = dims.keys().filter(|&&p| same(p, bias(0)));
    match biases.copied().find(|&b| !matches!(b, Part::BottomBias(i) | Part::TopBias(i) if dims.contains_key(&weight(i)))) {
        Some(lonely) => Err(format!("has `{lonely}`, but no weight for it")),
        None => Ok(widths),
    }
}

/// The interaction whose width the first layer of the top MLP takes.
fn interaction(dims: &Dims, input: u64, dim: u64, vectors: u64, wanted: Option<Join>) -> Result<(Join, Vec<Join>), String> {
    let mut fitting: Vec<Join> = Join::ALL.into_iter().filter(|j| j.width(dim, vectors) == Some(input)).collect();
    let join = wanted.or(fitting.first().copied()).filter(|join| fitting.contains(join));
    let Some(join) = join else {
        let possible = Join::ALL.map(|j| format!("{} ({})", j.width(dim, vectors).unwrap_or(u64::MAX), j.name())).join(", ");
        let asked = wanted.map_or(String::new(), |w| format!("; {} was asked for", w.name()));
        return Err(format!(
            "`top_l.0.weight` has shape {:?} and so takes {input} values, but {} tables and the dense vector, {dim} wide, give {possible}{asked}",
            dims.get(&Part::Top(0)).cloned().unwrap_or_default(),
            vectors - 1
        ));
    };
    fitting.retain(|&j| j != join);
    Ok((join, fitting))
}

/// What is not there, and what is.
fn missing(dims: &Dims, part: Part) -> String {
    let mut named: Vec<String> = dims.keys().take(6).map(|p| format!("`{p}`")).collect();
    if dims.len() > 6 {
        named.push(format!("and {} more", dims.len() - 6));
    }
    let found = if named.is_empty() { "none of a DLRM's weights".into() } else { named.join(", ") };
    format!("has no tensor `{part}`; it has {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(list: &[(Part, &[u64])]) -> Dims {
        list.iter().map(|(p, d)| (*p, d.to_vec())).collect()
    }

    fn model(top_input: u64) -> Dims {
        dims(&[
            (Part::Table(0), &[7, 3]),
            (Part::Table(1), &[9, 3]),
            (Part::Bottom(0), &[6, 5]),
            (Part::BottomBias(0), &[6]),
            (Part::Bottom(2), &[3, 6]),
            (Part::BottomBias(2), &[3]),
            (Part::Top(0), &[4, top_input]),
            (Part::TopBias(0), &[4]),
            (Part::Top(2), &[1, 4]),
            (Part::TopBias(2), &[1]),
        ])
    }

    #[test]
    fn the_interaction_follows_from_the_width() {
        for (input, join) in [(6, Join::Dot), (9, Join::Diagonal)] {
            let found = infer(&model(input), None, Loss::Bce).unwrap();
            assert_eq!(found.join, join);
            assert_eq!((found.shape.dense, found.shape.dim, found.shape.rows.clone()), (5, 3, vec![7, 9]));
            assert_eq!((found.shape.bottom, found.shape.top), (vec![5, 6, 3], vec![input as usize, 4, 1]));
        }
        let both = infer(&model(9), None, Loss::Bce).unwrap();
        assert_eq!(both.others, [Join::Cat], "9 is 3 + 6 and 3 x 3");
        assert_eq!(infer(&model(9), Some(Join::Cat), Loss::Mse).unwrap().shape.interaction, Interaction::Cat);
        let text = infer(&model(8), None, Loss::Bce).unwrap_err();
        assert!(text.contains("[4, 8]") && text.contains("6 (dot), 9 (dot with diagonal), 9 (cat)"), "{text}");
        let text = infer(&model(6), Some(Join::Cat), Loss::Bce).unwrap_err();
        assert!(text.contains("cat was asked for"), "{text}");
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named_with_its_shape() {
        let refused = |change: &dyn Fn(&mut Dims), says: &[&str]| {
            let mut changed = model(6);
            change(&mut changed);
            let text = infer(&changed, None, Loss::Bce).unwrap_err();
            says.iter().for_each(|s| assert!(text.contains(s), "`{s}` is not in: {text}"));
        };
        refused(&|d| d.clear(), &["no tensor `emb_l.0.weight`", "none of a DLRM's weights"]);
        refused(&|d| drop(d.remove(&Part::Table(0))), &["no tensor `emb_l.0.weight`", "`emb_l.1.weight`"]);
        refused(&|d| drop(d.remove(&Part::Bottom(0))), &["no tensor `bot_l.0.weight`"]);
        refused(&|d| drop(d.remove(&Part::BottomBias(2))), &["no tensor `bot_l.2.bias`"]);
        refused(&|d| drop(d.remove(&Part::Top(2))), &["has `top_l.2.bias`, but no weight"]);
        refused(&|d| drop(d.insert(Part::Top(6), vec![1, 1])), &["no tensor `top_l.4.weight`"]);
        refused(&|d| drop(d.insert(Part::Table(1), vec![9, 4])), &["`emb_l.1.weight` has shape [9, 4]", "rows of 3"]);
        refused(&|d| drop(d.insert(Part::Table(1), vec![9])), &["`emb_l.1.weight` has shape [9]"]);
        refused(&|d| drop(d.insert(Part::Table(0), vec![0, 3])), &["table 0 has 0 rows"]);
        refused(&|d| drop(d.insert(Part::Bottom(2), vec![3, 7])), &["`bot_l.2.weight` has shape [3, 7]", "gives 6 values"]);
        refused(&|d| drop(d.insert(Part::BottomBias(2), vec![2])), &["`bot_l.2.bias` has shape [2]", "[3, 6]"]);
        refused(&|d| drop(d.insert(Part::Top(0), vec![4])), &["`top_l.0.weight` has shape [4]"]);
        let wide = |d: &mut Dims| {
            d.insert(Part::Bottom(2), vec![8, 6]);
            d.insert(Part::BottomBias(2), vec![8]);
        };
        refused(&wide, &["gives 8 values", "`bot_l.2.weight` has shape [8, 6]", "has 3"]);
        let two = |d: &mut Dims| {
            d.insert(Part::Top(2), vec![2, 4]);
            d.insert(Part::TopBias(2), vec![2]);
        };
        refused(&two, &["must give one value", "`top_l.2.weight` has shape [2, 4]"]);
    }
}
