//! What a root and its requests share: the outbox, who waits for it, and how it is woken.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kafka_upstream_core::callout::Ended;
use kafka_upstream_core::config::Settings;
use kafka_upstream_core::limits::REPLY_BYTES_MAX;
use kafka_upstream_core::outbox::{Outbox, Settled, StreamId};
use kafka_upstream_core::outcome::{Outcome, Reply};

use crate::host::{self, Buffer, Clock, Level, Map};
use crate::metrics::{Counter, Metrics};

/// The state of one root.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) vm: [u8; 16],
    pub(crate) outbox: Outbox,
    /// Batches sent by this VM.
    pub(crate) sequence: u64,
    /// Streams that are paused until their record is settled.
    pub(crate) waiting: HashSet<StreamId>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    /// Bytes of the records of requests that make their own callouts.
    pub(crate) alone_bytes: usize,
    /// The shared queue that wakes the root; none where the host has no such thing.
    pub(crate) queue: Option<u32>,
    pub(crate) wake_pending: bool,
    /// Callouts under way, by token.
    callouts: HashMap<u32, Option<u64>>,
    bridge_is_well: bool,
}

impl State {
    pub(crate) fn new(settings: Settings, vm: [u8; 16], outbox: Outbox) -> Self {
        Self {
            settings,
            vm,
            outbox,
            sequence: 0,
            waiting: HashSet::new(),
            metrics: Metrics::define(),
            clock: Clock::start(),
            alone_bytes: 0,
            queue: None,
            wake_pending: false,
            callouts: HashMap::new(),
            bridge_is_well: true,
        }
    }

    /// Wakes the root, in this turn of the worker's event loop, if a callout is due.
    pub(crate) fn wake_if_due(&mut self, now: Duration) {
        if let (false, Some(queue)) = (self.wake_pending, self.queue) {
            self.wake_pending = self.outbox.is_due(now) && host::wake(queue);
        }
    }

    /// Whether a request that makes its own callouts finds room, within the queue's limits.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let limits = self.settings.queue;
        self.waiting.is_empty()
            || (self.waiting.len() < limits.records && self.alone_bytes + bytes <= limits.bytes)
    }

    /// Dispatches what is due in the root's outbox; returns what is settled by a refusal.
    pub(crate) fn dispatch_due(&mut self, now: Duration) -> Vec<Settled> {
        let mut settled = Vec::new();
        while let Some(callout) = self.outbox.poll_callout(now, &mut self.sequence) {
            self.metrics.count(Counter::Callouts);
            match host::dispatch(&self.settings.bridge, &callout) {
                Ok(token) => {
                    self.callouts.insert(token, callout.sequence);
                }
                Err(status) => {
                    let why = format!("the host refused the callout with status {status}");
                    self.note_health(false, &why);
                    settled.extend(self.outbox.on_refused(callout.sequence, &why, now));
                }
            }
        }
        settled
    }

    /// Brings the host's gauges up to date.
    pub(crate) fn report(&mut self) {
        let (depth, waiting) = (self.outbox.depth(), self.waiting.len());
        self.metrics.report(depth, waiting);
    }

    /// Settles the callout that the host has just ended.
    pub(crate) fn end_callout(
        &mut self,
        token: u32,
        end: &CalloutEnd,
        now: Duration,
    ) -> Vec<Settled> {
        let Some(sequence) = self.callouts.remove(&token) else { return Vec::new() };
        self.note_end(end);
        self.outbox.on_ended(sequence, &end.as_ended(), now)
    }

    /// Counts an outcome and says how to answer the stream that waits for it, if it still does.
    pub(crate) fn reply_to(&mut self, settled: &Settled) -> Option<(StreamId, Reply)> {
        self.metrics.count(match settled.outcome {
            Outcome::Written { .. } => Counter::Written,
            Outcome::NotWritten(_) => Counter::NotWritten,
            Outcome::Unknown(_) => Counter::Unknown,
        });
        let stream = settled.stream?;
        if !self.waiting.remove(&stream) {
            self.metrics.count(Counter::ClientGone);
            return None;
        }
        let settings = &self.settings;
        let reply = Reply::of(&settled.outcome, &settings.topic, settings.return_error_message);
        Some((stream, reply))
    }

    /// Logs when the bridge stops to answer as it should, and when it does so again.
    pub(crate) fn note_end(&mut self, end: &CalloutEnd) {
        let well = end.marker.is_some() && matches!(end.status, Some(200 | 404));
        self.note_health(well, &end.describe());
    }

    fn note_health(&mut self, well: bool, what: &str) {
        if well == self.bridge_is_well {
            return;
        }
        self.bridge_is_well = well;
        let target = &self.settings.bridge.target;
        match well {
            true => host::log(Level::Info, &format!("event=bridge_back bridge={target}")),
            false => {
                host::log(Level::Warn, &format!("event=bridge_failing bridge={target} {what}"));
            }
        }
    }
}

/// The end of a callout, read from the host.
#[derive(Debug)]
pub(crate) struct CalloutEnd {
    status: Option<u16>,
    marker: Option<Vec<u8>>,
    overloaded: bool,
    body: Option<Vec<u8>>,
}

impl CalloutEnd {
    /// Reads what the host has of the reply, within its limits.
    pub(crate) fn read(num_headers: usize, body_size: usize) -> Self {
        let header = |name| match num_headers {
            0 => None,
            _ => host::header(Map::CalloutReply, name),
        };
        let status =
            header(":status").and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
        let body = match body_size {
            0 => Some(Vec::new()),
            1..=REPLY_BYTES_MAX => host::buffer(Buffer::CalloutReplyBody, body_size),
            _ => None,
        };
        let marker = header(kafka_upstream_core::wire::MARKER);
        Self { status, marker, overloaded: header("x-envoy-overloaded").is_some(), body }
    }

    pub(crate) fn as_ended(&self) -> Ended<'_> {
        Ended {
            status: self.status,
            marker: self.marker.as_deref(),
            overloaded: self.overloaded,
            body: self.body.as_deref(),
        }
    }

    fn describe(&self) -> String {
        let body = self.body.as_deref().unwrap_or_default();
        let text = String::from_utf8_lossy(body.get(..200).unwrap_or(body));
        format!("status={:?} marked={} body={text:?}", self.status, self.marker.is_some())
    }
}
