//! The stream of an answer without end: its own task writes to it and, while that waits, others may. One of
//! them writes an event to many, where waking a task for each would cost as much as the write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An extension of a response without end. Over HTTP/2 it never has a stream.
#[derive(Default)]
pub(crate) struct Direct(Mutex<Shared>);

#[derive(Default)]
struct Shared {
    stream: Option<Box<dyn Stream>>,
    /// Its task waits, and others may write.
    is_open: bool,
    /// Of what others wrote: before anything else its task has to write it.
    rest: Bytes,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Others may write until this is dropped.
pub(crate) struct Opened(Arc<Direct>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.lock().is_open = false;
    }
}

/// What became of bytes that another one wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Whole,
    /// The stream is closed to others now, and its task is to be woken: it writes the rest.
    Part,
    /// The stream was closed to others.
    Closed,
}

impl Direct {
    pub(crate) fn give(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        self.lock().stream = Some(Box::new(stream));
    }

    /// Closes the connection.
    pub(crate) fn end(&self) {
        let stream = self.lock().stream.take();
        drop(stream);
    }

    /// Whether others may be let write: there is a stream, and its task has nothing to write.
    pub(crate) fn is_clear(&self) -> bool {
        self.lock().is_clear()
    }

    /// Lets others write.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Opened> {
        let mut shared = self.lock();
        shared.is_open = shared.is_clear();
        shared.is_open.then(|| Opened(Arc::clone(self)))
    }

    /// Writes as another one.
    pub(crate) fn put(&self, bytes: &Bytes) -> Put {
        let Shared { stream, is_open, rest } = &mut *self.lock();
        let Some(stream) = stream.as_mut().filter(|_| *is_open) else { return Put::Closed };
        let mut cx = Context::from_waker(Waker::noop());
        // An error comes once more when its task writes.
        let written = match Pin::new(&mut *stream).poll_write(&mut cx, bytes) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        let flushed = Pin::new(stream).poll_flush(&mut cx);
        if written == bytes.len() && matches!(flushed, Poll::Ready(Ok(()))) {
            return Put::Whole;
        }
        (*is_open, *rest) = (false, bytes.slice(written..));
        Put::Part
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn is_clear(&self) -> bool {
        self.stream.is_some() && self.rest.is_empty()
    }

    fn stream(&mut self) -> io::Result<Pin<&mut dyn Stream>> {
        let stream = self.stream.as_deref_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }

    /// The stream, once what others wrote is written.
    fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Stream>>> {
        while !self.rest.is_empty() {
            let rest = self.rest.clone();
            let written = ready!(self.stream()?.poll_write(cx, &rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(written);
        }
        Poll::Ready(self.stream())
    }
}

impl AsyncRead for &Direct {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.lock().stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for &Direct {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.lock().poll_clear(cx))?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.lock().poll_clear(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.lock().poll_clear(cx))?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.lock().poll_clear(cx))?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.as_ref().is_some_and(|stream| stream.is_write_vectored())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_others_began_its_task_writes_first() {
        let (ours, mut theirs) = duplex(8);
        let direct = Arc::new(Direct::default());
        assert!(direct.open().is_none(), "it has no stream");
        direct.give(ours);
        assert_eq!(direct.put(&Bytes::from_static(b"too early")), Put::Closed);
        let opened = direct.open().unwrap();
        assert_eq!(direct.put(&Bytes::from_static(b"abc")), Put::Whole);
        assert_eq!(direct.put(&Bytes::from_static(b"defghijklmno")), Put::Part);
        assert_eq!(direct.put(&Bytes::from_static(b"more")), Put::Closed);
        drop(opened);
        assert!(direct.open().is_none(), "it has a rest");
        let mut owned = &*direct;
        let writing = async {
            owned.flush().await.unwrap();
            owned.write_all(b"pqr").await.unwrap();
        };
        let mut read = [0; 18];
        let reading = theirs.read_exact(&mut read);
        let ((), count) = tokio::join!(writing, reading);
        assert_eq!((count.unwrap(), &read), (18, b"abcdefghijklmnopqr"));
        let opened = direct.open().unwrap();
        drop(opened);
        assert_eq!(direct.put(&Bytes::from_static(b"too late")), Put::Closed);
        direct.end();
        assert_eq!(theirs.read(&mut read).await.unwrap(), 0);
    }
}
