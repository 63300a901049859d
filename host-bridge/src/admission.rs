//! Connections: how many each listener takes, which of them give way to a new one, and what is known
//! of each one's peer: whether it is authorized, and what it leaves unread.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SetOnce};
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::limits::{
    ANSWER_BYTES_MAX, ANSWER_TIMEOUT, DESCRIPTORS_RESERVED, FIRST_REQUEST_TIMEOUT,
    STREAM_SEND_BYTES, UNAUTHORIZED_REQUESTS_MAX,
};
use crate::taking::{SlowCloses, Taking};

/// The places of one listener. No other listener's connections take them.
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    /// Connections without an authorized request, oldest first.
    unauthorized: Mutex<BTreeMap<u64, Arc<Caller>>>,
    connections: TaskTracker,
}

/// A connection that its listener has taken. Requests carry it as an extension: who keeps the
/// connection beyond its HTTP, upgraded, keeps this, so that it still counts and is waited for at
/// the end. Dropped with its socket: a descriptor is free again.
pub(crate) struct Admitted {
    pub(crate) caller: Arc<Caller>,
    admission: Arc<Admission>,
    _permit: OwnedSemaphorePermit,
    _tracked: TaskTrackerToken,
}

impl Admission {
    /// `connections` are tracked from their accept to the end of their sockets.
    pub(crate) fn new(places: usize, connections: TaskTracker) -> Arc<Self> {
        let (places, unauthorized) = (Arc::new(Semaphore::new(places)), Mutex::default());
        Arc::new(Self { places, unauthorized, connections })
    }

    /// Whether a new connection must wait for the end of another.
    pub(crate) fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// A place for the listener's connection `number`. When there is none, the oldest connection
    /// that has sent no authorized request ends; where all have, this waits until one ends.
    pub(crate) async fn admit(self: &Arc<Self>, number: u64) -> Option<Arc<Admitted>> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if let Some((_, oldest)) = self.unauthorized().pop_first() {
                    oldest.cut();
                }
                // It is never closed.
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        let caller = Arc::new(Caller::new(Arc::clone(self), number));
        self.unauthorized().insert(number, Arc::clone(&caller));
        Some(Arc::new(Admitted {
            caller,
            admission: Arc::clone(self),
            _permit: permit,
            _tracked: self.connections.token(),
        }))
    }

    /// A connection is authorized, or has ended.
    pub(crate) fn forget(&self, number: u64) {
        self.unauthorized().remove(&number);
    }

    fn unauthorized(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Caller>>> {
        self.unauthorized.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.forget(self.caller.number());
    }
}

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
        let of_stream = Taking::of_stream();
        let is_watched = of_stream.is_some();
        let is_unending = response.extensions().get::<Unending>().is_some();
        // Who writes an answer without end over HTTP/1.1 knows it.
        let slow = response.extensions().get::<SlowCloses>();
        let slow = slow.filter(|_| is_watched || !is_unending).cloned();
        let watched = (is_watched || slow.is_some()).then(|| Watched {
            taking: of_stream.unwrap_or_default(),
            // HTTP/1.1 writes a piece bit by bit itself.
            piece_bytes: if is_watched { STREAM_SEND_BYTES } else { usize::MAX },
            rest: Bytes::new(),
            slow,
        });
        // A page may be taken slowly: its connection ends when a write waits for too long.
        if watched.is_some() || is_unending {
            return response.map(|body| Answer { body, watched, counted: None });
        }
        response.map(|body| {
            let bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
            let mut unread = self.unread();
            unread.of_round += 1;
            unread.bytes = unread.bytes.saturating_add(bytes);
            if unread.bytes > ANSWER_BYTES_MAX {
                self.cut();
            }
            let counted = Counted { bytes, round: unread.round, caller: Arc::clone(self) };
            Answer { body, watched, counted: Some(counted) }
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
    watched: Option<Watched>,
    #[expect(dead_code, reason = "dropped with the answer")]
    counted: Option<Counted>,
}

/// How the answer of a reader is taken.
struct Watched {
    taking: Arc<Taking>,
    /// Bytes that are given at a time: who takes a little of a large piece is not stalled.
    piece_bytes: usize,
    /// Of a piece of the body that is given bit by bit.
    rest: Bytes,
    slow: Option<SlowCloses>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(slow) = &self.slow {
            slow.has_ended(&self.taking);
        }
    }
}

/// An extension of a response that goes on for as long as its reader likes. It is not watched: its
/// connection ends when a write waits for too long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unending;

/// An answer among those that the peer has not taken.
struct Counted {
    bytes: usize,
    round: u64,
    caller: Arc<Caller>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, watched, .. } = self.get_mut();
        let Some(Watched { taking, piece_bytes, rest, .. }) = watched else {
            return Pin::new(body).poll_frame(cx);
        };
        taking.asks_for_more();
        if rest.is_empty() {
            let next = ready!(Pin::new(body).poll_frame(cx));
            match next.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => *rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        taking.is_given();
        let piece = rest.split_to(rest.len().min(*piece_bytes));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.watched.as_ref().is_none_or(|it| it.rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
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

/// Raises the soft limit of descriptors to the hard one. Returns what the limit is now.
pub(crate) fn raise_descriptors() -> u64 {
    let limits = || getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((DESCRIPTORS_GUESSED, 0));
    let (_, hard) = limits();
    // Refused where the hard limit is above the system's own: then the soft one stays.
    let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    limits().0
}

/// Places of each listener where the process may have so many descriptors; `most` are of use.
pub(crate) fn places(descriptors: u64, listeners: usize, most: u64) -> usize {
    let reserved = DESCRIPTORS_RESERVED.min(descriptors / 2);
    let each = (descriptors - reserved) / u64::try_from(listeners).unwrap_or(u64::MAX).max(1);
    usize::try_from(each.clamp(1, most)).unwrap_or(1)
}

/// The limit of descriptors where the system does not tell it: what most systems begin with.
const DESCRIPTORS_GUESSED: u64 = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn listeners_share_what_brokers_and_files_leave() {
        assert_eq!(places(256, 2, 8192), 64);
        assert_eq!(places(1024, 3, 8192), 170);
        assert_eq!(places(524_288, 2, 8192), 8192);
        assert_eq!(places(524_288, 2, 20_480), 20_480);
        assert_eq!(places(u64::MAX, 1, 8192), 8192);
        assert_eq!(places(1, 4, 8192), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_is_taken_slowly_ends_no_connection_and_another_answer_does() {
        let admission = Admission::new(1, TaskTracker::new());
        let caller = Arc::clone(&admission.admit(0).await.unwrap().caller);
        let minute = Duration::from_secs(60);
        let page = Response::builder().extension(SlowCloses(Counter::default()));
        let page = caller.answer(page.body(Body::from("page")).unwrap());
        assert!(timeout(minute, caller.given_up()).await.is_err());
        let answer = caller.answer(Response::new(Body::from("answer")));
        assert!(timeout(minute, caller.given_up()).await.is_ok());
        drop((page, answer));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_connection_without_an_authorized_request_gives_way() {
        let admission = Admission::new(3, TaskTracker::new());
        let mut places = Vec::new();
        for number in 0..3 {
            places.push(admission.admit(number).await.unwrap());
        }
        places[0].caller.authorize();
        let newcomer = {
            let admission = Arc::clone(&admission);
            tokio::spawn(async move { admission.admit(3).await.unwrap().caller.number() })
        };
        places[1].caller.given_up().await;
        assert!(!newcomer.is_finished());
        places.remove(1);
        assert_eq!(newcomer.await.unwrap(), 3);
    }
}
