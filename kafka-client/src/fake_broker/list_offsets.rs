//! ListOffsets: where a log begins and ends, and which record was the first at a time.

use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::fetch::READ_COMMITTED;
use super::log::Found;
use super::state::{ClusterState, FakePartition};

/// A ListOffsets request at a broker.
pub(super) struct ListOffsets<'a> {
    pub(super) state: &'a ClusterState,
    pub(super) broker: i32,
    pub(super) version: i16,
    /// Refuses every partition, unless it is 0.
    pub(super) code: i16,
}

/// Offsets that are asked for in place of a timestamp.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// What is on this broker and not in tiered storage (KIP-405): here that is everything.
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The first version whose answers have a leader epoch.
const EPOCHS_FROM: i16 = 4;

const UNSUPPORTED_VERSION: i16 = 35;

impl ListOffsets<'_> {
    pub(super) fn answer(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = request.topics.iter().map(|topic| {
            let name = topic.name.as_str();
            let is_committed = request.isolation_level == READ_COMMITTED;
            let partitions = topic.partitions.iter();
            let partitions = partitions.map(|asked| self.partition(name, asked, is_committed));
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    fn partition(
        &self,
        topic: &str,
        asked: &ListOffsetsPartition,
        is_committed: bool,
    ) -> ListOffsetsPartitionResponse {
        let (index, epoch) = (asked.partition_index, asked.current_leader_epoch);
        let readable = if self.code == 0 {
            self.state.readable(self.broker, topic, index, epoch)
        } else {
            Err(self.code)
        };
        let answer = ListOffsetsPartitionResponse::default().with_partition_index(index);
        match readable.and_then(|partition| find(partition, asked.timestamp, is_committed)) {
            Err(code) => answer.with_error_code(code),
            Ok(None) => answer,
            Ok(Some(found)) => {
                let answer = answer.with_offset(found.offset).with_timestamp(found.timestamp_ms);
                let epoch = if self.version >= EPOCHS_FROM { found.leader_epoch } else { -1 };
                answer.with_leader_epoch(epoch)
            }
        }
    }
}

/// The place that is asked for, if there is one; or the code of a refusal.
fn find(
    partition: &FakePartition,
    timestamp: i64,
    is_committed: bool,
) -> Result<Option<Found>, i16> {
    let (log, now) = (&partition.log, partition.leadership.now().epoch);
    let place = |offset, leader_epoch| Found { offset, timestamp_ms: -1, leader_epoch };
    let end = if is_committed { log.last_stable() } else { log.end() };
    match timestamp {
        LATEST => Ok(Some(place(end, now))),
        EARLIEST | EARLIEST_LOCAL => Ok(Some(place(log.start(), log.first_epoch().unwrap_or(now)))),
        MAX_TIMESTAMP => Ok(log.newest()),
        LATEST_TIERED => Ok(None),
        0.. => Ok(log.since(timestamp).filter(|found| found.offset < end)),
        _ => Err(UNSUPPORTED_VERSION),
    }
}
