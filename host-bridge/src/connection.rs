//! One connection: HTTP/1.1 or HTTP/2, who may use it, and when it ends.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kafka_upstream_core::limits::BRIDGE_IDLE_SECONDS;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admission::{Admitted, Answer, Caller, TooMany};
use crate::auth::{self, Access, Proof};
use crate::body::Share;
use crate::limits::{
    CLOSING_TIMEOUT, FEED_HEAD_BYTES, FEED_WRITE_TIMEOUT, HANDSHAKE_TIMEOUT, HEAD_BYTES_MAX,
    STREAM_SEND_BYTES, STREAMS_MAX, WRITE_TIMEOUT,
};
use crate::lingering::{Lingering, linger};
use crate::preface::Begun;
use crate::taking::StreamExecutor;
use crate::unending::{self, Lent};

/// What every connection is served with. Each request has extensions: what it may do ([`Access`]), its
/// connection's share of memory ([`Share`]), its connection ([`Admitted`]), and the token that is
/// cancelled when the process is to end: a reply that goes on for long then says so, and ends.
pub(crate) struct Server {
    pub(crate) router: Router,
    /// What callers must have.
    pub(crate) proof: Proof,
    pub(crate) shutdown: CancellationToken,
    pub(crate) bounds: Bounds,
}

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of a request's head, and of answers that wait for the socket before more is made.
    pub(crate) head_bytes: usize,
    /// How long a write may wait for the peer to read.
    pub(crate) write_timeout: Duration,
    /// How long a stream of HTTP/2 may: then it alone ends. Without it unread answers end connections.
    pub(crate) stream_timeout: Option<Duration>,
}

impl Bounds {
    /// Of gateways that send batches.
    pub(crate) const WRITERS: Self =
        Self { head_bytes: HEAD_BYTES_MAX, write_timeout: WRITE_TIMEOUT, stream_timeout: None };
    /// Of readers, which are many and may be slow.
    pub(crate) const READERS: Self = Self {
        head_bytes: FEED_HEAD_BYTES,
        write_timeout: FEED_WRITE_TIMEOUT,
        stream_timeout: Some(FEED_WRITE_TIMEOUT),
    };
}

impl Server {
    pub(crate) fn new(
        router: Router,
        proof: Proof,
        shutdown: CancellationToken,
        bounds: Bounds,
    ) -> Self {
        Self { router, proof, shutdown, bounds }
    }

    /// Serves a connection whose stream is there after a handshake.
    pub(crate) async fn serve<S>(
        &self,
        stream: impl Future<Output = io::Result<S>>,
        admitted: Arc<Admitted>,
    ) where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let stream = tokio::select! {
            stream = timeout(HANDSHAKE_TIMEOUT, stream) => stream,
            () = admitted.caller.given_up() => return,
        };
        let refused = match stream {
            Ok(Ok(stream)) => return self.http(stream, &admitted).await,
            Ok(Err(error)) => crate::tls::refused(&error),
            Err(_) => "no handshake in time".to_owned(),
        };
        info!(error = refused, "tls_refused");
    }

    async fn http<S>(&self, stream: S, admitted: &Arc<Admitted>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.bounds.write_timeout));
        let caller = &admitted.caller;
        // Woken by themselves: a connection is polled three times a request, and these would be, too.
        let mut ends = FuturesUnordered::from_iter([self.ends(caller)]);
        let begun = tokio::select! {
            begun = Begun::read(Box::pin(stream)) => begun,
            _ = ends.next() => return,
        };
        // The peer has ended before it began.
        let Ok(begun) = begun else { return };
        let (is_http2, lent) = (begun.is_http2(), Lent::new(begun));
        let (router, share) = (TowerToHyperService::new(self.router.clone()), Share::default());
        let service = service_fn(|mut request: Request<Incoming>| {
            // Decided before the future runs: HTTP/2 hands over many requests at a time.
            let access = self.authorize(caller, &request);
            let refusal = || Box::new(auth::refusal(&self.proof, &request));
            let access = access.map(|access| access.ok_or_else(refusal));
            let (router, caller, lent) = (router.clone(), Arc::clone(caller), lent.clone());
            let (may_take, admitted) = (unending::may_take(&request), Arc::clone(admitted));
            let extensions = request.extensions_mut();
            extensions.insert(share.clone());
            extensions.insert(Arc::clone(&admitted));
            extensions.insert(self.shutdown.clone());
            async move {
                let response = answer(&router, &caller, access?, linger(request)).await?;
                match may_take.then(|| lent.take_for(&response)).flatten() {
                    None => Ok(response),
                    Some(stream) => {
                        tokio::spawn(unending::write(stream, response, admitted));
                        Err(Ended::Taken)
                    }
                }
            }
        });
        let io = TokioIo::new(lent.clone());
        if is_http2 {
            let connection = pin!(http2(self.bounds).serve_connection(io, service));
            serve_until(connection, http2::Connection::graceful_shutdown, ends, caller).await;
        } else {
            let connection = http1(self.bounds).serve_connection(io, service).with_upgrades();
            let close = http1::UpgradeableConnection::graceful_shutdown;
            serve_until(pin!(connection), close, ends, caller).await;
        }
    }

    /// Waits until a connection has to end, and returns how long its requests under way may take; none
    /// is at once.
    async fn ends(&self, caller: &Caller) -> Option<Duration> {
        tokio::select! {
            () = caller.given_up() => None,
            () = caller.stayed_unauthorized() => Some(CLOSING_TIMEOUT),
            () = self.shutdown.cancelled() => Some(Duration::MAX),
        }
    }

    fn authorize(
        &self,
        caller: &Caller,
        request: &Request<Incoming>,
    ) -> Result<Option<Access>, TooMany> {
        let access = auth::check(&self.proof, request);
        match access {
            Some(Access::Authorized) => caller.authorize(),
            Some(Access::Open) | None => caller.count_unauthorized()?,
        }
        Ok(access)
    }
}

/// Why a connection ends when a request is answered.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("an answer has taken the connection")]
    Taken,
}

/// Serves a connection until its peer has done with it or it has to end.
async fn serve_until<C: Future>(
    mut connection: Pin<&mut C>,
    close: impl FnOnce(Pin<&mut C>),
    mut ends: FuturesUnordered<impl Future<Output = Option<Duration>>>,
    caller: &Caller,
) {
    // A peer that breaks off is not logged: its request got no answer, and says so.
    let closing_timeout = tokio::select! {
        _ = connection.as_mut() => return,
        end = ends.next() => match end.flatten() {
            Some(closing_timeout) => closing_timeout,
            None => return,
        },
    };
    close(connection.as_mut());
    tokio::select! {
        _ = connection => {}
        () = caller.given_up() => {}
        () = tokio::time::sleep(closing_timeout) => {}
    }
}

async fn answer(
    router: &TowerToHyperService<Router>,
    caller: &Arc<Caller>,
    access: Result<Access, Box<Response<Body>>>,
    mut request: Request<Lingering<Incoming>>,
) -> Result<Response<Answer>, TooMany> {
    match access {
        Ok(access) => drop(request.extensions_mut().insert(access)),
        Err(refusal) => return Ok(caller.answer(*refusal)),
    }
    let Ok(response) = router.call(request).await;
    Ok(caller.answer(response))
}

fn http1(bounds: Bounds) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(bounds.head_bytes);
    builder
}

fn http2(bounds: Bounds) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor { patience: bounds.stream_timeout });
    builder.timer(TokioTimer::new()).keep_alive_interval(IDLE);
    builder.max_concurrent_streams(STREAMS_MAX).max_send_buf_size(STREAM_SEND_BYTES);
    builder.max_header_list_size(u32::try_from(bounds.head_bytes).unwrap_or(u32::MAX));
    builder
}

const IDLE: Duration = Duration::from_secs(BRIDGE_IDLE_SECONDS);

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::body::{Body, Bytes};
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;
    use crate::config::{Listen, UnixSocketAccess};
    use crate::{Listeners, Shutdown};

    /// As a WebSocket does: echoes what comes, until the process is to end.
    async fn socket(
        Extension(admitted): Extension<Arc<Admitted>>,
        Extension(shutdown): Extension<CancellationToken>,
        request: Request<Body>,
    ) -> Response<Body> {
        tokio::spawn(async move {
            let _admitted = admitted;
            let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut byte = [0];
            loop {
                tokio::select! {
                    read = io.read_exact(&mut byte) => if read.is_err() { break },
                    () = shutdown.cancelled() => break io.write_all(b"end").await.unwrap(),
                }
                let _written = io.write_all(&byte).await;
            }
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(Body::empty())
            .unwrap()
    }

    /// As an event stream does: an event, and another when the process is to end.
    async fn stream(Extension(shutdown): Extension<CancellationToken>) -> Response<Body> {
        let last = async move {
            shutdown.cancelled().await;
            Ok::<_, io::Error>(Bytes::from_static(b"end"))
        };
        let first = std::future::ready(Ok(Bytes::from_static(b"event")));
        let events = [futures_util::FutureExt::boxed(first), futures_util::FutureExt::boxed(last)];
        let events = futures_util::stream::FuturesOrdered::from_iter(events);
        Response::new(Body::from_stream(events))
    }

    async fn until(stream: &mut UnixStream, text: &str) {
        let mut read = Vec::new();
        while !read.ends_with(text.as_bytes()) {
            read.push(stream.read_u8().await.unwrap());
        }
    }

    #[tokio::test]
    async fn whoever_sends_while_it_is_refused_sees_its_answer_and_may_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let addresses = [Listen::Unix(path.clone())];
        let listeners = Listeners::bind(&addresses, UnixSocketAccess::default()).await.unwrap();
        let shutdown = Shutdown::default();
        let router = Router::new();
        let server = Server::new(router, Proof::None, shutdown.token().clone(), Bounds::WRITERS);
        tokio::spawn(async move {
            listeners.serve(server, None, 8, &shutdown, Duration::from_secs(1)).await;
        });
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let body = vec![b'a'; 3_000_000];
        for (head, end) in [
            (format!("content-length: {}\r\n\r\n", body.len()), ""),
            (format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()), "\r\n0\r\n\r\n"),
        ] {
            let head = format!("POST /refused HTTP/1.1\r\nhost: a\r\n{head}");
            for part in [head.as_bytes(), &body, end.as_bytes()] {
                stream.write_all(part).await.unwrap();
            }
            until(&mut stream, "404 Not Found\r\n").await;
            until(&mut stream, "\r\n\r\n").await;
        }
        // Who waits to hear that it may has sent nothing.
        let head = "POST /refused HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 404 Not Found\r\n"), "{rest}");
    }

    #[tokio::test]
    async fn what_goes_on_for_long_hears_of_the_shutdown_and_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let addresses = [Listen::Unix(path.clone())];
        let listeners = Listeners::bind(&addresses, UnixSocketAccess::default()).await.unwrap();
        let shutdown = Shutdown::default();
        let router = Router::new().route("/socket", get(socket)).route("/stream", get(stream));
        let server = Server::new(router, Proof::None, shutdown.token().clone(), Bounds::WRITERS);
        let ending = shutdown.clone();
        // Whoever was not told would take all of it.
        let drain_timeout = Duration::from_secs(3600);
        let serving = tokio::spawn(async move {
            listeners.serve(server, None, 8, &shutdown, drain_timeout).await;
        });
        let ask = async |head: &str| {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let request = format!("GET {head}\r\nhost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            stream
        };
        let upgrade = "/socket HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo";
        let mut sockets = [ask(upgrade).await, ask(upgrade).await];
        for socket in &mut sockets {
            until(socket, "\r\n\r\n").await;
            socket.write_all(b"x").await.unwrap();
            until(socket, "x").await;
        }
        let mut stream = ask("/stream HTTP/1.1").await;
        until(&mut stream, "event\r\n").await;
        ending.fail("test");
        let [mut first, second] = sockets;
        until(&mut stream, "end\r\n0\r\n\r\n").await;
        until(&mut first, "end").await;
        drop(second);
        timeout(Duration::from_secs(20), serving).await.expect("it waits").unwrap();
    }
}
