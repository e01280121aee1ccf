//! `dqrm serve`.

use super::live::grouped;
use super::{note, print, stop};
use crate::config::Device;
use crate::error::{Error, Result};
use crate::packed;
use crate::serve::{Server, Settings};
use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  dqrm serve --model runs/mine/model.safetensors       http://127.0.0.1:8000/
  dqrm serve                                           the page alone
  dqrm serve --model model.safetensors --port 0        on a free port, whose URL is printed
  curl http://127.0.0.1:8000/v2/models/dqrm            inputs and outputs of the model
  curl http://127.0.0.1:8000/v2/models/dqrm/infer -d \\
    '{\"inputs\": [{\"name\": \"rows\", \"datatype\": \"BYTES\", \"shape\": [1], \"data\": [\"a line as dqrm predict reads it\"]}]}'

The server speaks the Open Inference Protocol, version 2, in JSON; docs/FORMATS.md describes the tensors. It answers this
computer alone unless --host says otherwise, and knows no encryption and no passwords. Ctrl-C lets requests
end that have begun, for as long as --timeout says, but no longer than 30 seconds.";

/// Settings of `dqrm serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// A packed file (`dqrm pack` makes it); the page alone is served without
    #[arg(long, value_name = "FILE", help_heading = "Served")]
    pub model: Option<PathBuf>,
    /// The page's folder [default: the page inside the program, else web/dist if it is there]
    #[arg(long, value_name = "DIR", help_heading = "Served")]
    pub page: Option<PathBuf>,
    /// Read all of the packed file first and compare it with its checksum
    #[arg(long, requires = "model", help_heading = "Served")]
    pub verify: bool,

    /// Port to listen at; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8000, help_heading = "Network")]
    pub port: u16,
    /// Address to listen at; 0.0.0.0 is every one of this computer
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Network")]
    pub host: IpAddr,
    /// Connections at a time; others wait
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count(1, 1 << 16), help_heading = "Network")]
    pub max_connections: u64,

    /// Bytes of a request
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, value_parser = count(1, 1 << 30), help_heading = "Requests")]
    pub max_body: u64,
    /// Rows of a request
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = count(1, 1 << 20), help_heading = "Requests")]
    pub max_rows: u64,
    /// Seconds that a request may take to come, its answer to be computed, and a client to take nothing of it
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = count(1, 3600), help_heading = "Requests")]
    pub timeout: u64,
    /// Requests that wait for the model; more are told to come again
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count(1, 1 << 20), help_heading = "Requests")]
    pub queue: u64,
    /// Rows that are predicted together, at least 5; large models take fewer
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = count(1, 1 << 20), help_heading = "Requests")]
    pub batch: u64,
    /// Microseconds that a request waits for others to come into its batch
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count(0, 1000), help_heading = "Requests")]
    pub batch_wait: u64,

    /// auto (a real GPU, else the CPU), cpu, gpu (any adapter), or part of an adapter's name
    #[arg(long, value_name = "DEVICE", help_heading = "Run")]
    pub device: Option<String>,
    /// Threads that compute on the CPU [default: one for each core]
    #[arg(long, value_name = "N", value_parser = count(1, 1024), help_heading = "Run")]
    pub threads: Option<u64>,
}

fn count(least: u64, most: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(least..=most)
}

impl ServeArgs {
    fn settings(&self) -> Settings {
        Settings {
            model: self.model.clone(),
            page: self.page.clone(),
            device: self.device.clone().map_or(Device::Auto, Device::from),
            host: self.host,
            port: self.port,
            batch: self.batch as usize,
            batch_wait: Duration::from_micros(self.batch_wait),
            queue: self.queue as usize,
            max_body: self.max_body as usize,
            max_rows: self.max_rows as usize,
            max_connections: self.max_connections as usize,
            timeout: Duration::from_secs(self.timeout),
        }
    }
}

/// Serves until it is stopped.
pub(super) fn run(args: &ServeArgs) -> Result<()> {
    if let (Some(path), true) = (&args.model, args.verify) {
        packed::open(path)?.verify().map_err(|reason| Error::Checkpoint { path: path.into(), reason })?;
    }
    if let Some(threads) = args.threads {
        // a pool that exists already is as good
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global();
    }
    let server = Server::bind(args.settings())?;
    note(&format!("page    {}", server.page()));
    if let (Some(path), Some(loaded)) = (&args.model, server.loaded()) {
        let (device, bytes, batch) = (&loaded.device, grouped(loaded.bytes), grouped(loaded.batch as u64));
        note(&format!("model   {} ({bytes} bytes of buffers, up to {batch} rows at once)", path.display()));
        note(&format!("device  {} ({})", device.engine, device.name));
    }
    if !args.host.is_loopback() {
        note("warning: whoever reaches this address can use the server; there is no encryption and no password");
    }
    let stopper = server.stopper();
    let handler = move || {
        if !stopper.stop() {
            std::process::exit(i32::from(stop::INTERRUPTED));
        }
        note("stopping after the requests that have begun (press Ctrl-C again to stop at once)");
    };
    ctrlc::set_handler(handler).map_err(|e| Error::Config(format!("cannot listen for Ctrl-C: {e}")))?;
    print(&format!("http://{}/\n", server.address()))?;
    server.run()
}
