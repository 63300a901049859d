//! OffsetForLeaderEpoch: where the records of a leader epoch end (KIP-320).

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::state::ClusterState;

/// A broker's answer; every partition is refused with `code` unless it is 0.
pub(super) fn answer(
    state: &ClusterState,
    broker: i32,
    request: &OffsetForLeaderEpochRequest,
    code: i16,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let find = |asked| match code {
            0 => find(state, broker, &topic.topic, asked),
            code => Err(code),
        };
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            match find(asked) {
                Err(code) => answer.with_error_code(code),
                Ok(None) => answer,
                Ok(Some((epoch, end))) => answer.with_leader_epoch(epoch).with_end_offset(end),
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn find(
    state: &ClusterState,
    broker: i32,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<(i32, i64)>, i16> {
    let partition = state.readable(broker, topic, asked.partition, asked.current_leader_epoch)?;
    let now = partition.leadership.now().epoch;
    Ok(partition.log.epoch_end(asked.leader_epoch, now))
}
