//! Fetch: record batches as they were appended, within the limits of KIP-74.
//!
//! There are no fetch sessions (KIP-227): each answer has session id 0, so that clients ask for
//! everything each time.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    PartitionData,
};
use kafka_protocol::messages::{BrokerId, ProducerId};

use super::faults::{Fault, Trace};
use super::log::Read;
use super::state::{ClusterState, FakePartition};

/// A Fetch request at a broker.
pub(super) struct Fetch<'a> {
    pub(super) broker: i32,
    pub(super) version: i16,
    pub(super) request: &'a FetchRequest,
    pub(super) fault: Option<&'a Fault>,
}

/// What a Fetch finds at one time.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    code: i16,
    topics: Vec<FoundTopic>,
    bytes: usize,
    /// Whether waiting for more bytes cannot help.
    is_final: bool,
}

#[derive(Debug)]
struct FoundTopic {
    answer: FetchableTopicResponse,
    partitions: Vec<(PartitionData, Vec<Bytes>)>,
}

/// What an answer has still budget for.
struct ByteBudget {
    bytes: usize,
    /// Whether a batch may be larger than the budget: only the first one of an answer, so that a
    /// reader always gets on (KIP-74).
    takes_one: bool,
}

/// Largest answer, bytes, but for a first batch that is larger (`fetch.max.bytes`). Brokers have
/// 55 MiB by default; here every connection may hold as much.
const FETCH_BYTES: usize = 8 * 1024 * 1024;

/// The first version with an error code for the whole answer, and with sessions.
const SESSIONS_FROM: i16 = 7;
/// The first version that names topics by their id.
const TOPIC_IDS_FROM: i16 = 13;
/// The first version with racks (KIP-392).
const RACKS_FROM: i16 = 11;
/// The first version that tells where a log begins.
const LOG_START_FROM: i16 = 5;

/// The isolation level in which records of open and aborted transactions are hidden.
pub(super) const READ_COMMITTED: i8 = 1;

/// The first version that tells who leads now.
const HINTS_FROM: i16 = 12;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const UNKNOWN_TOPIC_ID: i16 = 100;

impl Fetch<'_> {
    /// How long the client lets the broker wait for `min_bytes`.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.request.max_wait_ms).unwrap_or(0))
    }

    /// Whether the client would rather wait than have this.
    pub(super) fn wants_more(&self, found: &Fetched) -> bool {
        let wanted = self.request.min_bytes.min(self.request.max_bytes);
        found.bytes < usize::try_from(wanted).unwrap_or(0) && !found.is_final
    }

    /// What there is now.
    pub(super) fn look(&self, state: &ClusterState) -> Fetched {
        let refused = match self.fault {
            Some(Fault::Refuse { code, trace: Trace::Nothing }) => *code,
            _ => 0,
        };
        let has_codes = self.version >= SESSIONS_FROM;
        let code = match refused {
            // A session that was never opened; 0 would open one, −1 needs none.
            0 if self.request.session_epoch > 0 => FETCH_SESSION_ID_NOT_FOUND,
            code => code,
        };
        if code != 0 && has_codes {
            return Fetched { code, is_final: true, ..Fetched::default() };
        }
        let most = usize::try_from(self.request.max_bytes).unwrap_or(0).min(FETCH_BYTES);
        let mut budget = ByteBudget { bytes: most, takes_one: true };
        let mut found = Fetched::default();
        for topic in &self.request.topics {
            let found_topic = self.topic(state, topic, refused, &mut budget, &mut found);
            found.topics.push(found_topic);
        }
        found.is_final |= found.topics.is_empty();
        found
    }

    fn topic(
        &self,
        state: &ClusterState,
        topic: &FetchTopic,
        refused: i16,
        budget: &mut ByteBudget,
        found: &mut Fetched,
    ) -> FoundTopic {
        let answer = FetchableTopicResponse::default();
        let (name, unknown, answer) = if self.version >= TOPIC_IDS_FROM {
            let name = state.topic_of(topic.topic_id.as_u128());
            (name, UNKNOWN_TOPIC_ID, answer.with_topic_id(topic.topic_id))
        } else {
            let name = Some(topic.topic.as_str());
            (name, UNKNOWN_TOPIC_OR_PARTITION, answer.with_topic(topic.topic.clone()))
        };
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let partition = match (refused, name) {
                (0, None) => Err(unknown),
                (0, Some(name)) => {
                    state.readable(self.broker, name, asked.partition, asked.current_leader_epoch)
                }
                (code, _) => Err(code),
            };
            let read = partition.and_then(|partition| self.read(budget, partition, asked));
            match &read {
                Ok((_, read)) => {
                    found.bytes += read.bytes;
                    found.is_final |= read.is_cut;
                }
                Err(_) => found.is_final = true,
            }
            let (mut told, batches) = self.told(asked, read);
            if let (NOT_LEADER_OR_FOLLOWER, Some(name)) = (told.error_code, name) {
                told.current_leader = self.hint(state, name, asked.partition);
            }
            partitions.push((told, batches));
        }
        FoundTopic { answer, partitions }
    }

    /// The answer that tells what was found.
    pub(super) fn answer(&self, found: Fetched) -> FetchResponse {
        let mut topics = Vec::new();
        for FoundTopic { answer, partitions } in found.topics {
            let told = |(answer, batches): (PartitionData, Vec<Bytes>)| {
                answer.with_records(Some(joined(batches)))
            };
            topics.push(answer.with_partitions(partitions.into_iter().map(told).collect()));
        }
        if self.fault == Some(&Fault::MissingPartition)
            && let Some(last) = topics.last_mut()
        {
            last.partitions.pop();
        }
        FetchResponse::default().with_error_code(found.code).with_responses(topics)
    }
}

impl Fetch<'_> {
    fn is_committed(&self) -> bool {
        self.request.isolation_level == READ_COMMITTED
    }

    /// Who leads now (KIP-951), as far as the broker says so.
    fn hint(&self, state: &ClusterState, topic: &str, partition: i32) -> LeaderIdAndEpoch {
        let leader = state.partition(topic, partition).map(|found| found.leadership.now());
        match leader.and_then(|leader| Some((leader.id?, leader.epoch))) {
            Some((id, epoch)) if state.settings.leader_hints && self.version >= HINTS_FROM => {
                LeaderIdAndEpoch::default().with_leader_id(BrokerId(id)).with_leader_epoch(epoch)
            }
            _ => LeaderIdAndEpoch::default(),
        }
    }

    /// Where a reader with a rack is to read instead.
    fn preferred(&self, partition: &FakePartition) -> Option<i32> {
        let has_rack = self.version >= RACKS_FROM && !self.request.rack_id.is_empty();
        partition.preferred.filter(|replica| has_rack && *replica != self.broker)
    }

    fn read<'a>(
        &self,
        budget: &mut ByteBudget,
        partition: &'a FakePartition,
        asked: &FetchPartition,
    ) -> Result<(&'a FakePartition, Read), i16> {
        if let Some(diverging) = self.diverging(partition, asked)? {
            let read = Read { is_cut: true, diverging: Some(diverging), ..Read::default() };
            return Ok((partition, read));
        }
        let log = &partition.log;
        let until = if self.is_committed() { log.last_stable() } else { log.end() };
        let read = budget.read(partition, asked, until)?;
        if self.preferred(partition).is_some() {
            return Ok((partition, Read { is_cut: true, ..Read::default() }));
        }
        Ok((partition, read))
    }

    /// The end of the epoch of the record before the offset that is asked for, if the log has another
    /// one there (KIP-595); or the code of the refusal.
    fn diverging(
        &self,
        partition: &FakePartition,
        asked: &FetchPartition,
    ) -> Result<Option<(i32, i64)>, i16> {
        let epoch = asked.last_fetched_epoch;
        if epoch < 0 {
            return Ok(None);
        }
        let end = partition.log.epoch_end(epoch, partition.leadership.now().epoch);
        let (found, offset) = end.ok_or(OFFSET_OUT_OF_RANGE)?;
        Ok(Some((found, offset)).filter(|_| found < epoch || offset < asked.fetch_offset))
    }

    fn told(
        &self,
        asked: &FetchPartition,
        read: Result<(&FakePartition, Read), i16>,
    ) -> (PartitionData, Vec<Bytes>) {
        let answer = PartitionData::default().with_partition_index(asked.partition);
        let (partition, read) = match read {
            Ok(read) => read,
            Err(code) => {
                return (answer.with_error_code(code).with_high_watermark(-1), Vec::new());
            }
        };
        let log = &partition.log;
        let answer = answer
            .with_high_watermark(log.end())
            .with_last_stable_offset(log.last_stable())
            .with_log_start_offset(if self.version >= LOG_START_FROM { log.start() } else { -1 })
            .with_preferred_read_replica(BrokerId(self.preferred(partition).unwrap_or(-1)));
        let aborted = self.is_committed().then(|| {
            let ranges = log.transactions.aborted(asked.fetch_offset, log.last_stable());
            let aborted = ranges.into_iter().map(|range| {
                AbortedTransaction::default()
                    .with_producer_id(ProducerId(range.producer_id))
                    .with_first_offset(range.first)
            });
            aborted.collect()
        });
        let answer = match read.diverging {
            Some((epoch, end_offset)) => {
                let end = EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset);
                answer.with_diverging_epoch(end)
            }
            None => answer,
        };
        (answer.with_aborted_transactions(aborted), read.batches)
    }
}

impl ByteBudget {
    /// Reads as much as there is budget for, up to an offset, and takes it off.
    fn read(
        &mut self,
        partition: &FakePartition,
        asked: &FetchPartition,
        until: i64,
    ) -> Result<Read, i16> {
        let most = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(self.bytes);
        let read = partition.log.read(asked.fetch_offset, until, most, self.takes_one);
        let read = read.ok_or(OFFSET_OUT_OF_RANGE)?;
        self.bytes = self.bytes.saturating_sub(read.bytes);
        self.takes_one &= read.batches.is_empty();
        Ok(read)
    }
}

/// All batches in one piece, which is copied only if they are many.
fn joined(mut batches: Vec<Bytes>) -> Bytes {
    if batches.len() < 2 {
        return batches.pop().unwrap_or_default();
    }
    let mut bytes = BytesMut::with_capacity(batches.iter().map(Bytes::len).sum());
    batches.iter().for_each(|batch| bytes.put_slice(batch));
    bytes.freeze()
}
