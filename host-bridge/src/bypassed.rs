//! What stands behind a terminating filter: no request that comes here is answered as if it had been
//! written, and none before its end. Where Envoy cannot stop at headers, the headers of every request
//! with a body come here, and the body does not: the filter answers, and Envoy ends the request.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::limits::BYPASSED_HELD;
use crate::metrics::Metrics;
use crate::reply::refusal;

/// The requests that have not ended.
pub(crate) struct Bypassed {
    places: Semaphore,
}

impl Default for Bypassed {
    fn default() -> Self {
        Self { places: Semaphore::new(BYPASSED_HELD) }
    }
}

impl Bypassed {
    /// Answers a request when it ends: a filter that held its body has answered it by then. Those that
    /// are too many, and all when the process is to end, are answered at once.
    pub(crate) async fn answer(&self, metrics: &Metrics, request: Request<Body>) -> Response<Body> {
        let shutdown = request.extensions().get::<CancellationToken>().cloned().unwrap_or_default();
        if let Ok(_place) = self.places.try_acquire() {
            tokio::select! {
                is_whole = ends(request.into_body()) => if is_whole {
                    metrics.bypassed();
                },
                () = shutdown.cancelled() => {}
            }
        }
        let error = "the filter did not answer this request: its message may have been written";
        refusal(StatusCode::GATEWAY_TIMEOUT, "bypassed", error)
    }
}

/// Drops a body as it comes; false when it breaks off.
async fn ends(mut body: Body) -> bool {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use futures_util::stream;

    use super::*;

    fn unfinished() -> Request<Body> {
        let body = stream::pending::<Result<Bytes, io::Error>>();
        Request::new(Body::from_stream(body))
    }

    #[test]
    fn a_request_is_answered_at_its_end_and_not_before() {
        let (bypassed, metrics) = (Bypassed::default(), Metrics::default());
        let now = |request| bypassed.answer(&metrics, request).now_or_never();
        assert!(now(unfinished()).is_none());
        let broken = stream::once(async { Err::<Bytes, _>(io::Error::other("reset")) });
        for ended in [Body::empty(), Body::from("all of it"), Body::from_stream(broken)] {
            let reply = now(Request::new(ended)).unwrap();
            assert_eq!(reply.status(), StatusCode::GATEWAY_TIMEOUT);
        }
    }

    #[test]
    fn one_too_many_and_all_at_the_process_s_end_are_answered_at_once() {
        let bypassed = Bypassed { places: Semaphore::new(1) };
        let metrics = Metrics::default();
        let now = |request| bypassed.answer(&metrics, request).now_or_never();
        let mut first = Box::pin(bypassed.answer(&metrics, unfinished()));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(now(unfinished()).is_some());
        drop(first);
        let (mut request, shutdown) = (unfinished(), CancellationToken::new());
        request.extensions_mut().insert(shutdown.clone());
        shutdown.cancel();
        assert!(now(request).is_some());
    }
}
