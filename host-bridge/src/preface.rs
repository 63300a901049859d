//! The first bytes of a connection: they say whether it is HTTP/1.1 or HTTP/2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::limits::FIRST_BYTES;

/// A stream whose first bytes have been looked at; they are read once more. All at once: hyper's own look
/// hands over 24 of them, and the buffer that the rest does not fit into doubles, 8 KiB for each reader.
pub(crate) struct Begun<S> {
    first: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Waits until it is clear which it is.
    ///
    /// # Errors
    /// As the stream.
    pub(crate) async fn read(mut stream: S) -> io::Result<Self> {
        let mut first = BytesMut::with_capacity(FIRST_BYTES);
        while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
            if stream.read_buf(&mut first).await? == 0 {
                break;
            }
        }
        Ok(Self { first: first.freeze(), stream })
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.first.starts_with(PREFACE)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(self.first.get(..count).unwrap_or_default());
        self.first.advance(count);
        if self.first.is_empty() {
            // Its memory goes.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// How a client of HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_looked_at_is_read_once_more() {
        let long = [b"GET /long HTTP/1.1\r\n", &*vec![b'x'; 3 * FIRST_BYTES]].concat();
        let http2 = [PREFACE, b"more"].concat();
        for (sent, is_http2) in [
            (&*long, false),
            (&http2, true),
            (b"PRI * HTTP/1.1", false),
            (b"P", false),
            (b"", false),
        ] {
            for size in [1, 7, 24, 10_000] {
                let (mut client, server) = tokio::io::duplex(64);
                let writing = async {
                    for piece in sent.chunks(size) {
                        client.write_all(piece).await.unwrap();
                    }
                    drop(client);
                };
                let reading = async {
                    let mut begun = Begun::read(server).await.unwrap();
                    let mut read = Vec::new();
                    let found = begun.is_http2();
                    begun.read_to_end(&mut read).await.unwrap();
                    (found, read)
                };
                let ((), found) = tokio::join!(writing, reading);
                assert_eq!(found, (is_http2, sent.to_vec()));
            }
        }
    }
}
