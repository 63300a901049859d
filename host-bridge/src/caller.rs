//! What the bridge knows of a connection's peer: whether it is authorized, and what it leaves unread.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{Notify, SetOnce};
use tokio::time::{Instant, interval_at, timeout};

use crate::admission::Admission;
use crate::limits::{
    ANSWER_BYTES_MAX, ANSWER_TIMEOUT, FIRST_REQUEST_TIMEOUT, UNAUTHORIZED_REQUESTS_MAX,
};

/// One connection's peer.
pub(crate) struct Caller {
    admission: Arc<Admission>,
    number: u64,
    authorized: SetOnce<()>,
    /// Requests before the first authorized one.
    unauthorized_requests: AtomicUsize,
    enough: Notify,
    cut: Notify,
    unread: Mutex<Unread>,
}

/// Answers whose bodies the peer has not taken: those of this round of time, and of the last.
#[derive(Default)]
struct Unread {
    round: u64,
    of_round: usize,
    of_last: usize,
    bytes: usize,
}

/// A peer without authorization made more requests than it may.
#[derive(Debug, thiserror::Error)]
#[error("too many requests without authorization")]
pub(crate) struct TooMany;

impl Caller {
    pub(crate) fn new(admission: Arc<Admission>, number: u64) -> Self {
        Self {
            admission,
            number,
            authorized: SetOnce::new(),
            unauthorized_requests: AtomicUsize::new(0),
            enough: Notify::new(),
            cut: Notify::new(),
            unread: Mutex::default(),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The peer has sent an authorized request: its connection gives way to no other.
    pub(crate) fn authorize(&self) {
        if self.authorized.set(()).is_ok() {
            self.admission.forget(self.number);
        }
    }

    /// Counts a request without authorization.
    ///
    /// # Errors
    /// When there were too many before it, and none with.
    pub(crate) fn count_unauthorized(&self) -> Result<(), TooMany> {
        if self.authorized.initialized() {
            return Ok(());
        }
        let before = self.unauthorized_requests.fetch_add(1, Relaxed);
        if before + 1 >= UNAUTHORIZED_REQUESTS_MAX {
            self.enough.notify_one();
        }
        match before < UNAUTHORIZED_REQUESTS_MAX {
            true => Ok(()),
            false => Err(TooMany),
        }
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Returns when the connection should end for want of authorization.
    pub(crate) async fn stayed_unauthorized(&self) {
        let in_time = timeout(FIRST_REQUEST_TIMEOUT, self.authorized.wait());
        tokio::select! {
            () = self.enough.notified() => {}
            in_time = in_time => if in_time.is_ok() { std::future::pending().await },
        }
    }

    /// Returns when the connection must end at once: it gives way, or its peer does not read.
    pub(crate) async fn given_up(&self) {
        let unread = async {
            let mut rounds = interval_at(Instant::now() + ANSWER_TIMEOUT, ANSWER_TIMEOUT);
            loop {
                rounds.tick().await;
                if self.unread().next_round() {
                    break;
                }
            }
        };
        tokio::select! { () = self.cut.notified() => {}, () = unread => {} }
    }

    /// Watches until the peer has taken the answer, as far as HTTP's flow control tells.
    pub(crate) fn answer(self: &Arc<Self>, response: Response<Body>) -> Response<Answer> {
        response.map(|body| {
            let bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
            let mut unread = self.unread();
            unread.of_round += 1;
            unread.bytes = unread.bytes.saturating_add(bytes);
            if unread.bytes > ANSWER_BYTES_MAX {
                self.cut();
            }
            Answer { body, bytes, round: unread.round, caller: Arc::clone(self) }
        })
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unread {
    /// Whether an answer has been left for a whole round.
    fn next_round(&mut self) -> bool {
        let is_left = self.of_last > 0;
        self.of_last = std::mem::take(&mut self.of_round);
        self.round += 1;
        is_left
    }
}

/// An answer's body, which is dropped when HTTP has taken all of it.
pub(crate) struct Answer {
    body: Body,
    bytes: usize,
    round: u64,
    caller: Arc<Caller>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut unread = self.caller.unread();
        unread.bytes = unread.bytes.saturating_sub(self.bytes);
        // Of an older round there is nobody left to count: the connection ends.
        let count = match unread.round - self.round {
            0 => &mut unread.of_round,
            _ => &mut unread.of_last,
        };
        *count = count.saturating_sub(1);
    }
}
