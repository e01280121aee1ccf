//! Files: types, conditions, ranges, encodings, and names that lead elsewhere.

use crate::client::{Server, model};
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::Path;

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut text).unwrap();
    text
}

/// Bytes that hardly become smaller.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// A page, and a secret beside its folder.
fn page() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    put("page/index.html", b"<!doctype html><title>the page</title>");
    put("page/style.css", "body { color: red }\n".repeat(100).as_bytes());
    put("page/app-0123abcd.js", b"export const x = 1;\n");
    put("page/r-20240101.csv", b"1,2\n");
    put("page/pkg/web.wasm", &[&b"\0asm"[..], &[0; 5000]].concat());
    put("page/pkg/web.js", b"plain");
    put("page/pkg/web.js.gz", b"not really gzip, but sent as it is");
    put("page/model/clicks.json", b"{}");
    put("page/model/clicks.safetensors", &noise(700_000));
    put("page/.hidden", b"secret");
    put("secret.txt", b"secret");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret.txt", folder.path().join("page/link.txt")).unwrap();
        std::os::unix::fs::symlink("..", folder.path().join("page/up")).unwrap();
        std::os::unix::fs::symlink("style.css", folder.path().join("page/inside.css")).unwrap();
    }
    folder
}

fn served() -> Server {
    Server::start_in(page(), &["--page", "page", "--model", model().to_str().unwrap()])
}

#[test]
fn files_have_their_types_and_every_answer_its_headers() {
    let server = served();
    for (path, mime, cache) in [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/index.html", "text/html; charset=utf-8", "no-cache"),
        ("/style.css", "text/css; charset=utf-8", "no-cache"),
        ("/app-0123abcd.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/r-20240101.csv", "text/plain; charset=utf-8", "no-cache"),
        ("/pkg/web.js?v=2", "text/javascript; charset=utf-8", "no-cache"),
        ("/pkg/web.wasm", "application/wasm", "no-cache"),
        ("/model/clicks.json", "application/json", "no-cache"),
        ("/model/clicks.safetensors", "application/octet-stream", "no-cache"),
        ("/model.safetensors", "application/octet-stream", "no-cache"),
        ("/v2", "application/json", "no-store"),
        ("/v2/models/dqrm", "application/json", "no-store"),
    ] {
        let answer = server.get(path, "");
        assert_eq!((answer.status, answer.header("content-type"), answer.header("cache-control")), (200, mime, cache), "{path}");
    }
    for (path, status) in [("/", 200), ("/absent", 404), ("/v2", 200), ("/v2/models/x", 404)] {
        let answer = server.get(path, "");
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("cross-origin-embedder-policy"), "require-corp", "{path}");
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self' 'wasm-unsafe-eval';", "connect-src *", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
    }
    assert_eq!(server.get("/model/clicks.safetensors", "").body, noise(700_000), "several pieces");
    assert_eq!(server.get("/model.safetensors", "").body, std::fs::read(model()).unwrap());
}

#[test]
fn head_and_conditions_send_no_body() {
    let server = served();
    let mut client = server.connect();
    for path in ["/", "/model.safetensors", "/model/clicks.safetensors", "/v2"] {
        let whole = client.ask("GET", path, "", b"");
        let head = client.ask("HEAD", path, "", b"");
        assert_eq!((head.status, head.header("content-length")), (200, whole.header("content-length")), "{path}");
        assert_eq!(head.header("etag"), whole.header("etag"));
    }
    for path in ["/", "/model.safetensors"] {
        let tag = client.ask("GET", path, "", b"").header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 4, "{tag}");
        for tags in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
            let answer = client.ask("GET", path, &format!("If-None-Match: {tags}\r\n"), b"");
            assert_eq!((answer.status, answer.header("etag")), (304, tag.as_str()), "{tags}");
        }
        assert_eq!(client.ask("GET", path, "If-None-Match: \"x\"\r\n", b"").status, 200);
    }
    let before = server.get("/", "").header("etag").to_owned();
    std::fs::write(server.folder.path().join("page/index.html"), "another page").unwrap();
    let after = server.get("/", &format!("If-None-Match: {before}\r\n"));
    assert_eq!((after.status, after.text()), (200, "another page"));
}

#[test]
fn ranges_are_parts_of_the_file_that_was_meant() {
    let server = served();
    let model = std::fs::read(model()).unwrap();
    for (path, bytes) in [("/model.safetensors", model), ("/model/clicks.safetensors", noise(700_000))] {
        let size = bytes.len();
        let tag = server.get(path, "").header("etag").to_owned();
        let ask = |range: &str, more: &str| server.get(path, &format!("Range: {range}\r\nAccept-Encoding: gzip\r\n{more}"));
        for (range, first, last) in [
            ("bytes=0-0".to_owned(), 0, 0),
            ("bytes=8-2007".to_owned(), 8, 2007),
            ("bytes=100-".to_owned(), 100, size - 1),
            ("bytes=-10".to_owned(), size - 10, size - 1),
            (format!("bytes=5-{}", u64::MAX), 5, size - 1),
        ] {
            for more in [String::new(), format!("If-Range: {tag}\r\n")] {
                let answer = ask(&range, &more);
                assert_eq!(
                    (answer.status, answer.header("content-range")),
                    (206, format!("bytes {first}-{last}/{size}").as_str()),
                    "{range}"
                );
                assert!(answer.body == bytes[first..=last], "{path} {range}");
            }
        }
        let beyond = ask(&format!("bytes={size}-"), "");
        assert_eq!((beyond.status, beyond.header("content-range")), (416, format!("bytes */{size}").as_str()));
        for (range, more) in
            [("bytes=0-9", "If-Range: \"older\"\r\n"), ("bytes=9-0", ""), ("bytes=0-1,5-6", ""), ("lines=0-1", ""), ("bytes=x-", "")]
        {
            let answer = ask(range, more);
            assert!(answer.status == 200 && answer.body == bytes, "{range} {more}");
        }
    }
}

#[test]
fn gzip_is_sent_to_those_who_take_it() {
    let server = served();
    let plain = server.get("/style.css", "");
    let zipped = server.get("/style.css", "Accept-Encoding: br, gzip\r\n");
    assert_eq!((plain.header("content-encoding"), zipped.header("content-encoding")), ("", "gzip"));
    assert_eq!([plain.header("vary"), zipped.header("vary")], ["accept-encoding"; 2]);
    assert!(zipped.body.len() < plain.body.len() / 5 && unzip(&zipped.body) == plain.body);
    assert_ne!(plain.header("etag"), zipped.header("etag"));
    let again = server.get("/style.css", &format!("Accept-Encoding: gzip\r\nIf-None-Match: {}\r\n", zipped.header("etag")));
    assert_eq!(again.status, 304);
    std::fs::write(server.folder.path().join("page/style.css"), "p { color: blue }").unwrap();
    assert_eq!(unzip(&server.get("/style.css", "Accept-Encoding: gzip\r\n").body), b"p { color: blue }", "what was kept is old");
    assert_eq!(server.get("/pkg/web.js", "Accept-Encoding: gzip\r\n").text(), "not really gzip, but sent as it is");
    assert_eq!(server.get("/pkg/web.js", "Accept-Encoding: gzip;q=0\r\n").text(), "plain");
    assert_eq!(server.get("/model/clicks.safetensors", "Accept-Encoding: gzip\r\n").header("content-encoding"), "");
    let part = server.get("/style.css", "Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n");
    assert_eq!((part.status, part.text()), (206, "p { "));
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let server = served();
    for path in [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/pkg/../../secret.txt",
        "/pkg/..\\..\\secret.txt",
        "/..\\secret.txt",
        "/....//secret.txt",
        "/./../secret.txt",
        "//secret.txt",
        "///etc/passwd",
        "//etc/passwd",
        "/%00",
        "/index.html%00.txt",
        "/index.html/",
        "/index.html/..",
        "/.hidden",
        "/%2ehidden",
        "/pkg/",
        "/pkg",
        "/up/secret.txt",
        "/link.txt",
        "/C:/secret.txt",
        "/file:///etc/passwd",
        "/v2/../secret.txt",
        "/v2/models/..%2f..%2fsecret.txt",
        "/model.safetensors/../secret.txt",
    ] {
        let answer = server.get(path, "");
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("secret\n") && answer.body != b"secret" && !answer.text().contains("root:"), "{path}");
    }
    #[cfg(unix)]
    assert_eq!(server.get("/inside.css", "").status, 200, "a link inside the folder");
    assert!(server.get(&format!("/{}", "a".repeat(5000)), "").status == 404);
    for method in ["PUT", "DELETE", "POST", "PATCH"] {
        let answer = server.connect().ask(method, "/index.html", "", b"x");
        assert_eq!((answer.status, answer.header("allow")), (405, "GET,HEAD"), "{method}");
        let answer = server.connect().ask(method, "/v2", "", b"x");
        assert_eq!((answer.status, answer.header("allow")), (405, "GET,HEAD"), "{method}");
    }
}

#[test]
fn without_a_page_something_says_how_to_get_it() {
    let server = Server::start(&[]);
    let answer = server.get("/", "");
    assert!(answer.status == 200 && answer.text().contains("web/build") && answer.text().contains("/v2/models/dqrm/infer"));
    assert_eq!([server.get("/style.css", "").status, server.get("/model.safetensors", "").status], [404, 404]);
    assert_eq!(server.get("/v2/health/ready", "").status, 200);
    assert!(server.get("/v2/models/dqrm", "").error().contains("--model"));
    assert_eq!(server.post(crate::client::INFER, "{}").status, 404);
    drop(server);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("web/dist")).unwrap();
    std::fs::write(folder.path().join("web/dist/index.html"), "found").unwrap();
    assert_eq!(Server::start_in(folder, &[]).get("/", "").text(), "found");
}

#[test]
fn a_model_that_was_replaced_is_not_mixed_with_the_one_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(model(), folder.path().join("m.safetensors")).unwrap();
    let server = Server::start_in(folder, &["--model", "m.safetensors"]);
    assert_eq!(server.get("/model.safetensors", "").status, 200);
    let path: &Path = server.folder.path();
    std::fs::write(path.join("other"), "another file").unwrap();
    std::fs::rename(path.join("other"), path.join("m.safetensors")).unwrap();
    let answer = server.get("/model.safetensors", "");
    assert!(answer.status == 404 && answer.error().contains("replaced"), "{}", answer.text());
}
