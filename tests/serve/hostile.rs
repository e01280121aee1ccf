//! Bodies, headers and connections that are not as they should be: one sentence each, and the next client is served.

use crate::client::{INFER, Server, below_header, lines};

/// Dense features, ids and offsets of one row, with one of them changed.
fn body(dense: &str, ids: &str, offsets: &str) -> String {
    let parts = [("dense", dense), ("ids", ids), ("offsets", offsets)];
    let parts: Vec<String> =
        parts.iter().filter(|(_, rest)| !rest.is_empty()).map(|(name, rest)| format!("{{\"name\":\"{name}\",{rest}}}")).collect();
    format!("{{\"inputs\":[{}]}}", parts.join(","))
}

const DENSE: &str = r#""datatype":"FP32","shape":[1,2],"data":[1,2]"#;
const IDS: &str = r#""datatype":"INT64","shape":[4],"data":[1,2,3,4]"#;
const OFFSETS: &str = r#""datatype":"INT64","shape":[4],"data":[0,1,2,4]"#;

fn good() -> String {
    body(DENSE, IDS, OFFSETS)
}

fn dense(rest: &str) -> String {
    body(rest, IDS, OFFSETS)
}

fn ids(rest: &str) -> String {
    body(DENSE, rest, OFFSETS)
}

fn offsets(rest: &str) -> String {
    body(DENSE, IDS, rest)
}

fn rows(rest: &str) -> String {
    format!("{{\"inputs\":[{{\"name\":\"rows\",{rest}}}]}}")
}

#[test]
fn every_lie_in_a_body_is_told_in_a_sentence() {
    let server = Server::with_model(&["--max-rows", "30"]);
    let good = good();
    let answer = server.infer(&good);
    let many = |n: usize| below_header(&vec!["1,2,3,4,5"; n]);
    let deep = "[".repeat(100_000);
    let cases = [
        ("", 400, "no inference request"),
        ("{", 400, "no inference request"),
        ("null", 400, "no inference request"),
        ("[]", 400, "no inference request"),
        ("{}", 400, "inputs"),
        (&deep, 400, "no inference request"),
        (&format!("{{\"inputs\":{deep}"), 400, "no inference request"),
        (&dense(&format!(r#""datatype":"FP32","shape":[1,2],"data":{deep}{}"#, "]".repeat(100_000))), 400, "input"),
        (r#"{"inputs":[]}"#, 400, "`dense` is missing"),
        (r#"{"inputs":[{"name":"x"}]}"#, 400, "shape"),
        (r#"{"id":7,"inputs":[]}"#, 400, "string"),
        (&good.replace("}]}", r#"},{"name":"x","datatype":"","shape":[]},{}]}"#), 400, "more than 4 elements"),
        (&good.replacen('{', r#"{"outputs":[{"name":"logit"},{"name":"logit"},7],"#, 1), 400, "more than 2 elements"),
        (&dense(r#""datatype":"FP32","shape":[1,2,1],"data":[1,2]"#), 400, "more than 2 elements"),
        (&(good.clone() + "x"), 400, "trailing"),
        (&body(DENSE, "", OFFSETS), 400, "`ids` is missing"),
        (&body("", IDS, OFFSETS), 400, "`dense` is missing"),
        (&body(DENSE, IDS, ""), 400, "input `ids`: its shape is [4], but [1, 3]"),
        (&good.replace("\"dense\"", "\"Dense\""), 400, "there is no input `Dense`"),
        (&good.replace("\"ids\"", "\"dense\""), 400, "given twice"),
        (&good.replace("}]}", r#"},{"name":"rows","datatype":"BYTES","shape":[1],"data":["x"]}]}"#), 400, "stands for all others"),
        (&good.replacen('{', r#"{"outputs":[{"name":"click"}],"#, 1), 400, "there is no output `click`"),
        (&good.replacen('{', r#"{"outputs":[{"name":"logit"},{"name":"logit"}],"#, 1), 400, "twice"),
        (&dense(r#""datatype":"FP64","shape":[1,2],"data":[1,2]"#), 400, "datatype is `FP64`, but FP32"),
        (&dense(r#""datatype":"FP32","shape":[1,3],"data":[1,2,3]"#), 400, "[-1, 2] is expected"),
        (&dense(r#""datatype":"FP32","shape":[2],"data":[1,2]"#), 400, "[-1, 2] is expected"),
        (&dense(r#""datatype":"FP32","shape":[1,-2],"data":[1,2]"#), 400, "no inference request"),
        (&dense(r#""datatype":"FP32","shape":[1.5,2],"data":[1,2]"#), 400, "no inference request"),
        (&dense(r#""datatype":"FP32","shape":[18446744073709551615,2],"data":[1,2]"#), 400, "is expected"),
        (&dense(r#""datatype":"FP32","shape":[99999999999999999999999,2],"data":[1,2]"#), 400, "no inference request"),
        (&dense(r#""datatype":"FP32","shape":[4000000000,2],"data":[1,2]"#), 413, "4000000000 rows"),
        (&dense(r#""datatype":"FP32","shape":[0,2],"data":[]"#), 400, "no rows"),
        (&dense(r#""datatype":"FP32","shape":[1,2]"#), 400, "no `data`"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[1]"#), 400, "has 1 elements"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[1,2,3]"#), 400, "more than the 2"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[[1],[2]]"#), 400, "input `dense`"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":7"#), 400, "nested"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":{"a":1}"#), 400, "no array"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[1,null]"#), 400, "element 1 is neither"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[1,"2"]"#), 400, "element 1: a number is needed"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[1,NaN]"#), 400, "no inference request"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[1,Infinity]"#), 400, "no inference request"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[1,1e39]"#), 400, "finite"),
        (&dense(r#""datatype":"FP32","shape":[1,2],"data":[1,-1e999999999]"#), 400, "finite"),
        (&dense(&format!(r#""datatype":"FP32","shape":[1,2],"data":[1,{}]"#, "9".repeat(10_000))), 400, "finite"),
        (&ids(r#""datatype":"FP32","shape":[4],"data":[1,2,3,4]"#), 400, "UINT64 or INT64 or BYTES"),
        (&ids(r#""datatype":"INT64","shape":[4],"data":[1,2,3,-4]"#), 400, "element 3"),
        (&ids(r#""datatype":"INT64","shape":[4],"data":[1,2,3,4.0]"#), 400, "whole number"),
        (&ids(r#""datatype":"INT64","shape":[4],"data":[1,2,3,1e2]"#), 400, "whole number"),
        (&ids(r#""datatype":"UINT64","shape":[4],"data":[1,2,3,18446744073709551616]"#), 400, "largest possible category"),
        (&ids(r#""datatype":"INT64","shape":[4],"data":[1,2,3,"4"]"#), 400, "a number is needed"),
        (&ids(r#""datatype":"BYTES","shape":[4],"data":["1","2","3",4]"#), 400, "a text is needed"),
        (&ids(r#""datatype":"BYTES","shape":[4],"data":["1","2","3","x"]"#), 400, "element 3: `x`"),
        (&ids(r#""datatype":"INT64","shape":[3],"data":[1,2,3]"#), 400, "input `offsets`"),
        (&ids(r#""datatype":"INT64","shape":[5],"data":[1,2,3,4,5]"#), 400, "the last offset is 4, but there are 5"),
        (&offsets(r#""datatype":"INT64","shape":[5],"data":[0,1,2,4,4]"#), 400, "[4] is expected"),
        (&offsets(r#""datatype":"INT64","shape":[4],"data":[1,1,2,4]"#), 400, "begin with 0"),
        (&offsets(r#""datatype":"INT64","shape":[4],"data":[0,2,1,4]"#), 400, "input `offsets`: element"),
        (&offsets(r#""datatype":"INT64","shape":[4],"data":[0,1,2,99]"#), 400, "do not exceed the 4"),
        (&offsets(r#""datatype":"INT64","shape":[4],"data":[0,1,2,99999999999]"#), 400, "whole numbers"),
        (&offsets(r#""datatype":"INT64","shape":[4],"data":[0,-1,2,4]"#), 400, "whole numbers"),
        (&offsets(r#""datatype":"INT64","shape":[4],"data":[0,0,2,4]"#), 400, "table 0 has 0 ids; exactly 1"),
        (&offsets(r#""datatype":"INT64","shape":[4],"data":[0,1,4,4]"#), 400, "table 1 has 3 ids"),
        (
            &body(DENSE, r#""datatype":"INT64","shape":[7],"data":[1,2,3,4,5,6,7]"#, r#""datatype":"INT64","shape":[4],"data":[0,1,2,7]"#),
            400,
            "5 ids; at most 4",
        ),
        (&rows(r#""datatype":"FP32","shape":[1],"data":[1]"#), 400, "BYTES"),
        (&rows(r#""datatype":"BYTES","shape":[1,1],"data":["x"]"#), 400, "shape"),
        (&rows(r#""datatype":"BYTES","shape":[1],"data":["age,price,user,item,tags"]"#), 400, "no rows"),
        (&rows(r#""datatype":"BYTES","shape":[2],"data":["nonsense","1,2,3,4,5"]"#), 400, "rows, line 1"),
        (&below_header(&["1,2,3,4,5", "1,2,3"]), 400, "rows, line 3"),
        (&below_header(&["1,x,3,4,5"]), 400, "line 2, column 2"),
        (&below_header(&["1,2,3,4,5;6;7;8;9"]), 400, "more than 4"),
        (&below_header(&["1,2,3,4,5\n1,2,3,4,5"]), 400, "more than one line"),
        (&below_header(&["1,nan,3,4,5"]), 400, "finite"),
        (&below_header(&[""]), 400, "line 2"),
        (&many(31), 413, "31 rows"),
    ];
    for (body, status, word) in &cases {
        let answer = server.post(INFER, body);
        let shown: String = body.chars().take(200).collect();
        assert_eq!(answer.status, *status, "{shown}: {}", answer.text());
        let error = answer.error();
        assert!(error.contains(word) && error.len() < 700, "{shown}: {error}");
    }
    assert_eq!(server.infer(&many(30)).len(), 30);
    let not_utf8 = server.connect().ask("POST", INFER, "", b"{\"id\":\"\xff\"}");
    assert!(not_utf8.status == 400 && not_utf8.error().contains("UTF-8"));
    let binary = server.connect().ask("POST", INFER, "Inference-Header-Content-Length: 2\r\n", good.as_bytes());
    assert!(binary.status == 400 && binary.error().contains("binary"));
    assert_eq!(server.infer(&good), answer, "after all of that");
}

#[test]
fn too_large_a_body_is_refused_before_it_is_read() {
    let server = Server::with_model(&["--max-body", "1000"]);
    let mut client = server.connect();
    client.send(format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n").as_bytes());
    let answer = client.answer(false).unwrap();
    assert!(answer.status == 413 && answer.error().contains("1000 bytes"), "{}", answer.text());
    let mut client = server.connect();
    client.send(format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
    for _ in 0..5 {
        client.send(&[&b"100\r\n"[..], &[b' '; 256], b"\r\n"].concat());
    }
    assert_eq!(client.answer(false).unwrap().status, 413);
    // in chunks, but small enough
    let body = below_header(&lines()[1..3]);
    let mut client = server.connect();
    client.send(format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
    for part in body.as_bytes().chunks(7) {
        client.send(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.answer(false).unwrap().values().len(), 2);
}

#[test]
fn answers_stay_small_whatever_they_complain_about() {
    let server = Server::with_model(&[]);
    let (long, dims) = ("x".repeat(1 << 20), "1,".repeat(500_000));
    let tiny = r#"{"name":"x","shape":[1],"datatype":"FP32"},"#;
    for (body, word) in [
        (format!("{{\"inputs\":\"{long}\"}}"), "no inference request"),
        (dense(&format!(r#""datatype":"FP32","shape":[{dims}1],"data":[1,2]"#)), "more than 2 elements"),
        (dense(&format!(r#""datatype":"{long}","shape":[1,2],"data":[1,2]"#)), "its datatype is `xxx"),
        (good().replace("dense", &long), "there is no input"),
        (ids(&format!(r#""datatype":"BYTES","shape":[4],"data":["{long}","2","3","4"]"#)), "element 0"),
        (below_header(&[format!("1,{long},3,4,5")]), "input `rows`"),
        (format!("{{\"inputs\":[{}{{}}]}}", tiny.repeat((8 << 20) / tiny.len() - 1)), "more than 4 elements"),
    ] {
        let answer = server.post(INFER, &body);
        assert_eq!(answer.status, 400, "{word}");
        assert!(answer.body.len() < 1000 && answer.error().contains(word), "{word}: {} bytes", answer.body.len());
    }
}

#[test]
fn a_body_that_is_sent_whole_is_answered_on_a_connection_that_stays() {
    let server = Server::with_model(&[]);
    let body = vec![b' '; 9 << 20];
    for (path, headers, status) in
        [(INFER, "", 413), ("/v2/models/other/infer", "", 404), (INFER, "Origin: http://evil.example\r\n", 403), ("/v2", "", 405)]
    {
        let mut client = server.connect();
        let answer = client.ask("POST", path, headers, &body);
        assert_eq!((answer.status, answer.error().is_empty()), (status, false));
        assert_eq!(client.ask("GET", "/v2", "", b"").status, 200, "after {status}");
    }
    // a client that waits for a word before it sends gets the answer instead
    let mut client = server.connect();
    client.send(format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n").as_bytes());
    assert_eq!(client.answer(false).unwrap().status, 413);
}

/// Clients that send `part` bytes of a body of `len` and wait.
fn held(server: &Server, count: usize, len: usize, part: usize) -> Vec<crate::client::Client> {
    let begin = |_| {
        let mut client = server.connect();
        client.send(format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n").as_bytes());
        client.send(&vec![b' '; part]);
        client
    };
    (0..count).map(begin).collect()
}

#[test]
fn bodies_have_room_by_what_came_of_them() {
    let good = below_header(&lines()[1..4]);
    let server = Server::with_model(&["--max-body", "4096"]);
    let clients = held(&server, 200, 4096, 1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(server.infer(&good).len(), 3, "beside {} that hardly send", clients.len());
    drop(clients);
    // 32 times 64 KiB and 64 times 1 KiB: 35 of these bodies, and not one more
    let server = Server::with_model(&["--max-body", "65536", "--max-connections", "64"]);
    let clients = held(&server, 40, 65536, 60 << 10);
    let large = " ".repeat(60 << 10) + &good;
    let ask = |_| {
        std::thread::sleep(std::time::Duration::from_millis(100)); // until all of them came
        server.post(INFER, &large)
    };
    let refused = (0..100).map(ask).find(|answer| answer.status == 503);
    let refused = refused.unwrap_or_else(|| panic!("{} bodies found room", clients.len()));
    assert!(refused.error().contains("try again") && refused.header("retry-after") == "1");
}

#[test]
fn whatever_bytes_come_the_next_client_is_served() {
    let server = Server::with_model(&["--timeout", "1"]);
    let good = below_header(&lines()[1..4]);
    let wanted = server.infer(&good);
    let head = format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000));
    let headers = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(1000));
    // 0: the connection is closed without a word
    let attempts: [(&[u8], u16); 15] = [
        (b"\0\0\0\0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nRange: bytes=\xff-\r\nConnection: close\r\nIf-None-Match: \xff\r\nAccept-Encoding: \xff\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.com\r\n\r\n", 421),
        (b"CONNECT example.com:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        (long.as_bytes(), 414),
        (headers.as_bytes(), 431),
    ];
    for (bytes, expected) in attempts {
        let mut client = server.connect();
        client.send(bytes);
        let status = client.answer(false).map(|answer| answer.status);
        assert_eq!(status.unwrap_or(0), expected, "{}", bytes[..bytes.len().min(60)].escape_ascii());
    }
    // the beginning of a request, and no more of it
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: local");
    let _ = client.stream.get_ref().shutdown(std::net::Shutdown::Write);
    assert!(client.answer(false).is_none());
    // clients that leave in the middle, and before the answer
    for part in ["", "{\"inp", &good] {
        let mut client = server.connect();
        client.send(format!("{head}Content-Length: {}\r\n\r\n{part}", good.len()).as_bytes());
    }
    let mut slow = server.connect();
    slow.send(format!("{head}Content-Length: {}\r\n\r\n{{", good.len()).as_bytes());
    let answer = slow.answer(false).unwrap();
    assert!(answer.status == 408 && answer.error().contains("in time"), "{}", answer.text());
    // several requests at once on one connection
    let mut client = server.connect();
    let one = format!("{head}Content-Length: {}\r\n\r\n{good}", good.len());
    client.send(one.repeat(3).as_bytes());
    for _ in 0..3 {
        assert_eq!(client.answer(false).unwrap().values(), wanted);
    }
    assert_eq!(server.infer(&good), wanted);
}

#[test]
fn other_sites_cannot_use_the_server_through_a_browser() {
    let server = Server::with_model(&[]);
    let body = below_header(&lines()[1..2]);
    let ask = |method: &str, path: &str, headers: &str| {
        server.connect().ask(method, path, headers, if method == "POST" { body.as_bytes() } else { b"" }).status
    };
    for host in ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.0.1"] {
        assert_eq!(ask("GET", "/model.safetensors", &format!("Host: {host}\r\n")), 421, "{host}");
        assert_eq!(ask("POST", INFER, &format!("Host: {host}\r\n")), 421, "{host}");
    }
    assert_eq!(ask("GET", "http://evil.example/", ""), 421);
    for host in ["localhost", "localhost:9000", "127.0.0.1", "[::1]:8000"] {
        assert_eq!(ask("GET", "/", &format!("Host: {host}\r\n")), 200, "{host}");
    }
    assert_eq!(ask("POST", INFER, "Origin: http://evil.example\r\n"), 403);
    assert_eq!(ask("POST", INFER, "Origin: null\r\n"), 403);
    assert_eq!(ask("POST", INFER, "Host: localhost:8000\r\nOrigin: http://localhost:8000\r\n"), 200);
}
