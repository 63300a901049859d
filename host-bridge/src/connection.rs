//! One connection: HTTP/1.1 or HTTP/2, who may use it, and when it ends.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use kafka_upstream_core::limits::BRIDGE_IDLE_SECONDS;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admission::Place;
use crate::auth::{self, Access, Tokens};
use crate::body::Share;
use crate::caller::{Answer, Caller, TooMany};
use crate::limits::{
    CLOSING_TIMEOUT, HANDSHAKE_TIMEOUT, HEAD_BYTES_MAX, STREAM_SEND_BYTES, STREAMS_MAX,
    WRITE_TIMEOUT,
};

/// What every connection is served with.
pub(crate) struct Server {
    pub(crate) router: Router,
    /// Accepted tokens; everybody is authorized who reaches a bridge without.
    pub(crate) tokens: Option<Tokens>,
    pub(crate) shutdown: CancellationToken,
}

impl Server {
    pub(crate) fn new(router: Router, tokens: Option<Tokens>, shutdown: CancellationToken) -> Self {
        Self { router, tokens, shutdown }
    }

    /// Serves a connection whose stream is there after a handshake.
    pub(crate) async fn serve<S>(&self, stream: impl Future<Output = io::Result<S>>, place: Place)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let stream = tokio::select! {
            stream = timeout(HANDSHAKE_TIMEOUT, stream) => stream,
            () = place.caller.given_up() => return,
        };
        let refused = match stream {
            Ok(Ok(stream)) => return self.http(stream, &place.caller).await,
            Ok(Err(error)) => crate::tls::refused(&error),
            Err(_) => "no handshake in time".to_owned(),
        };
        info!(error = refused, "tls_refused");
    }

    async fn http<S>(&self, stream: S, caller: &Arc<Caller>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let (router, share) = (TowerToHyperService::new(self.router.clone()), Share::default());
        let service = service_fn(|request| {
            // Decided before the future runs: HTTP/2 hands over many requests at a time.
            let authorized = self.authorize(caller, &request);
            let (router, share, caller) = (router.clone(), share.clone(), Arc::clone(caller));
            async move { answer(&router, &caller, share, authorized?, request).await }
        });
        let (builder, io) = (builder(), TokioIo::new(Box::pin(stream)));
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut given_up = pin!(caller.given_up());
        // A peer that breaks off is not logged: its request got no answer, and says so.
        let closing_timeout = tokio::select! {
            _ = connection.as_mut() => return,
            () = given_up.as_mut() => return,
            () = caller.stayed_unauthorized() => CLOSING_TIMEOUT,
            () = self.shutdown.cancelled() => Duration::MAX,
        };
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = given_up => {}
            () = tokio::time::sleep(closing_timeout) => {}
        }
    }

    fn authorize(
        &self,
        caller: &Caller,
        request: &Request<Incoming>,
    ) -> Result<Option<Access>, TooMany> {
        let access = auth::check(self.tokens.as_ref(), request);
        match access {
            Some(Access::Authorized) => caller.authorize(),
            Some(Access::Open) | None => caller.count_unauthorized()?,
        }
        Ok(access)
    }
}

async fn answer(
    router: &TowerToHyperService<Router>,
    caller: &Arc<Caller>,
    share: Share,
    access: Option<Access>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, TooMany> {
    let Some(access) = access else { return Ok(caller.answer(auth::refusal())) };
    request.extensions_mut().insert(access);
    request.extensions_mut().insert(share);
    let Ok(response) = router.call(request).await;
    Ok(caller.answer(response))
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let idle = Duration::from_secs(BRIDGE_IDLE_SECONDS);
    let mut http1 = builder.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(HEAD_BYTES_MAX);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(idle);
    http2.max_concurrent_streams(STREAMS_MAX).max_send_buf_size(STREAM_SEND_BYTES);
    builder
}
