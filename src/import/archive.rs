//! The zip container of a PyTorch file: where each entry's bytes lie. PyTorch stores entries as they
//! are, so an entry is a range of the file. The reader is strict: sizes must agree wherever they stand
//! twice, and no two entries may share a byte or a name.

use super::bytes::Bytes;
use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};

/// A larger directory is refused, in bytes.
pub const MAX_DIRECTORY: u64 = 32 << 20;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
/// Bytes of the end record without its comment.
const END_LEN: u64 = 22;
/// The longest comment.
const MAX_COMMENT: u64 = 65_535;

/// A file inside the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name with folders.
    pub name: String,
    /// Where its bytes begin.
    pub start: u64,
    /// How many there are.
    pub len: u64,
    /// CRC-32 of its bytes; 0 where PyTorch was told not to compute it.
    pub crc: u32,
}

/// What the directory says of an entry before its local header is read.
struct Listed {
    entry: Entry,
    header: u64,
}

/// Where the directory lies.
struct Directory {
    start: u64,
    len: u64,
    entries: u64,
}

/// Reads `len` bytes at `start`. No caller asks for more than the file has.
pub(super) fn read_at<R: Read + Seek>(reader: &mut R, start: u64, len: u64) -> Result<Vec<u8>, String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {e}");
    reader.seek(SeekFrom::Start(start)).map_err(cannot)?;
    let mut bytes = Vec::new();
    reader.take(len).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(format!("ends before byte {}", start.saturating_add(len))) }
}

/// The entries of a zip file of `size` bytes, in the order in which they lie.
///
/// # Errors
/// A file that is cut or altered, compressed or encrypted entries, entries that overlap or share a name.
pub fn directory<R: Read + Seek>(reader: &mut R, size: u64) -> Result<Vec<Entry>, String> {
    let place = find(reader, size)?;
    let bytes = read_at(reader, place.start, place.len)?;
    let mut input = Bytes::new(&bytes);
    let mut listed = Vec::new();
    let mut names = HashSet::new();
    while input.left() > 0 {
        let entry = central(&mut input).map_err(|reason| format!("its zip directory {reason}"))?;
        if !names.insert(entry.entry.name.clone()) {
            return Err(format!("refused: the entry `{}` stands twice in the zip directory", entry.entry.name));
        }
        listed.push(entry);
    }
    if listed.len() as u64 != place.entries {
        return Err(format!("its zip directory lists {} entries, but should list {}", listed.len(), place.entries));
    }
    listed.sort_by_key(|l| l.header);
    let mut free = 0;
    let mut entries = Vec::with_capacity(listed.len());
    for item in listed {
        if item.header < free {
            return Err(format!("refused: the entry `{}` overlaps the one before it", item.entry.name));
        }
        let entry = local(reader, item, place.start)?;
        free = entry.start + entry.len;
        entries.push(entry);
    }
    Ok(entries)
}

/// Finds the directory from the record at the file's end.
fn find<R: Read + Seek>(reader: &mut R, size: u64) -> Result<Directory, String> {
    let tail_start = size.saturating_sub(END_LEN + MAX_COMMENT);
    let tail = read_at(reader, tail_start, size - tail_start)?;
    let ends_here = |at: &usize| {
        let mut record = Bytes::new(tail.get(*at..).unwrap_or(&[]));
        let comment = record.u32().ok().filter(|&mark| mark == END).and_then(|_| record.take(16).ok()).and_then(|_| record.u16().ok());
        comment.is_some_and(|len| usize::from(len) == record.left())
    };
    let cut = "is truncated or no zip file: the record that ends a zip file is missing";
    let at = (0..tail.len().saturating_sub(END_LEN as usize - 1)).rev().find(ends_here).ok_or(cut)?;
    let mut record = Bytes::new(tail.get(at + 4..).unwrap_or(&[]));
    let (disk, directory_disk) = (record.u16()?, record.u16()?);
    let (here, entries) = (record.u16()?, record.u16()?);
    let (len, start) = (record.u32()?, record.u32()?);
    let end = tail_start + at as u64;
    let mut place = Directory { start: start.into(), len: len.into(), entries: entries.into() };
    let mut limit = end;
    if entries == u16::MAX || len == u32::MAX || start == u32::MAX {
        (place, limit) = find_64(reader, end)?;
    } else if disk != 0 || directory_disk != 0 || here != entries {
        return Err("is one of several parts of a zip file; only whole ones are read".into());
    }
    if place.len > MAX_DIRECTORY {
        return Err(format!("its zip directory has {} bytes, more than the limit of {MAX_DIRECTORY}", place.len));
    }
    if place.start.checked_add(place.len).is_none_or(|end| end > limit) {
        return Err(format!(
            "is truncated or altered: its zip directory would lie at byte {} and have {} bytes, beyond byte {limit}",
            place.start, place.len
        ));
    }
    Ok(place)
}

/// The directory of a large archive; also where the records behind it begin.
fn find_64<R: Read + Seek>(reader: &mut R, end: u64) -> Result<(Directory, u64), String> {
    let missing = || "is truncated or altered: the record of a large zip file is missing".to_owned();
    let locator = end.checked_sub(20).ok_or_else(missing)?;
    let bytes = read_at(reader, locator, 20)?;
    let mut input = Bytes::new(&bytes);
    let (mark, disk, start) = (input.u32()?, input.u32()?, input.u64()?);
    if mark != LOCATOR_64 || disk != 0 || start.checked_add(56).is_none_or(|end| end > locator) {
        return Err(missing());
    }
    let bytes = read_at(reader, start, 56)?;
    let mut input = Bytes::new(&bytes);
    let mark = input.u32()?;
    input.take(12)?;
    let (disk, directory_disk) = (input.u32()?, input.u32()?);
    let (here, entries) = (input.u64()?, input.u64()?);
    let (len, first) = (input.u64()?, input.u64()?);
    if mark != END_64 || disk != 0 || directory_disk != 0 || here != entries {
        return Err(missing());
    }
    Ok((Directory { start: first, len, entries }, start))
}

/// One line of the directory.
fn central(input: &mut Bytes<'_>) -> Result<Listed, String> {
    if input.u32()? != CENTRAL {
        return Err(format!("is altered: no entry begins at its byte {}", input.at() - 4));
    }
    input.take(4)?; // the versions that wrote it and can read it
    let (flags, method) = (input.u16()?, input.u16()?);
    input.take(4)?; // time and date
    let crc = input.u32()?;
    let (mut stored, mut len) = (u64::from(input.u32()?), u64::from(input.u32()?));
    let (name_len, extra_len, comment_len) = (input.u16()?, input.u16()?, input.u16()?);
    input.take(8)?; // the disk and attributes
    let mut header = u64::from(input.u32()?);
    let name = std::str::from_utf8(input.take(name_len.into())?).map_err(|_| "has a name that is not UTF-8".to_owned())?;
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let mut extra = Bytes::new(input.take(extra_len.into())?);
    input.take(comment_len.into())?;
    while extra.left() >= 4 {
        let (id, len_of_field) = (extra.u16()?, extra.u16()?);
        let mut field = Bytes::new(extra.take(len_of_field.into())?);
        if id == 1 {
            // The 64-bit sizes, those only that do not fit the fields above, in this order.
            for value in [&mut len, &mut stored, &mut header] {
                if *value == u64::from(u32::MAX) {
                    *value = field.u64()?;
                }
            }
        }
    }
    if flags & 1 != 0 {
        return Err(format!("has an encrypted entry `{name}`; PyTorch writes none"));
    }
    if method != 0 {
        let method = if method == 8 { "deflate".to_owned() } else { format!("method {method}") };
        return Err(format!(
            "has a compressed entry `{name}` ({method}); PyTorch stores entries as they are, save the file with torch.save again"
        ));
    }
    if stored != len {
        return Err(format!("gives the entry `{name}` two sizes, {stored} and {len} bytes"));
    }
    Ok(Listed { entry: Entry { name, start: 0, len, crc }, header })
}

/// Finds an entry's bytes behind its local header; `limit` is where the directory begins.
fn local<R: Read + Seek>(reader: &mut R, item: Listed, limit: u64) -> Result<Entry, String> {
    let Listed { mut entry, header } = item;
    let outside =
        |entry: &Entry| format!("is truncated or altered: the entry `{}` of {} bytes lies outside of the file", entry.name, entry.len);
    if header.checked_add(30).is_none_or(|end| end > limit) {
        return Err(outside(&entry));
    }
    let bytes = read_at(reader, header, 30)?;
    let mut input = Bytes::new(&bytes);
    let mark = input.u32()?;
    input.take(4)?; // version and flags
    let method = input.u16()?;
    input.take(16)?; // time, date, checksum and sizes, which may stand behind the bytes instead
    let (name_len, extra_len) = (input.u16()?, input.u16()?);
    if mark != LOCAL || method != 0 || usize::from(name_len) != entry.name.len() {
        return Err(format!("is altered: the entry `{}` has another header than the directory says", entry.name));
    }
    entry.start = header + 30 + u64::from(name_len) + u64::from(extra_len);
    if entry.start.checked_add(entry.len).is_none_or(|end| end > limit) {
        return Err(outside(&entry));
    }
    Ok(entry)
}
