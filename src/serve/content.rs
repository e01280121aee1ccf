//! A file as an answer: conditions, ranges, encodings.

use super::stream::FileBody;
use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use std::fs::File;

/// Where bytes come from.
#[derive(Debug)]
pub(super) enum Bulk {
    Memory(Bytes),
    File(File, u64),
}

impl Bulk {
    fn len(&self) -> u64 {
        match self {
            Bulk::Memory(bytes) => bytes.len() as u64,
            Bulk::File(_, len) => *len,
        }
    }

    fn body(self, start: u64, len: u64) -> std::io::Result<Body> {
        Ok(match self {
            Bulk::Memory(bytes) => Body::from(bytes.slice(start as usize..(start + len) as usize)),
            Bulk::File(file, _) => Body::new(FileBody::new(file, start, len)?),
        })
    }
}

/// A file to be sent.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bulk: Bulk,
    /// The same, compressed with gzip.
    pub(super) gzip: Option<Bulk>,
    /// It is of a kind that is compressed for those who take it.
    pub(super) compressible: bool,
    /// Tells these bytes from others, without quotes.
    pub(super) tag: String,
    pub(super) mime: &'static str,
    /// Its name will never stand for other bytes.
    pub(super) immutable: bool,
}

/// Part of a file that is asked for.
#[derive(Debug, PartialEq)]
enum Part {
    Whole,
    /// First byte and length.
    Bytes(u64, u64),
    /// Beyond the end.
    Nowhere,
}

impl Content {
    /// The answer to a GET or HEAD with these headers.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn respond(self, method: &Method, asked: &HeaderMap) -> std::io::Result<Response> {
        let text = |name: HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
        let plain = format!("\"{}\"", self.tag);
        let range = text(header::RANGE).filter(|_| method == Method::GET);
        let range = range.filter(|_| text(header::IF_RANGE).is_none_or(|tag| tag == plain));
        // a range counts the bytes of the file itself
        let gzip = self.gzip.filter(|_| range.is_none() && accepts_gzip(text(header::ACCEPT_ENCODING).unwrap_or("")));
        let (bulk, tag, encoded) = match gzip {
            Some(gzip) => (gzip, format!("\"{}-gz\"", self.tag), true),
            None => (self.bulk, plain, false),
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        let cache = if self.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        headers.insert(header::ETAG, value(&tag)?);
        if self.compressible {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if text(header::IF_NONE_MATCH).is_some_and(|tags| holds(tags, &tag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let size = bulk.len();
        let (start, len) = match range.map_or(Part::Whole, |range| part(range, size)) {
            Part::Whole => (0, size),
            Part::Bytes(start, len) => {
                headers.insert(header::CONTENT_RANGE, value(&format!("bytes {start}-{}/{size}", start + len - 1))?);
                (start, len)
            }
            Part::Nowhere => {
                headers.insert(header::CONTENT_RANGE, value(&format!("bytes */{size}"))?);
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                return Ok(response);
            }
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.mime));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        if encoded {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if headers.contains_key(header::CONTENT_RANGE) {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        if method != Method::HEAD {
            *response.body_mut() = bulk.body(start, len)?;
        }
        Ok(response)
    }
}

fn value(text: &str) -> std::io::Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(std::io::Error::other)
}

/// True when a list of tags, or `*`, holds `tag`; weak ones count too.
fn holds(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|found| found == "*" || found.strip_prefix("W/").unwrap_or(found) == tag)
}

/// What a `Range` asks for of `size` bytes. Several ranges, and what is none, are answered with everything.
fn part(range: &str, size: u64) -> Part {
    let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().unwrap_or(u64::MAX));
    let Some((first, last)) = range.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else { return Part::Whole };
    match (first.trim(), last.trim()) {
        ("", "") => Part::Whole,
        ("", last) => match number(last) {
            None => Part::Whole,
            Some(last) if last == 0 || size == 0 => Part::Nowhere,
            Some(last) => Part::Bytes(size - last.min(size), last.min(size)),
        },
        (first, last) => match (number(first), if last.is_empty() { Some(u64::MAX) } else { number(last) }) {
            (Some(first), Some(last)) if first <= last && first < size => {
                Part::Bytes(first, (last - first).saturating_add(1).min(size - first))
            }
            (Some(first), Some(last)) if first <= last => Part::Nowhere,
            _ => Part::Whole,
        },
    }
}

/// What an `Accept-Encoding` says of gzip.
pub(super) fn accepts_gzip(accepted: &str) -> bool {
    let quality = |name: &str| {
        accepted.split(',').find_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let found = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(name));
            found.then(|| parts.find_map(|p| p.strip_prefix("q=")).is_none_or(|q| q.parse().is_ok_and(|q: f32| q > 0.0)))
        })
    };
    quality("gzip").or_else(|| quality("*")).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lie_inside_the_file() {
        for (range, expected) in [
            ("bytes=0-0", Part::Bytes(0, 1)),
            ("bytes=2-5", Part::Bytes(2, 4)),
            ("bytes=2-", Part::Bytes(2, 8)),
            ("bytes=-3", Part::Bytes(7, 3)),
            ("bytes=-30", Part::Bytes(0, 10)),
            ("bytes=9-99999999999999999999999", Part::Bytes(9, 1)),
            ("bytes=0-18446744073709551615", Part::Bytes(0, 10)),
            ("bytes=10-", Part::Nowhere),
            ("bytes=18446744073709551615-", Part::Nowhere),
            ("bytes=99999999999999999999999-", Part::Nowhere),
            ("bytes=-0", Part::Nowhere),
            ("bytes=5-2", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("rows=0-1", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!([part("bytes=0-", 0), part("bytes=-1", 0)], [Part::Nowhere, Part::Nowhere]);
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for yes in ["gzip", "deflate, GZIP;q=0.5", "*", "br, gzip ; q=1"] {
            assert!(accepts_gzip(yes), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "gzip;q=0.0, *", "*;q=0", "gzipped", "br;q=1"] {
            assert!(!accepts_gzip(no), "{no}");
        }
        assert!(holds("\"a\", W/\"b\"", "\"b\"") && holds("*", "\"b\"") && !holds("\"a\"", "\"b\"") && !holds("b", "\"b\""));
    }
}
