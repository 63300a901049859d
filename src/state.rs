//! What a root and the requests of one rule share: the outbox, who waits for it, and how it is
//! woken.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use kafka_upstream_core::callout::{self, Ended};
use kafka_upstream_core::config::{Mode, Settings};
use kafka_upstream_core::gateway::Gateway;
use kafka_upstream_core::limits::REPLY_BYTES_MAX;
use kafka_upstream_core::outbox::{Callout, Outbox, Purpose, Settled, StreamId};
use kafka_upstream_core::outcome::{Code, Outcome, Reason, Reply};
use kafka_upstream_core::throttle::Throttle;
use kafka_upstream_core::waiting::{Answer, Waiting};
use kafka_upstream_core::wire::Delivery;

use crate::host::{self, Buffer, Clock, Level, Map};
use crate::metrics::{self, Counter, Metrics};

/// The state of one set of settings in one root.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Rc<Settings>,
    pub(crate) outbox: Outbox,
    /// Batches sent by this VM.
    pub(crate) sequence: u64,
    /// Streams that are paused until their record is settled.
    pub(crate) waiting: Waiting,
    pub(crate) metrics: Rc<Metrics>,
    pub(crate) clock: Clock,
    /// Bytes of the records of requests that make their own callouts.
    pub(crate) alone_bytes: usize,
    /// The bridge did not answer the last question of a request that makes its own callouts.
    pub(crate) suspect: bool,
    /// The shared queue that wakes the root; none where the host has no such thing.
    pub(crate) queue: Option<u32>,
    pub(crate) wake_pending: bool,
    /// Callouts under way, by token.
    callouts: HashMap<u32, Sent>,
    bridge_is_well: bool,
    /// Lines about records that were not written, by the code of the reason.
    failures: [Throttle; Code::ALL.len()],
    /// Lines about topics whose records wait because they cannot be written now.
    waits: Throttle,
}

/// A callout under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) purpose: Purpose,
    at: Duration,
}

impl State {
    pub(crate) fn new(settings: Rc<Settings>, outbox: Outbox, metrics: Rc<Metrics>) -> Self {
        Self {
            settings,
            outbox,
            sequence: 0,
            waiting: Waiting::default(),
            metrics,
            clock: Clock::start(),
            alone_bytes: 0,
            suspect: false,
            queue: None,
            wake_pending: false,
            callouts: HashMap::new(),
            bridge_is_well: true,
            failures: [const { Throttle::new() }; Code::ALL.len()],
            waits: Throttle::new(),
        }
    }

    /// Wakes the root, in this turn of the worker's event loop, if a callout is due.
    pub(crate) fn wake_if_due(&mut self, now: Duration) {
        if !self.wake_pending && self.outbox.is_due(now) {
            self.wake();
        }
    }

    /// Wakes the root, in this turn of the worker's event loop; false where its queue cannot.
    pub(crate) fn wake(&mut self) -> bool {
        if let (false, Some(queue)) = (self.wake_pending, self.queue) {
            self.wake_pending = host::wake(queue);
        }
        self.wake_pending
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
            match self.send(&callout, now) {
                Ok((token, sent)) => {
                    self.callouts.insert(token, sent);
                }
                Err(why) => settled.extend(self.outbox.on_refused(callout.purpose, &why, now)),
            }
        }
        settled
    }

    /// Dispatches a callout.
    ///
    /// # Errors
    /// Why the host refused it.
    pub(crate) fn send(&mut self, callout: &Callout, now: Duration) -> Result<(u32, Sent), String> {
        self.metrics.count(Counter::Callouts);
        if callout.records > 0 {
            self.metrics.note_batch(callout.records);
        }
        if callout.again {
            self.metrics.count(Counter::Resends);
        }
        let token = host::dispatch(&self.settings.bridge, callout).map_err(|status| {
            let why = format!(
                "the host refused the callout with status {status}; does it know the bridge?"
            );
            self.note_health(false, &why);
            why
        })?;
        Ok((token, Sent { purpose: callout.purpose, at: now }))
    }

    /// Settles the callout that the host has just ended; none when it is not of this state.
    pub(crate) fn end_callout(&mut self, token: u32, end: &CalloutEnd) -> Option<Vec<Settled>> {
        let sent = self.callouts.remove(&token)?;
        let now = self.note_end(sent, end);
        Some(self.outbox.on_ended(sent.purpose, &end.as_ended(), now))
    }

    /// Counts an outcome, and says how the stream ends, if this was all it waited for.
    pub(crate) fn conclude(&mut self, settled: Settled) -> Option<(StreamId, StreamEnd)> {
        let counter = match settled.outcome {
            Outcome::Written { .. } => Some(Counter::Written),
            Outcome::NotWritten(_) => Some(Counter::NotWritten),
            Outcome::Unknown(_) => Some(Counter::Unknown),
            // The bridge counts it when it is written.
            Outcome::Queued => None,
        };
        counter.into_iter().for_each(|counter| self.metrics.count(counter));
        if let Outcome::NotWritten(reason) | Outcome::Unknown(reason) = &settled.outcome {
            self.log_failure(&settled, reason);
        }
        if settled.stream.is_none() {
            if !settled.outcome.is_kept() {
                self.metrics.count(Counter::Dropped);
            }
            return None;
        }
        let (stream, reply, kept) = match self.waiting.settle(settled, &self.settings.replies) {
            Answer::Now { stream, reply, kept } => (stream, reply, kept),
            Answer::NotYet => return None,
            Answer::Nobody => {
                self.metrics.count(Counter::ClientGone);
                return None;
            }
        };
        self.metrics.count_request(reply.code.map_or(metrics::Ended::Sent, metrics::Ended::Failed));
        // A tap in memory mode promises nothing.
        let promises_nothing = self.settings.delivery == Delivery::Memory;
        let resumes = self.settings.mode == Mode::Tap && (kept || promises_nothing);
        Some((stream, if resumes { StreamEnd::GoesOn } else { StreamEnd::Answered(reply) }))
    }

    /// One line a minute for each reason, with an example.
    fn log_failure(&mut self, settled: &Settled, reason: &Reason) {
        let Some(throttle) = self.failures.get_mut(reason.code as usize) else { return };
        let Some(records) = throttle.note(1, self.clock.now()) else { return };
        let event = match settled.stream {
            Some(_) => "records_failed",
            // Their clients have a 200.
            None => "records_dropped",
        };
        let (code, topic, detail) = (reason.code.name(), settled.topic(), &reason.detail);
        let line = format!(
            "event={event} code={code} records={records} topic={topic:?} detail={detail:?}"
        );
        host::log(Level::Warn, &line);
    }

    /// Memory mode: one line a minute while records wait because they cannot be written now.
    pub(crate) fn log_waiting(&mut self) {
        if self.settings.delivery != Delivery::Memory {
            return;
        }
        let Some((topic, reason)) = self.outbox.failing().next() else { return };
        if self.waits.note(1, self.clock.now()).is_none() {
            return;
        }
        let topics = self.outbox.failing().count();
        let topic = if topic.is_empty() { &self.settings.topic } else { topic };
        let (code, records, detail) =
            (reason.code.name(), self.outbox.depth().records, &reason.detail);
        let line = format!(
            "event=records_wait code={code} topics={topics} records={records} topic={topic:?} \
             detail={detail:?}"
        );
        host::log(Level::Warn, &line);
    }

    /// Logs when the bridge stops to answer as it should, and when it does so again. Returns now.
    pub(crate) fn note_end(&mut self, sent: Sent, end: &CalloutEnd) -> Duration {
        let now = self.clock.now();
        self.metrics.note_callout(now.saturating_sub(sent.at).as_millis());
        let ended = end.as_ended();
        let well = callout::is_alive(&ended) || callout::knows_no_profile(&ended);
        if well || sent.purpose == Purpose::Probe {
            self.suspect = !well;
        }
        // The text is made only where it is logged.
        if well != self.bridge_is_well {
            self.note_health(well, &callout::why(&ended));
        }
        now
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
                let hint = callout::hint(what).map(|hint| format!(" hint=\"{hint}\""));
                let hint = hint.unwrap_or_default();
                let line = format!("event=bridge_failing bridge={target} {what}{hint}");
                host::log(Level::Warn, &line);
            }
        }
    }
}

/// How a paused stream ends, as far as the filter is concerned.
#[derive(Debug)]
pub(crate) enum StreamEnd {
    /// The client gets this.
    Answered(Reply),
    /// The request goes on to what stands behind the filter.
    GoesOn,
}

/// The end of a callout, read from the host.
#[derive(Debug)]
pub(crate) struct CalloutEnd {
    gateway: Gateway,
    dispatch_status: Option<Vec<u8>>,
    status: Option<u16>,
    marker: Option<Vec<u8>>,
    overloaded: bool,
    body: Option<Vec<u8>>,
}

impl CalloutEnd {
    /// Reads what the host has of the reply, within its limits.
    pub(crate) fn read(gateway: Gateway, num_headers: usize, body_size: usize) -> Self {
        let header = |name| match num_headers {
            0 => None,
            _ => host::header(Map::CalloutReply, name),
        };
        let dispatch_status = match gateway {
            Gateway::Wasmx => host::header(Map::CalloutReply, ":dispatch_status"),
            Gateway::Envoy | Gateway::Apisix => None,
        };
        let status = |value: Vec<u8>| std::str::from_utf8(&value).ok()?.parse().ok();
        // The body of a reply that was cut cannot be read there.
        let whole = gateway != Gateway::Wasmx || dispatch_status.as_deref() == Some(b"ok");
        let body = match body_size {
            _ if !whole => None,
            0 => Some(Vec::new()),
            1..=REPLY_BYTES_MAX => host::buffer(Buffer::CalloutReplyBody, body_size),
            _ => None,
        };
        let marker = header(kafka_upstream_core::wire::MARKER);
        let overloaded =
            gateway == Gateway::Envoy && marker.is_none() && header("x-envoy-overloaded").is_some();
        let status = header(":status").and_then(status);
        Self { gateway, dispatch_status, status, marker, overloaded, body }
    }

    pub(crate) fn as_ended(&self) -> Ended<'_> {
        Ended {
            gateway: self.gateway,
            dispatch_status: self.dispatch_status.as_deref(),
            status: self.status,
            marker: self.marker.as_deref(),
            overloaded: self.overloaded,
            body: self.body.as_deref(),
        }
    }
}
