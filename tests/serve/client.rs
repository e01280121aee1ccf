//! A server in a process of its own, and a client that sends any bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A model with bags, a header and decimal ids.
pub(crate) fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packed/v1.safetensors")
}

/// Lines that it reads, the header first.
pub(crate) fn lines() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packed/rows.csv");
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

pub(crate) fn dqrm(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dqrm"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

/// Runs it and gives what it prints.
pub(crate) fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = dqrm(dir, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `dqrm predict` says of a file.
pub(crate) fn predicted(dir: &Path, model: &Path, file: &str) -> Vec<f32> {
    let text = succeed(dir, &["predict", model.to_str().unwrap(), "--data", file, "--device", "cpu"]);
    text.lines().map(|line| line.parse().unwrap()).collect()
}

pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Server {
    /// `dqrm serve` with `args` on a free port, in an empty folder, once it listens.
    pub(crate) fn start(args: &[&str]) -> Server {
        Server::start_in(tempfile::tempdir().unwrap(), args)
    }

    /// With the model of the tests.
    pub(crate) fn with_model(args: &[&str]) -> Server {
        Server::start(&[&["--model", model().to_str().unwrap()], args].concat())
    }

    pub(crate) fn start_in(folder: tempfile::TempDir, args: &[&str]) -> Server {
        let args = [&["serve", "--port", "0", "--device", "cpu"], args].concat();
        let mut child = dqrm(folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut url, mut why) = (String::new(), String::new());
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        if url.is_empty() {
            child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
        }
        let address = url.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
        let address = address.unwrap_or_else(|| panic!("{args:?} printed {url:?}: {why}")).to_owned();
        Server { child, address, folder }
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, path: &str, headers: &str) -> Answer {
        self.connect().ask("GET", path, headers, b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.connect().ask("POST", path, "", body.as_bytes())
    }

    /// The first output of an inference.
    pub(crate) fn infer(&self, body: &str) -> Vec<f32> {
        self.post(INFER, body).values()
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Exit code and standard error, once it has ended.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }

    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const INFER: &str = "/v2/models/dqrm/infer";

pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes); // the server may have closed it
    }

    /// `headers` are lines, each with its end.
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.send(&[format!("{method} {path} HTTP/1.1\r\n{host}{length}{headers}\r\n").as_bytes(), body].concat());
        self.answer(method == "HEAD").unwrap_or_else(|| panic!("{method} {path}: the connection was closed"))
    }

    /// The next answer; `None` when the connection is closed instead.
    pub(crate) fn answer(&mut self, head: bool) -> Option<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        assert_eq!(answer.header("transfer-encoding"), "", "lengths are known");
        if !head && status != 304 {
            let length = answer.header("content-length").parse().unwrap();
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body).ok()?;
        }
        Some(answer)
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Values of the first output.
    pub(crate) fn values(&self) -> Vec<f32> {
        assert_eq!(self.status, 200, "{}", self.text());
        let output = self.json()["outputs"][0].clone();
        let values: Vec<f32> = output["data"].as_array().unwrap().iter().map(|v| v.to_string().parse().unwrap()).collect();
        assert_eq!((output["datatype"].as_str(), output["shape"][0].as_u64()), (Some("FP32"), Some(values.len() as u64)));
        values
    }

    /// The sentence of an answer that refuses.
    pub(crate) fn error(&self) -> String {
        let json = self.json();
        assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
        json["error"].as_str().unwrap().to_owned()
    }
}

/// A request with lines of text.
pub(crate) fn rows<T: AsRef<str>>(lines: &[T]) -> String {
    let data: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    serde_json::json!({ "inputs": [{ "name": "rows", "datatype": "BYTES", "shape": [data.len()], "data": data }] }).to_string()
}

/// A request with lines of text, below the header of the tests' model.
pub(crate) fn below_header<T: AsRef<str>>(lines: &[T]) -> String {
    let header = std::iter::once("age,price,user,item,tags");
    rows(&header.chain(lines.iter().map(AsRef::as_ref)).collect::<Vec<_>>())
}
