//! What a pickle holds.

use crate::import::element::Element;

/// The place of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(pub(super) u32);

/// A function or a type that may stand in a state dict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `torch.Size`.
    Size,
    /// `torch.FloatStorage` and the like.
    Storage(Element),
    /// `numpy.core.multiarray.scalar`: DLRM keeps its measured accuracy and losses as such.
    NumpyScalar,
    /// `numpy.dtype`, inside a NumPy scalar.
    NumpyDtype,
    /// `_codecs.encode`: how a pickle of protocol 2 spells the bytes of a NumPy scalar.
    Encode,
}

/// A tensor as the pickle claims it; nothing is checked but the number of dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct RawTensor {
    /// The file's name of its storage.
    pub storage: Id,
    /// Type of the elements.
    pub element: Element,
    /// Elements in the storage.
    pub storage_len: i64,
    /// First element.
    pub offset: i64,
    /// Dimensions.
    pub sizes: Vec<i64>,
    /// Elements from one to the next along each dimension.
    pub strides: Vec<i64>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dictionary, ordered or not, as it was filled.
    Dict(Vec<(Id, Id)>),
    /// A function or a type.
    Global(Global),
    /// A storage: its name in the file and its elements.
    Storage {
        /// Type of the elements.
        element: Element,
        /// Its name, a text.
        key: Id,
        /// Elements.
        len: i64,
    },
    /// A tensor.
    Tensor(Box<RawTensor>),
    /// A NumPy type; what it says is of no interest here.
    NumpyDtype,
    /// A NumPy scalar or its bytes; what it says is of no interest here.
    Opaque,
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a truth value",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dictionary",
            Value::Global(_) => "a function",
            Value::Storage { .. } => "a storage",
            Value::Tensor(_) => "a tensor",
            Value::NumpyDtype => "a NumPy type",
            Value::Opaque => "a NumPy scalar",
        }
    }
}

/// A whole pickle.
#[derive(Debug, Clone)]
pub struct Pickle {
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
}

impl Pickle {
    /// The value that was saved.
    pub fn root(&self) -> &Value {
        self.value(self.root)
    }

    /// A value.
    pub fn value(&self, id: Id) -> &Value {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    /// A text, if the value is one.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}
