//! An answer without end takes its connection of HTTP/1.1 for itself: HTTP's own buffers would take two
//! thirds of a reader's memory, and what it does for each event as long as the write.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use axum::http::response::Parts;
use axum::http::{Request, Response, Version, header};
use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::admission::{Admitted, Answer, Unending};
use crate::direct::Direct;
use crate::taking::SlowCloses;

/// A connection's stream, which HTTP uses until it is taken.
pub(crate) struct Lent<S>(Arc<Mutex<Used<S>>>);

struct Used<S> {
    /// None once it is taken.
    stream: Option<S>,
    /// Whether HTTP has more to write than was taken of it.
    has_rest: bool,
}

impl<S> Clone for Lent<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Whether nothing but the answer is to come: no body of the request, and no reader of HTTP/1.0, which
/// knows no chunks.
pub(crate) fn may_take(request: &Request<impl Body>) -> bool {
    request.version() == Version::HTTP_11 && request.body().is_end_stream()
}

impl<S> Lent<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Used { stream: Some(stream), has_rest: false })))
    }

    /// The stream for an answer, if that has no end and the former answers are written.
    pub(crate) fn take_for(&self, response: &Response<Answer>) -> Option<S> {
        response.extensions().get::<Unending>()?;
        let mut used = self.lock();
        if used.has_rest { None } else { used.stream.take() }
    }

    fn lock(&self) -> MutexGuard<'_, Used<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>>
    where
        S: Unpin,
    {
        match &mut self.lock().stream {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// As [`Self::poll`], of so many bytes that are to be written.
    fn poll_bytes(
        &self,
        bytes: usize,
        poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>>
    where
        S: Unpin,
    {
        let Used { stream, has_rest } = &mut *self.lock();
        let Some(stream) = stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let written = poll(Pin::new(stream));
        *has_rest = !matches!(&written, Poll::Ready(Ok(written)) if *written == bytes);
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lent<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_bytes(buf.len(), |stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_bytes(bytes, |stream| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

/// Writes an answer until it ends or its reader is gone, and closes the connection.
pub(crate) async fn write<S>(stream: S, response: Response<Answer>, admitted: Arc<Admitted>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (head, body) = response.into_parts();
    let slow = head.extensions.get::<SlowCloses>().cloned();
    let direct = head.extensions.get::<Arc<Direct>>().cloned().unwrap_or_default();
    direct.give(stream);
    let ended = write_to(&direct, head, body).await;
    // Who is gone is not told.
    if let (Err(error), Some(slow)) = (ended, slow)
        && error.kind() == io::ErrorKind::TimedOut
    {
        slow.count();
    }
    direct.end();
    drop(admitted);
}

async fn write_to(mut stream: &Direct, head: Parts, mut body: Answer) -> io::Result<()> {
    stream.write_all(&text(head)).await?;
    stream.flush().await?;
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            gone = gone(stream) => return gone,
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        // An empty chunk would be the last.
        if !data.is_empty() {
            write_chunk(stream, data).await?;
        }
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.shutdown().await
}

async fn write_chunk(mut stream: &Direct, data: Bytes) -> io::Result<()> {
    if data.len() <= COPIED_BYTES {
        // Cheaper than several parts.
        stream.write_all(&chunk(&data)).await?;
    } else {
        let size = Bytes::from(format!("{:x}\r\n", data.len()));
        stream.write_all_buf(&mut size.chain(data).chain(&b"\r\n"[..])).await?;
    }
    stream.flush().await
}

/// Bytes with what HTTP/1.1 puts around them.
pub(crate) fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// Returns when the reader has closed the connection; meanwhile what others began to write is written.
/// Whatever the reader sends gets no answer.
async fn gone(mut stream: &Direct) -> io::Result<()> {
    poll_fn(|cx| {
        ready!(Pin::new(&mut stream).poll_flush(cx))?;
        loop {
            let mut bytes = [0; 64];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await
}

/// Bytes of an event that go out with what is around them in one piece.
const COPIED_BYTES: usize = 4096;

fn text(head: Parts) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let own = [
        (header::TRANSFER_ENCODING, "chunked".to_owned()),
        (header::CONNECTION, "close".to_owned()),
        (header::DATE, httpdate::fmt_http_date(SystemTime::now())),
    ];
    for (name, value) in own {
        text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::Router;
    use axum::body::Body;
    use axum::routing::{any, get};
    use futures_util::stream;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};
    use tokio::sync::{Mutex, mpsc};
    use tokio::task::JoinHandle;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::admission::Admission;
    use crate::auth::Proof;
    use crate::connection::{Bounds, Server};

    struct Peer {
        stream: ReadHalf<DuplexStream>,
        /// Of the requests.
        writing: JoinHandle<WriteHalf<DuplexStream>>,
        /// What `/events` is sent, for as long as somebody reads it.
        events: mpsc::Sender<&'static str>,
        connections: TaskTracker,
        slow: Counter,
    }

    impl Peer {
        async fn ask(room: usize, requests: &'static [u8]) -> Self {
            let (stream, theirs) = duplex(room);
            let (stream, mut writer) = split(stream);
            let (events, sent) = mpsc::channel(1);
            let (sent, slow) = (Arc::new(Mutex::new(sent)), Counter::default());
            let counted = SlowCloses(slow.clone());
            let streamed = async move || {
                let events = stream::unfold(sent.lock_owned().await, |mut sent| async {
                    Some((Ok::<_, Infallible>(sent.recv().await?), sent))
                });
                let response = Response::builder().extension(Unending).extension(counted);
                response.body(Body::from_stream(events)).unwrap()
            };
            let router =
                Router::new().route("/events", any(streamed)).route("/", get(async || "page"));
            let connections = TaskTracker::new();
            let tracked = connections.clone();
            tokio::spawn(async move {
                let admitted = Admission::new(1, tracked).admit(0).await.unwrap();
                let shutdown = CancellationToken::new();
                let server = Server::new(router, Proof::None, shutdown, Bounds::READERS);
                server.serve(std::future::ready(Ok(theirs)), admitted).await;
            });
            let writing = tokio::spawn(async move {
                writer.write_all(requests).await.unwrap();
                writer
            });
            Self { stream, writing, events, connections, slow }
        }

        async fn read_until(&mut self, end: &str) -> String {
            let mut text = String::new();
            while !text.ends_with(end) {
                text.push(char::from(self.stream.read_u8().await.unwrap()));
            }
            text
        }
    }

    static LARGE: [u8; 5000] = [b'x'; 5000];
    const EVENTS: &[u8] = b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n";

    #[tokio::test]
    async fn it_is_sent_in_chunks_and_its_end_is_that_of_the_connection() {
        for room in [1, 7, 4096] {
            let mut peer = Peer::ask(room, EVENTS).await;
            peer.events.send("one").await.unwrap();
            let text = peer.read_until("\r\n\r\n3\r\none\r\n").await;
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            for header in ["\r\ntransfer-encoding: chunked\r\n", "\r\nconnection: close\r\n", "GMT"]
            {
                assert!(text.contains(header), "{text}");
            }
            // Nothing is not the end.
            peer.events.send("").await.unwrap();
            peer.events.send("two and so much more").await.unwrap();
            assert_eq!(peer.read_until("more\r\n").await, "14\r\ntwo and so much more\r\n");
            let Peer { mut stream, events, connections, .. } = peer;
            drop(events);
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"0\r\n\r\n");
            connections.close();
            connections.wait().await;
        }
    }

    #[tokio::test]
    async fn it_ends_when_its_reader_is_gone_and_the_place_is_free() {
        let mut peer = Peer::ask(4096, EVENTS).await;
        peer.read_until("\r\n\r\n").await;
        let mut writer = (&mut peer.writing).await.unwrap();
        writer.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        peer.events.send("one").await.unwrap();
        assert_eq!(peer.read_until("one\r\n").await, "3\r\none\r\n");
        let Peer { stream, events, connections, .. } = peer;
        drop((stream, writer));
        events.closed().await;
        connections.close();
        connections.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_counted_and_one_that_goes_is_not() {
        let began = tokio::time::Instant::now();
        let mut peer = Peer::ask(200, EVENTS).await;
        peer.read_until("\r\n\r\n").await;
        peer.events.send(std::str::from_utf8(&LARGE).unwrap()).await.unwrap();
        peer.events.closed().await;
        assert_eq!((peer.slow.get(), began.elapsed()), (1, Bounds::READERS.write_timeout));
        let mut peer = Peer::ask(200, EVENTS).await;
        peer.read_until("\r\n\r\n").await;
        let Peer { stream, writing, events, slow, .. } = peer;
        drop((stream, writing.await.unwrap()));
        events.closed().await;
        assert_eq!(slow.get(), 0);
    }

    #[tokio::test]
    async fn answers_before_it_are_whole() {
        for room in [1, 50, 4096] {
            let requests =
                b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /events HTTP/1.1\r\nhost: a\r\n\r\n";
            let mut peer = Peer::ask(room, requests).await;
            peer.read_until("\r\n\r\npage").await;
            let sending = peer.events.clone();
            tokio::spawn(async move { sending.send("one").await });
            let text = peer.read_until("3\r\none\r\n").await;
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{room}: {text}");
        }
    }

    #[tokio::test]
    async fn http_sends_it_to_who_knows_no_chunks_or_has_more_to_send() {
        for (request, end) in [
            (&b"GET /events HTTP/1.0\r\n\r\n"[..], "\r\n\r\none"),
            (b"POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx", "3\r\none\r\n"),
        ] {
            let mut peer = Peer::ask(4096, request).await;
            peer.events.send("one").await.unwrap();
            let text = peer.read_until(end).await;
            assert!(!text.contains("connection: close"), "{text}");
        }
    }
}
