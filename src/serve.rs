//! A page and a packed model over HTTP/1.1: static files, and the Open Inference Protocol, version 2, in JSON
//! (`docs/FORMATS.md` describes the tensors).
//!
//! Connections are tasks of an async runtime; the model is in one thread, which takes all requests that wait as one batch. What a
//! client can make the server hold is bounded: connections, the bytes of a header, of a body and of all bodies, rows
//! of a request, requests that wait, and the time that each of them takes.

use crate::config::Device;
use crate::error::{Error, Result};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

mod api;
mod batches;
mod content;
mod guard;
mod inputs;
mod lent;
mod model;
mod page;
mod patient;
mod refused;
mod stream;
mod tensor;

pub use batches::Loaded;
use patient::Patient;

/// A request's first line and headers must have come after this time; a connection without a request is closed after it.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's first line and headers.
const HEADER_BYTES: usize = 1 << 16;
/// What is still being answered when the server stops gets the time of a request, but no more than this.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// What is served, to whom, and how much at once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A packed file.
    pub model: Option<PathBuf>,
    /// The page's folder, instead of the one inside the program or `web/dist`.
    pub page: Option<PathBuf>,
    /// What computes.
    pub device: Device,
    /// The address to listen at.
    pub host: IpAddr,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The most samples of one batch; at least [`Predictor::REGULAR`](crate::predictor::Predictor::REGULAR) are taken.
    pub batch: usize,
    /// How long the first request of a batch that is not full waits for others.
    pub batch_wait: Duration,
    /// The most requests that wait for the model.
    pub queue: usize,
    /// The most bytes of a body.
    pub max_body: usize,
    /// The most rows of a request.
    pub max_rows: usize,
    /// The most connections; others wait until one is closed.
    pub max_connections: usize,
    /// How long a body may take to come, an answer to be computed, and a client to take nothing of what is sent.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            model: None,
            page: None,
            device: Device::Auto,
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8000,
            batch: 2048,
            batch_wait: Duration::ZERO,
            queue: 1024,
            max_body: 8 << 20,
            max_rows: 4096,
            max_connections: 1024,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    served: Arc<api::Served>,
    settings: Settings,
    stop: watch::Sender<bool>,
}

/// Ends a server, from any thread.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Takes no more connections and lets requests that have begun end, within [`Settings::timeout`] and 30 seconds. False when that was said before.
    pub fn stop(&self) -> bool {
        !self.0.send_replace(true)
    }
}

impl Server {
    /// Loads the model and begins to listen.
    ///
    /// # Errors
    /// A model or a page that cannot be read, a device that does not exist or is too small, an address that cannot be had.
    pub fn bind(settings: Settings) -> Result<Server> {
        let served = Arc::new(api::Served::open(&settings)?);
        let place = SocketAddr::new(settings.host, settings.port);
        let listener = TcpListener::bind(place).map_err(|e| cannot_listen(place, &e))?;
        listener.set_nonblocking(true).map_err(|e| cannot_listen(place, &e))?;
        let address = listener.local_addr().map_err(|e| cannot_listen(place, &e))?;
        Ok(Server { listener, address, served, settings, stop: watch::channel(false).0 })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The model's device and sizes, where there is a model.
    pub fn loaded(&self) -> Option<&Loaded> {
        self.served.model.as_ref().map(|model| &model.loaded)
    }

    /// Where the page comes from, for people.
    pub fn page(&self) -> String {
        self.served.page.describe()
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Answers until it is stopped.
    ///
    /// # Errors
    /// A system that gives no threads or no events.
    pub fn run(self) -> Result<()> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::io("start", "the server's threads"))?;
        runtime.block_on(self.accept())?;
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(())
    }

    async fn accept(self) -> Result<()> {
        let Server { listener, address, served, settings, stop } = self;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| cannot_listen(address, &e))?;
        let service = TowerToHyperService::new(api::router(served, settings.host.is_loopback()));
        let most = settings.max_connections.clamp(1, 1 << 16);
        let slots = Arc::new(Semaphore::new(most));
        let mut stopped = stop.subscribe();
        loop {
            let next = async {
                // closed never, so this does not fail
                let slot = slots.clone().acquire_owned().await.ok();
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = told(&mut stopped) => break,
                next = next => next,
            };
            match accepted {
                Ok((stream, _)) => {
                    // answers are small; without it they may wait for more
                    let _ = stream.set_nodelay(true);
                    drop(tokio::spawn(connection(Patient::new(stream, settings.timeout), service.clone(), stop.subscribe(), slot)));
                }
                Err(error) => {
                    // too many open files, say: not a reason to end
                    log::warn!("a connection could not be taken: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        let all = slots.acquire_many(most as u32);
        if tokio::time::timeout(settings.timeout.min(LAST_ANSWERS), all).await.is_err() {
            log::warn!("some requests did not end in time");
        }
        Ok(())
    }
}

/// Ends when the server is to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Answers the requests of one connection, one after the other.
async fn connection(
    stream: Patient,
    service: TowerToHyperService<axum::Router>,
    mut stop: watch::Receiver<bool>,
    slot: Option<OwnedSemaphorePermit>,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        log::debug!("a connection ended: {error}");
    }
    drop(slot);
}

fn cannot_listen(place: SocketAddr, error: &std::io::Error) -> Error {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => "another program listens there; stop it, or take another port with --port (0 takes a free one)".into(),
        ErrorKind::PermissionDenied => "ports below 1024 are for the system; take a higher one with --port".into(),
        ErrorKind::AddrNotAvailable => "this computer does not have that address; see --host".into(),
        _ => error.to_string(),
    };
    Error::Config(format!("cannot listen at {place}: {hint}"))
}
