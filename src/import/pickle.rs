//! A pickle as plain values. Nothing is called and nothing is imported: the few opcodes that a state
//! dict is made of build values, the few functions that stand in one are recognised by their names,
//! and anything else is refused by name.
//!
//! Values lie in one list and name each other by their places in it, so that sharing costs nothing,
//! a loop cannot hang a reader that counts its steps down, and every opcode adds at most one value.

use super::bytes::Bytes;
use std::collections::HashMap;

mod calls;
#[cfg(test)]
mod tests;
mod value;

pub use value::{Global, Id, Pickle, RawTensor, Value};

/// A larger pickle is refused, in bytes. Weights stand outside of it.
pub const MAX_PICKLE: u64 = 16 << 20;
/// Values in all.
pub const MAX_VALUES: usize = 1 << 20;
/// Values waiting on the stack.
pub const MAX_STACK: usize = 1 << 16;
/// Values kept to be used again.
pub const MAX_MEMO: usize = 1 << 20;
/// Containers inside each other.
pub const MAX_DEPTH: u8 = 64;
/// Bytes of one text.
pub const MAX_TEXT: u64 = 1 << 16;
/// Bytes of a module's or a function's name.
pub const MAX_NAME: usize = 128;
/// Tensors.
pub const MAX_TENSORS: usize = 1 << 16;
/// Dimensions of a tensor.
pub const MAX_DIMS: usize = 8;

/// Reads a pickle of protocol 2 to 5.
///
/// # Errors
/// Whatever a state dict does not need, by name; whatever is beyond a limit.
pub fn decode(bytes: &[u8]) -> Result<Pickle, String> {
    if bytes.len() as u64 > MAX_PICKLE {
        return Err(format!("its pickle has {} bytes, more than the limit of {MAX_PICKLE}", bytes.len()));
    }
    let input = Bytes::new(bytes);
    let memo = HashMap::new();
    let mut machine = Machine { input, values: Vec::new(), depths: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo, tensors: 0 };
    let root = machine.run().map_err(|reason| format!("refused: the pickle {reason}"))?;
    Ok(Pickle { values: machine.values, root })
}

/// What reads opcode after opcode.
struct Machine<'a> {
    input: Bytes<'a>,
    values: Vec<Value>,
    /// How deep each value reaches.
    depths: Vec<u8>,
    stack: Vec<Id>,
    /// Heights of the stack where containers begin.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    tensors: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, String> {
        match (self.input.u8()?, self.input.u8()?) {
            (0x80, 2..=5) => {}
            (0x80, version) => return Err(format!("has protocol {version}; 2 to 5 are read")),
            (other, _) => return Err(format!("begins with 0x{other:02x}, not with its protocol")),
        }
        loop {
            let op = self.input.u8()?;
            if op == b'.' {
                break;
            }
            if !self.literal(op)? && !self.container(op)? {
                let at = self.input.at() - 1;
                return Err(format!("has opcode {} at byte {at}, which no state dict needs", opcode(op)));
            }
        }
        let root = self.pop()?;
        match (self.input.left(), self.stack.len() + self.marks.len()) {
            (0, 0) => Ok(root),
            (0, waiting) => Err(format!("ends with {waiting} values that belong to nothing")),
            (left, _) => Err(format!("has {left} bytes after its end")),
        }
    }

    /// Opcodes that push one value that stands in the pickle.
    fn literal(&mut self, op: u8) -> Result<bool, String> {
        let value = match op {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.input.u8()?.into()),
            b'M' => Value::Int(self.input.u16()?.into()),
            b'J' => Value::Int(self.input.i32()?.into()),
            0x8a => self.long(|input| Ok(input.u8()?.into()))?,
            0x8b => self.long(|input| Ok(input.u32()?.into()))?,
            b'G' => Value::Float(self.input.f64_big()?),
            b'X' => self.text(|input| Ok(input.u32()?.into()))?,
            0x8c => self.text(|input| Ok(input.u8()?.into()))?,
            0x8d => self.text(|input| input.u64())?,
            b'}' => Value::Dict(Vec::new()),
            b']' => Value::List(Vec::new()),
            b')' => Value::Tuple(Vec::new()),
            b'c' => {
                let (module, name) = (self.input.line(MAX_NAME)?, self.input.line(MAX_NAME)?);
                calls::global(&String::from_utf8_lossy(module), &String::from_utf8_lossy(name))?
            }
            _ => return Ok(false),
        };
        self.push(value, 0)?;
        Ok(true)
    }

    fn long(&mut self, len: impl Fn(&mut Bytes<'_>) -> Result<u64, String>) -> Result<Value, String> {
        let len = len(&mut self.input)?;
        if len > 8 {
            return Err(format!("has an integer of {len} bytes; no state dict needs more than 8"));
        }
        let bytes = self.input.take(len)?;
        let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut all = [sign; 8];
        all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(Value::Int(i64::from_le_bytes(all)))
    }

    fn text(&mut self, len: impl Fn(&mut Bytes<'_>) -> Result<u64, String>) -> Result<Value, String> {
        let len = len(&mut self.input)?;
        if len > MAX_TEXT {
            return Err(format!("has a text of {len} bytes, more than the limit of {MAX_TEXT}"));
        }
        let text = std::str::from_utf8(self.input.take(len)?).map_err(|_| "has a text that is not UTF-8".to_owned())?;
        Ok(Value::Text(text.to_owned()))
    }

    /// Opcodes that work on what stands on the stack.
    fn container(&mut self, op: u8) -> Result<bool, String> {
        match op {
            b'(' if self.marks.len() >= usize::from(MAX_DEPTH) => return Err(too_deep()),
            b'(' => self.marks.push(self.stack.len()),
            b't' => {
                let items = self.since_mark()?;
                self.push_tuple(items)?;
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..op {
                    items.insert(0, self.pop()?);
                }
                self.push_tuple(items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            b'R' => self.call()?,
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            0x93 => self.stack_global()?,
            _ => return self.memory(op),
        }
        Ok(true)
    }

    /// Opcodes that keep values and bring them back.
    fn memory(&mut self, op: u8) -> Result<bool, String> {
        match op {
            b'q' => {
                let place = self.input.u8()?.into();
                self.keep(place)?;
            }
            b'r' => {
                let place = self.input.u32()?;
                self.keep(place)?;
            }
            0x94 => self.keep(self.memo.len() as u32)?,
            b'h' => {
                let place = self.input.u8()?.into();
                self.recall(place)?;
            }
            b'j' => {
                let place = self.input.u32()?;
                self.recall(place)?;
            }
            // FRAME only says how far a reader may read ahead.
            0x95 => {
                self.input.u64()?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn keep(&mut self, place: u32) -> Result<(), String> {
        if self.memo.len() >= MAX_MEMO {
            return Err(format!("keeps more than {MAX_MEMO} values"));
        }
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<(), String> {
        let id = *self.memo.get(&place).ok_or_else(|| format!("asks for value {place}, which it did not keep"))?;
        self.push_id(id)
    }

    fn append(&mut self, items: &[Id]) -> Result<(), String> {
        let list = self.top()?;
        self.deepen(list, items)?;
        match self.values.get_mut(list.0 as usize) {
            Some(Value::List(all)) => all.extend_from_slice(items),
            _ => return Err(format!("appends to {}", self.value(list).kind())),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), String> {
        let dict = self.top()?;
        self.deepen(dict, items)?;
        let (pairs, []) = items.as_chunks::<2>() else { return Err("has a key without a value".into()) };
        match self.values.get_mut(dict.0 as usize) {
            Some(Value::Dict(all)) => all.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(format!("sets a key of {}", self.value(dict).kind())),
        }
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Id>) -> Result<(), String> {
        let depth = self.depth_over(&items)?;
        self.push(Value::Tuple(items), depth)
    }

    /// A container of `items` reaches so deep.
    fn depth_over(&self, items: &[Id]) -> Result<u8, String> {
        let deepest = items.iter().filter_map(|id| self.depths.get(id.0 as usize)).max().copied().unwrap_or(0);
        if deepest >= MAX_DEPTH { Err(too_deep()) } else { Ok(deepest + 1) }
    }

    fn deepen(&mut self, container: Id, items: &[Id]) -> Result<(), String> {
        let over = self.depth_over(items)?;
        if let Some(depth) = self.depths.get_mut(container.0 as usize) {
            *depth = over.max(*depth);
        }
        Ok(())
    }

    fn push(&mut self, value: Value, depth: u8) -> Result<(), String> {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("has more than {MAX_VALUES} values"));
        }
        let id = Id(self.values.len() as u32);
        self.values.push(value);
        self.depths.push(depth);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() >= MAX_STACK {
            return Err(format!("stacks more than {MAX_STACK} values"));
        }
        self.stack.push(id);
        Ok(())
    }

    /// The top of the stack, not below the last mark.
    fn top(&self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(|open| open.last()).copied().ok_or_else(|| "takes a value from an empty stack".into())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Everything since the last mark.
    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or_else(|| "closes a container that it did not open".to_owned())?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn value(&self, id: Id) -> &Value {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }
}

fn too_deep() -> String {
    format!("nests containers more than {MAX_DEPTH} deep")
}

/// An opcode's name and number.
fn opcode(op: u8) -> String {
    let name = match op {
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'P' => "PERSID",
        b'S' => "STRING",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'V' => "UNICODE",
        b'B' => "BINBYTES",
        b'C' => "SHORT_BINBYTES",
        b'd' => "DICT",
        b'g' => "GET",
        b'i' => "INST",
        b'l' => "LIST",
        b'o' => "OBJ",
        b'p' => "PUT",
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8e => "BINBYTES8",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return format!("0x{op:02x}"),
    };
    format!("{name} (0x{op:02x})")
}
