//! Records that clients write: enqueued in the order in which they came, each with an outcome of its own.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use futures_util::future::{BoxFuture, OptionFuture};
use kafka_upstream_core::outcome::{self, Outcome, Reason};
use kafka_upstream_core::record::Record;
use kafka_upstream_core::reply;
use kafka_upstream_core::wire::Delivery;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::frames::{Frame, Produce};
use super::several::Several;
use crate::batches;
use crate::clock::now_ms;
use crate::consume::memory::Held;
use crate::consume::refusal::{Code, Refusal};
use crate::failing::Topics;
use crate::metrics::Metrics;
use crate::outcomes;
use crate::pipeline::Pipeline;
use crate::rest::DELIVERY_TIMEOUT;

/// Where records of a feed's clients go.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The records of one client.
pub(super) struct Producing {
    writer: Option<Writer>,
    /// The feed's topics for producing, the default first.
    topics: Vec<String>,
    /// Those to which this client may write.
    allowed: Vec<String>,
    waiting: VecDeque<(Written, Held)>,
    enqueuing: Option<BoxFuture<'static, Settling>>,
    settling: Several<Done>,
    bytes: usize,
}

type Settling = BoxFuture<'static, Done>;

struct Written {
    topic: String,
    record: Produce,
}

/// What became of a record.
pub(super) struct Done {
    reference: Option<Box<RawValue>>,
    topic: String,
    outcome: Outcome,
    bytes: usize,
}

impl Producing {
    pub(super) fn new(writer: Option<Writer>, topics: Vec<String>, allowed: Vec<String>) -> Self {
        Self {
            writer,
            topics,
            allowed,
            waiting: VecDeque::new(),
            enqueuing: None,
            settling: Several::default(),
            bytes: 0,
        }
    }

    /// Records that have no outcome yet.
    pub(super) fn in_flight(&self) -> usize {
        self.waiting.len() + usize::from(self.enqueuing.is_some()) + self.settling.len()
    }

    /// Whether more may come.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight() < IN_FLIGHT_MAX && self.bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Takes a record, with its share of memory; without one it is not written, as is said at once.
    ///
    /// # Errors
    /// It may not be written: [`Code::ProduceDisabled`], [`Code::Forbidden`], [`Code::TopicNotAllowed`].
    pub(super) fn push(
        &mut self,
        record: Produce,
        held: Option<Held>,
    ) -> Result<Option<Done>, Refusal> {
        let Some(default) = self.topics.first() else {
            return Err(Code::ProduceDisabled.because("clients write nothing to this feed"));
        };
        if self.allowed.is_empty() {
            return Err(Code::Forbidden.because("the consumer may not write to this feed"));
        }
        let topic = record.topic.as_ref().unwrap_or(default).clone();
        if !self.allowed.contains(&topic) {
            let message = format!("the topic `{topic}` is not among those that you may write to");
            return Err(Code::TopicNotAllowed.because(message));
        }
        let Some(held) = held else {
            let full = Reason::new(outcome::Code::QueueFull, "the memory of readers is in use");
            let outcome = Outcome::NotWritten(full);
            return Ok(Some(Done { reference: record.reference, topic, outcome, bytes: 0 }));
        };
        self.bytes += held.bytes();
        self.waiting.push_back((Written { topic, record }, held));
        Ok(None)
    }

    /// The next outcome. Dropped before, nothing is lost.
    pub(super) async fn next(&mut self) -> Done {
        loop {
            if self.enqueuing.is_none()
                && let (Some(writer), Some((written, held))) =
                    (&self.writer, self.waiting.pop_front())
            {
                self.enqueuing = Some(Box::pin(enqueue(writer.clone(), written, held)));
            }
            tokio::select! {
                Some(settling) = OptionFuture::from(self.enqueuing.as_mut()) => {
                    self.enqueuing = None;
                    self.settling.push(settling);
                }
                Some(done) = self.settling.next() => {
                    self.bytes -= done.bytes;
                    return done;
                }
                else => pending().await,
            }
        }
    }
}

/// Hands a record to the producer, and returns what waits for its outcome.
async fn enqueue(writer: Writer, written: Written, held: Held) -> Settling {
    let Written { topic, record } = written;
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
    let borrowed = Record {
        topic: &topic,
        partition: record.partition,
        timestamp_ms: record.timestamp_ms.unwrap_or_else(now_ms),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers,
    };
    let records = std::slice::from_ref(&borrowed);
    let limits = writer.pipeline.limits(Delivery::Acked, Instant::now() + DELIVERY_TIMEOUT);
    let (enqueued, topics) =
        (batches::enqueue(&writer.pipeline, records, limits).await, Topics::of(records));
    let (reference, bytes) = (record.reference, held.bytes());
    // The producer counts it from now on.
    drop(held);
    // A task of its own: it goes on when the client has left.
    let settling = tokio::spawn(async move {
        let Writer { pipeline, metrics } = writer;
        let outcomes = enqueued.settle(&metrics, &pipeline, Delivery::Acked, &topics).await;
        outcomes.into_iter().next().unwrap_or_else(outcomes::no_outcome)
    });
    Box::pin(async move {
        let outcome = settling.await.unwrap_or_else(|_| outcomes::no_outcome());
        Done { reference, topic, outcome, bytes }
    })
}

impl Done {
    /// The frame that says so, and the status that HTTP has for it.
    pub(super) fn frame(&self) -> Option<Frame<'_>> {
        let (outcome, partition, offset) = match &self.outcome {
            Outcome::Written { partition, offset } => ("written", Some(*partition), *offset),
            Outcome::Queued => ("written", None, None),
            Outcome::NotWritten(_) => ("not_written", None, None),
            Outcome::Unknown(_) => ("unknown", None, None),
        };
        let reason = self.outcome.reason();
        let mismatch = reason.filter(|reason| reason.code == outcome::Code::SchemaMismatch);
        Some(Frame::Produced {
            r#ref: self.reference.as_deref()?,
            outcome,
            status: self.status(),
            topic: &self.topic,
            partition,
            offset,
            error: reason.map(|reason| reason.code.name()),
            message: mismatch.map(|reason| &*reason.detail),
        })
    }

    pub(super) fn status(&self) -> u16 {
        reply::status(&self.outcome)
    }
}

/// Records of a client that have no outcome yet, and their bytes: with more its socket is not read.
const IN_FLIGHT_MAX: usize = 256;
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn where_a_record_does_not_fit_its_schema_is_told_and_no_other_reason() {
        let told = |code| {
            let outcome = Outcome::NotWritten(Reason::new(code, "$.id: it is missing"));
            let reference = Some(RawValue::from_string("1".to_owned()).unwrap());
            let done = Done { reference, topic: "orders".to_owned(), outcome, bytes: 0 };
            serde_json::to_value(done.frame().unwrap()).unwrap()["message"].clone()
        };
        assert_eq!(told(outcome::Code::SchemaMismatch), json!("$.id: it is missing"));
        assert_eq!(told(outcome::Code::RegistryRefused), Value::Null);
    }
}
