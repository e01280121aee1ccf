//! The functions and types that may stand in a state dict, and what calling one comes to.

use super::{Global, Id, MAX_DIMS, MAX_NAME, MAX_TENSORS, Machine, RawTensor, Value};
use crate::import::element::Element;

/// A function or type by its name.
pub(super) fn global(module: &str, name: &str) -> Result<Value, String> {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "Size") => Global::Size,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
        ("numpy", "dtype") => Global::NumpyDtype,
        ("_codecs", "encode") => Global::Encode,
        ("torch", storage) => match storage.strip_suffix("Storage").and_then(Element::from_torch) {
            Some(element) => Global::Storage(element),
            None => return Err(unknown(module, name)),
        },
        _ => return Err(unknown(module, name)),
    };
    Ok(Value::Global(known))
}

fn unknown(module: &str, name: &str) -> String {
    format!("calls `{}.{}`, which no state dict needs", module.escape_debug(), name.escape_debug())
}

impl Machine<'_> {
    /// STACK_GLOBAL: the names stand on the stack.
    pub(super) fn stack_global(&mut self) -> Result<(), String> {
        let name = self.pop()?;
        let module = self.pop()?;
        let value = match (self.value(module), self.value(name)) {
            (Value::Text(module), Value::Text(name)) if module.len().max(name.len()) <= MAX_NAME => global(module, name)?,
            (module, name) => return Err(format!("names a function by {} and {}", module.kind(), name.kind())),
        };
        self.push(value, 0)
    }

    /// REDUCE: a function and its arguments.
    pub(super) fn call(&mut self) -> Result<(), String> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let Value::Global(function) = *self.value(function) else {
            return Err(format!("calls {}, which no state dict needs", self.value(function).kind()));
        };
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err(format!("calls a function with {} for its arguments", self.value(arguments).kind()));
        };
        let value = match (function, arguments.as_slice()) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::Size, &[sizes]) if matches!(self.value(sizes), Value::Tuple(_)) => return self.push_id(sizes),
            (Global::RebuildParameter, &[tensor, _, _]) if matches!(self.value(tensor), Value::Tensor(_)) => return self.push_id(tensor),
            (Global::RebuildTensor, &[storage, offset, sizes, strides, _, _] | &[storage, offset, sizes, strides, _, _, _]) => {
                self.tensor(storage, offset, sizes, strides)?
            }
            (Global::NumpyDtype, &[name, _, _]) if matches!(self.value(name), Value::Text(_)) => Value::NumpyDtype,
            (Global::NumpyScalar, &[dtype, bytes])
                if matches!((self.value(dtype), self.value(bytes)), (Value::NumpyDtype, Value::Opaque)) =>
            {
                Value::Opaque
            }
            (Global::Encode, &[text, code])
                if matches!(self.value(text), Value::Text(_)) && matches!(self.value(code), Value::Text(code) if code == "latin1") =>
            {
                Value::Opaque
            }
            (function, arguments) => {
                return Err(format!("calls {function:?} with {} arguments that do not fit it", arguments.len()));
            }
        };
        self.push(value, 0)
    }

    fn tensor(&mut self, storage: Id, offset: Id, sizes: Id, strides: Id) -> Result<Value, String> {
        self.tensors += 1;
        if self.tensors > MAX_TENSORS {
            return Err(format!("has more than {MAX_TENSORS} tensors"));
        }
        let Value::Storage { element, key, len } = *self.value(storage) else {
            return Err(format!("makes a tensor from {}, not from a storage", self.value(storage).kind()));
        };
        let Value::Int(offset) = *self.value(offset) else {
            return Err(format!("makes a tensor whose offset is {}", self.value(offset).kind()));
        };
        let (sizes, strides) = (self.integers(sizes)?, self.integers(strides)?);
        if sizes.len() != strides.len() {
            return Err(format!("makes a tensor of {} dimensions with {} strides", sizes.len(), strides.len()));
        }
        let tensor = RawTensor { storage: key, element, storage_len: len, offset, sizes, strides };
        Ok(Value::Tensor(Box::new(tensor)))
    }

    /// A short tuple of integers.
    fn integers(&self, id: Id) -> Result<Vec<i64>, String> {
        let Value::Tuple(items) = self.value(id) else {
            return Err(format!("makes a tensor whose size or stride is {}", self.value(id).kind()));
        };
        if items.len() > MAX_DIMS {
            return Err(format!("makes a tensor of {} dimensions, more than the limit of {MAX_DIMS}", items.len()));
        }
        let integer = |&id: &Id| match self.value(id) {
            Value::Int(n) => Ok(*n),
            other => Err(format!("makes a tensor one of whose sizes or strides is {}", other.kind())),
        };
        items.iter().map(integer).collect()
    }

    /// BUILD: attributes of a value. PyTorch notes versions in a state dict's `_metadata`; NumPy's types have some.
    pub(super) fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let built = self.top()?;
        match (self.value(built), self.value(state)) {
            (Value::NumpyDtype, Value::Tuple(_)) => Ok(()),
            (Value::Dict(_), Value::Dict(attributes)) => {
                let other = attributes.iter().find(|(key, _)| !matches!(self.value(*key), Value::Text(name) if name == "_metadata"));
                match other.map(|(key, _)| self.value(*key)) {
                    None => Ok(()),
                    Some(Value::Text(name)) => {
                        Err(format!("sets the attribute `{}` of a dictionary, which no state dict needs", name.escape_debug()))
                    }
                    Some(key) => Err(format!("sets an attribute of a dictionary that is named by {}", key.kind())),
                }
            }
            (built, state) => {
                Err(format!("sets attributes of {} from {} (opcode BUILD), which no state dict needs", built.kind(), state.kind()))
            }
        }
    }

    /// BINPERSID: a storage, which PyTorch keeps beside the pickle.
    pub(super) fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let parts: Vec<&Value> = match self.value(id) {
            Value::Tuple(items) if items.len() == 5 => items.iter().map(|&item| self.value(item)).collect(),
            other => return Err(format!("names something outside of itself by {}, not by the five parts of a storage", other.kind())),
        };
        let &[Value::Text(word), Value::Global(Global::Storage(element)), Value::Text(_), Value::Text(_), Value::Int(len)] =
            parts.as_slice()
        else {
            return Err("names a storage by parts that do not fit".into());
        };
        if word != "storage" {
            return Err(format!("names a `{}` outside of itself; only a storage can be", word.escape_debug()));
        }
        let (element, len) = (*element, *len);
        let key = match self.value(id) {
            Value::Tuple(items) => items.get(2).copied().unwrap_or(id),
            _ => id,
        };
        self.push(Value::Storage { element, key, len }, 0)
    }
}
