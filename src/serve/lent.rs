//! The body of a request that is lent to whoever answers, so that what was not read of it can be discarded afterwards: a client
//! that still sends when the connection is closed loses the answer.

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// The rest of a body may take this time to come.
const REST_TIME: Duration = Duration::from_secs(1);

/// A body with several holders, of whom one reads at a time.
#[derive(Debug, Clone)]
pub(super) struct Lent(Arc<Mutex<Reading>>);

#[derive(Debug)]
struct Reading {
    body: Body,
    begun: bool,
    ended: bool,
}

impl Lent {
    pub(super) fn new(body: Body) -> Lent {
        Lent(Arc::new(Mutex::new(Reading { body, begun: false, ended: false })))
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when somebody asked for its bytes; a client that expects a word before it sends was told then to send.
    pub(super) fn begun(&self) -> bool {
        self.lock().begun
    }

    /// Reads what is left, up to `most` bytes and for a second, and forgets it.
    pub(super) async fn discard(mut self, most: usize) {
        let rest = async {
            let mut left = most;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return;
                }
            }
        };
        // late: the answer goes out without it
        let _ = timeout(REST_TIME, rest).await;
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut reading = self.lock();
        if reading.ended {
            return Poll::Ready(None);
        }
        reading.begun = true;
        let frame = Pin::new(&mut reading.body).poll_frame(cx);
        reading.ended = matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        let reading = self.lock();
        reading.ended || reading.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.size_hint()
    }
}
