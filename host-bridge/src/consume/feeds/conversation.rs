//! What clients may say on a feed's WebSocket: which records they have done with, and new records.

use std::time::Duration;

use super::fields::{FALSE, Fields};

/// How a feed is read and written over a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    /// Whether clients acknowledge what they are sent; else each says so when it connects, unless the
    /// feed is read at least once.
    pub(crate) client_acks: bool,
    /// Records that a client is sent before it has acknowledged any of them.
    pub(crate) max_unacked: usize,
    /// How long it may owe acknowledgements and send none.
    pub(crate) ack_timeout: Duration,
    /// Topics to which clients may write, the default first; none unless that is enabled.
    pub(crate) produce: Vec<String>,
}

impl Conversation {
    pub(super) fn read(fields: &mut Fields<'_>, has_websocket: bool) -> Self {
        let ack_timeout = fields.number("ack_timeout_ms", ACK_TIMEOUT_MS_RANGE, ACK_TIMEOUT_MS);
        Self {
            client_acks: fields.choice("client_acks", &FALSE),
            max_unacked: fields.number("max_unacked", MAX_UNACKED_RANGE, MAX_UNACKED),
            ack_timeout: Duration::from_millis(ack_timeout as u64),
            produce: produce(fields, has_websocket),
        }
    }
}

fn produce(fields: &mut Fields<'_>, has_websocket: bool) -> Vec<String> {
    let table = fields.section("produce").unwrap_or_default();
    let path = format!("{}.produce", fields.path);
    let mut fields = Fields { path: &path, table, faults: &mut *fields.faults };
    let is_enabled = fields.choice("enabled", &FALSE);
    let topics = match fields.list("topics") {
        Some(topics) => fields.listed("topics", topics),
        None => Vec::new(),
    };
    if is_enabled && topics.is_empty() {
        fields.fault("topics", "is missing: which topics may clients write to?");
    }
    if is_enabled && !has_websocket {
        fields.fault("enabled", "needs the entrypoint `websocket`: nothing else writes");
    }
    fields.finish(&["enabled", "topics"]);
    if is_enabled { topics } else { Vec::new() }
}

const MAX_UNACKED: usize = 1000;
const MAX_UNACKED_RANGE: (usize, usize) = (1, 10_000);
const ACK_TIMEOUT_MS: usize = 60_000;
const ACK_TIMEOUT_MS_RANGE: (usize, usize) = (1000, 3_600_000);
