//! Request bodies: memory is taken as bytes arrive, and shared among connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::time::timeout;

use crate::limits::{BODY_BYTES_FIRST, BODY_BYTES_MAX, BODY_TIMEOUT};
use crate::reply::refusal;

/// Memory for request bodies that are being read or written.
pub(crate) struct BodyBudget {
    free: AtomicUsize,
}

/// Bytes of bodies that one connection's requests hold. Requests carry it as an extension.
#[derive(Clone, Default)]
pub(crate) struct Share(Arc<AtomicUsize>);

/// A body's part of the budget.
pub(crate) struct Held<'a> {
    budget: &'a BodyBudget,
    share: Share,
    bytes: usize,
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self::of(BODY_BYTES_MAX)
    }
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("content-length is required")]
    NoLength,
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("the bridge holds as many bytes of requests as it may")]
    NoMemory,
    #[error("the body broke off: {0}")]
    BrokeOff(axum::Error),
    #[error("the body did not arrive in time")]
    TimedOut,
}

impl From<Unread> for Response<Body> {
    fn from(unread: Unread) -> Self {
        let (status, code) = match unread {
            Unread::NoLength => (StatusCode::LENGTH_REQUIRED, "length_required"),
            Unread::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Unread::NoMemory => (StatusCode::SERVICE_UNAVAILABLE, "queue_full"),
            Unread::BrokeOff(_) => (StatusCode::BAD_REQUEST, "body_broke_off"),
            Unread::TimedOut => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
        };
        refusal(status, code, &unread.to_string())
    }
}

impl BodyBudget {
    /// So much memory.
    pub(crate) fn of(bytes: usize) -> Self {
        Self { free: AtomicUsize::new(bytes) }
    }

    /// Reads a body of at most `limit` bytes, whose length must be announced.
    ///
    /// # Errors
    /// [`Unread`].
    pub(crate) async fn read(
        &self,
        parts: &Parts,
        body: Body,
        limit: usize,
    ) -> Result<(Bytes, Held<'_>), Unread> {
        body.size_hint().exact().ok_or(Unread::NoLength)?;
        self.read_any(parts, body, limit, BODY_TIMEOUT).await
    }

    /// The same for a body that may come without a length, within so long.
    ///
    /// # Errors
    /// [`Unread`], but `NoLength`.
    pub(crate) async fn read_any(
        &self,
        parts: &Parts,
        body: Body,
        limit: usize,
        time: Duration,
    ) -> Result<(Bytes, Held<'_>), Unread> {
        if body.size_hint().lower() > limit as u64 {
            return Err(Unread::TooLarge(limit));
        }
        let share = parts.extensions.get::<Share>().cloned().unwrap_or_default();
        let mut held = Held { budget: self, share, bytes: 0 };
        let read = timeout(time, collect(body, limit, &mut held)).await;
        read.map_err(|_| Unread::TimedOut)?.map(|bytes| (bytes, held))
    }
}

/// HTTP ends a body that is longer or shorter than announced with an error.
async fn collect(mut body: Body, limit: usize, held: &mut Held<'_>) -> Result<Bytes, Unread> {
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Unread::BrokeOff)?.into_data() else { continue };
        if held.bytes + data.len() > limit {
            return Err(Unread::TooLarge(limit));
        }
        if !held.take(data.len()) {
            return Err(Unread::NoMemory);
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(length.unwrap_or_default().min(BODY_BYTES_FIRST));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    // Most bodies come in one piece, which is not copied.
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

impl Held<'_> {
    /// A connection holds at most as much as it leaves free, so that however many connections hold
    /// all they can, another finds memory.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let mine = self.share.0.load(Relaxed) + bytes;
        let take = |free: usize| if mine <= free { free.checked_sub(bytes) } else { None };
        let taken = self.budget.free.fetch_update(Relaxed, Relaxed, take).is_ok();
        if taken {
            self.share.0.fetch_add(bytes, Relaxed);
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.share.0.fetch_sub(self.bytes, Relaxed);
        self.budget.free.fetch_add(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::http::Request;
    use hyper::body::{Frame, SizeHint};
    use kafka_upstream_core::limits::FRAME_BYTES_MAX;
    use tokio::task::JoinSet;

    use super::*;

    /// A body that is announced whole, of which `arrives` bytes come, and then nothing.
    struct Silent {
        announced: usize,
        arrives: usize,
    }

    impl hyper::body::Body for Silent {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            match (self.announced, self.arrives) {
                (0, _) => Poll::Ready(None),
                (_, 0) => Poll::Pending,
                (_, arrives) => {
                    let piece = arrives.min(16 * 1024);
                    self.arrives -= piece;
                    self.announced -= piece;
                    Poll::Ready(Some(Ok(Frame::data(vec![7; piece].into()))))
                }
            }
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.announced as u64)
        }
    }

    fn parts(share: &Share) -> Parts {
        let mut parts = Request::new(()).into_parts().0;
        parts.extensions.insert(share.clone());
        parts
    }

    async fn read(
        budget: &BodyBudget,
        share: &Share,
        announced: usize,
        arrives: usize,
    ) -> Result<usize, StatusCode> {
        let body = Body::new(Silent { announced, arrives });
        let read = budget.read(&parts(share), body, FRAME_BYTES_MAX).await;
        read.map(|(bytes, _)| bytes.len()).map_err(|unread| Response::from(unread).status())
    }

    /// Callers on a connection each, of whose bodies of 16 MiB so many bytes arrive.
    async fn stalled(
        budget: &Arc<BodyBudget>,
        callers: usize,
        arrives: usize,
    ) -> JoinSet<Result<usize, StatusCode>> {
        let mut stalled = JoinSet::new();
        for _ in 0..callers {
            let budget = Arc::clone(budget);
            stalled.spawn(async move {
                read(&budget, &Share::default(), FRAME_BYTES_MAX, arrives).await
            });
        }
        tokio::task::yield_now().await;
        stalled
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_were_only_announced_take_no_memory() {
        let budget = Arc::new(BodyBudget::default());
        let mut silent = stalled(&budget, 1000, 0).await;
        assert_eq!(budget.free.load(Relaxed), BODY_BYTES_MAX);
        let whole = read(&budget, &Share::default(), FRAME_BYTES_MAX, FRAME_BYTES_MAX).await;
        assert_eq!(whole, Ok(FRAME_BYTES_MAX));
        while let Some(ended) = silent.join_next().await {
            assert_eq!(ended.unwrap(), Err(StatusCode::REQUEST_TIMEOUT));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_fill_the_memory_and_stop_leave_some_to_others() {
        let budget = Arc::new(BodyBudget::default());
        let mut slow = stalled(&budget, 100, FRAME_BYTES_MAX - 1).await;
        let batch = 1024 * 1024;
        for _ in 0..10 {
            assert_eq!(read(&budget, &Share::default(), batch, batch).await, Ok(batch));
        }
        while slow.join_next().await.is_some() {}
        assert_eq!(budget.free.load(Relaxed), BODY_BYTES_MAX, "all is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_takes_half_of_the_memory_and_no_more() {
        let (budget, share) = (BodyBudget::default(), Share::default());
        let mut held = Vec::new();
        let refused = loop {
            let body = Body::new(Silent { announced: 1 << 20, arrives: 1 << 20 });
            match budget.read(&parts(&share), body, FRAME_BYTES_MAX).await {
                Ok((bytes, memory)) => held.push((bytes, memory)),
                Err(unread) => break Response::from(unread).status(),
            }
        };
        assert_eq!((held.len() << 20, refused.as_u16()), (BODY_BYTES_MAX / 2, 503));
        assert_eq!(read(&budget, &Share::default(), 1 << 20, 1 << 20).await, Ok(1 << 20));
        drop(held);
        assert_eq!(share.0.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_above_its_limit_is_refused_before_any_of_it_is_read() {
        let budget = BodyBudget::default();
        let read = read(&budget, &Share::default(), FRAME_BYTES_MAX + 1, 0).await;
        assert_eq!(read, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
