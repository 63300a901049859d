//! ConsumerGroupHeartbeat: everything that a member and its coordinator tell each other (KIP-848).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as Owned;
use kafka_protocol::messages::consumer_group_heartbeat_response::TopicPartitions;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupId, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use super::join_group::millis;
use super::{Call, Identity, pause, take_message};
use crate::error::quotable;
use crate::frame::FrameWriter;
use crate::shape::FieldKind::{Fixed, Ints, List, Maybe, Text};
use crate::shape::{Struct, always};
use crate::versions::{Api, CONSUMER_GROUP_HEARTBEAT};

/// I am there, this is what I want, and this is what I have: always all of it, so that a lost answer
/// leaves nothing unsaid.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConsumerGroupHeartbeat {
    pub(crate) group: Arc<str>,
    /// With the member epoch as its generation; 0 joins, −1 leaves.
    pub(crate) identity: Identity,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) topics: Vec<Arc<str>>,
    /// Partitions by topic id.
    pub(crate) owned: Vec<(u128, Vec<i32>)>,
}

/// What the coordinator says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeartbeatAnswer {
    pub(crate) code: i16,
    /// In the words of the broker.
    pub(crate) message: String,
    /// Given by the broker where the member has none.
    pub(crate) member: Option<String>,
    pub(crate) epoch: i32,
    pub(crate) interval: Duration,
    /// What the member is to have, by topic id; `None` if that is as it was.
    pub(crate) assignment: Option<Vec<(u128, Vec<i32>)>>,
}

const PARTITIONS: Struct = Struct {
    fields: &[always(Fixed(16)), always(Ints)],
    tagged: &[],
    memory: size_of::<TopicPartitions>() + size_of::<(u128, Vec<i32>)>(),
};
const ASSIGNMENT: Struct = Struct { fields: &[always(List(&PARTITIONS))], tagged: &[], memory: 0 };
const ANSWER: Struct = Struct {
    fields: &[
        always(Fixed(4)),
        always(Fixed(2)),
        always(Text),
        always(Text),
        always(Fixed(4)),
        always(Fixed(4)),
        always(Maybe(&ASSIGNMENT)),
    ],
    tagged: &[],
    memory: 0,
};

impl Call for ConsumerGroupHeartbeat {
    type Answer = HeartbeatAnswer;
    const API: &'static Api = &CONSUMER_GROUP_HEARTBEAT;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let topics = self.topics.iter().map(|topic| TopicName(text(topic)));
        let owned = self.owned.iter().map(|(id, partitions)| {
            let owned = Owned::default().with_topic_id(Uuid::from_u128(*id));
            owned.with_partitions(partitions.clone())
        });
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&self.identity.member))
            .with_member_epoch(self.identity.generation)
            .with_rebalance_timeout_ms(millis(self.rebalance_timeout))
            .with_subscribed_topic_names(Some(topics.collect()))
            .with_topic_partitions(Some(owned.collect()))
            .encode(frame.tail(), version)
            .map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: ConsumerGroupHeartbeatResponse =
            take_message(Self::API, version, &mut body, &ANSWER)?;
        let assignment = message.assignment.map(|assignment| {
            let topics = assignment.topic_partitions.into_iter();
            topics.map(|it| (it.topic_id.as_u128(), it.partitions)).collect()
        });
        let told = HeartbeatAnswer {
            code: message.error_code,
            message: quotable(&message.error_message.unwrap_or_default()),
            member: message.member_id.map(|it| it.to_string()),
            epoch: message.member_epoch,
            interval: pause(message.heartbeat_interval_ms),
            assignment,
        };
        Ok((told, pause(message.throttle_time_ms)))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::consumer_group_heartbeat_response::Assignment;

    use super::*;
    use crate::calls::{answered, decode, encode};

    fn answer(version: i16, assignment: Option<Vec<TopicPartitions>>) -> Bytes {
        let assignment = assignment.map(|it| Assignment::default().with_topic_partitions(it));
        let response = ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some("a".into()))
            .with_member_epoch(7)
            .with_heartbeat_interval_ms(5000)
            .with_assignment(assignment);
        answered(&CONSUMER_GROUP_HEARTBEAT, version, &response)
    }

    fn assigned() -> Option<Vec<TopicPartitions>> {
        let topic = TopicPartitions::default().with_topic_id(Uuid::from_u128(9));
        Some(vec![topic.with_partitions(vec![0, 3])])
    }

    fn call() -> ConsumerGroupHeartbeat {
        let (group, topics) = ("readers".into(), vec!["orders".into()]);
        let owned = vec![(9, vec![0, 3])];
        ConsumerGroupHeartbeat { group, topics, owned, ..ConsumerGroupHeartbeat::default() }
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in CONSUMER_GROUP_HEARTBEAT.least..=CONSUMER_GROUP_HEARTBEAT.most {
            assert!(encode(&call(), version, 1, "me").is_ok(), "v{version}");
            for (sent, expected) in [(None, None), (assigned(), Some(vec![(9, vec![0, 3])]))] {
                let (got, _) = decode(&call(), version, answer(version, sent)).unwrap();
                assert_eq!((got.epoch, got.interval.as_secs()), (7, 5));
                assert_eq!(got.assignment, expected, "v{version}");
            }
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        let whole = answer(1, assigned());
        for at in 0..whole.len() {
            assert!(decode(&call(), 1, whole.slice(..at)).is_err());
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.to_vec();
                bytes[at] = byte;
                let _ = decode(&call(), 1, bytes.into());
            }
        }
    }
}
