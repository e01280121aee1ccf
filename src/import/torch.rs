//! The state dict inside a pickle, and where in its storage a tensor's values lie.

use super::pickle::{Id, Pickle, RawTensor, Value};

/// Keys under which training programs keep a state dict.
const NESTED: [&str; 2] = ["state_dict", "model_state_dict"];

/// The tensors of the state dict, by name, and the names of its other values.
#[derive(Debug, Default)]
pub(super) struct StateDict<'a> {
    pub(super) tensors: Vec<(&'a str, &'a RawTensor)>,
    pub(super) others: Vec<&'a str>,
}

/// Finds the state dict: what was saved, or what stands under `state_dict` or `model_state_dict` in it.
pub(super) fn state_dict(pickle: &Pickle) -> Result<StateDict<'_>, String> {
    let mut dict = match pickle.root() {
        Value::Dict(items) => items,
        other => return Err(format!("holds {}, not a state dict; save one with torch.save(model.state_dict(), …)", other.kind())),
    };
    // One dictionary a step, so that one that holds itself ends too.
    for _ in 0..4 {
        let inner = dict.iter().rev().find_map(|(key, value)| match pickle.value(*value) {
            Value::Dict(items) if pickle.text(*key).is_some_and(|key| NESTED.contains(&key)) => Some(items),
            _ => None,
        });
        match inner {
            Some(items) => dict = items,
            None => break,
        }
    }
    let found = named(pickle, dict)?;
    if found.tensors.is_empty() {
        let keys: Vec<String> = dict.iter().take(8).map(|(key, _)| format!("`{}`", shown(pickle, *key))).collect();
        let keys = if keys.is_empty() { "it is empty".into() } else { format!("its keys are {}", keys.join(", ")) };
        return Err(format!("holds no tensors where a state dict should be; {keys}"));
    }
    Ok(found)
}

fn named<'a>(pickle: &'a Pickle, dict: &[(Id, Id)]) -> Result<StateDict<'a>, String> {
    let mut found = StateDict::default();
    let mut names = std::collections::HashSet::new();
    for &(key, value) in dict {
        let Some(name) = pickle.text(key) else { continue };
        if !names.insert(name) {
            return Err(format!("refused: the name `{}` stands twice in the state dict", name.escape_debug()));
        }
        match pickle.value(value) {
            Value::Tensor(tensor) => found.tensors.push((name, tensor.as_ref())),
            _ => found.others.push(name),
        }
    }
    Ok(found)
}

fn shown(pickle: &Pickle, key: Id) -> String {
    pickle
        .text(key)
        .map_or_else(|| pickle.value(key).kind().to_owned(), |text| text.chars().take(60).collect::<String>().escape_debug().to_string())
}

/// Where a tensor's values lie in its storage, in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// First element.
    pub(super) offset: u64,
    /// Elements from the first to the last, both counted.
    pub(super) len: u64,
    /// Dimensions.
    pub(super) shape: Vec<u64>,
    /// Elements from one to the next along each dimension; `None` when they lie one after the other.
    pub(super) strides: Option<Vec<u64>>,
}

/// Checks what the pickle claims of a tensor against its storage of `tensor.storage_len` elements.
pub(super) fn span(tensor: &RawTensor) -> Result<Span, String> {
    let claims = || format!("claims offset {}, sizes {:?} and strides {:?}", tensor.offset, tensor.sizes, tensor.strides);
    let unsigned = |list: &[i64]| list.iter().map(|&n| u64::try_from(n)).collect::<Result<Vec<u64>, _>>();
    let numbers = (unsigned(&tensor.sizes), unsigned(&tensor.strides), u64::try_from(tensor.offset), u64::try_from(tensor.storage_len));
    let (Ok(shape), Ok(strides), Ok(offset), Ok(storage)) = numbers else {
        return Err(format!("{}, one of which is negative", claims()));
    };
    let beyond = || format!("{}, which lies outside of its storage of {storage} elements", claims());
    let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).ok_or_else(beyond)?;
    if count == 0 {
        return Ok(Span { offset: 0, len: 0, shape, strides: None });
    }
    if count > storage {
        return Err(beyond());
    }
    let last = shape.iter().zip(&strides).try_fold(0u64, |at, (&d, &s)| (d - 1).checked_mul(s).and_then(|n| at.checked_add(n)));
    let len = last.and_then(|n| n.checked_add(1)).ok_or_else(beyond)?;
    if offset.checked_add(len).is_none_or(|end| end > storage) {
        return Err(beyond());
    }
    let mut expected = 1;
    let mut contiguous = true;
    for (&d, &s) in shape.iter().zip(&strides).rev() {
        contiguous &= d == 1 || s == expected;
        expected *= d;
    }
    Ok(Span { offset, len, shape, strides: (!contiguous).then_some(strides) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::element::Element;
    use crate::import::pickle::decode;

    fn claimed(offset: i64, sizes: &[i64], strides: &[i64], storage_len: i64) -> Result<Span, String> {
        let Value::Dict(items) = decode(b"\x80\x02}X\x01\x00\x00\x00aNs.").unwrap().root().clone() else { panic!() };
        span(&RawTensor { storage: items[0].0, element: Element::F32, storage_len, offset, sizes: sizes.into(), strides: strides.into() })
    }

    #[test]
    fn contiguous_and_strided_tensors_have_their_place() {
        let found = claimed(2, &[2, 3], &[3, 1], 8).unwrap();
        assert_eq!((found.offset, found.len, found.strides), (2, 6, None));
        let found = claimed(0, &[2, 3], &[1, 2], 6).unwrap();
        assert_eq!((found.len, found.strides), (6, Some(vec![1, 2])));
        assert_eq!(claimed(0, &[1, 3], &[77, 1], 3).unwrap().strides, None, "a stride along one element means nothing");
        assert_eq!(claimed(0, &[2, 2], &[0, 1], 4).unwrap().len, 2, "rows may repeat");
        assert_eq!(claimed(0, &[], &[], 1).unwrap().len, 1);
        assert_eq!(claimed(9, &[0, 3], &[3, 1], 0).unwrap().len, 0);
    }

    #[test]
    fn claims_beyond_the_storage_are_refused() {
        let max = i64::MAX;
        for (offset, sizes, strides, storage, says) in [
            (-1, [2, 3], [3, 1], 6, "negative"),
            (0, [2, -3], [3, 1], 6, "negative"),
            (0, [2, 3], [-3, 1], 6, "negative"),
            (0, [2, 3], [3, 1], -6, "negative"),
            (1, [2, 3], [3, 1], 6, "outside of its storage of 6 elements"),
            (0, [2, 3], [4, 1], 6, "outside"),
            (0, [2, 3], [max, 1], 6, "outside"),
            (0, [3, 3], [max, max], 9, "outside"),
            (max, [2, 3], [3, 1], max, "outside"),
            (0, [max, max], [1, 1], max, "outside"),
            (0, [1000, 3], [0, 0], 6, "outside"),
        ] {
            let text = claimed(offset, &sizes, &strides, storage).unwrap_err();
            assert!(text.contains(says), "{text}");
        }
    }
}
