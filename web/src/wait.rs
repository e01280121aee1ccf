//! Clocks and patience.

use std::future::Future;

/// What `work` gives, or nothing when it takes longer than so many seconds; then it is dropped. Outside of a browser,
/// where whoever waits can be stopped, there is no limit.
#[cfg(target_arch = "wasm32")]
pub(crate) async fn within<T>(seconds: f64, work: impl Future<Output = T>) -> Option<T> {
    use std::pin::pin;
    use std::task::Poll;
    let timer = js_sys::Promise::new(&mut |done, _| {
        set_timeout(&done, 1000.0 * seconds);
    });
    let (mut timer, mut work) = (pin!(wasm_bindgen_futures::JsFuture::from(timer)), pin!(work));
    std::future::poll_fn(|context| match (work.as_mut().poll(context), timer.as_mut().poll(context)) {
        (Poll::Ready(value), _) => Poll::Ready(Some(value)),
        (Poll::Pending, Poll::Ready(_)) => Poll::Ready(None),
        (Poll::Pending, Poll::Pending) => Poll::Pending,
    })
    .await
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) async fn within<T>(_: f64, work: impl Future<Output = T>) -> Option<T> {
    Some(work.await)
}

/// Seconds since some moment.
#[cfg(target_arch = "wasm32")]
pub(crate) fn now() -> f64 {
    milliseconds() / 1000.0
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn now() -> f64 {
    use std::sync::LazyLock;
    use std::time::Instant;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

#[cfg(target_arch = "wasm32")]
#[wasm_bindgen::prelude::wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &js_sys::Function, milliseconds: f64) -> f64;

    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn milliseconds() -> f64;
}
