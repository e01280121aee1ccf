//! Which leaf of a Parquet schema holds what.

use crate::config::{Column, IdText, Schema};
use crate::data::text::Labels;
use crate::error::{Error, Result};
use parquet::basic::{Repetition, Type as Physical};
use parquet::schema::types::{SchemaDescriptor, Type};

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Label,
    /// The dense feature with this number.
    Dense(usize),
    /// The table with this number.
    Table(usize),
}

/// A column that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) role: Role,
    /// Its leaf.
    pub(super) leaf: usize,
    /// For a list, the definition level from which there is an element.
    pub(super) list: Option<i16>,
}

/// The name under which a column is looked for.
pub(super) fn name(schema: &Schema, role: Role) -> String {
    let column = match role {
        Role::Label => &schema.label,
        Role::Dense(i) => &schema.dense[i],
        Role::Table(k) => schema.categorical.iter().chain(&schema.multi_hot).nth(k).unwrap_or(&schema.label),
    };
    match column {
        Column::Name(name) => name.clone(),
        Column::Number(number) => number.to_string(),
    }
}

/// Checks what does not depend on a file.
pub(super) fn check(schema: &Schema) -> Result<()> {
    if schema.columns().any(|c| matches!(c, Column::Number(_))) {
        return Err(Error::Config(
            "data.schema numbers its columns, but those of Parquet files have names; name them, the label too".into(),
        ));
    }
    Ok(())
}

/// The leaf below the top-level column `name`, and its repeated level.
fn leaf(descr: &SchemaDescriptor, name: &str) -> Result<(usize, Option<i16>), String> {
    let leaves: Vec<usize> =
        (0..descr.num_columns()).filter(|&i| descr.column(i).path().parts().first().is_some_and(|p| p == name)).collect();
    let [leaf] = leaves[..] else {
        let mut names: Vec<(f64, &str)> = descr
            .root_schema()
            .get_fields()
            .iter()
            .take(1000)
            .map(|field| (strsim::jaro_winkler(&name.to_lowercase(), &field.name().to_lowercase()), field.name()))
            .collect();
        names.sort_by(|a, b| b.0.total_cmp(&a.0));
        let near: Vec<String> = names.iter().take(3).map(|(_, name)| format!("`{}`", name.escape_debug())).collect();
        return Err(match leaves.len() {
            0 => format!("there is no column `{name}`; the nearest names are {}", near.join(", ")),
            n => format!("column `{name}` has {n} values inside; numbers, text and lists of them are possible"),
        });
    };
    let column = descr.column(leaf);
    match column.max_rep_level() {
        0 => Ok((leaf, None)),
        1 => {
            let (mut node, mut level): (&Type, i16) = (descr.root_schema(), 0);
            for part in column.path().parts() {
                let next = node.get_fields().iter().find(|field| field.name() == part);
                node = next.ok_or_else(|| format!("column `{name}` contradicts itself"))?;
                let repetition = node.get_basic_info().repetition();
                level += i16::from(repetition != Repetition::REQUIRED);
                if repetition == Repetition::REPEATED {
                    break;
                }
            }
            Ok((leaf, Some(level)))
        }
        _ => Err(format!("column `{name}` holds lists of lists")),
    }
}

/// The leaves that `schema` names.
pub(super) fn find(descr: &SchemaDescriptor, schema: &Schema, labels: Labels) -> Result<Vec<Wanted>, String> {
    let one_hot = schema.categorical.len();
    let mut roles: Vec<Role> = (0..schema.dense.len()).map(Role::Dense).collect();
    roles.extend((0..schema.tables()).map(Role::Table));
    let mut wanted = Vec::new();
    for role in roles.into_iter().chain([Role::Label]) {
        let name = name(schema, role);
        let (leaf, list) = match leaf(descr, &name) {
            Err(_) if role == Role::Label && labels == Labels::Optional => continue,
            found => found?,
        };
        let bags = matches!(role, Role::Table(k) if k >= one_hot);
        match (bags, list) {
            (true, None) => return Err(format!("column `{name}` is multi-hot in data.schema, but holds no lists")),
            (false, Some(_)) => return Err(format!("column `{name}` holds lists; name it in data.schema.multi_hot")),
            _ => {}
        }
        let kind = descr.column(leaf).physical_type();
        let fits = match role {
            Role::Table(_) => {
                let whole = matches!(kind, Physical::INT32 | Physical::INT64);
                whole || kind == Physical::BYTE_ARRAY
            }
            Role::Label => matches!(kind, Physical::INT32 | Physical::INT64 | Physical::FLOAT | Physical::DOUBLE | Physical::BOOLEAN),
            Role::Dense(_) => matches!(kind, Physical::INT32 | Physical::INT64 | Physical::FLOAT | Physical::DOUBLE),
        };
        if !fits {
            return Err(format!("column `{name}` has type {kind}, which cannot be used there"));
        }
        wanted.push(Wanted { role, leaf, list });
    }
    Ok(wanted)
}

/// The schema of a file with the usual names.
pub(super) fn usual(descr: &SchemaDescriptor) -> Result<Schema, String> {
    let fields = || descr.root_schema().get_fields().iter();
    let has = |name: &str| fields().any(|field| field.name() == name);
    let series = |sets: [(&str, usize); 2]| -> Vec<String> {
        let run = |(prefix, first): (&str, usize)| (first..).map(|i| format!("{prefix}{i}")).take_while(|name| has(name)).collect();
        sets.map(run).into_iter().max_by_key(Vec::len).unwrap_or_default()
    };
    let (dense, tables) = (series([("int_", 0), ("I", 1)]), series([("cat_", 0), ("C", 1)]));
    if !has("label") || dense.is_empty() || tables.is_empty() {
        let names: Vec<&str> = fields().map(|field| field.name()).take(12).collect();
        return Err(format!(
            "the columns are not `label`, `I1` … or `int_0` …, `C1` … or `cat_0` …, but {}; name them in [data.schema] with format = \
             \"parquet\"",
            names.join(", ")
        ));
    }
    let whole =
        |name: &String| leaf(descr, name).map(|(leaf, _)| matches!(descr.column(leaf).physical_type(), Physical::INT32 | Physical::INT64));
    let counts: Vec<bool> = dense.iter().map(whole).collect::<Result<_, _>>()?;
    if counts.iter().any(|&whole| whole != counts[0]) {
        return Err("some dense columns hold whole numbers and others do not; say in [data.schema] whether dense_log is meant".into());
    }
    let (mut categorical, mut multi_hot, mut texts) = (Vec::new(), Vec::new(), 0);
    for name in tables {
        let (leaf, list) = leaf(descr, &name)?;
        texts += usize::from(descr.column(leaf).physical_type() == Physical::BYTE_ARRAY);
        if list.is_some() { multi_hot.push(Column::Name(name)) } else { categorical.push(Column::Name(name)) }
    }
    Ok(Schema {
        header: true,
        label: Column::Name("label".into()),
        dense: dense.into_iter().map(Column::Name).collect(),
        dense_log: counts[0],
        categorical,
        multi_hot,
        id_text: if texts > 0 { IdText::Hex } else { IdText::Int },
        ..Schema::default()
    })
}
