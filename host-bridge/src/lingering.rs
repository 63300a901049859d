//! What is left of a request's body when it is answered. HTTP/1.1 ends a body that nobody reads with its
//! connection, and of one that is closed while its peer sends, the peer may see no answer, but an error
//! (RFC 9112, 9.6).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::{Request, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::limits::LINGER;

/// A body whose rest is read, and thrown away, when it is dropped.
pub(crate) struct Lingering<B: Body + Send + Unpin + 'static> {
    /// None after its end.
    body: Option<B>,
    /// Whether its client sends it without having to hear first that it may.
    is_sent: bool,
    is_http1: bool,
}

/// Makes the body of a request linger.
pub(crate) fn linger<B: Body + Send + Unpin + 'static>(
    request: Request<B>,
) -> Request<Lingering<B>> {
    let is_sent = !request.headers().contains_key(header::EXPECT);
    let is_http1 = request.version() < Version::HTTP_2;
    request.map(|body| Lingering { body: Some(body), is_sent, is_http1 })
}

impl<B: Body + Send + Unpin + 'static> Body for Lingering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.is_sent = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body + Send + Unpin + 'static> Drop for Lingering<B> {
    fn drop(&mut self) {
        let is_left = self.is_http1 && self.is_sent && !self.is_end_stream();
        let rest = self.body.take().filter(|_| is_left);
        if let (Some(mut rest), Ok(runtime)) = (rest, Handle::try_current()) {
            let read = async move { while let Some(Ok(_)) = rest.frame().await {} };
            runtime.spawn(timeout(LINGER, read));
        }
    }
}
