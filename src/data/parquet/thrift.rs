//! Thrift's compact protocol, as much as is needed to look at Parquet's descriptions before a decoder takes memory for what
//! they say. Bytes in, numbers out; nothing is allocated.

/// How deep structures may lie in each other.
const MAX_DEPTH: usize = 64;

/// Bytes that are read from their beginning on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thrift<'a> {
    bytes: &'a [u8],
    /// Bytes that were read.
    at: usize,
}

/// What stands in front of a field: its number and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) id: i16,
    pub(super) kind: u8,
}

/// The types of a structure's fields that the decoder knows: it goes by their numbers and does not look at the types.
pub(super) type Shape = [(i16, u8)];

/// Types of fields.
pub(super) mod kind {
    pub(in super::super) const TRUE: u8 = 1;
    pub(in super::super) const FALSE: u8 = 2;
    pub(in super::super) const BYTE: u8 = 3;
    pub(in super::super) const I16: u8 = 4;
    pub(in super::super) const I32: u8 = 5;
    pub(in super::super) const I64: u8 = 6;
    pub(in super::super) const DOUBLE: u8 = 7;
    pub(in super::super) const BINARY: u8 = 8;
    pub(in super::super) const LIST: u8 = 9;
    pub(in super::super) const SET: u8 = 10;
    pub(in super::super) const STRUCT: u8 = 12;
    pub(in super::super) const UUID: u8 = 13;
}

impl<'a> Thrift<'a> {
    /// Begins at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Thrift<'a> {
        Thrift { bytes, at: 0 }
    }

    /// Bytes that were read.
    pub(super) fn read(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        let at = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        (at <= self.bytes.len()).then(|| self.at = at)
    }

    /// A whole number without sign.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127).checked_shl(shift)?;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    /// A whole number.
    pub(super) fn int(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A whole number of 32 bits; a larger one is damage.
    pub(super) fn i32(&mut self) -> Option<i32> {
        i32::try_from(self.int()?).ok()
    }

    /// What stands in front of the field after the one numbered `last`; `Some(None)` ends a structure. Numbers rise.
    fn field(&mut self, last: i16) -> Option<Option<Field>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        let id = match byte >> 4 {
            0 => i16::try_from(self.int()?).ok()?,
            more => last.checked_add(i16::from(more))?,
        };
        (id > last).then_some(Some(Field { id, kind: byte & 15 }))
    }

    /// The number of a list's elements, and their type.
    pub(super) fn list(&mut self) -> Option<(u64, u8)> {
        let byte = self.byte()?;
        let size = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
        // an element takes a byte at least
        (size <= (self.bytes.len() - self.at) as u64).then_some((size, byte & 15))
    }

    /// Reads a structure, whose known fields have the types of `shape`; `each` reads the value of a field or says that it does not
    /// want it.
    pub(super) fn structure(&mut self, shape: &Shape, mut each: impl FnMut(&mut Thrift<'a>, Field) -> Option<bool>) -> Option<()> {
        let mut last = 0;
        while let Some(field) = self.field(last)? {
            let kind = if field.kind == kind::FALSE { kind::TRUE } else { field.kind };
            if shape.iter().any(|&(id, known)| id == field.id && known != kind) {
                return None;
            }
            if !each(self, field)? {
                self.skip(field.kind, MAX_DEPTH)?;
            }
            last = field.id;
        }
        Some(())
    }

    /// Passes over a value; `depth` structures may still lie in each other.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            kind::TRUE | kind::FALSE => Some(()),
            kind::BYTE => self.pass(1),
            kind::I16 | kind::I32 | kind::I64 => self.varint().map(|_| ()),
            kind::DOUBLE => self.pass(8),
            kind::UUID => self.pass(16),
            kind::BINARY => {
                let bytes = self.varint()?;
                self.pass(bytes)
            }
            kind::LIST | kind::SET => {
                let (size, kind) = self.list()?;
                // truths in a list, which Parquet does not have here, are a byte each, but the decoder passes over none
                if kind <= kind::FALSE && size > 0 {
                    return None;
                }
                (0..size).try_for_each(|_| self.skip(kind, depth))
            }
            kind::STRUCT => {
                while let Some(field) = self.field(0)? {
                    self.skip(field.kind, depth)?;
                }
                Some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_wanted_is_passed_over() {
        // 1: i32 -3; 2: list of two structures {1: binary "ab"}; 5: true; 6: double; 7: i64 300
        let mut bytes = vec![0x15, 5, 0x19, 0x2c, 0x18, 2, b'a', b'b', 0, 0x18, 0, 0, 0x31, 0x17];
        bytes.extend(1.5f64.to_le_bytes());
        bytes.extend([0x16, 0xd8, 4, 0, 99]);
        let (mut found, mut thrift) = (Vec::new(), Thrift::new(&bytes));
        let each = |t: &mut Thrift<'_>, f: Field| {
            if f.id == 1 || f.id == 7 {
                found.push(t.int()?);
            }
            Some(f.id == 1 || f.id == 7)
        };
        thrift.structure(&[(1, kind::I32), (5, kind::TRUE), (7, kind::I64)], each).unwrap();
        assert_eq!((found, thrift.read()), (vec![-3, 300], bytes.len() - 1));
    }

    #[test]
    fn lies_end_it() {
        let ends = |bytes: &[u8]| Thrift::new(bytes).structure(&[(2, kind::I32), (3, kind::TRUE)], |_, _| Some(false)).is_none();
        assert!(ends(&[0x18, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0]), "text of 32 GiB");
        assert!(ends(&[0x19, 0xf3, 0xff, 0xff, 0x3f, 1, 0]), "a list of a million bytes");
        assert!(ends(&[0x16, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0]), "a number of 84 bits");
        assert!(ends(&[vec![0x1c; 1000], vec![0; 1001]].concat()), "a thousand structures in each other");
        assert!(!ends(&[vec![0x1c; 60], vec![0; 61]].concat()), "sixty");
        assert!(ends(&[0x15, 2]), "no end");
        assert!(ends(&[0x1e, 0]), "an unknown type");
        assert!(ends(&[0x19, 0x11, 1, 0]), "a list of truths");
        assert!(!ends(&[0x25, 2, 0]), "the known type");
        assert!(ends(&[0x26, 2, 0]) && ends(&[0x24, 2, 0]), "a number of another width under a known number");
        assert!(!ends(&[0x31, 0]) && !ends(&[0x32, 0]) && ends(&[0x33, 0, 0]), "true and false, no byte");
        assert!(ends(&[0x20, 0]), "an end that is none");
    }

    #[test]
    fn numbers_of_fields_rise_and_have_sixteen_bits() {
        let ends = |bytes: &[u8]| Thrift::new(bytes).structure(&[], |_, _| Some(false)).is_none();
        assert!(!ends(&[0x15, 2, 0x05, 6, 2, 0]), "1, then 3 in full");
        assert!(ends(&[0x25, 2, 0x05, 4, 2, 0]), "2 twice");
        assert!(ends(&[0x35, 2, 0x05, 4, 2, 0]), "3, then 2");
        assert!(ends(&[0x05, 3, 2, 0]), "-2");
        assert!(ends(&[0x05, 0, 2, 0]), "0");
        assert!(ends(&[0x05, 0x84, 0x80, 8, 2, 0]), "65538, which is 2 in sixteen bits");
        assert!(ends(&[0x05, 0xfe, 0xff, 3, 2, 0x15, 2, 0]), "32767, and one more");
        assert_eq!(Thrift::new(&[0x82, 0x80, 0x80, 0x80, 0x20]).i32(), None, "2^32 + 1");
        assert_eq!(Thrift::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).i32(), Some(i32::MIN));
    }
}
