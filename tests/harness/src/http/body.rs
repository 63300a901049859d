//! A request body that comes in given pieces, with pauses, and may end with trailers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderMap;
use tokio::time::Sleep;

#[derive(Debug)]
pub(super) struct Pieces {
    left: VecDeque<Bytes>,
    /// Set when the body's length is announced: it is one piece, or none at all.
    length: Option<u64>,
    pause: Duration,
    pausing: Option<Pin<Box<Sleep>>>,
    trailers: Option<HeaderMap>,
}

impl Pieces {
    /// One piece without trailers announces its length, more do not; empty ones are left out.
    pub(super) fn new(pieces: Vec<Bytes>, pause: Duration, trailers: HeaderMap) -> Self {
        let whole = pieces.len() <= 1 && trailers.is_empty();
        let left: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let bytes = left.iter().map(|piece| u64::try_from(piece.len()).unwrap_or(u64::MAX)).sum();
        Self {
            left,
            length: whole.then_some(bytes),
            pause,
            pausing: None,
            trailers: Some(trailers).filter(|map| !map.is_empty()),
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(sleep) = self.pausing.as_mut() {
            ready!(sleep.as_mut().poll(context));
            self.pausing = None;
        }
        let Some(piece) = self.left.pop_front() else {
            return Poll::Ready(self.trailers.take().map(|map| Ok(Frame::trailers(map))));
        };
        if !self.pause.is_zero() {
            self.pausing = Some(Box::pin(tokio::time::sleep(self.pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.length.is_some() && self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
