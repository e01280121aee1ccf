//! From the body of an inference request to samples, by the model's schema.

use super::refused::Refused;
use super::tensor::{self, Item, Reason};
use crate::config::{Format, IdText, OnBadRow, Schema};
use crate::data::Block;
use crate::data::ids::Mapper;
use crate::data::text::{Input as Lines, Labels, RawBlock, Reader};
use crate::data::values::Values;
use crate::error::Result;
use crate::packed::Manifest;
use axum::http::StatusCode;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Cursor;
use std::marker::PhantomData;

/// The name of the one model.
pub(super) const MODEL: &str = "dqrm";

/// What a model takes.
#[derive(Debug)]
pub(super) struct Inputs {
    format: Format,
    schema: Schema,
    values: Values,
    mapper: Mapper,
    /// Dense features D.
    dense: usize,
    /// Tables K, the first of which hold one category a sample.
    tables: usize,
    one_hot: usize,
    max_rows: usize,
}

/// A request that was understood.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: Option<String>,
    pub(super) block: Block,
    pub(super) outputs: Vec<Output>,
}

/// What a client may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Output {
    Probability,
    Logit,
}

impl Output {
    pub(super) fn name(self) -> &'static str {
        match self {
            Output::Probability => "probability",
            Output::Logit => "logit",
        }
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    id: Option<String>,
    #[serde(borrow)]
    inputs: Few<Tensor<'a>, 4>,
    #[serde(default)]
    outputs: Few<Wanted, 2>,
}

#[derive(Deserialize)]
struct Tensor<'a> {
    name: String,
    shape: Few<u64, 2>,
    datatype: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Wanted {
    name: String,
}

/// An array of at most `N` elements; the one after them ends the reading.
struct Few<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        from.deserialize_seq(Elements(PhantomData))
    }
}

struct Elements<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
    type Value = Few<T, N>;

    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "an array of at most {N} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> std::result::Result<Few<T, N>, A::Error> {
        let mut found = Vec::with_capacity(N);
        while found.len() < N {
            let Some(element) = from.next_element()? else { return Ok(Few(found)) };
            found.push(element);
        }
        from.next_element::<OneMore<N>>()?;
        Ok(Few(found))
    }
}

/// The element after `N`, whatever it is.
struct OneMore<const N: usize>;

impl<'de, const N: usize> Deserialize<'de> for OneMore<N> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(D::Error::custom(format_args!("an array has more than {N} elements")))
    }
}

impl Tensor<'_> {
    fn refuse(&self, reason: impl std::fmt::Display) -> Refused {
        Refused::bad(format!("input `{}`: {reason}", self.name))
    }

    /// The dimensions, of which those that are given must be as they are.
    fn shape(&self, wanted: &[Option<usize>]) -> Result<Vec<usize>, Refused> {
        let fits = |(found, wanted): (&u64, &Option<usize>)| wanted.is_none_or(|n| *found == n as u64) && *found < u64::from(u32::MAX);
        let shape = &self.shape.0;
        if shape.len() == wanted.len() && shape.iter().zip(wanted).all(fits) {
            let dims: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            if dims.iter().try_fold(1usize, |all, &n| all.checked_mul(n)).is_some() {
                return Ok(dims);
            }
        }
        let wanted: Vec<String> = wanted.iter().map(|n| n.map_or("-1".into(), |n| n.to_string())).collect();
        Err(self.refuse(format!("its shape is {shape:?}, but [{}] is expected (-1 is any number)", wanted.join(", "))))
    }

    fn datatype(&self, possible: &[&str]) -> Result<(), Refused> {
        if possible.contains(&self.datatype.as_str()) {
            return Ok(());
        }
        Err(self.refuse(format!("its datatype is `{}`, but {} is expected", shown(&self.datatype), possible.join(" or "))))
    }

    /// Gives the elements.
    fn each(&self, shape: &[usize], each: &mut dyn FnMut(usize, Item<'_>) -> Result<(), Reason>) -> Result<(), Refused> {
        let data = self.data.ok_or_else(|| self.refuse("it has no `data`; values in binary form are not taken"))?;
        tensor::elements(data.get(), shape, each).map_err(|reason| self.refuse(reason))
    }
}

impl Inputs {
    /// What the model of `manifest` takes, `max_rows` samples a request at most.
    ///
    /// # Errors
    /// A schema that contradicts itself.
    pub(super) fn new(manifest: &Manifest, mapper: Mapper, max_rows: usize) -> Result<Inputs> {
        let (format, schema) = (manifest.input.format, manifest.input.schema.clone());
        Reader::new(Vec::new(), &schema, Labels::Optional, OnBadRow::Error)?;
        let values = Values::new(format, &schema, &mapper);
        let (dense, tables, one_hot) = (manifest.shape.dense, manifest.shape.tables(), schema.categorical.len());
        Ok(Inputs { format, schema, values, mapper, dense, tables, one_hot, max_rows })
    }

    /// True when samples may come as lines of text.
    fn text(&self) -> bool {
        matches!(self.format, Format::Synthetic | Format::Criteo | Format::Text)
    }

    /// Inputs and outputs as the protocol describes them.
    pub(super) fn metadata(&self) -> Value {
        let tensor = |name: &str, datatype: &str, shape: &[i64]| json!({ "name": name, "datatype": datatype, "shape": shape });
        let datatype = if self.schema.id_text == IdText::Text && self.format != Format::Parquet { "BYTES" } else { "UINT64" };
        let mut inputs = vec![tensor("dense", "FP32", &[-1, self.dense as i64])];
        if self.one_hot == self.tables {
            inputs.push(tensor("ids", datatype, &[-1, self.tables as i64]));
        } else {
            inputs.push(tensor("ids", datatype, &[-1]));
            inputs.push(tensor("offsets", "INT64", &[-1]));
        }
        if self.text() {
            inputs.push(tensor("rows", "BYTES", &[-1]));
        }
        let outputs = [Output::Probability, Output::Logit].map(|output| tensor(output.name(), "FP32", &[-1]));
        json!({ "name": MODEL, "platform": "dqrm", "inputs": inputs, "outputs": outputs })
    }

    /// A sample that any such model takes: zeros, the first row of each table with one category, no others.
    pub(super) fn sample(&self) -> Block {
        let mut block = Block::new();
        block.samples = 1;
        block.dense.resize(self.dense, 0.0);
        for table in 0..self.tables {
            if table < self.one_hot {
                block.ids.push(0);
            }
            block.end_bag();
        }
        block
    }

    /// Reads a request.
    pub(super) fn read(&self, body: &[u8]) -> Result<Asked, Refused> {
        let text = std::str::from_utf8(body).map_err(|_| Refused::bad("the body is not UTF-8; an inference request is JSON"))?;
        let body: Body<'_> = serde_json::from_str(text).map_err(|e| Refused::bad(format!("the body is no inference request: {e}")))?;
        let outputs = outputs(&body.outputs.0)?;
        let raw = self.raw(&body.inputs.0)?;
        let mut block = Block::new();
        self.mapper.map(&raw, &mut block).map_err(|e| Refused::bad(e.to_string()))?;
        block.labels.clear();
        Ok(Asked { id: body.id, block, outputs })
    }

    fn raw(&self, inputs: &[Tensor<'_>]) -> Result<RawBlock, Refused> {
        let known: &[&str] = if self.text() { &["dense", "ids", "offsets", "rows"] } else { &["dense", "ids", "offsets"] };
        for (i, input) in inputs.iter().enumerate() {
            if !known.contains(&input.name.as_str()) {
                return Err(Refused::bad(format!("there is no input `{}`; the model takes {}", shown(&input.name), known.join(", "))));
            }
            if inputs[..i].iter().any(|other| other.name == input.name) {
                return Err(input.refuse("it is given twice"));
            }
        }
        let find = |name: &str| inputs.iter().find(|input| input.name == name);
        match (find("rows"), find("dense"), find("ids"), find("offsets")) {
            (Some(rows), None, None, None) => self.lines(rows),
            (Some(rows), ..) => Err(rows.refuse("it stands for all others, but there are others too")),
            (None, Some(dense), Some(ids), offsets) => self.tensors(dense, ids, offsets),
            (None, None, ..) => Err(Refused::bad("the input `dense` is missing")),
            (None, _, None, _) => Err(Refused::bad("the input `ids` is missing")),
        }
    }

    /// A number of samples that may be asked for.
    fn allowed(&self, rows: usize) -> Result<(), Refused> {
        match rows {
            0 => Err(Refused::bad("there are no rows")),
            n if n > self.max_rows => Err(Refused::large(format!(
                "there are {n} rows, but a request may have {}; send several, or start the server with --max-rows",
                self.max_rows
            ))),
            _ => Ok(()),
        }
    }

    /// Lines of text, read as those of a file.
    fn lines(&self, rows: &Tensor<'_>) -> Result<RawBlock, Refused> {
        rows.datatype(&["BYTES"])?;
        let shape = rows.shape(&[None])?;
        let header = usize::from(self.schema.header);
        self.allowed(shape[0].saturating_sub(header))?;
        let mut text = Vec::new();
        rows.each(&shape, &mut |_, item| {
            let Item::Text(line) = item else { return Err("a text is needed".into()) };
            if line.contains(['\n', '\r']) {
                return Err("it has more than one line".into());
            }
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
            Ok(())
        })?;
        let lines = Lines::stream("rows", Box::new(Cursor::new(text)));
        let mut raw = RawBlock::new();
        let reader = Reader::new(vec![lines], &self.schema, Labels::Optional, OnBadRow::Error);
        let read = reader.and_then(|reader| reader.limited(self.mapper.limits()).read(&mut raw, self.max_rows));
        read.map_err(|e| Refused::bad(format!("input `rows`: {e}")))?;
        Ok(raw)
    }

    /// Dense features and categories.
    fn tensors(&self, dense: &Tensor<'_>, ids: &Tensor<'_>, offsets: Option<&Tensor<'_>>) -> Result<RawBlock, Refused> {
        dense.datatype(&["FP32"])?;
        ids.datatype(&["UINT64", "INT64", "BYTES"])?;
        let shape = dense.shape(&[None, Some(self.dense)])?;
        let n = shape[0];
        self.allowed(n)?;
        let mut raw = RawBlock { samples: n, ..RawBlock::new() };
        dense.each(&shape, &mut |_, item| {
            let Item::Number(text) = item else { return Err("a number is needed".into()) };
            raw.dense.push(self.values.dense(text.as_bytes())?);
            Ok(())
        })?;
        let shape = match offsets {
            None => {
                raw.offsets.extend(1..=(n * self.tables) as u32);
                ids.shape(&[Some(n), Some(self.tables)])?
            }
            Some(offsets) => {
                let shape = ids.shape(&[None])?;
                raw.offsets = self.offsets(offsets, n, shape[0])?;
                shape
            }
        };
        let (text, mut bag, ends) = (ids.datatype == "BYTES", 0, &raw.offsets[1..]);
        let keys = &mut raw.keys;
        ids.each(&shape, &mut |place, item| {
            while ends.get(bag).is_some_and(|&end| end as usize <= place) {
                bag += 1;
            }
            let table = bag % self.tables;
            keys.push(match item {
                Item::Text(category) if text => self.values.category(table, category.as_bytes())?,
                Item::Number(category) if !text => self.values.number(table, category.as_bytes())?,
                _ => return Err(format!("a {} is needed", if text { "text" } else { "number" })),
            });
            Ok(())
        })?;
        Ok(raw)
    }

    /// Where each bag of `n` samples begins among `ids` categories, and the end.
    fn offsets(&self, offsets: &Tensor<'_>, n: usize, ids: usize) -> Result<Vec<u32>, Refused> {
        offsets.datatype(&["INT64", "UINT64"])?;
        let bags = n * self.tables;
        let (shape, mut found, mut last) = (offsets.shape(&[Some(bags + 1)])?, Vec::with_capacity(bags + 1), 0u32);
        offsets.each(&shape, &mut |place, item| {
            let offset = match item {
                Item::Number(text) => text.parse::<u32>().ok(),
                Item::Text(_) => None,
            };
            let Some(offset) = offset.filter(|&at| at >= last && at as usize <= ids && (place > 0 || at == 0)) else {
                return Err(format!("offsets are whole numbers that begin with 0, do not fall and do not exceed the {ids} ids"));
            };
            let (size, table) = ((offset - last) as usize, place.wrapping_sub(1) % self.tables);
            let most = if table < self.one_hot { 1 } else { self.schema.multi_hot_max };
            if place > 0 && (size > most || (table < self.one_hot && size == 0)) {
                let rule = if table < self.one_hot { "exactly 1".into() } else { format!("at most {most}") };
                return Err(format!("a bag of table {table} has {size} ids; {rule} is possible"));
            }
            last = offset;
            found.push(offset);
            Ok(())
        })?;
        match last as usize == ids {
            true => Ok(found),
            false => Err(offsets.refuse(format!("the last offset is {last}, but there are {ids} ids"))),
        }
    }
}

/// What is asked for; the probability when nothing is named.
fn outputs(wanted: &[Wanted]) -> Result<Vec<Output>, Refused> {
    let mut outputs = Vec::new();
    for wanted in wanted {
        let output = [Output::Probability, Output::Logit].into_iter().find(|output| output.name() == wanted.name);
        let Some(output) = output else {
            return Err(Refused::bad(format!("there is no output `{}`; there are probability and logit", shown(&wanted.name))));
        };
        if outputs.contains(&output) {
            return Err(Refused::bad(format!("output `{}` is asked for twice", wanted.name)));
        }
        outputs.push(output);
    }
    Ok(if outputs.is_empty() { vec![Output::Probability] } else { outputs })
}

/// A client's name for something, cut to what a sentence bears.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}

/// The logits were computed but are no numbers.
pub(super) fn not_finite() -> Refused {
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the model's answer is not a finite number")
}
