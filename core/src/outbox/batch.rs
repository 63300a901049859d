//! What the outbox moves: records with the streams that wait for them, batches of them, and
//! callouts.

use std::rc::Rc;
use std::time::Duration;

use crate::limits;
use crate::outcome::{Outcome, Reason};
use crate::profile;
use crate::wire;

/// The host's id of a request's stream.
pub type StreamId = u32;

/// An encoded record and the stream that waits for its outcome, if one does.
#[derive(Debug)]
pub(super) struct QueuedRecord {
    pub(super) encoded: Vec<u8>,
    pub(super) stream: Option<StreamId>,
    pub(super) since: Duration,
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    /// The stream that waits, if one does.
    pub stream: Option<StreamId>,
    /// Its outcome.
    pub outcome: Outcome,
    /// The encoded record.
    pub record: Vec<u8>,
}

impl Settled {
    /// The record's topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        wire::topic(&self.record)
    }
}

/// Records that travel together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where they wait when they are sent again.
    pub(super) lane: Rc<str>,
    /// Given when it is first sent, kept when it is sent again.
    pub(super) sequence: Option<u64>,
    pub(super) records: Vec<QueuedRecord>,
    pub(super) attempts: u32,
    pub(super) not_before: Duration,
    /// Why an attempt may have been written, if one may.
    pub(super) doubt: Option<Reason>,
    /// The profile was registered for this batch.
    pub(super) registered: bool,
}

/// What a callout is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Asks whether the bridge answers.
    Probe,
    /// Registers the profile.
    Register,
    /// Carries the batch of this sequence.
    Produce(u64),
}

/// An HTTP request to the bridge that is to be dispatched.
#[derive(Debug, PartialEq, Eq)]
pub struct Callout {
    /// What it is for.
    pub purpose: Purpose,
    /// How many records it carries.
    pub records: usize,
    /// Whether they were sent before.
    pub again: bool,
    /// HTTP method.
    pub method: &'static str,
    /// Request target.
    pub path: String,
    /// The body's `content-type`.
    pub content_type: &'static str,
    /// The body, empty for a probe alone.
    pub body: Vec<u8>,
    /// How long the host waits for the reply.
    pub timeout: Duration,
}

impl QueuedRecord {
    pub(super) fn settle(self, outcome: Outcome) -> Settled {
        Settled { stream: self.stream, outcome, record: self.encoded }
    }
}

impl Batch {
    pub(super) fn new(lane: Rc<str>, records: Vec<QueuedRecord>) -> Self {
        Self {
            lane,
            sequence: None,
            records,
            attempts: 0,
            not_before: Duration::ZERO,
            doubt: None,
            registered: false,
        }
    }

    /// Time left before the deadline of its oldest record.
    pub(super) fn remaining(&self, timeout: Duration, now: Duration) -> Duration {
        let since = self.records.first().map_or(now, |record| record.since);
        (since + timeout).saturating_sub(now)
    }

    /// The outcome of a batch that is given up for `reason`.
    pub(super) fn outcome(&self, reason: &Reason) -> Outcome {
        match &self.doubt {
            Some(doubt) => Outcome::Unknown(doubt.clone()),
            None => Outcome::NotWritten(reason.clone()),
        }
    }
}

impl Callout {
    pub(super) fn register(id: &[u8; 32], document: Vec<u8>) -> Self {
        Self {
            purpose: Purpose::Register,
            records: 0,
            again: false,
            method: "PUT",
            path: format!("/v1/profiles/{}", profile::hex(id)),
            content_type: "application/json",
            body: document,
            timeout: REGISTRATION_TIMEOUT,
        }
    }

    /// A request without a body, which the bridge answers from memory.
    pub(crate) fn probe(timeout: Duration) -> Self {
        Self {
            purpose: Purpose::Probe,
            records: 0,
            again: false,
            method: "GET",
            path: "/healthz".to_owned(),
            content_type: "",
            body: Vec::new(),
            timeout,
        }
    }

    pub(super) fn produce(
        sequence: u64,
        batch: &Batch,
        (body, budget): (Vec<u8>, Duration),
    ) -> Self {
        Self {
            purpose: Purpose::Produce(sequence),
            records: batch.records.len(),
            again: batch.attempts > 0,
            method: "POST",
            path: "/v1/produce".to_owned(),
            content_type: wire::BATCH_TYPE,
            body,
            timeout: budget + Duration::from_millis(limits::CALLOUT_GRACE_MS),
        }
    }
}

/// The bridge answers a registration from memory.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(1);
