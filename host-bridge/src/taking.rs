//! Whether peers take what is sent to them. Over HTTP/2 hyper does not ask for more of a reply whose
//! stream has no window, nor looks whether it has ended: so a stream is watched from beside.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, sleep_until};

use crate::limits::ANSWER_TIMEOUT;

tokio::task_local! {
    /// Of the stream whose task this is.
    static STREAM: Arc<Taking>;
}

/// Runs the streams of HTTP/2 connections. With patience, one whose peer takes nothing for so long is
/// reset, and the others of its connection go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamExecutor {
    pub(crate) patience: Option<Duration>,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let Some(patience) = self.patience else {
            tokio::spawn(future);
            return;
        };
        let taking = Arc::<Taking>::default();
        let watched = Arc::clone(&taking);
        let watching = async move {
            tokio::select! {
                _ = future => {}
                () = watched.stalled(patience) => {}
            }
        };
        tokio::spawn(STREAM.scope(taking, watching));
    }
}

/// How a peer takes a reply.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// When HTTP was given something, if it has not asked for more since.
    given: Mutex<Option<Instant>>,
}

impl Taking {
    /// That of the stream whose task asks, if it is watched.
    pub(crate) fn of_stream() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    pub(crate) fn is_given(&self) {
        *self.lock() = Some(Instant::now());
    }

    pub(crate) fn asks_for_more(&self) {
        *self.lock() = None;
    }

    /// For how long nothing has been taken of what was given.
    fn left_for(&self) -> Duration {
        self.lock().map_or(Duration::ZERO, |given| given.elapsed())
    }

    /// Returns when nothing has been taken for so long.
    async fn stalled(&self, patience: Duration) {
        while let Some(left) = patience.checked_sub(self.left_for()).filter(|left| !left.is_zero())
        {
            sleep_until(Instant::now() + left).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An extension of a response: counts it if it ends while its peer takes nothing.
#[derive(Debug, Clone)]
pub(crate) struct SlowCloses(pub(crate) Counter);

impl SlowCloses {
    pub(crate) fn count(&self) {
        self.0.inc();
    }

    pub(crate) fn has_ended(&self, taking: &Taking) {
        if taking.left_for() >= ANSWER_TIMEOUT {
            self.count();
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::http::{Request, Response};
    use axum::routing::get;
    use futures_util::stream;
    use h2::client::SendRequest;
    use h2::{Reason, RecvStream};
    use tokio::io::duplex;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::admission::{Admission, Unending};
    use crate::auth::Proof;
    use crate::connection::{Bounds, Server};
    use crate::limits::FEED_WRITE_TIMEOUT;

    const EVENT: Bytes = Bytes::from_static(&[b'x'; 50_000]);

    /// Endless, as event streams are, or one of 32 MiB.
    fn router(slow: &Counter) -> Router {
        let slow = SlowCloses(slow.clone());
        let body = |count| {
            let events = (0..count).map(|_| Ok::<_, std::convert::Infallible>(EVENT));
            Body::from_stream(stream::iter(events))
        };
        let events = {
            let slow = slow.clone();
            async move || {
                let response = Response::builder().extension(Unending).extension(slow);
                response.body(body(usize::MAX)).unwrap()
            }
        };
        let page = async move || Response::builder().extension(slow).body(body(700)).unwrap();
        Router::new().route("/events", get(events)).route("/page", get(page))
    }

    async fn connect(slow: &Counter) -> SendRequest<Bytes> {
        let (ours, theirs) = duplex(64 * 1024);
        let router = router(slow);
        tokio::spawn(async move {
            let admission = Admission::new(1, TaskTracker::new());
            let admitted = admission.admit(0).await.unwrap();
            let shutdown = CancellationToken::new();
            let server = Server::new(router, Proof::None, shutdown, Bounds::READERS);
            server.serve(std::future::ready(Ok(theirs)), admitted).await;
        });
        let mut client = h2::client::Builder::new();
        client.initial_window_size(1000).initial_connection_window_size(1 << 20);
        let (requests, connection) = client.handshake(ours).await.unwrap();
        tokio::spawn(connection);
        requests
    }

    async fn ask(requests: &SendRequest<Bytes>, path: &str) -> RecvStream {
        let mut requests = requests.clone().ready().await.unwrap();
        let request = Request::get(format!("http://a{path}")).body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        response.await.unwrap().into_body()
    }

    /// Takes what comes, at once or slowly, until so much has come.
    async fn take(body: &mut RecvStream, pause: Duration, bytes: usize) {
        let mut taken = 0;
        while taken < bytes {
            let data = body.data().await.unwrap().unwrap();
            taken += data.len();
            tokio::time::sleep(pause).await;
            body.flow_control().release_capacity(data.len()).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_not_taken_is_reset_and_the_others_of_its_connection_go_on() {
        let slow = Counter::default();
        let requests = connect(&slow).await;
        for path in ["/events", "/page"] {
            let began = Instant::now();
            let (mut stalled, mut other) = (ask(&requests, path).await, ask(&requests, path).await);
            // The window is full, and stays so.
            assert_eq!(stalled.data().await.unwrap().unwrap().len(), 1000);
            let reset = async {
                let error = stalled.data().await.unwrap().unwrap_err();
                (error.reason(), began.elapsed())
            };
            // A fifth of a second for a window, or half of one.
            let taking = take(&mut other, Duration::from_millis(200), 600_000);
            let ((reason, after), ()) = tokio::join!(reset, taking);
            assert_eq!(reason, Some(Reason::CANCEL), "{path}");
            let patience = FEED_WRITE_TIMEOUT;
            assert!((patience..patience * 3 / 2).contains(&after), "{path}: {after:?}");
            assert!(began.elapsed() > patience * 3, "{:?}", began.elapsed());
        }
        assert_eq!(slow.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_by_itself_is_not_slow() {
        let slow = Counter::default();
        let requests = connect(&slow).await;
        let mut body = ask(&requests, "/events").await;
        take(&mut body, Duration::ZERO, 100_000).await;
        drop(body);
        drop(requests);
        tokio::time::sleep(FEED_WRITE_TIMEOUT * 2).await;
        assert_eq!(slow.get(), 0);
    }
}
