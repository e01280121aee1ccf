//! What is answered at which path.

use super::Settings;
use super::content::{Bulk, Content, accepts_gzip};
use super::guard::{Rules, guard};
use super::inputs::{MODEL, shown};
use super::model::Model;
use super::page::{self, Page};
use super::refused::{Refused, json};
use crate::error::{Error, Result};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path as Part, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json as value;
use std::fs::File;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bodies together may be so many times the size of one.
const BODIES: usize = 32;
/// Bytes of a body that are counted together. Each connection has one such share besides, so that bodies which hardly came do
/// not keep others from coming.
const SHARE: usize = 1 << 10;
/// Larger bodies are read in a thread of their own.
const LARGE: usize = 1 << 15;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) page: Page,
    pub(super) model: Option<Model>,
    file: Option<(PathBuf, String)>,
    max_body: usize,
    timeout: Duration,
    /// Room for bodies, in shares.
    room: Arc<Semaphore>,
}

type Answer = std::result::Result<Response, Refused>;

/// The name of a model in a path.
type Name = std::result::Result<Part<String>, PathRejection>;

impl Served {
    /// Opens the page and loads the model.
    ///
    /// # Errors
    /// A folder without a page, a model that cannot be loaded.
    pub(super) fn open(settings: &Settings) -> Result<Served> {
        let page = Page::open(settings.page.as_deref())?;
        // before it is loaded: a file that is put in its place meanwhile then counts as another
        let file = settings.model.as_ref().map(|path| {
            let meta = std::fs::metadata(path).map_err(Error::io("read", path))?;
            Ok((path.clone(), page::tag(&meta)))
        });
        let file = file.transpose()?;
        let model = settings.model.as_deref().map(|path| Model::load(path, settings)).transpose()?;
        let room = (BODIES * settings.max_body.div_ceil(SHARE)).saturating_add(settings.max_connections);
        let room = Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)));
        Ok(Served { page, model, file, max_body: settings.max_body, timeout: settings.timeout, room })
    }

    fn model(&self, name: &str) -> Result<&Model, Refused> {
        if name != MODEL {
            return Err(Refused::absent(format!("there is no model `{}`; the one that is served is called `{MODEL}`", shown(name))));
        }
        self.model.as_ref().ok_or_else(|| Refused::absent("no model is loaded; start the server with --model"))
    }
}

/// Everything that is answered. `loopback`: to this computer alone.
pub(super) fn router(served: Arc<Served>, loopback: bool) -> Router {
    let rules = Rules { loopback, discarded: served.max_body.saturating_mul(2) };
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(async || json(&value!({ "live": true }))))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{name}", get(metadata))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/infer", post(infer))
        .route("/model.safetensors", get(model_file))
        .fallback(file)
        .method_not_allowed_fallback(async || other_method())
        .layer(from_fn_with_state(rules, guard))
        .with_state(served)
}

fn other_method() -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this path is not asked in this way")
}

async fn server() -> Response {
    json(&value!({ "name": "dqrm", "version": env!("CARGO_PKG_VERSION"), "extensions": [] }))
}

async fn ready(State(served): State<Arc<Served>>) -> Response {
    let ready = match &served.model {
        Some(model) => answers(&served, model).await,
        None => true,
    };
    state(ready, json(&value!({ "ready": ready })))
}

async fn model_ready(State(served): State<Arc<Served>>, name: Name) -> Answer {
    let ready = answers(&served, served.model(&named(name)?)?).await;
    Ok(state(ready, json(&value!({ "name": MODEL, "ready": ready }))))
}

/// True when the model answers within the time that a request has.
async fn answers(served: &Served, model: &Model) -> bool {
    timeout(served.timeout, model.ready()).await.unwrap_or(false)
}

fn named(name: Name) -> Result<String, Refused> {
    name.map(|Part(name)| name).map_err(|_| Refused::bad("the model's name in the path is not UTF-8"))
}

fn state(ready: bool, mut response: Response) -> Response {
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn metadata(State(served): State<Arc<Served>>, name: Name) -> Answer {
    Ok(json(&served.model(&named(name)?)?.metadata()))
}

async fn infer(State(served): State<Arc<Served>>, name: Name, headers: HeaderMap, body: Body) -> Answer {
    let name = named(name)?;
    served.model(&name)?;
    if headers.contains_key("inference-header-content-length") {
        return Err(Refused::bad("values in binary form are not taken; give every input its `data`"));
    }
    let late = |_| Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
    let (body, room) = timeout(served.timeout, collect(&served, body)).await.map_err(late)??;
    let (asked, room) = if body.len() > LARGE {
        let (served, name) = (served.clone(), name.clone());
        // the room goes where the body goes: a client that leaves ends this task, but not the thread that reads
        let read = move || {
            let asked = served.model(&name).and_then(|model| model.read(&body));
            drop(body);
            (asked, room)
        };
        let read = tokio::task::spawn_blocking(read).await;
        let (asked, room) = read.map_err(|_| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be read"))?;
        (asked?, room)
    } else {
        (served.model(&name)?.read(&body)?, room)
    };
    let answer = timeout(served.timeout, served.model(&name)?.infer(asked)).await;
    drop(room);
    answer.map_err(|_| Refused::busy("the model did not answer in time; try again"))?
}

/// All of a body, and the room that it takes.
async fn collect(served: &Served, mut body: Body) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refused> {
    let most = served.max_body;
    let large = || Refused::large(format!("the body has more than {most} bytes; send less at once, or start the server with --max-body"));
    if body.size_hint().lower() > most as u64 {
        return Err(large());
    }
    let (mut all, mut room) = (Vec::new(), None::<OwnedSemaphorePermit>);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| Refused::bad("the body ends before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > most {
            return Err(large());
        }
        let more = (all.len() + data.len()).div_ceil(SHARE) - room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if more > 0 {
            let full = |_| Refused::busy("too many requests wait already; try again");
            let permit = served.room.clone().try_acquire_many_owned(more as u32).map_err(full)?;
            match &mut room {
                Some(room) => room.merge(permit),
                None => room = Some(permit),
            }
        }
        all.extend_from_slice(&data);
    }
    Ok((all, room))
}

/// The model as it was loaded.
async fn model_file(State(served): State<Arc<Served>>, method: Method, headers: HeaderMap) -> Answer {
    let Some((path, tag)) = &served.file else { return Err(Refused::absent("no model is loaded; start the server with --model")) };
    let found = File::open(path).and_then(|file| file.metadata().map(|meta| (file, meta)));
    let (file, meta) = found.map_err(|e| Refused::absent(format!("the model's file cannot be read: {e}")))?;
    if page::tag(&meta) != *tag {
        return Err(Refused::absent("the model's file was replaced after it was loaded; start the server again"));
    }
    let bulk = Bulk::File(file, meta.len());
    let mime = "application/octet-stream";
    send(Content { bulk, gzip: None, compressible: false, tag: tag.clone(), mime, immutable: false }, &method, &headers)
}

/// A file of the page.
async fn file(State(served): State<Arc<Served>>, method: Method, uri: Uri, headers: HeaderMap) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        let mut response = other_method().into_response();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        return Ok(response);
    }
    let gzip = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(accepts_gzip);
    let path = uri.path().to_owned();
    let found = tokio::task::spawn_blocking(move || served.page.find(&path, gzip)).await;
    match found.ok().flatten() {
        Some(content) => send(content, &method, &headers),
        None => Err(Refused::absent(format!("there is nothing at `{}`", shown(uri.path())))),
    }
}

fn send(content: Content, method: &Method, headers: &HeaderMap) -> Answer {
    let failed = |e| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the file cannot be read: {e}"));
    content.respond(method, headers).map_err(failed).map(IntoResponse::into_response)
}
