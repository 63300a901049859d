//! What the commands do: an offset by time, and the records from an offset on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_client::{At, ReadError, Reason, Stage, StoredRecord};
use tokio::time::{Instant, timeout, timeout_at};

use super::messages::{
    CmdKafkaFetch, CmdKafkaListOffset, KafkaFetchResp, KafkaListOffsetResp, KafkaMessage,
};
use crate::consume::envelope;
use crate::consume::hub::{Topic, Wanted, is_unknown_topic};
use crate::consume::memory::Held;
use crate::consume::reader::FeedReader;
use crate::consume::selection::Selected;
use crate::consume::topic_log::{Look, Segment, Stored};
use crate::limits::{FEED_KNOWN, FEED_PAGE_CHUNK_BYTES, FEED_PATIENCE, FEED_QUIET};

/// What stands behind `err:` in the reply.
type Why = String;

/// The first offset of a time.
pub(super) async fn list_offset(
    reader: &FeedReader,
    command: CmdKafkaListOffset,
) -> Result<KafkaListOffsetResp, Why> {
    let topic = topic(reader, &command.topic, command.partition).await?;
    let offset = async |at| {
        let found = reader.hub.offsets(&topic, &[command.partition], at, FEED_PATIENCE).await;
        let found = found.into_iter().next().unwrap_or(Err(Reason::NoLeader));
        found.map_err(|reason| why(reader, &reason))
    };
    let offset = match command.timestamp {
        -1 => offset(At::Latest).await?,
        -2 => offset(At::Earliest).await?,
        ms @ 0.. => {
            let first = offset(At::Time(ms)).await?;
            // Where no record is of this time or later, it is the log end.
            if first >= offset(At::Latest).await? { -1 } else { first }
        }
        _ => return Err(INVALID_TIMESTAMP.to_owned()),
    };
    Ok(KafkaListOffsetResp { offset })
}

/// Records from an offset on: as many as fit in a reply, fewer while many wait to be sent, and none only
/// at the log end; with memory for them.
pub(super) async fn fetch(
    reader: &Arc<FeedReader>,
    command: CmdKafkaFetch,
) -> Result<(KafkaFetchResp, Held), Why> {
    let CmdKafkaFetch { topic: name, partition, offset } = command;
    let topic = topic(reader, &name, partition).await?;
    let answers = &reader.hub.resources.answers;
    let most = reader.feed.pubsub_reply_bytes.min(answers.share());
    let mut bytes = most;
    loop {
        let Ok(room) = timeout(FEED_PATIENCE, answers.wait_for(bytes, || {})).await else {
            return Err(REQUEST_TIMED_OUT.to_owned());
        };
        let topic = Arc::clone(&topic);
        let mut reading =
            Reading { reader, topic, partition, next: offset, messages: vec![], bytes: 0, most };
        let read = timeout(SCAN_TIMEOUT, reading.read()).await;
        let error = match read {
            Ok(read) => read.err(),
            Err(_) => Some(REQUEST_TIMED_OUT.to_owned()),
        };
        if let Some(error) = error.filter(|_| reading.messages.is_empty()) {
            return Err(error);
        }
        drop(room);
        if let Some(held) = answers.try_hold(reading.bytes) {
            return Ok((KafkaFetchResp { messages: reading.messages }, held));
        }
        // A record that has more bytes is read again once there is room: who waits keeps nothing.
        bytes = reading.bytes;
    }
}

/// A topic of the feed that has the partition.
async fn topic(reader: &FeedReader, name: &str, partition: i32) -> Result<Arc<Topic>, Why> {
    // In the same words whether it exists or not.
    if !reader.feed.topics.has(name) {
        return Err(TOPIC_AUTHORIZATION_FAILED.to_owned());
    }
    match reader.may_exist(name).await {
        Ok(true) => {}
        Ok(false) => return Err(NO_TOPIC.to_owned()),
        Err(_) => return Err(unavailable(reader)),
    }
    let topic = reader.hub.topic(name);
    let known = reader.hub.known(&topic, FEED_KNOWN, FEED_PATIENCE).await;
    let known = known.map_err(|reason| why(reader, &reason))?;
    match (0..known.partitions).contains(&partition) {
        true => Ok(topic),
        false => Err(NO_PARTITION.to_owned()),
    }
}

/// A reply in the making.
struct Reading<'a> {
    reader: &'a Arc<FeedReader>,
    topic: Arc<Topic>,
    partition: i32,
    next: i64,
    messages: Vec<KafkaMessage>,
    bytes: usize,
    /// Bytes that they may have, unless one alone has more.
    most: usize,
}

impl Reading<'_> {
    async fn read(&mut self) -> Result<(), Why> {
        let mut changed = self.topic.log.subscribe();
        let mut end_of_wait = None;
        let mut wait = async || {
            let until = *end_of_wait.get_or_insert(Instant::now() + FEED_QUIET);
            timeout_at(until, changed.changed()).await.is_ok()
        };
        while self.messages.is_empty() || self.bytes < self.most {
            let look = self.topic.log.lock().look(None, self.partition, (self.next, None));
            let segment = match look {
                Look::Here(segment) => segment,
                Look::Failing => return Err(unavailable(self.reader)),
                Look::End => {
                    if self.messages.is_empty() && wait().await {
                        continue;
                    }
                    break;
                }
                Look::Behind | Look::BeingRead => self.read_from_kafka().await?,
            };
            let is_nothing = segment.next == self.next;
            if !self.take(&segment).await? || (is_nothing && !wait().await) {
                break;
            }
        }
        Ok(())
    }

    async fn read_from_kafka(&self) -> Result<Arc<Segment>, Why> {
        let (topic, partition, next) = (Arc::clone(&self.topic), self.partition, self.next);
        let wanted = Wanted { topic, partition, next, epoch: None, place: 0 };
        let answers = self.reader.hub.read(vec![wanted], FEED_PAGE_CHUNK_BYTES).await;
        match answers.into_iter().next() {
            Some((_, Ok(segment))) => Ok(segment),
            Some((_, Err(error))) => Err(match &error {
                ReadError::OutOfRange { .. }
                | ReadError::Truncated { .. }
                | ReadError::Recreated => OFFSET_OUT_OF_RANGE.to_owned(),
                ReadError::TooLarge { .. } => RECORD_TOO_LARGE.to_owned(),
                ReadError::Unreadable { .. } => CORRUPT_MESSAGE.to_owned(),
                ReadError::Refused(reason) | ReadError::Unavailable(reason) => {
                    why(self.reader, reason)
                }
                other => other.to_string(),
            }),
            None => Err(REQUEST_TIMED_OUT.to_owned()),
        }
    }

    /// Takes what fits of a segment. Returns whether there may be room for more.
    async fn take(&mut self, segment: &Segment) -> Result<bool, Why> {
        let at = segment.place_of(self.next);
        let of_topic = (&*self.topic.log.name, self.partition, segment);
        let (end, waiting) = self.reader.decided(of_topic, at, usize::MAX);
        for stored in segment.records.get(at..end).unwrap_or_default() {
            if let Some(message) = self.message(stored)? {
                let bytes = MESSAGE_OVERHEAD + message.key.len() + message.value.len();
                if !self.messages.is_empty() && self.bytes + bytes > self.most {
                    return Ok(false);
                }
                self.bytes += bytes;
                self.messages.push(message);
            }
            self.next = stored.record.offset + 1;
        }
        let Some(waiting) = waiting else {
            if end == segment.records.len() {
                self.next = segment.next;
            }
            return Ok(true);
        };
        if !self.messages.is_empty() {
            // What is before the record is not held back.
            return Ok(false);
        }
        let of = waiting.waits_for();
        if !waiting.done().await {
            let refusal = self.reader.late(of);
            return Err(refusal.map_or_else(String::new, |refusal| refusal.message));
        }
        Ok(true)
    }

    /// What the reader gets of a record; none where the feed's filter leaves it out.
    fn message(&self, stored: &Stored) -> Result<Option<KafkaMessage>, Why> {
        let Stored { record, .. } = stored;
        let mut key = record.key.clone();
        let value = match self.reader.select(&self.topic.log.name, self.partition, stored) {
            Selected::Nothing | Selected::Skipped(_) | Selected::DeadLetter(_) => return Ok(None),
            Selected::Stop(reason) | Selected::Error(reason) => return Err(reason.to_owned()),
            Selected::Changed { key: changed, value } => {
                key = changed.or(key);
                match value {
                    Some(value) => value.bytes,
                    None => self.own_value(record)?,
                }
            }
            Selected::Whole => self.own_value(record)?,
        };
        Ok(Some(KafkaMessage {
            offset: record.offset,
            timestamp: record.timestamp_ms,
            key: key.unwrap_or_default(),
            value: value.unwrap_or_default(),
        }))
    }

    /// The record's own value, without what the feed leaves out.
    fn own_value(&self, record: &StoredRecord) -> Result<Option<Bytes>, Why> {
        let headers: Vec<_> = record.headers.iter().collect();
        let whole = envelope::Record::of(&self.topic.log.name, self.partition, record, &headers);
        if envelope::is_too_large(&whole, &self.reader.feed) {
            return Err(RECORD_TOO_LARGE.to_owned());
        }
        let value = envelope::value(&whole, &self.reader.feed).unwrap_or_default();
        Ok(record.value.as_ref().map(|bytes| bytes.slice(bytes.len() - value.len()..)))
    }
}

/// The name of a reason, as Kafka has it where it has one.
fn why(reader: &FeedReader, reason: &Reason) -> Why {
    match reason {
        reason if is_unknown_topic(reason) => NO_TOPIC.to_owned(),
        Reason::NoSuchPartition { .. } => NO_PARTITION.to_owned(),
        Reason::Refused { name, .. } | Reason::Unauthorized { name, .. } => (*name).to_owned(),
        _ => unavailable(reader),
    }
}

/// Why no broker answers, by the first stage of a connection that fails.
fn unavailable(reader: &FeedReader) -> Why {
    let stages = reader.hub.client.faults().into_iter().map(|fault| fault.stage);
    match stages.min() {
        Some(Stage::Tls) => "TLS_HANDSHAKE_FAILED",
        Some(Stage::Mechanism | Stage::Credential) => "SASL_AUTHENTICATION_FAILED",
        Some(Stage::Name | Stage::Tcp) => "BROKER_NOT_AVAILABLE",
        _ => REQUEST_TIMED_OUT,
    }
    .to_owned()
}

/// Bytes of a message beside its key and value, at most.
const MESSAGE_OVERHEAD: usize = 40;
/// How long records are passed that the feed's filter leaves out.
const SCAN_TIMEOUT: Duration = Duration::from_secs(30);
const NO_TOPIC: &str = "not found topic";
const NO_PARTITION: &str = "not found partition";
const TOPIC_AUTHORIZATION_FAILED: &str = "TOPIC_AUTHORIZATION_FAILED";
const OFFSET_OUT_OF_RANGE: &str = "OFFSET_OUT_OF_RANGE";
const RECORD_TOO_LARGE: &str = "RECORD_TOO_LARGE";
const CORRUPT_MESSAGE: &str = "CORRUPT_MESSAGE";
const INVALID_TIMESTAMP: &str = "INVALID_TIMESTAMP";
const REQUEST_TIMED_OUT: &str = "REQUEST_TIMED_OUT";
