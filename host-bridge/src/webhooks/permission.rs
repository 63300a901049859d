//! Whether a receiver of CloudEvents has agreed to get them, and how many a minute: by the handshake of
//! their specification for webhooks.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use bytes::Bytes;
use http_body_util::Full;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::http_client::{HttpClient, HttpError};

/// What a receiver has said last.
#[derive(Default)]
pub(super) struct Permission(Mutex<Option<Allowed>>);

struct Allowed {
    until: Instant,
    /// Between requests.
    pause: Duration,
    next: Instant,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("OPTIONS: {0}")]
    NoAnswer(#[from] HttpError),
    #[error("OPTIONS: it answered {0}, without webhook-allowed-origin for `{1}`")]
    NotAllowed(axum::http::StatusCode, String),
}

impl Permission {
    /// Asks unless the receiver has said yes lately, and waits until the next request may go.
    ///
    /// # Errors
    /// It does not say yes.
    pub(super) async fn wait(
        &self,
        http: &HttpClient,
        url: &str,
        origin: &HeaderValue,
    ) -> Result<(), Denied> {
        // One asks for all.
        let mut last = self.0.lock().await;
        let now = Instant::now();
        let mut allowed = match last.take().filter(|allowed| allowed.until > now) {
            Some(allowed) => allowed,
            None => ask(http, url, origin).await?,
        };
        let turn = allowed.next.max(Instant::now());
        allowed.next = turn + allowed.pause;
        *last = Some(allowed);
        drop(last);
        sleep_until(turn).await;
        Ok(())
    }
}

async fn ask(http: &HttpClient, url: &str, origin: &HeaderValue) -> Result<Allowed, Denied> {
    let mut request = Request::new(Full::<Bytes>::default());
    *request.method_mut() = Method::OPTIONS;
    request.headers_mut().insert(REQUEST_ORIGIN, origin.clone());
    let head = http.tell(url, request).await?;
    let of = |name| head.headers.get(name).map(HeaderValue::as_bytes);
    let is_allowed = of(ALLOWED_ORIGIN).is_some_and(|it| it == b"*" || it == origin.as_bytes());
    if !head.status.is_success() || !is_allowed {
        let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        return Err(Denied::NotAllowed(head.status, origin));
    }
    let now = Instant::now();
    Ok(Allowed { until: now + ASK_AGAIN, pause: pause(&head.headers), next: now })
}

/// Between requests, by how many a minute are allowed; `*` is as many as one likes.
fn pause(headers: &HeaderMap) -> Duration {
    let rate = headers.get(ALLOWED_RATE).and_then(|rate| rate.to_str().ok()?.trim().parse().ok());
    rate.map_or(Duration::ZERO, |rate: u32| Duration::from_secs(60) / rate.max(1))
}

pub(super) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
/// A receiver may say something else by then.
const ASK_AGAIN: Duration = Duration::from_secs(3600);
