//! What a client asks for when it connects.

use axum::http::HeaderMap;

use crate::consume::envelope::Shape;
use crate::consume::feeds::Feed;
use crate::consume::query::Query;
use crate::consume::refusal::{Code, Refusal};
use crate::websocket;

/// What is spoken on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Json,
    /// Values alone, both ways.
    Raw,
}

impl Protocol {
    /// By the names that a client offers; JSON if it offers none.
    ///
    /// # Errors
    /// None of them is known.
    fn choose<'a>(
        mut offered: impl Iterator<Item = &'a str>,
    ) -> Result<(Self, Option<&'static str>), Refusal> {
        let Some(first) = offered.next() else { return Ok((Self::Json, None)) };
        let known = [(JSON, Self::Json), (RAW, Self::Raw)];
        let find = |name| known.into_iter().find(|(known, _)| *known == name);
        let found = std::iter::once(first).chain(offered).find_map(find);
        let (name, protocol) = found.ok_or_else(|| {
            let message = format!("sec-websocket-protocol: there are {JSON} and {RAW}");
            Code::InvalidParameter.because(message)
        })?;
        Ok((protocol, Some(name)))
    }
}

/// What a client asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) protocol: Protocol,
    pub(crate) shape: Shape,
    /// Most records of a message.
    pub(crate) batch: usize,
    /// Whether it acknowledges what it is sent.
    pub(crate) acks: bool,
}

impl Asked {
    /// What a handshake and its query ask for, and the subprotocol that is spoken if any is offered.
    ///
    /// # Errors
    /// [`Code::UpgradeRequired`], [`Code::InvalidParameter`].
    pub(crate) fn read(
        headers: &HeaderMap,
        query: &Query,
        feed: &Feed,
    ) -> Result<(Self, Option<&'static str>), Refusal> {
        if !websocket::is_asked_for(headers) {
            let message = "a WebSocket begins with `upgrade: websocket`";
            return Err(Code::UpgradeRequired.because(message));
        }
        let (protocol, name) = Protocol::choose(websocket::offered(headers))?;
        // Values alone say neither which of them they acknowledge nor that one cannot be decoded.
        let always = feed.conversation.client_acks || feed.delivery.loses_nothing();
        let acks = query.acks || always;
        if protocol == Protocol::Raw && (acks || feed.has_error_items()) {
            let lacks = if acks { "acknowledgements" } else { "error items: see on_decode_error" };
            let message = format!("sec-websocket-protocol: {RAW} has no {lacks}");
            return Err(Code::InvalidParameter.because(message));
        }
        Ok((Self { protocol, shape: query.shape, batch: query.batch, acks }, name))
    }

    /// Bytes of a client's message: who writes nothing says little.
    pub(crate) fn message_bytes(self, may_write: &[String]) -> usize {
        if may_write.is_empty() { COMMAND_BYTES_MAX } else { MESSAGE_BYTES_MAX }
    }
}

pub(super) const JSON: &str = "kafka-upstream.json.v1";
pub(super) const RAW: &str = "kafka-upstream.raw.v1";
/// Bytes of a message of a client that may write records, and of one that may not: a cursor, and words.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
const COMMAND_BYTES_MAX: usize = 64 * 1024;
