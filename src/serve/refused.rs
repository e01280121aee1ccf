//! Why a request is not answered as it asked, as the client sees it.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Bytes of a sentence; what a client sent may stand in it.
const LONGEST: usize = 500;

/// A status and one sentence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) sentence: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Refused {
        Refused { status, sentence: cut(sentence.into()) }
    }

    /// The request cannot be understood.
    pub(super) fn bad(sentence: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// There is no such thing.
    pub(super) fn absent(sentence: impl Into<String>) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, sentence)
    }

    /// The request asks for more than it may.
    pub(super) fn large(sentence: impl Into<String>) -> Refused {
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    }

    /// It could be answered later.
    pub(super) fn busy(sentence: impl Into<String>) -> Refused {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    }
}

/// A sentence of at most `LONGEST` bytes, with an ellipsis where more was said.
fn cut(mut sentence: String) -> String {
    if sentence.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| sentence.is_char_boundary(at)).unwrap_or(0);
        sentence.truncate(end);
        sentence.push('…');
        sentence.shrink_to_fit();
    }
    sentence
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = json(&serde_json::json!({ "error": self.sentence }));
        *response.status_mut() = self.status;
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A value as JSON that no cache keeps.
pub(super) fn json(value: &impl Serialize) -> Response {
    let Ok(text) = serde_json::to_vec(value) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_cut_between_characters() {
        assert_eq!(cut("é".repeat(250)), "é".repeat(250));
        assert_eq!(cut("é".repeat(251)), "é".repeat(250) + "…");
        assert_eq!(cut(format!("a{}", "é".repeat(1 << 20))), format!("a{}…", "é".repeat(249)));
    }
}
