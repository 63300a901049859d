//! WebSocket connections (RFC 6455): the handshake, and a socket that notices when its peer is gone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

pub(crate) use tokio_tungstenite::tungstenite::protocol::frame::coding::Data as Kind;

use crate::admission::Admitted;

/// A handshake that was accepted: the socket is there once its response has been sent.
pub(crate) struct Accepted {
    upgrade: OnUpgrade,
    /// The connection goes on beyond its HTTP.
    admitted: Option<Arc<Admitted>>,
}

/// An open connection.
pub(crate) struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    pings: Interval,
    /// Pings since the peer has sent anything.
    unanswered: u32,
    _admitted: Option<Arc<Admitted>>,
}

/// A message of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Received {
    Text(Utf8Bytes),
    Binary(Bytes),
}

/// Nothing can be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gone {
    #[error("the connection has ended")]
    Ended,
    #[error("the peer takes nothing")]
    Slow,
}

/// Whether a request is for a WebSocket.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    has_token(headers, header::UPGRADE.as_str(), "websocket")
}

/// Whether a page of the request's own site asks for it, or of one of these, of which `*` is all. Browsers
/// let any site open a WebSocket, and send who the user is with it.
pub(crate) fn is_of_site(headers: &HeaderMap, origins: &[String]) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_allowed = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        let of_site = origin.split_once("://").map(|(_, authority)| authority);
        of_site.zip(host).is_some_and(|(site, host)| site.eq_ignore_ascii_case(host))
            || origins.iter().any(|named| named == "*" || named == origin)
    };
    headers.get_all(header::ORIGIN).iter().all(is_allowed)
}

/// The subprotocols that a request offers.
pub(crate) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    tokens(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str())
}

/// Accepts a request for a WebSocket, with one of the subprotocols that it offers: browsers give up
/// without one of theirs.
///
/// # Errors
/// Says what of the handshake is missing.
pub(crate) fn accept(
    parts: &mut Parts,
    protocol: Option<&str>,
) -> Result<(Response<Body>, Accepted), &'static str> {
    let headers = &parts.headers;
    if parts.version != Version::HTTP_11 {
        return Err("a WebSocket begins with a request of HTTP/1.1");
    }
    if !has_token(headers, header::CONNECTION.as_str(), "upgrade") || !is_asked_for(headers) {
        return Err("`connection: upgrade` and `upgrade: websocket` begin a WebSocket");
    }
    let versions: Vec<_> = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter().collect();
    if versions != ["13"] {
        return Err("`sec-websocket-version` must be 13");
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) if STANDARD.decode(key).is_ok_and(|key| key.len() == KEY_BYTES) => key,
        _ => return Err("`sec-websocket-key` must be 16 bytes in base64"),
    };
    let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_body || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err("a WebSocket begins with a request without a body");
    }
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accepted = accepted.map_err(|_| "`sec-websocket-key` is not a key")?;
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if let Some(protocol) = protocol {
        if protocol.len() > PROTOCOL_BYTES || HeaderName::try_from(protocol).is_err() {
            return Err("the first of `sec-websocket-protocol` is not a token of up to 128 bytes");
        }
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let response = response.body(Body::empty()).map_err(|_| "the reply cannot be made")?;
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or("the connection cannot be upgraded")?;
    Ok((response, Accepted { upgrade, admitted: parts.extensions.get().cloned() }))
}

fn has_token(headers: &HeaderMap, name: &'static str, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

impl Accepted {
    /// The socket, whose messages have at most so many bytes; `None` if the peer has gone.
    pub(crate) async fn open(self, message_bytes: usize) -> Option<Socket> {
        let upgraded = TokioIo::new(self.upgrade.await.ok()?);
        let config = WebSocketConfig::default()
            .max_message_size(Some(message_bytes))
            .max_frame_size(Some(message_bytes))
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0);
        let stream = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
        let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Socket { stream, pings, unanswered: 0, _admitted: self.admitted })
    }
}

impl Socket {
    /// The next message; `None` when the connection has ended: the peer has closed it, has not
    /// answered two pings, or has been told which rule it broke. Dropped before, nothing is lost. What is
    /// rare is boxed: a socket that waits would have room for all of it.
    pub(crate) async fn receive(&mut self) -> Option<Received> {
        loop {
            let received = tokio::select! {
                // What a peer does not take of the answers to its pings must not grow.
                received = async {
                    self.stream.flush().await.ok()?;
                    self.stream.next().await
                } => received?,
                _ = self.pings.tick() => {
                    if self.unanswered == PINGS_UNANSWERED_MAX {
                        return None;
                    }
                    self.unanswered += 1;
                    Box::pin(self.stream.send(Message::Ping(Bytes::new()))).await.ok()?;
                    continue;
                }
            };
            self.unanswered = 0;
            match received {
                Ok(Message::Text(text)) => return Some(Received::Text(text)),
                Ok(Message::Binary(bytes)) => return Some(Received::Binary(bytes)),
                // Pings are answered, and so is the end: the stream ends next.
                Ok(_) => {}
                Err(error) => {
                    if let Some(code) = code_of(&error) {
                        Box::pin(self.close(code, "")).await;
                        Box::pin(self.drain()).await;
                    }
                    return None;
                }
            }
        }
    }

    /// Sends bytes that are whole frames, from where they are: tungstenite would keep the room for a
    /// copy of the largest. Not to be dropped before it is done.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn send(&mut self, frames: &[Bytes]) -> Result<(), Gone> {
        // What it has to send itself, a pong for instance, is not cut in two.
        self.stream.flush().await.map_err(|error| Gone::of(&error))?;
        let stream = self.stream.get_mut();
        let writing = async {
            for frame in frames {
                stream.write_all(frame).await?;
            }
            stream.flush().await
        };
        writing.await.map_err(|error| Gone::of(&Error::Io(error)))
    }

    /// Closes the connection, and waits a while for the peer to close its side.
    pub(crate) async fn close(&mut self, code: u16, reason: &'static str) {
        let frame =
            CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from_static(reason) };
        let closing = async {
            if self.stream.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        };
        let _peer_is_slow = timeout(CLOSING_TIMEOUT, closing).await;
    }

    /// Reads for a while what the peer goes on sending: with bytes unread the connection would be
    /// reset, and the peer might not see why it was closed.
    async fn drain(&mut self) {
        let draining = async {
            let stream = self.stream.get_mut();
            let mut rest = vec![0; READ_BYTES];
            if stream.shutdown().await.is_ok() {
                while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
            }
        };
        let _peer_is_slow = timeout(CLOSING_TIMEOUT, draining).await;
    }
}

impl Gone {
    fn of(error: &Error) -> Self {
        match error {
            Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::Slow,
            _ => Self::Ended,
        }
    }
}

/// Begins the one frame of a message that has so many bytes.
pub(crate) fn write_head(out: &mut Vec<u8>, kind: Kind, bytes: usize) {
    let head = FrameHeader { opcode: OpCode::Data(kind), ..FrameHeader::default() };
    // A `Vec` takes it.
    let _infallible = head.format(bytes as u64, out);
}

/// What a peer is told that broke a rule; nobody is there for other errors.
fn code_of(error: &Error) -> Option<u16> {
    match error {
        Error::Protocol(_) => Some(1002),
        Error::Utf8(_) => Some(1007),
        Error::Capacity(_) => Some(1009),
        _ => None,
    }
}

/// How often the peer is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes of a handshake's key, and of the longest subprotocol.
const KEY_BYTES: usize = 16;
const PROTOCOL_BYTES: usize = 128;
const PINGS_UNANSWERED_MAX: u32 = 2;
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are read at a time: each connection has a buffer of them.
const READ_BYTES: usize = 512;
