//! Fetch: record batches of partitions from an offset on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use super::epoch_ends::EpochEnd;
use super::produce::LeaderHint;
use super::{Call, by_topic, pause, take_message};
use crate::frame::FrameWriter;
use crate::resolve::{Endpoint, HOST_BYTES};
use crate::shape::FieldKind::{Blob, Fixed, List, One, Text};
use crate::shape::{Field, Struct, always, since};
use crate::versions::{Api, FETCH, FETCH_BY_NAME, FETCH_WITH_IDS};

/// Give me records of these partitions. Without a session (KIP-227): each request says everything.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    /// For how long the broker may wait for `min_bytes`.
    pub(crate) wait: Duration,
    pub(crate) min_bytes: i32,
    /// Bytes of all partitions together; a first batch that is larger comes all the same (KIP-74).
    pub(crate) max_bytes: usize,
    /// Bytes of one partition.
    pub(crate) partition_bytes: usize,
    /// As on the wire: 1 is read_committed.
    pub(crate) isolation: i8,
    /// Empty is none. Brokers know it from version 11 on (KIP-392).
    pub(crate) rack: Arc<str>,
    /// Each once.
    pub(crate) partitions: Vec<FetchAsked>,
}

/// One partition, from an offset on.
#[derive(Debug, Clone)]
pub(crate) struct FetchAsked {
    pub(crate) topic: Arc<str>,
    /// The topic's id; zero if none is known, which only [`FetchByName`] can ask for.
    pub(crate) topic_id: u128,
    pub(crate) partition: i32,
    /// The leader epoch that we know of; −1 if none.
    pub(crate) epoch: i32,
    pub(crate) offset: i64,
    /// The leader epoch of the record before the offset, if it is known. Brokers compare it from
    /// version 12 on (KIP-595).
    pub(crate) last_epoch: Option<i32>,
}

/// As [`Fetch`], for topics without an id: those of clusters that were upgraded from before Kafka 2.8,
/// in any broker's eyes.
#[derive(Debug)]
pub(crate) struct FetchByName(pub(crate) Fetch);

/// The answers, with an error code for all of them.
#[derive(Debug, Default)]
pub(crate) struct FetchAnswer {
    /// 0 before version 7.
    pub(crate) code: i16,
    /// Whether the broker has compared the epochs of the records before the offsets.
    pub(crate) compares_epochs: bool,
    pub(crate) partitions: Vec<FetchFound>,
}

/// What was found in one partition.
#[derive(Debug, Default)]
pub(crate) struct FetchFound {
    /// Its place in [`Fetch::partitions`].
    pub(crate) asked: usize,
    pub(crate) code: i16,
    /// −1 with an error.
    pub(crate) high_watermark: i64,
    /// −1 with an error.
    pub(crate) last_stable: i64,
    /// −1 before version 5, and with an error.
    pub(crate) log_start: i64,
    /// Transactions that were aborted and have records here; only under read_committed.
    pub(crate) aborted: Vec<Aborted>,
    /// The log has other records before the offset than those of the epoch that was given, up to the
    /// end of this epoch at least; there are no records then.
    pub(crate) diverging: Option<EpochEnd>,
    /// Where to read instead (KIP-392).
    pub(crate) replica: Option<i32>,
    /// Where the leader is now (KIP-951).
    pub(crate) leader: Option<LeaderHint>,
    /// Batches, of which the last one may be cut short.
    pub(crate) records: Bytes,
}

/// An aborted transaction of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
}

const ABORTED: Struct = Struct {
    fields: &[always(Fixed(8)), always(Fixed(8))],
    tagged: &[],
    memory: size_of::<AbortedTransaction>() + size_of::<Aborted>(),
};
/// An epoch and an offset, in any order.
const EPOCH_AND_OFFSET: Struct =
    Struct { fields: &[always(Fixed(4)), always(Fixed(8))], tagged: &[], memory: 0 };
/// Its node's address is copied for each partition.
const LEADER: Struct =
    Struct { fields: &[always(Fixed(4)), always(Fixed(4))], tagged: &[], memory: HOST_BYTES };
const PARTITION: Struct = Struct {
    fields: &[
        always(Fixed(4)),
        always(Fixed(2)),
        always(Fixed(8)),
        always(Fixed(8)),
        since(5, Fixed(8)),
        always(List(&ABORTED)),
        since(11, Fixed(4)),
        always(Blob),
    ],
    tagged: &[(0, One(&EPOCH_AND_OFFSET)), (1, One(&LEADER)), (2, One(&EPOCH_AND_OFFSET))],
    memory: size_of::<PartitionData>() + size_of::<FetchFound>(),
};
const TOPIC: Struct = Struct {
    fields: &[
        Field { least: 0, most: FETCH_WITH_IDS - 1, kind: Text },
        since(FETCH_WITH_IDS, Fixed(16)),
        always(List(&PARTITION)),
    ],
    tagged: &[],
    memory: size_of::<FetchableTopicResponse>(),
};
const NODE: Struct = Struct {
    fields: &[always(Fixed(4)), always(Text), always(Fixed(4)), always(Text)],
    tagged: &[],
    memory: size_of::<NodeEndpoint>() + 3 * size_of::<(i32, &NodeEndpoint)>(),
};
const ANSWER: Struct = Struct {
    fields: &[always(Fixed(4)), since(7, Fixed(2)), since(7, Fixed(4)), always(List(&TOPIC))],
    tagged: &[(0, List(&NODE))],
    memory: 0,
};

/// The first version with leader epochs.
const EPOCHS_FROM: i16 = 9;
/// The first version with racks.
const RACKS_FROM: i16 = 11;
/// The first version that compares the epoch of the record before the offset.
const LAST_EPOCHS_FROM: i16 = 12;
/// The last version with the id of a replica that fetches.
const REPLICA_ID_UNTIL: i16 = 14;

impl Call for Fetch {
    type Answer = FetchAnswer;
    const API: &'static Api = &FETCH;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let request = FetchRequest::default()
            .with_max_wait_ms(i32::try_from(self.wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(self.min_bytes)
            .with_max_bytes(int(self.max_bytes))
            .with_isolation_level(self.isolation)
            .with_session_epoch(-1)
            .with_topics(self.topics(version));
        let request = match version {
            RACKS_FROM.. => request.with_rack_id(StrBytes::from_string(self.rack.to_string())),
            _ => request,
        };
        let request = match version {
            ..=REPLICA_ID_UNTIL => request.with_replica_id(BrokerId(-1)),
            _ => request,
        };
        request.encode(frame.tail(), version).map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(FetchAnswer, Duration), String> {
        let message: FetchResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let places = self.partitions.iter().enumerate();
        let places: BTreeMap<_, _> =
            places.map(|(at, asked)| ((asked.name(version), asked.partition), at)).collect();
        let count = message.responses.iter().map(|topic| topic.partitions.len()).sum();
        let mut partitions = Vec::with_capacity(count);
        let nodes = message.node_endpoints.iter().map(|node| (node.node_id.0, node)).collect();
        for topic in message.responses {
            let name = match version {
                FETCH_WITH_IDS.. => TopicKey::Id(topic.topic_id.as_u128()),
                _ => TopicKey::Name(&topic.topic),
            };
            for partition in topic.partitions {
                let place = places.get(&(name, partition.partition_index));
                let asked = *place.ok_or_else(|| {
                    format!("partition {} of {name:?} was not asked for", partition.partition_index)
                })?;
                partitions.push(found(asked, partition, &nodes));
            }
        }
        let compares_epochs = version >= LAST_EPOCHS_FROM;
        let answer = FetchAnswer { code: message.error_code, compares_epochs, partitions };
        Ok((answer, pause(message.throttle_time_ms)))
    }
}

impl Call for FetchByName {
    type Answer = FetchAnswer;
    const API: &'static Api = &FETCH_BY_NAME;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        self.0.put(version, frame)
    }

    fn take(&self, version: i16, body: Bytes) -> Result<(FetchAnswer, Duration), String> {
        self.0.take(version, body)
    }
}

impl Fetch {
    fn topics(&self, version: i16) -> Vec<FetchTopic> {
        let partitions = self.partitions.iter().map(|asked| {
            let partition = FetchPartition::default()
                .with_partition(asked.partition)
                .with_current_leader_epoch(if version >= EPOCHS_FROM { asked.epoch } else { -1 })
                .with_fetch_offset(asked.offset)
                .with_partition_max_bytes(int(self.partition_bytes));
            let partition = match asked.last_epoch.filter(|_| version >= LAST_EPOCHS_FROM) {
                Some(epoch) => partition.with_last_fetched_epoch(epoch),
                None => partition,
            };
            (asked.name(version), partition)
        });
        let topics = by_topic(partitions).into_iter().map(|(name, partitions)| {
            let topic = match name {
                TopicKey::Id(id) => FetchTopic::default().with_topic_id(Uuid::from_u128(id)),
                TopicKey::Name(name) => {
                    let name = TopicName(StrBytes::from_string(name.to_owned()));
                    FetchTopic::default().with_topic(name)
                }
            };
            topic.with_partitions(partitions)
        });
        topics.collect()
    }
}

/// How a version names a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TopicKey<'a> {
    Id(u128),
    Name(&'a str),
}

impl FetchAsked {
    fn name(&self, version: i16) -> TopicKey<'_> {
        match version {
            FETCH_WITH_IDS.. => TopicKey::Id(self.topic_id),
            _ => TopicKey::Name(&self.topic),
        }
    }
}

fn found(
    asked: usize,
    partition: PartitionData,
    nodes: &HashMap<i32, &NodeEndpoint>,
) -> FetchFound {
    let aborted = partition.aborted_transactions.unwrap_or_default();
    let (leader, diverging) = (&partition.current_leader, &partition.diverging_epoch);
    let diverging = EpochEnd { epoch: diverging.epoch, offset: diverging.end_offset };
    let hint = || {
        let node = nodes.get(&leader.leader_id.0);
        LeaderHint {
            id: leader.leader_id.0,
            epoch: leader.leader_epoch,
            endpoint: node.and_then(|node| Endpoint::new(&node.host, node.port)),
        }
    };
    FetchFound {
        asked,
        code: partition.error_code,
        high_watermark: partition.high_watermark,
        last_stable: partition.last_stable_offset,
        log_start: partition.log_start_offset,
        aborted: aborted
            .iter()
            .map(|it| Aborted { producer_id: it.producer_id.0, first_offset: it.first_offset })
            .collect(),
        diverging: Some(diverging).filter(|end| end.offset >= 0),
        replica: Some(partition.preferred_read_replica.0).filter(|id| *id >= 0),
        leader: (leader.leader_id.0 >= 0).then(hint),
        records: partition.records.unwrap_or_default(),
    }
}

fn int(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ProducerId;
    use kafka_protocol::messages::fetch_response::{EpochEndOffset, LeaderIdAndEpoch};

    use super::*;
    use crate::calls::answered;
    use crate::calls::{decode, encode};

    fn call() -> Fetch {
        let asked = |topic: &str, topic_id, partition| FetchAsked {
            topic: topic.into(),
            topic_id,
            partition,
            epoch: 4,
            offset: 9,
            last_epoch: Some(3),
        };
        let partitions = vec![asked("orders", 7, 1), asked("other", 8, 0), asked("orders", 7, 3)];
        Fetch { max_bytes: 1000, rack: "a".into(), partitions, ..Fetch::default() }
    }

    fn answer(version: i16, topic_id: u128) -> Bytes {
        let aborted =
            AbortedTransaction::default().with_producer_id(ProducerId(5)).with_first_offset(6);
        let mut partition = PartitionData::default()
            .with_partition_index(3)
            .with_high_watermark(12)
            .with_last_stable_offset(11)
            .with_aborted_transactions(Some(vec![aborted]))
            .with_records(Some(Bytes::from_static(b"batch")));
        let mut response = FetchResponse::default();
        if version >= 12 {
            let leader =
                LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(7);
            let diverging = EpochEndOffset::default().with_epoch(2).with_end_offset(8);
            partition = partition.with_current_leader(leader).with_diverging_epoch(diverging);
        }
        if version >= 16 {
            let node = NodeEndpoint::default()
                .with_node_id(BrokerId(2))
                .with_host(StrBytes::from_static_str("two"))
                .with_port(9092);
            response = response.with_node_endpoints(vec![node]);
        }
        let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
        let topic = match version {
            FETCH_WITH_IDS.. => topic.with_topic_id(Uuid::from_u128(topic_id)),
            _ => topic.with_topic(TopicName(StrBytes::from_static_str("orders"))),
        };
        answered(&FETCH, version, &response.with_responses(vec![topic]))
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in FETCH.least..=FETCH.most {
            assert!(encode(&call(), version, 1, "me").is_ok(), "v{version}");
            let (got, _) = decode(&call(), version, answer(version, 7)).unwrap();
            let [found] = &got.partitions[..] else { panic!("{got:?}") };
            assert_eq!((found.asked, found.high_watermark, found.last_stable), (2, 12, 11));
            assert_eq!(found.aborted, [Aborted { producer_id: 5, first_offset: 6 }]);
            assert_eq!((&found.records[..], found.replica), (&b"batch"[..], None));
            let endpoint = Endpoint::parse("two:9092").filter(|_| version >= 16);
            let hint = LeaderHint { id: 2, epoch: 7, endpoint };
            let end = (version >= 12).then_some(EpochEnd { epoch: 2, offset: 8 });
            assert_eq!((found.diverging, got.compares_epochs), (end, end.is_some()));
            assert_eq!(found.leader, (version >= 12).then_some(hint), "v{version}");
        }
    }

    #[test]
    fn a_topic_id_that_was_not_asked_for_is_an_error() {
        let error = decode(&call(), 13, answer(13, 9)).unwrap_err().to_string();
        assert!(error.contains("was not asked for"), "{error}");
        assert!(decode(&Fetch::default(), 4, answer(4, 0)).is_err());
    }

    #[test]
    fn a_topic_is_named_once_at_the_place_of_its_first_partition() {
        let shape = |version| {
            let topics = call().topics(version);
            topics.iter().map(|it| (it.topic_id.as_u128(), it.partitions.len())).collect::<Vec<_>>()
        };
        assert_eq!((shape(12), shape(13)), (vec![(0, 2), (0, 1)], vec![(7, 2), (8, 1)]));
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        for version in [4, 11, 12, 17] {
            let whole = answer(version, 7);
            for at in 0..whole.len() {
                assert!(decode(&call(), version, whole.slice(..at)).is_err());
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.to_vec();
                    bytes[at] = byte;
                    let _ = decode(&call(), version, bytes.into());
                }
            }
        }
    }
}
