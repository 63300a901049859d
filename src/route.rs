//! What a root and the requests with one set of settings share: the outbox, the streams that wait
//! for it, and the queue that wakes the root.
//!
//! A record returns in this order: [`Route::end_callout`] has the outbox make outcomes of a
//! callout's end, [`Route::conclude`] makes the end of a stream of its outcomes, and the root or
//! the request carries that out.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use kafka_upstream_core::callout::{self, Ended};
use kafka_upstream_core::config::{Mode, Settings};
use kafka_upstream_core::gateway::Gateway;
use kafka_upstream_core::limits::REPLY_BYTES_MAX;
use kafka_upstream_core::outbox::{Callout, Outbox, Purpose, Settled, StreamId};
use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_core::paused::{Completion, PausedStreams};
use kafka_upstream_core::reply::Reply;
use kafka_upstream_core::throttle::LogThrottle;
use kafka_upstream_core::wire::Delivery;

use crate::budget::ByteBudget;
use crate::host::{self, Buffer, Clock, Level, Map};
use crate::metrics::{self, Counter, Metrics};

/// One set of settings in one root.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) settings: Rc<Settings>,
    pub(crate) outbox: Outbox,
    /// Batches sent by this VM.
    pub(crate) sequence: u64,
    /// Streams that are paused until their record is settled.
    pub(crate) paused: PausedStreams,
    pub(crate) metrics: Rc<Metrics>,
    pub(crate) clock: Clock,
    /// Bytes of the records of requests that make their own callouts.
    pub(crate) per_request_bytes: ByteBudget,
    pub(crate) wake_up: WakeUp,
    /// The root's callouts in flight, by token.
    callouts: HashMap<u32, InFlight>,
    bridge: BridgeHealth,
    /// Lines about records that were not written, by the code of the reason.
    failures: [LogThrottle; Code::ALL.len()],
    /// Lines about topics whose records wait because they cannot be written now.
    waits: LogThrottle,
}

/// A callout in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) purpose: Purpose,
    since: Duration,
}

/// The shared queue by which a request has the host call the root in the same turn of the worker's
/// event loop. A request's own callback must not dispatch for others: the SDK drops the reply to a
/// callout silently when the context that was active at its dispatch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeUp {
    /// The host has no such queue, or did not register it.
    Unavailable,
    /// By this queue.
    Idle(u32),
    /// One is on its way: more would only call the root with nothing to do.
    Pending(u32),
}

/// What the last callouts say of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BridgeHealth {
    Answers,
    /// The last callout got no reply, or not the bridge's.
    Failing,
    /// Nor did a probe: each request that makes its own callouts probes first, and its client has a
    /// 503 within a second, instead of a 504 at the end of the gateway's timeout.
    Suspect,
}

impl Route {
    pub(crate) fn new(
        settings: Rc<Settings>,
        outbox: Outbox,
        wake_up: WakeUp,
        metrics: Rc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self {
            settings,
            outbox,
            sequence: 0,
            paused: PausedStreams::default(),
            metrics,
            clock,
            per_request_bytes: ByteBudget::default(),
            wake_up,
            callouts: HashMap::new(),
            bridge: BridgeHealth::Answers,
            failures: [const { LogThrottle::new() }; Code::ALL.len()],
            waits: LogThrottle::new(),
        }
    }

    /// Wakes the root, in this turn of the worker's event loop, if a callout is due.
    pub(crate) fn wake_if_due(&mut self, now: Duration) {
        if matches!(self.wake_up, WakeUp::Idle(_)) && self.outbox.is_due(now) {
            self.wake();
        }
    }

    /// Wakes the root, in this turn of the worker's event loop; false where its queue cannot.
    pub(crate) fn wake(&mut self) -> bool {
        if let WakeUp::Idle(queue) = self.wake_up
            && host::wake(queue)
        {
            self.wake_up = WakeUp::Pending(queue);
        }
        matches!(self.wake_up, WakeUp::Pending(_))
    }

    /// The host calls the root for a queue; whether it is this one's.
    pub(crate) fn on_queue_ready(&mut self, ready: u32) -> bool {
        let is_its =
            matches!(self.wake_up, WakeUp::Idle(queue) | WakeUp::Pending(queue) if queue == ready);
        if is_its {
            self.wake_up = WakeUp::Idle(ready);
        }
        is_its
    }

    /// Whether a request that makes its own callouts probes the bridge first.
    pub(crate) fn is_suspect(&self) -> bool {
        self.bridge == BridgeHealth::Suspect
    }

    /// Dispatches what is due in the root's outbox; returns what is settled by a refusal.
    pub(crate) fn dispatch_due(&mut self, now: Duration) -> Vec<Settled> {
        let mut settled = Vec::new();
        while let Some(callout) = self.outbox.poll_callout(now, &mut self.sequence) {
            match self.send(&callout, now) {
                Ok((token, in_flight)) => {
                    self.callouts.insert(token, in_flight);
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
    pub(crate) fn send(
        &mut self,
        callout: &Callout,
        now: Duration,
    ) -> Result<(u32, InFlight), String> {
        self.metrics.count(Counter::Callouts);
        if callout.records > 0 {
            self.metrics.note_batch(callout.records);
        }
        if callout.again {
            self.metrics.count(Counter::Resends);
        }
        let token = host::dispatch(&self.settings.bridge, callout).map_err(|status| {
            let why = format!(
                "the gateway refused the callout with status {status}: check the field `bridge`"
            );
            self.note_failing(|| why.clone());
            why
        })?;
        Ok((token, InFlight { purpose: callout.purpose, since: now }))
    }

    /// Settles the callout that the host has just ended; none when it is not this route's.
    pub(crate) fn end_callout(
        &mut self,
        token: u32,
        ended: &Ended<'_>,
        now: Duration,
    ) -> Option<Vec<Settled>> {
        let callout = self.callouts.remove(&token)?;
        self.note_end(callout, ended, now);
        Some(self.outbox.on_ended(callout.purpose, ended, now))
    }

    /// Counts an outcome, and says how its stream ends, if that waits for no other.
    pub(crate) fn conclude(&mut self, settled: Settled) -> Option<(StreamId, StreamEnd)> {
        let counter = match settled.outcome {
            Outcome::Written { .. } => Some(Counter::Written),
            Outcome::NotWritten(_) => Some(Counter::NotWritten),
            Outcome::Unknown(_) => Some(Counter::Unknown),
            // The bridge counts it when it is written.
            Outcome::Queued => None,
        };
        counter.into_iter().for_each(|counter| self.metrics.count(counter));
        if let Some(reason) = settled.outcome.reason() {
            self.log_failure(&settled, reason);
        }
        if settled.stream.is_none() {
            if !settled.outcome.is_kept() {
                self.metrics.count(Counter::Dropped);
            }
            return None;
        }
        let (stream, reply) = match self.paused.settle(settled, &self.settings.replies) {
            Completion::Complete(stream, reply) => (stream, reply),
            Completion::Pending => return None,
            Completion::Gone => {
                self.metrics.count(Counter::ClientGone);
                return None;
            }
        };
        self.metrics.count_request(
            reply.code.map_or(metrics::RequestEnd::Sent, metrics::RequestEnd::Failed),
        );
        let goes_on = self.settings.mode == Mode::Tap
            && (reply.code.is_none() || self.settings.goes_on_without_copy());
        Some((stream, if goes_on { StreamEnd::GoesOn } else { StreamEnd::Answered(reply) }))
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
        let (code, topic, detail) = (reason.code.name(), settled.topic(), reason.logged());
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

    /// Logs when the bridge stops to answer as it should, and when it does so again.
    pub(crate) fn note_end(&mut self, callout: InFlight, ended: &Ended<'_>, now: Duration) {
        self.metrics.note_callout(now.saturating_sub(callout.since).as_millis());
        if !callout::is_alive(ended) && !callout::knows_no_profile(ended) {
            self.note_failing(|| callout::why(ended));
            if callout.purpose == Purpose::Probe {
                self.bridge = BridgeHealth::Suspect;
            }
        } else if std::mem::replace(&mut self.bridge, BridgeHealth::Answers)
            != BridgeHealth::Answers
        {
            let target = &self.settings.bridge.target;
            host::log(Level::Info, &format!("event=bridge_back bridge={target}"));
        }
    }

    fn note_failing(&mut self, why: impl FnOnce() -> String) {
        if self.bridge != BridgeHealth::Answers {
            return;
        }
        self.bridge = BridgeHealth::Failing;
        let (target, why) = (&self.settings.bridge.target, why());
        let hint = callout::hint(&why).map(|hint| format!(" hint=\"{hint}\""));
        let hint = hint.unwrap_or_default();
        host::log(Level::Warn, &format!("event=bridge_failing bridge={target} {why}{hint}"));
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

/// Reads the end of the callout that the host has just ended, within its limits.
pub(crate) fn read_end<T>(
    gateway: Gateway,
    num_headers: usize,
    body_size: usize,
    then: impl FnOnce(&Ended<'_>) -> T,
) -> T {
    // One read of all costs less than one of each. nginx's hosts cannot read any number of headers.
    let all = match gateway {
        Gateway::Envoy if num_headers > 0 => host::headers(Map::CalloutReply).unwrap_or_default(),
        _ => Vec::new(),
    };
    let header = |name: &str| match gateway {
        Gateway::Envoy => {
            all.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| value.clone())
        }
        _ if num_headers == 0 => None,
        _ => host::header(Map::CalloutReply, name),
    };
    let dispatch_status = match gateway {
        Gateway::Wasmx => host::header(Map::CalloutReply, ":dispatch_status"),
        Gateway::Envoy | Gateway::Apisix => None,
    };
    let status = |value: Vec<u8>| std::str::from_utf8(&value).ok()?.parse().ok();
    // WasmX announces the size of a reply that was cut, and cannot read it.
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
    then(&Ended {
        gateway,
        dispatch_status: dispatch_status.as_deref(),
        status: header(":status").and_then(status),
        marker: marker.as_deref(),
        overloaded,
        body: body.as_deref(),
    })
}
