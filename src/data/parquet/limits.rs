//! What a Parquet file may make the decoder take memory for. The decoder believes sizes that stand in the file, so they are
//! looked at before it gets them.

use super::delta;
use super::thrift::{Shape, Thrift, kind};
use parquet::basic::{Encoding, Type as Physical};
use parquet::column::page::Page;

/// Bytes of a footer.
const MAX_FOOTER: u64 = 256 << 20;
/// Elements of a file's schema.
const MAX_ELEMENTS: u64 = 1 << 16;
/// How deep groups may lie in each other.
const MAX_NESTING: usize = 32;
/// Bytes of one page when decompressed, and of the texts that it stands for.
pub(super) const MAX_PAGE: u64 = 64 << 20;
/// Bytes that one column of one row group may have when decompressed.
pub(super) const MAX_CHUNK: u64 = 2 << 30;
/// Bytes that the columns of a row group may have open together: of each the largest page and the dictionary.
pub(super) const MAX_OPEN: u64 = 1 << 30;
/// Values of lists that one page may have, and that may come before the next rows are asked for.
pub(super) const MAX_VALUES: u64 = 1 << 23;
/// Bytes that a dictionary's value takes at most, besides its text.
const DICTIONARY_VALUE: u64 = 32;

/// What a footer has.
const FOOTER: &Shape =
    &[(1, kind::I32), (2, kind::LIST), (3, kind::I64), (4, kind::LIST), (5, kind::LIST), (6, kind::BINARY), (7, kind::LIST)];
/// What an element of a schema has.
const ELEMENT: &Shape = &[
    (1, kind::I32),
    (2, kind::I32),
    (3, kind::I32),
    (4, kind::BINARY),
    (5, kind::I32),
    (6, kind::I32),
    (7, kind::I32),
    (8, kind::I32),
    (9, kind::I32),
    (10, kind::STRUCT),
];
/// What stands in front of a page.
const HEADER: &Shape = &[
    (1, kind::I32),
    (2, kind::I32),
    (3, kind::I32),
    (4, kind::I32),
    (5, kind::STRUCT),
    (6, kind::STRUCT),
    (7, kind::STRUCT),
    (8, kind::STRUCT),
];

/// What a page's header has for its kind of page, in the field with this number.
fn page_shape(field: i16) -> &'static Shape {
    match field {
        5 => &[(1, kind::I32), (2, kind::I32), (3, kind::I32), (4, kind::I32)],
        7 => &[(1, kind::I32), (2, kind::I32), (3, kind::TRUE)],
        _ => &[(1, kind::I32), (2, kind::I32), (3, kind::I32), (4, kind::I32), (5, kind::I32), (6, kind::I32), (7, kind::TRUE)],
    }
}

/// What a logical type has, in the field with this number.
fn logical_shape(field: i16) -> &'static Shape {
    match field {
        5 => &[(1, kind::I32), (2, kind::I32)],
        7 | 8 => &[(1, kind::TRUE), (2, kind::STRUCT)],
        10 => &[(1, kind::BYTE), (2, kind::TRUE)],
        16 => &[(1, kind::BYTE)],
        17 | 18 => &[(1, kind::BINARY), (2, kind::I32)],
        _ => &[],
    }
}

/// Passes over a logical type: one of several structures, of which some have a unit of time, again one of several structures.
fn logical(thrift: &mut Thrift<'_>) -> Option<()> {
    let one_of = |is: u8| (is == kind::STRUCT).then_some(());
    thrift.structure(&[], |thrift, variant| {
        one_of(variant.kind)?;
        thrift.structure(logical_shape(variant.id), |thrift, field| {
            let unit = matches!((variant.id, field.id), (7 | 8, 2));
            if unit {
                thrift.structure(&[], |_, unit| one_of(unit.kind).map(|()| false))?;
            }
            Some(unit)
        })?;
        Some(true)
    })
}

/// Looks at the schema in a file's footer. What is no footer at all is left to the decoder.
pub(super) fn footer(file: &[u8]) -> Result<(), String> {
    let Some((rest, end)) = file.split_last_chunk::<8>() else { return Ok(()) };
    let [a, b, c, d, magic @ ..] = *end;
    let size = u32::from_le_bytes([a, b, c, d]) as usize;
    if magic != *b"PAR1" || size > rest.len() {
        return Ok(());
    }
    if size as u64 > MAX_FOOTER {
        return Err(format!("its footer has {size} bytes; at most {MAX_FOOTER} are possible"));
    }
    let mut lie = None;
    let read = Thrift::new(&rest[rest.len() - size..]).structure(FOOTER, |thrift, field| {
        if field.id != 2 {
            return Some(false);
        }
        schema(thrift)?.map_err(|text| lie = Some(text)).ok().map(|()| true)
    });
    match (lie, read) {
        (Some(text), _) => Err(text),
        (None, None) => Err("its footer is damaged".into()),
        (None, Some(())) => Ok(()),
    }
}

/// Looks at the elements of a schema, which are a tree written from its root on.
fn schema(thrift: &mut Thrift<'_>) -> Option<Result<(), String>> {
    let (elements, kind) = thrift.list()?;
    if kind != kind::STRUCT {
        return None;
    }
    if elements > MAX_ELEMENTS {
        return Some(Err(format!("its schema has {elements} elements; at most {MAX_ELEMENTS} are possible")));
    }
    // children that are still to come, of each group from the root down
    let mut open: Vec<u64> = Vec::new();
    for element in 1..=elements {
        let mut children = 0;
        thrift.structure(ELEMENT, |thrift, field| {
            match field.id {
                5 => children = thrift.i32()?,
                10 => logical(thrift)?,
                _ => return Some(false),
            }
            Some(true)
        })?;
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        match u64::try_from(children) {
            Ok(0) => {}
            Ok(n) if n <= elements - element => open.push(n),
            _ => {
                return Some(Err(format!(
                    "a group of its schema says that it has {children} columns, but {} elements follow",
                    elements - element
                )));
            }
        }
        if open.len() > MAX_NESTING {
            return Some(Err(format!("groups of its schema lie more than {MAX_NESTING} deep in each other")));
        }
    }
    Some(Ok(()))
}

/// What is known of a column of a row group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) kind: Physical,
    /// It holds lists.
    pub(super) list: bool,
    /// Compressed with the old kind of LZ4.
    pub(super) lz4: bool,
}

/// What stands in front of a page.
#[derive(Debug, Default)]
struct Header {
    decompressed: i32,
    compressed: i32,
    values: i32,
    /// Values of a dictionary.
    dictionary: i32,
    /// Bytes of levels in front of what is compressed.
    levels: [i32; 2],
}

fn header(thrift: &mut Thrift<'_>) -> Option<Header> {
    let (mut found, mut kinds) = (Header::default(), 0);
    thrift.structure(HEADER, |thrift, field| {
        match field.id {
            2 => found.decompressed = thrift.i32()?,
            3 => found.compressed = thrift.i32()?,
            5 | 7 | 8 => {
                kinds += 1;
                thrift.structure(page_shape(field.id), |thrift, inner| {
                    let place = match (field.id, inner.id) {
                        (5 | 8, 1) => &mut found.values,
                        (7, 1) => &mut found.dictionary,
                        (8, 5) => &mut found.levels[0],
                        (8, 6) => &mut found.levels[1],
                        _ => return Some(false),
                    };
                    *place = thrift.i32()?;
                    Some(true)
                })?;
            }
            _ => return Some(false),
        }
        Some(true)
    })?;
    // of several kinds, the decoder takes parts of each
    (kinds < 2).then_some(found)
}

/// Looks at the headers of a column's pages, `bytes` from the first to the last. Gives the bytes that it may have open at once.
pub(super) fn pages(bytes: &[u8], chunk: Chunk) -> Result<u64, String> {
    let least = match chunk.kind {
        Physical::INT64 | Physical::DOUBLE => 8,
        Physical::BOOLEAN => 1,
        _ => 4,
    };
    let (mut at, mut largest, mut dictionary) = (0, 0, 0);
    while at < bytes.len() {
        let mut thrift = Thrift::new(&bytes[at..]);
        let header = header(&mut thrift).ok_or("a page's header is damaged")?;
        at += thrift.read();
        let count = |n: i32, what: &str| u64::try_from(n).map_err(|_| format!("a page says that it has {n} {what}"));
        let (decompressed, compressed) = (count(header.decompressed, "bytes")?, count(header.compressed, "bytes")?);
        let values = count(header.values, "values")?;
        let levels = count(header.levels[0], "bytes of levels")? + count(header.levels[1], "bytes of levels")?;
        if decompressed > MAX_PAGE {
            return Err(format!(
                "a page says that it has {decompressed} bytes when decompressed; at most {MAX_PAGE} are possible; write the file with smaller \
                 pages"
            ));
        }
        let page = usize::try_from(compressed).ok().and_then(|size| bytes[at..].get(..size));
        let page = page.ok_or_else(|| format!("a page says that it has {compressed} bytes, but {} follow", bytes.len() - at))?;
        at += page.len();
        let entries = u64::try_from(header.dictionary).ok().filter(|&n| n.saturating_mul(least) <= decompressed);
        let entries =
            entries.ok_or_else(|| format!("a dictionary says that it has {} values in {decompressed} bytes", header.dictionary))?;
        if chunk.list && values > MAX_VALUES {
            return Err(format!(
                "a page says that it has {values} values of lists; at most {MAX_VALUES} are possible; write the file with smaller pages"
            ));
        }
        let data = page.get(levels as usize..);
        let data = data.ok_or_else(|| format!("a page says that it has {levels} bytes of levels in {compressed} bytes"))?;
        if chunk.lz4 && framed(data) {
            return Err("a page holds LZ4 frames, which do not say how long they get; write the file with LZ4_RAW or ZSTD".into());
        }
        match header.dictionary {
            0 => largest = largest.max(decompressed),
            _ => dictionary += decompressed + entries * DICTIONARY_VALUE,
        }
    }
    Ok(largest + dictionary)
}

/// True when `bytes` begin as LZ4's frames do, of any kind.
fn framed(bytes: &[u8]) -> bool {
    let magic = bytes.first_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word));
    magic == 0x184d_2204 || magic == 0x184c_2102 || magic & !15 == 0x184d_2a50
}

/// Looks at the lengths of texts in a decompressed page, whose levels repeat and define up to these: the decoder takes memory for as many
/// as they say, and makes each text whole that stands there as what differs from the one before.
pub(super) fn texts(page: &Page, max_rep: i16, max_def: i16) -> Result<(), String> {
    let damaged = || {
        format!(
            "lengths of texts in a page are damaged, more than its header says, or more than {MAX_VALUES}; if they are that many, write the \
             file with smaller pages"
        )
    };
    let (bytes, encoding, values) = match page {
        Page::DataPage { buf, encoding, num_values, def_level_encoding, rep_level_encoding, .. } => {
            let mut at = 0usize;
            for (max, how) in [(max_rep, rep_level_encoding), (max_def, def_level_encoding)] {
                if max > 0 {
                    at = levels(buf, at, max, *how, *num_values).ok_or_else(damaged)?;
                }
            }
            (buf.get(at..), *encoding, *num_values)
        }
        Page::DataPageV2 { buf, encoding, num_values, def_levels_byte_len, rep_levels_byte_len, .. } => {
            let at = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
            (buf.get(at as usize..), *encoding, *num_values)
        }
        Page::DictionaryPage { .. } => return Ok(()),
    };
    let most = u64::from(values).min(MAX_VALUES);
    let bytes = bytes.ok_or_else(damaged)?;
    match encoding {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => delta::lengths(bytes, most).map(|_| ()).ok_or_else(damaged),
        Encoding::DELTA_BYTE_ARRAY => {
            let (_, shared, taken) = delta::lengths(bytes, most).ok_or_else(damaged)?;
            let rest = bytes.get(taken..).ok_or_else(damaged)?;
            let (_, own, _) = delta::lengths(rest, most).ok_or_else(damaged)?;
            match shared.checked_add(own) {
                Some(sum) if sum <= MAX_PAGE => Ok(()),
                _ => Err(format!(
                    "texts of a page have {shared} + {own} bytes; at most {MAX_PAGE} are possible; write the file with smaller pages"
                )),
            }
        }
        _ => Ok(()),
    }
}

/// Where the levels of a page end that begin at `at`.
fn levels(bytes: &[u8], at: usize, max: i16, encoding: Encoding, values: u32) -> Option<usize> {
    match encoding {
        Encoding::RLE => {
            let size = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
            at.checked_add(4)?.checked_add(size as usize)
        }
        _ => {
            let width = u64::from(16 - max.leading_zeros());
            at.checked_add(usize::try_from((u64::from(values) * width).div_ceil(8)).ok()?)
        }
    }
}
