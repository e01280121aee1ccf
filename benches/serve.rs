//! `dqrm serve` under load: many clients on loopback, each on one connection, one request after the other.
//!
//! ```sh
//! cargo bench --bench serve -- --model model.safetensors --seconds 60 --clients 200
//! ```
//!
//! A request has 1 to `--rows` rows, dense features and categories as tensors, drawn anew from a pool; one in twenty is a bad
//! body of one of several kinds, which must be refused with 400. A 503 is counted as told to come again, any other answer is an
//! error, which ends the program as one. Without `--model`, the small model of the tests is served.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod common;

use common::Options;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USAGE: &str =
    "use --model FILE --seconds N --clients N --rows N --bad N (one request in N) --device NAME --batch-wait MICROSECONDS --threads N";
const INFER: &str = "/v2/models/dqrm/infer";
/// Requests that are made before it begins.
const POOL: usize = 512;

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n.max(1)
    }
}

/// A request and what must come of it.
struct Request {
    bytes: Vec<u8>,
    /// 0 when it must be refused.
    rows: usize,
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    microseconds: Vec<u32>,
    rows: u64,
    refused: u64,
    errors: u64,
    /// Told to come again, with 503.
    busy: u64,
}

fn request(body: &str, rows: usize) -> Request {
    let head =
        format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    Request { bytes: (head + body).into_bytes(), rows }
}

/// A request with `rows` rows for a model that describes itself so.
fn good(about: &Value, rows: usize, random: &mut Random) -> Request {
    let input = |name: &str| about["inputs"].as_array().and_then(|all| all.iter().find(|input| input["name"] == name));
    let width = |name: &str| input(name).and_then(|input| input["shape"][1].as_u64());
    let features = width("dense").unwrap_or(0);
    let dense: Vec<u64> = (0..rows as u64 * features).map(|_| random.below(1000)).collect();
    let texts = input("ids").is_some_and(|ids| ids["datatype"] == "BYTES");
    // one id a bag also where bags may hold several
    let tables = width("ids").unwrap_or(TABLES_OF_TESTS);
    let ids: Vec<Value> =
        (0..rows as u64 * tables).map(|_| random.below(1 << 31)).map(|id| if texts { json!(id.to_string()) } else { json!(id) }).collect();
    let datatype = if texts { "BYTES" } else { "UINT64" };
    let body = json!({ "inputs": [
        { "name": "dense", "datatype": "FP32", "shape": [rows, features], "data": dense },
        { "name": "ids", "datatype": datatype, "shape": [rows, tables], "data": ids },
    ] });
    request(&body.to_string(), rows)
}

/// Tables of the model that is served without `--model`, whose bags hold any number of ids.
const TABLES_OF_TESTS: u64 = 3;

fn bad(kind: u64, good: &Request) -> Request {
    let text = String::from_utf8_lossy(&good.bytes);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body = match kind {
        0 => body[..body.len() / 2].to_owned(),
        1 => body.replacen("FP32", "FP64", 1),
        2 => body.replacen("\"data\":[", "\"data\":[1e39,", 1),
        3 => body.replacen("\"data\":[", "\"data\":[null,", 1),
        4 => "{}".into(),
        _ => body.replacen("\"dense\"", "\"sparse\"", 1),
    };
    request(&body, 0)
}

/// Reads one answer: its status and how many values its first output has.
fn answer(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<(u16, usize)> {
    let wrong = || Error::new(ErrorKind::InvalidData, "no answer in HTTP");
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(|_| wrong())?;
        }
    }
    body.resize(length, 0);
    stream.read_exact(body)?;
    let text = String::from_utf8_lossy(body);
    let values = text.split_once("\"data\":[").and_then(|(_, rest)| rest.split_once(']')).map_or(0, |(data, _)| data.split(',').count());
    Ok((status, values))
}

fn client(address: &str, pool: &[Request], bad: &[Request], one_in: u64, seed: u64, until: Instant) -> Seen {
    let (mut seen, mut random, mut body) = (Seen::default(), Random(seed), Vec::new());
    let connect = || -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(BufReader::new(stream))
    };
    let mut stream = connect();
    while Instant::now() < until {
        let list = if one_in > 0 && random.below(one_in) == 0 { bad } else { pool };
        let request = &list[random.below(list.len() as u64) as usize];
        let start = Instant::now();
        let outcome = match &mut stream {
            Ok(open) => open.get_mut().write_all(&request.bytes).and_then(|()| answer(open, &mut body)),
            Err(_) => Err(Error::from(ErrorKind::NotConnected)),
        };
        match (outcome, request.rows) {
            (Ok((400, 0)), 0) => seen.refused += 1,
            (Ok((200, values)), rows) if values == rows && rows > 0 => seen.rows += rows as u64,
            (Ok((503, 0)), _) => seen.busy += 1,
            (Ok(_), _) => seen.errors += 1,
            (Err(_), _) => {
                seen.errors += 1;
                stream = connect();
            }
        }
        seen.microseconds.push(start.elapsed().as_micros() as u32);
    }
    seen
}

/// A server in a process of its own.
struct Server(Child);

impl Server {
    fn start(options: &Options) -> Result<(Server, String)> {
        let model = options.text("--model").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packed/v1.safetensors"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_dqrm"));
        command.args(["serve", "--port", "0", "--model", model, "--device", options.text("--device").unwrap_or("cpu")]);
        for name in ["--batch-wait", "--threads"] {
            if let Some(value) = options.text(name) {
                command.args([name, value]);
            }
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut url = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut url)?;
        }
        let address = url.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        Ok((Server(child), address))
    }

    /// Memory that it has, and the most that it had, in MB; 0 where the system does not tell.
    fn memory(&self) -> [f64; 2] {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let find = |key| text.lines().find_map(|line: &str| line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
        ["VmRSS:", "VmHWM:"].map(|key| find(key).unwrap_or(0.0) / 1e3)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let names = ["--model", "--seconds", "--clients", "--rows", "--bad", "--device", "--batch-wait", "--threads"];
    let options = Options::parse(USAGE, &[], &names);
    let (seconds, clients) = (options.value("--seconds", 60.0f64), options.value("--clients", 200u64));
    let (most, one_in) = (options.value("--rows", 16u64), options.value("--bad", 20u64));
    let (server, address) = Server::start(&options)?;
    let mut about = BufReader::new(TcpStream::connect(&address)?);
    about.get_mut().write_all(b"GET /v2/models/dqrm HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut body = Vec::new();
    answer(&mut about, &mut body)?;
    let about: Value = serde_json::from_slice(&body)?;
    let mut random = Random(1);
    let mut one = |_| {
        let rows = 1 + random.below(most) as usize;
        good(&about, rows, &mut random)
    };
    let pool: Vec<Request> = (0..POOL).map(&mut one).collect();
    let lies: Vec<Request> = (0..60).map(|i| bad(i % 6, &pool[i as usize])).collect();

    let start = Instant::now();
    let until = start + Duration::from_secs_f64(seconds);
    let (mut memory, mut all) = (vec![server.memory()[0]], Seen::default());
    let run = |seed| client(&address, &pool, &lies, one_in, seed, until);
    let run = &run;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..clients).map(|seed| scope.spawn(move || run(seed))).collect();
        for part in 1..=2 {
            let moment = start + Duration::from_secs_f64(seconds * (f64::from(part) / 2.0 - 0.02 * f64::from(part - 1)));
            std::thread::sleep(moment.saturating_duration_since(Instant::now()));
            memory.push(server.memory()[0]);
            eprintln!("{:.0} s of {seconds} s", start.elapsed().as_secs_f64());
        }
        for client in running {
            let Ok(seen) = client.join() else { continue };
            all.microseconds.extend(seen.microseconds);
            (all.rows, all.refused, all.errors, all.busy) =
                (all.rows + seen.rows, all.refused + seen.refused, all.errors + seen.errors, all.busy + seen.busy);
        }
    });
    report(&mut all, start.elapsed().as_secs_f64(), clients, &memory, server.memory()[1]);
    if all.errors > 0 { Err(Error::other(format!("{} answers were wrong or missing", all.errors))) } else { Ok(()) }
}

fn report(all: &mut Seen, seconds: f64, clients: u64, memory: &[f64], most: f64) {
    all.microseconds.sort_unstable();
    let count = all.microseconds.len();
    let at = |share: f64| all.microseconds.get(((count as f64 - 1.0) * share) as usize).map_or(0.0, |&us| f64::from(us) / 1e3);
    println!(
        "| clients | seconds | requests/s | rows/s | p50 ms | p99 ms | max ms | refused as they should | told to come again | errors |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    println!(
        "| {clients} | {seconds:.1} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {} ({:.1} %) | {} | {} |",
        count as f64 / seconds,
        all.rows as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0),
        all.refused,
        100.0 * all.refused as f64 / count.max(1) as f64,
        all.busy,
        all.errors
    );
    let memory: Vec<String> = memory.iter().map(|mb| format!("{mb:.1}")).collect();
    println!("\nmemory of the server at the start, in the middle and at the end: {} MB; at most {most:.1} MB", memory.join(", "));
}
