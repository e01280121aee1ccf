//! Reads little-endian numbers from a slice, with every end checked.

/// A place in some bytes.
#[derive(Debug, Clone)]
pub(super) struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    /// The first byte of `all`.
    pub(super) fn new(all: &'a [u8]) -> Bytes<'a> {
        Bytes { all, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.all.len().saturating_sub(self.at)
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], String> {
        let fits = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let slice = fits.and_then(|end| self.all.get(self.at..end));
        let slice = slice.ok_or_else(|| format!("ends after {} bytes, where {len} more are announced", self.all.len()))?;
        self.at += slice.len();
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_le_bytes)
    }

    /// A number in network order, as pickles write floats.
    pub(super) fn f64_big(&mut self) -> Result<f64, String> {
        self.array().map(f64::from_be_bytes)
    }

    /// The next line of at most `limit` bytes, without its end.
    pub(super) fn line(&mut self, limit: usize) -> Result<&'a [u8], String> {
        let rest = self.all.get(self.at..).unwrap_or(&[]);
        let len = rest.iter().take(limit + 1).position(|&b| b == b'\n');
        let len = len.ok_or_else(|| format!("has a name without an end within {limit} bytes"))?;
        let line = self.take(len as u64)?;
        self.at += 1;
        Ok(line)
    }
}
