//! The files of the web page: inside the program, in a folder, or in their place one that says how to get them.

use super::content::{Bulk, Content};
use crate::error::{Error, Result};
use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::UNIX_EPOCH;
use xxhash_rust::xxh3::xxh3_64;

/// Larger files are not compressed on the way.
const MAX_COMPRESSED: u64 = 16 << 20;
/// Files that were compressed and are kept so.
const MAX_KEPT: usize = 64;

#[cfg(feature = "page")]
#[derive(rust_embed::RustEmbed)]
#[folder = "web/dist"]
struct Dist;

/// What answers when there is no page.
const ABSENT: &str = include_str!("absent.html");

/// Where the files are.
#[derive(Debug)]
enum Place {
    #[cfg(feature = "page")]
    Program,
    Folder(PathBuf),
    Absent,
}

/// The page.
#[derive(Debug)]
pub(super) struct Page {
    place: Place,
    /// By name: the tag of what was compressed, and the result.
    compressed: Mutex<HashMap<String, (String, Bytes)>>,
}

/// A file as it is stored.
struct Stored {
    bulk: Bulk,
    tag: String,
}

impl Page {
    /// The page in `folder`, or the one inside the program, or the one in `web/dist` below the current folder if there is one.
    ///
    /// # Errors
    /// A folder without `index.html`.
    pub(super) fn open(folder: Option<&Path>) -> Result<Page> {
        let usual = Path::new("web/dist");
        let place = match folder {
            Some(folder) if !folder.join("index.html").is_file() => {
                let folder = folder.display();
                return Err(Error::Config(format!("`{folder}` has no index.html; web/build makes the page, in web/dist")));
            }
            Some(folder) => Place::Folder(folder.canonicalize().map_err(Error::io("read", folder))?),
            #[cfg(feature = "page")]
            None => Place::Program,
            #[cfg(not(feature = "page"))]
            None if usual.join("index.html").is_file() => Place::Folder(usual.canonicalize().map_err(Error::io("read", usual))?),
            #[cfg(not(feature = "page"))]
            None => Place::Absent,
        };
        let _ = usual;
        Ok(Page { place, compressed: Mutex::default() })
    }

    /// Where it comes from, for people.
    pub(super) fn describe(&self) -> String {
        match &self.place {
            #[cfg(feature = "page")]
            Place::Program => "inside the program".into(),
            Place::Folder(folder) => folder.display().to_string(),
            Place::Absent => "not built; web/build makes it, --page names its folder".into(),
        }
    }

    /// The file of a URL's path. With `gzip`, a compressed form too, where the file is of a kind that becomes smaller.
    pub(super) fn find(&self, path: &str, gzip: bool) -> Option<Content> {
        let name = if path == "/" { "index.html" } else { path.strip_prefix('/')? };
        if !plain(name) {
            return None;
        }
        let stored = self.stored(name)?;
        let (mime, compressible) = mime(name);
        let gzip = if gzip && compressible { self.gzip(name, &stored) } else { None };
        Some(Content { bulk: stored.bulk, gzip, compressible, tag: stored.tag, mime, immutable: hashed(name) })
    }

    fn stored(&self, name: &str) -> Option<Stored> {
        match &self.place {
            #[cfg(feature = "page")]
            Place::Program => {
                let file = Dist::get(name)?;
                let tag: String = file.metadata.sha256_hash()[..8].iter().map(|b| format!("{b:02x}")).collect();
                let bytes = match file.data {
                    std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                    std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
                };
                Some(Stored { bulk: Bulk::Memory(bytes), tag })
            }
            Place::Folder(folder) => {
                // a link may not lead out of the folder
                let path = folder.join(name).canonicalize().ok()?;
                path.starts_with(folder).then(|| open(&path)).flatten()
            }
            Place::Absent => {
                let tag = format!("{:016x}", xxh3_64(ABSENT.as_bytes()));
                (name == "index.html").then(|| Stored { bulk: Bulk::Memory(Bytes::from_static(ABSENT.as_bytes())), tag })
            }
        }
    }

    /// The file `NAME.gz` beside a file, or the file compressed now.
    fn gzip(&self, name: &str, stored: &Stored) -> Option<Bulk> {
        if let Some(beside) = self.stored(&format!("{name}.gz")) {
            return Some(beside.bulk);
        }
        let kept =
            |map: &HashMap<String, (String, Bytes)>| map.get(name).filter(|(tag, _)| *tag == stored.tag).map(|(_, bytes)| bytes.clone());
        if let Some(bytes) = self.compressed.lock().ok().and_then(|map| kept(&map)) {
            return Some(Bulk::Memory(bytes));
        }
        let bytes = compress(&stored.bulk)?;
        let mut map = self.compressed.lock().ok()?;
        if map.len() < MAX_KEPT || map.contains_key(name) {
            map.insert(name.into(), (stored.tag.clone(), bytes.clone()));
        }
        Some(Bulk::Memory(bytes))
    }
}

/// A regular file, with a tag that changes when it is written.
fn open(path: &Path) -> Option<Stored> {
    let file = File::open(path).ok()?;
    let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some(Stored { tag: tag(&meta), bulk: Bulk::File(file, meta.len()) })
}

/// A tag of a file's length and time.
pub(super) fn tag(meta: &std::fs::Metadata) -> String {
    let time = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_nanos());
    format!("{:x}-{time:x}", meta.len())
}

fn compress(bulk: &Bulk) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    match bulk {
        Bulk::Memory(bytes) if bytes.len() as u64 <= MAX_COMPRESSED => encoder.write_all(bytes).ok()?,
        Bulk::File(file, len) if *len <= MAX_COMPRESSED => {
            // a second handle would share its place; bodies begin by looking theirs up
            let mut bytes = Vec::with_capacity(*len as usize);
            file.take(*len).read_to_end(&mut bytes).ok()?;
            (bytes.len() as u64 == *len).then_some(())?;
            encoder.write_all(&bytes).ok()?;
        }
        _ => return None,
    }
    encoder.finish().ok().map(Bytes::from)
}

/// True for the names that the page's files may have: parts of letters, digits, `-`, `_` and `.` that begin with a letter or a digit.
fn plain(name: &str) -> bool {
    let part = |part: &str| {
        part.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
    };
    name.len() <= 255 && name.split('/').all(part)
}

/// True for names with a hash of what they stand for: a part of at least eight hexadecimal digits, both numbers and letters among
/// them. Numbers alone may be a date.
fn hashed(name: &str) -> bool {
    let hash = |part: &str| {
        let any = |kind: fn(&u8) -> bool| part.as_bytes().iter().any(kind);
        part.len() >= 8 && part.bytes().all(|c| c.is_ascii_hexdigit()) && any(u8::is_ascii_digit) && any(u8::is_ascii_alphabetic)
    };
    let file = name.rsplit('/').next().unwrap_or(name);
    file.split(['.', '-', '_']).any(hash)
}

/// The media type of a file, and whether it becomes smaller when it is compressed.
fn mime(name: &str) -> (&'static str, bool) {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => ("text/html; charset=utf-8", true),
        "css" => ("text/css; charset=utf-8", true),
        "js" | "mjs" => ("text/javascript; charset=utf-8", true),
        "json" | "map" => ("application/json", true),
        "webmanifest" => ("application/manifest+json", true),
        "wasm" => ("application/wasm", true),
        "svg" => ("image/svg+xml", true),
        "txt" | "md" | "wgsl" | "tsv" | "csv" | "ts" => ("text/plain; charset=utf-8", true),
        "png" => ("image/png", false),
        "jpg" | "jpeg" => ("image/jpeg", false),
        "webp" => ("image/webp", false),
        "ico" => ("image/x-icon", false),
        "woff2" => ("font/woff2", false),
        "gz" => ("application/gzip", false),
        _ => ("application/octet-stream", false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_looked_up() {
        for name in ["index.html", "pkg/dqrm_web_bg.wasm", "model/clicks.int4.safetensors", "a-1_b.js"] {
            assert!(plain(name), "{name}");
        }
        for name in
            ["", "/", "a//b", "..", "../a", "a/../b", "./a", ".git", "a/.b", "a\\b", "a%2e", "a b", "C:", "a\0", "é", "a/", "_a", "-a"]
        {
            assert!(!plain(name), "{name}");
        }
        assert!(!plain(&"a".repeat(256)));
    }

    #[test]
    fn names_with_a_hash_are_known() {
        for (name, is) in [
            ("engine-3f2a9b1c.js", true),
            ("a.0123456789abcdef.css", true),
            ("pkg/dqrm_web.js", false),
            ("deadbeef.js", false),
            ("a-12.js", false),
            ("r-20240101.csv", false),
            ("20240101-a0b1c2d3.csv", true),
        ] {
            assert_eq!(hashed(name), is, "{name}");
        }
    }
}
