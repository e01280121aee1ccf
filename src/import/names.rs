//! Which weight of a DLRM a tensor's name stands for.

/// One weight of a DLRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Table k.
    Table(u32),
    /// Weight of a layer of the bottom MLP, by its place in PyTorch's `Sequential`: 0, 2, 4 ….
    Bottom(u32),
    /// Its bias.
    BottomBias(u32),
    /// Weight of a layer of the top MLP.
    Top(u32),
    /// Its bias.
    TopBias(u32),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Table(k) => write!(f, "emb_l.{k}.weight"),
            Part::Bottom(i) => write!(f, "bot_l.{i}.weight"),
            Part::BottomBias(i) => write!(f, "bot_l.{i}.bias"),
            Part::Top(i) => write!(f, "top_l.{i}.weight"),
            Part::TopBias(i) => write!(f, "top_l.{i}.bias"),
        }
    }
}

/// The weight that a tensor of this name is; `None` for a tensor that is none. Segments that wrappers
/// add (`module`, `_orig_mod`) are passed over, and `emb_l.0.embedding_bag.weight`, as the published
/// code of DQRM has it, is `emb_l.0.weight`.
///
/// # Errors
/// A kind of table that `dqrm` does not have.
pub fn part(name: &str) -> Result<Option<Part>, String> {
    let segments: Vec<&str> = name.split('.').filter(|s| !matches!(*s, "module" | "_orig_mod")).collect();
    let refuse =
        |what: &str| Err(format!("refused: `{name}` belongs to {what}; only tables of one weight each, pooled by a sum, can be imported"));
    let number = |text: &str| text.parse::<u32>().ok();
    Ok(match segments.as_slice() {
        ["emb_l", _, "weight_q" | "weight_r"] => return refuse("a quotient-remainder table (DLRM's --qr-flag)"),
        ["emb_l", _, "embs" | "proj", ..] => return refuse("a table of mixed dimensions (DLRM's --md-flag)"),
        ["v_W_l", ..] => return refuse("a table with learned pooling weights (DLRM's --weighted-pooling)"),
        ["emb_l", k, "weight"] | ["emb_l", k, "embedding_bag", "weight"] => number(k).map(Part::Table),
        ["bot_l", i, "weight"] => number(i).map(Part::Bottom),
        ["bot_l", i, "bias"] => number(i).map(Part::BottomBias),
        ["top_l", i, "weight"] => number(i).map(Part::Top),
        ["top_l", i, "bias"] => number(i).map(Part::TopBias),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_origin_mean_the_same_weights() {
        for name in
            ["emb_l.3.weight", "module.emb_l.3.weight", "emb_l.module.3.weight", "emb_l.3.embedding_bag.weight", "_orig_mod.emb_l.3.weight"]
        {
            assert_eq!(part(name), Ok(Some(Part::Table(3))), "{name}");
        }
        for name in ["bot_l.0.weight", "bot_l.0.bias", "top_l.4.weight", "top_l.4.bias", "emb_l.25.weight"] {
            assert_eq!(part(name).unwrap().unwrap().to_string(), name);
            assert_eq!(part(&format!("module.{name}")).unwrap().unwrap().to_string(), name);
        }
        for name in
            ["", "emb_l", "emb_l.x.weight", "emb_l.0.eb_scaling_factor", "bot_l.0.fc_scaling_factor", "top_l.-1.bias", "dqrm.scale.emb_l"]
        {
            assert_eq!(part(name), Ok(None), "{name}");
        }
    }

    #[test]
    fn tables_of_other_kinds_are_refused_by_name() {
        for (name, says) in [
            ("emb_l.2.weight_q", "quotient-remainder"),
            ("module.emb_l.2.weight_r", "quotient-remainder"),
            ("emb_l.2.embs.weight", "mixed dimensions"),
            ("emb_l.2.proj.weight", "mixed dimensions"),
            ("v_W_l.2", "learned pooling"),
        ] {
            let text = part(name).unwrap_err();
            assert!(text.contains(says) && text.contains(name), "{text}");
        }
    }
}
