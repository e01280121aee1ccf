//! Types of tensor elements, and the floating-point ones as `f32`.

use half::{bf16, f16};

/// What a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 64-bit floating point.
    F64,
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point, IEEE.
    F16,
    /// 16-bit floating point with the range of `f32`.
    Bf16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// 8-bit integer without sign.
    U8,
    /// Truth values.
    Bool,
}

impl Element {
    /// PyTorch's storage types without `Storage`: `Float`, `Half`, `Long` ….
    pub fn from_torch(name: &str) -> Option<Element> {
        Some(match name {
            "Double" => Element::F64,
            "Float" => Element::F32,
            "Half" => Element::F16,
            "BFloat16" => Element::Bf16,
            "Long" => Element::I64,
            "Int" => Element::I32,
            "Short" => Element::I16,
            "Char" => Element::I8,
            "Byte" => Element::U8,
            "Bool" => Element::Bool,
            _ => return None,
        })
    }

    /// As safetensors spells it.
    pub fn from_safetensors(name: &str) -> Option<Element> {
        Some(match name {
            "F64" => Element::F64,
            "F32" => Element::F32,
            "F16" => Element::F16,
            "BF16" => Element::Bf16,
            "I64" => Element::I64,
            "I32" => Element::I32,
            "I16" => Element::I16,
            "I8" => Element::I8,
            "U8" => Element::U8,
            "BOOL" => Element::Bool,
            _ => return None,
        })
    }

    /// Bytes of one.
    pub fn bytes(self) -> u64 {
        match self {
            Element::F64 | Element::I64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::F16 | Element::Bf16 | Element::I16 => 2,
            Element::I8 | Element::U8 | Element::Bool => 1,
        }
    }

    /// True for the floating-point types, which weights may have.
    pub fn is_float(self) -> bool {
        matches!(self, Element::F64 | Element::F32 | Element::F16 | Element::Bf16)
    }

    /// As users know it.
    pub fn name(self) -> &'static str {
        match self {
            Element::F64 => "F64",
            Element::F32 => "F32",
            Element::F16 => "F16",
            Element::Bf16 => "BF16",
            Element::I64 => "I64",
            Element::I32 => "I32",
            Element::I16 => "I16",
            Element::I8 => "I8",
            Element::U8 => "U8",
            Element::Bool => "BOOL",
        }
    }

    /// Appends little-endian bytes as `f32`; nothing for integers.
    pub fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            Element::F64 => values.extend(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32)),
            Element::F32 => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Element::F16 => values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Element::Bf16 => values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_floating_point_type_becomes_f32() {
        let mut values = Vec::new();
        Element::F64.decode(&(-0.75f64).to_le_bytes(), &mut values);
        Element::F32.decode(&1.5f32.to_le_bytes(), &mut values);
        Element::F16.decode(&[0x00, 0x3c, 0x00, 0xc0, 0xff], &mut values);
        Element::Bf16.decode(&[0x80, 0x3f], &mut values);
        assert_eq!(values, [-0.75, 1.5, 1.0, -2.0, 1.0], "an odd byte at the end is no value");
        Element::I64.decode(&[0; 8], &mut values);
        assert_eq!(values.len(), 5);
    }
}
