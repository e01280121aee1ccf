//! From the first word to the last: many clients, limits, stopping, and what is said when it cannot begin.

use crate::client::{INFER, Server, below_header, dqrm, lines, model};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn two_hundred_clients_get_their_own_answers() {
    let server = Server::with_model(&["--batch-wait", "500"]);
    let lines = lines()[1..].to_vec();
    let wanted = server.infer(&below_header(&lines));
    let until = Instant::now() + Duration::from_secs(3);
    let ask = |number: usize| {
        let (mut client, mut done) = (server.connect(), 0);
        while Instant::now() < until || done < 3 {
            let (first, count) = ((number * 7 + done * 5) % lines.len(), 1 + (number + done) % 6);
            let rows = first..(first + count).min(lines.len());
            if (number + done) % 10 == 3 {
                let answer = client.ask("POST", INFER, "", b"{\"inputs\": 7}");
                assert_eq!(answer.status, 400);
            }
            let answer = client.ask("POST", INFER, "", below_header(&lines[rows.clone()]).as_bytes());
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&answer.values()), bits(&wanted[rows]), "client {number}");
            done += 1;
        }
        done
    };
    let done: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..200).map(|number| scope.spawn(move || ask(number))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(done >= 600, "{done}");
    assert_eq!(server.get("/v2/health/ready", "").status, 200);
}

#[test]
fn connections_beyond_the_limit_wait() {
    let server = Server::with_model(&["--max-connections", "2"]);
    let (mut first, mut second, mut third) = (server.connect(), server.connect(), server.connect());
    assert_eq!(first.ask("GET", "/v2", "", b"").status, 200);
    assert_eq!(second.ask("GET", "/v2", "", b"").status, 200);
    third.send(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    third.stream.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.answer(false).is_none(), "two are open");
    drop(first);
    third.stream.get_ref().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(third.answer(false).unwrap().status, 200);
}

#[test]
fn a_client_that_takes_nothing_loses_its_connection() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "page").unwrap();
    std::fs::File::create(folder.path().join("large.bin")).unwrap().set_len(64 << 20).unwrap();
    let server = Server::start_in(folder, &["--page", ".", "--max-connections", "1", "--timeout", "1"]);
    let mut idle = server.connect();
    idle.send(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(server.get("/", "").text(), "page", "the one place is free again");
    assert!(idle.answer(false).is_none(), "not all of it was sent");
}

#[cfg(unix)]
#[test]
fn what_has_begun_is_answered_before_it_stops() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::with_model(&[]);
        let body = below_header(&lines()[1..4]);
        let (half, rest) = body.split_at(40);
        let (mut client, mut idle) = (server.connect(), server.connect());
        assert_eq!(idle.ask("GET", "/v2", "", b"").status, 200);
        client.send(format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{half}", body.len()).as_bytes());
        // the answer to another request says that the connection before it was taken
        assert_eq!(server.get("/v2", "").status, 200);
        std::thread::sleep(Duration::from_millis(100));
        server.signal(signal);
        assert!(idle.answer(false).is_none(), "an idle connection is closed");
        client.send(rest.as_bytes());
        let answer = client.answer(false).unwrap();
        assert_eq!((answer.values().len(), answer.header("connection")), (3, "close"));
        let (code, text) = server.ended();
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("stopping"), "{text}");
    }
}

/// The one sentence of a start that fails.
fn refused(dir: &Path, args: &[&str], words: &[&str]) {
    let port: &[&str] = if args[0] == "--port" { &[] } else { &["--port", "0"] };
    let output = dqrm(dir, &[&["serve"], port, args].concat()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{args:?}: {text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("error: ") && words.iter().all(|word| last.contains(word)), "{args:?}: {last}");
}

#[test]
fn what_cannot_be_served_is_explained() {
    let server = Server::start(&[]);
    let port = server.address.rsplit(':').next().unwrap();
    let refused = |args: &[&str], words: &[&str]| refused(server.folder.path(), args, words);
    refused(&["--port", port], &["cannot listen at 127.0.0.1:", "another program", "--port"]);
    refused(&["--host", "192.0.2.1"], &["192.0.2.1:0", "--host"]);
    refused(&["--page", "absent"], &["`absent` has no index.html", "web/build"]);
    refused(&["--model", "absent"], &["cannot read `absent`"]);
    refused(&["--model", "."], &["is a folder", "dqrm pack"]);
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    refused(&["--model", page], &["Cargo.toml"]);
    refused(&["--model", model().to_str().unwrap(), "--device", "no such adapter"], &["no such adapter"]);
    let help = dqrm(server.folder.path(), &["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(["Examples:", "--max-rows", "--host", "--batch-wait", "30 seconds"].iter().all(|word| help.contains(word)), "{help}");
}

#[test]
fn listening_to_everybody_is_possible_with_a_warning() {
    let server = Server::with_model(&["--host", "0.0.0.0"]);
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let mut client = crate::client::Client { stream: std::io::BufReader::new(stream) };
    assert_eq!(client.ask("GET", "/v2", "Host: recommender.example\r\n", b"").status, 200);
    let text = server.kill();
    assert!(text.contains("warning: whoever reaches this address") && text.contains("no encryption"), "{text}");
    let text = Server::with_model(&[]).kill();
    assert!(!text.contains("warning"), "{text}");
}
