//! Whom the server answers, and what its answers tell a browser.

use super::lent::Lent;
use super::refused::Refused;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// Scripts, styles and pictures come from this server alone; models may be fetched from anywhere. The page runs WebAssembly and
/// sets styles of single elements.
const POLICY: &str = include_str!("policy.txt").trim_ascii();

/// The last three isolate the page from others, which gives it a finer clock.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What holds for all requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Only this computer is answered.
    pub(super) loopback: bool,
    /// The most bytes of a refused body that are read and forgotten before the answer.
    pub(super) discarded: usize,
}

/// Answers only those who may ask, and adds the headers that every answer has.
pub(super) async fn guard(State(rules): State<Rules>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (body, expects) = (Lent::new(body), parts.headers.contains_key(header::EXPECT));
    let mut response = match refuse(rules.loopback, &parts.method, &parts.uri, &parts.headers) {
        Some(refused) => refused.into_response(),
        None => next.run(Request::from_parts(parts, Body::new(body.clone()))).await,
    };
    let status = response.status();
    let failed = (status.is_client_error() || status.is_server_error()) && status != StatusCode::REQUEST_TIMEOUT;
    if failed && (body.begun() || !expects) {
        body.discard(rules.discarded).await;
    }
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn refuse(loopback: bool, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Refused> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("").to_ascii_lowercase();
    let mut hosts: Vec<String> = headers.get_all(header::HOST).iter().map(text).collect();
    hosts.extend(uri.authority().map(|a| a.as_str().to_ascii_lowercase()));
    // A name that some other site owns may point to this computer; its pages would then count as this server's.
    if loopback && (hosts.is_empty() || !hosts.iter().all(|host| local(host))) {
        let sentence = "the request names another host than localhost or 127.0.0.1; with --host, others are answered too";
        return Some(Refused::new(StatusCode::MISDIRECTED_REQUEST, sentence));
    }
    let foreign = |origin: &str| !hosts.iter().any(|host| ["http://", "https://"].iter().any(|s| origin.strip_prefix(s) == Some(host)));
    if method == Method::POST && headers.get_all(header::ORIGIN).iter().any(|origin| foreign(&text(origin))) {
        return Some(Refused::new(StatusCode::FORBIDDEN, "the request comes from a page of another site"));
    }
    None
}

/// True for names and addresses of this computer, with or without a port.
fn local(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port),
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|c| c.is_ascii_digit()));
    port_ok && (name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_computers_names_are_local() {
        for host in ["localhost", "localhost:8000", "127.0.0.1", "127.0.0.1:1", "127.8.9.1", "[::1]:8000", "[::1]"] {
            assert!(local(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "127.0.0.1:80.example.com",
            "10.0.0.1",
            "::1",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!local(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_cannot_ask() {
        let ask = |loopback, method: Method, host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            refuse(loopback, &method, &Uri::from_static("/x"), &headers).map_or(200, |r| r.status.as_u16())
        };
        assert_eq!(ask(true, Method::GET, "localhost:8000", None), 200);
        assert_eq!(ask(true, Method::GET, "evil.example", None), 421);
        assert_eq!(ask(false, Method::GET, "server.example", None), 200);
        assert_eq!(ask(true, Method::POST, "localhost:8000", Some("http://localhost:8000")), 200);
        assert_eq!(ask(true, Method::POST, "localhost:8000", Some("http://evil.example")), 403);
        assert_eq!(ask(true, Method::POST, "localhost:8000", Some("null")), 403);
        assert_eq!(ask(false, Method::POST, "server.example", Some("https://server.example")), 200);
        assert_eq!(ask(false, Method::POST, "server.example", Some("https://server.example.evil")), 403);
        assert_eq!(refuse(true, &Method::GET, &Uri::from_static("/"), &HeaderMap::new()).unwrap().status, 421);
        let absolute = Uri::from_static("http://evil.example/");
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        assert!(refuse(true, &Method::GET, &absolute, &headers).is_some());
    }
}
