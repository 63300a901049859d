//! What members tell their leader, and what it gives them, in the bytes of Java's client.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as Assigned;
use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as Owned;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::calls::by_topic;
use crate::limits::TOPIC_NAME_BYTES;
use crate::shape::FieldKind::{Blob, Fixed, Ints, List, Text, Texts};
use crate::shape::{self, Dialect, ShapeError, Struct, always, since};

/// Partitions of topics.
pub(super) type Partitions = BTreeSet<(Arc<str>, i32)>;

/// What a member wants and has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) topics: BTreeSet<Arc<str>>,
    /// Claimed by the member: nothing in an eager rebalance.
    pub(super) owned: Partitions,
    /// In which that was; −1 if it was in none, or the member does not tell.
    pub(super) generation: i32,
}

/// What Java's client 3.5 and later writes: 1 has owned partitions, 2 the generation, 3 the rack.
const VERSION: i16 = 3;
/// Bytes of what `cooperative-sticky` says to leaders that read no version 2: its generation.
const GENERATION_BYTES: usize = 4;

const TOPIC: Struct = Struct {
    fields: &[always(Text), always(Ints)],
    tagged: &[],
    memory: size_of::<Owned>() + TOPIC_NAME_BYTES,
};
const SUBSCRIPTION: Struct = Struct {
    fields: &[
        always(Texts),
        always(Blob),
        since(1, List(&TOPIC)),
        since(2, Fixed(4)),
        since(3, Text),
    ],
    tagged: &[],
    memory: 0,
};
const ASSIGNMENT: Struct =
    Struct { fields: &[always(List(&TOPIC)), always(Blob)], tagged: &[], memory: 0 };

impl Subscription {
    /// With what an assignor adds: `cooperative-sticky` writes the generation twice, for leaders that
    /// know of one place only.
    pub(super) fn write(&self, is_sticky: bool) -> Result<Bytes, String> {
        let name = |name: &str| StrBytes::from_string(name.to_owned());
        let owned = by_topic(self.owned.iter().map(|(topic, partition)| (&**topic, *partition)));
        let owned = owned.into_iter().map(|(topic, partitions)| {
            Owned::default().with_topic(TopicName(name(topic))).with_partitions(partitions)
        });
        let generation = Bytes::copy_from_slice(&self.generation.to_be_bytes());
        let subscription = ConsumerProtocolSubscription::default()
            .with_topics(self.topics.iter().map(|topic| name(topic)).collect())
            .with_user_data(Some(generation).filter(|_| is_sticky))
            .with_owned_partitions(owned.collect())
            .with_generation_id(self.generation)
            .with_rack_id(None);
        with_version(&subscription)
    }

    pub(super) fn read(bytes: &Bytes) -> Result<Self, String> {
        let (version, mut body) = checked(bytes, &SUBSCRIPTION)?;
        let said = ConsumerProtocolSubscription::decode(&mut body, version)
            .map_err(|error| error.to_string())?;
        let mut owned = Partitions::new();
        for claimed in &said.owned_partitions {
            add(&mut owned, &claimed.topic, &claimed.partitions)?;
        }
        let mut user_data = said.user_data.unwrap_or_default();
        let generation = match version {
            2.. => said.generation_id,
            _ if user_data.len() == GENERATION_BYTES => user_data.get_i32(),
            _ => -1,
        };
        let topics = said.topics.iter().map(|topic| Arc::from(&**topic)).collect();
        Ok(Self { topics, owned, generation })
    }
}

/// What the leader gives a member.
pub(super) fn write_assignment(partitions: &Partitions) -> Result<Bytes, String> {
    let topics = by_topic(partitions.iter().map(|(topic, partition)| (&**topic, *partition)));
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        Assigned::default().with_topic(name).with_partitions(partitions)
    });
    with_version(&ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect()))
}

/// No bytes at all are no partitions.
pub(super) fn read_assignment(bytes: &Bytes) -> Result<Partitions, String> {
    let mut partitions = Partitions::new();
    if bytes.is_empty() {
        return Ok(partitions);
    }
    let (version, mut body) = checked(bytes, &ASSIGNMENT)?;
    let given = ConsumerProtocolAssignment::decode(&mut body, version)
        .map_err(|error| error.to_string())?;
    for topic in &given.assigned_partitions {
        add(&mut partitions, &topic.topic, &topic.partitions)?;
    }
    Ok(partitions)
}

fn add(partitions: &mut Partitions, topic: &TopicName, indexes: &[i32]) -> Result<(), String> {
    if topic.len() > TOPIC_NAME_BYTES {
        return Err(format!("a topic's name of {} bytes", topic.len()));
    }
    let name: Arc<str> = Arc::from(&*topic.0);
    partitions.extend(indexes.iter().map(|index| (name.clone(), *index)));
    Ok(())
}

fn with_version(message: &impl Encodable) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    message.encode(&mut bytes, VERSION).map_err(|error| error.to_string())?;
    Ok(bytes.freeze())
}

/// The version to read and the bytes behind it, without what a later version has added.
fn checked(bytes: &Bytes, table: &Struct) -> Result<(i16, Bytes), String> {
    let mut body = bytes.clone();
    let version = body.try_get_i16().map_err(|error| error.to_string())?;
    if version < 0 {
        return Err(format!("version {version}"));
    }
    let version = version.min(VERSION);
    match shape::check(&body, table, Dialect { version, flexible: false }) {
        Ok(()) => {}
        Err(ShapeError::LeftOver(bytes)) => body.truncate(body.len().saturating_sub(bytes)),
        Err(error) => return Err(error.to_string()),
    }
    Ok((version, body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partitions(all: &[(&str, i32)]) -> Partitions {
        all.iter().map(|(topic, partition)| (Arc::from(*topic), *partition)).collect()
    }

    fn sample() -> Subscription {
        let topics = ["orders", "payments"].into_iter().map(Arc::from).collect();
        let owned = partitions(&[("orders", 0), ("orders", 2), ("payments", 1)]);
        Subscription { topics, owned, generation: 7 }
    }

    #[test]
    fn what_is_written_is_read() {
        for is_sticky in [false, true] {
            let bytes = sample().write(is_sticky).unwrap();
            assert_eq!(Subscription::read(&bytes), Ok(sample()));
        }
        let given = partitions(&[("orders", 1), ("payments", 0)]);
        assert_eq!(read_assignment(&write_assignment(&given).unwrap()), Ok(given));
        assert_eq!(read_assignment(&Bytes::new()), Ok(Partitions::new()));
    }

    /// As `ConsumerProtocol.serializeSubscription` of Kafka 3.9 writes version 3, byte by byte.
    #[test]
    fn the_bytes_are_those_of_javas_client() {
        let topics = [Arc::from("t")].into_iter().collect();
        let subscription = Subscription { topics, owned: partitions(&[("t", 5)]), generation: 2 };
        let java = [
            &[0, 3][..],
            &[0, 0, 0, 1, 0, 1, b't'],
            &[0, 0, 0, 4, 0, 0, 0, 2],
            &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 5],
            &[0, 0, 0, 2],
            &[0xff, 0xff],
        ];
        assert_eq!(subscription.write(true).unwrap(), java.concat());
        let given = [
            &[0, 3][..],
            &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 5],
            &[0xff, 0xff, 0xff, 0xff],
        ];
        assert_eq!(write_assignment(&partitions(&[("t", 5)])).unwrap(), given.concat());
    }

    #[test]
    fn older_and_newer_members_are_understood() {
        let oldest = [&[0, 0][..], &[0, 0, 0, 1, 0, 1, b't'], &[0, 0, 0, 4, 0, 0, 0, 9]].concat();
        let read = Subscription::read(&oldest.into()).unwrap();
        assert_eq!((read.topics.len(), read.owned.len(), read.generation), (1, 0, 9));
        let mut newer = sample().write(false).unwrap().to_vec();
        newer[1] = 9;
        newer.extend_from_slice(b"what is to come");
        assert_eq!(Subscription::read(&newer.into()), Ok(sample()));
        assert!(Subscription::read(&Bytes::new()).is_err());
        assert!(Subscription::read(&Bytes::from_static(&[0xff, 0xff])).is_err());
    }

    proptest! {
        #[test]
        fn what_other_members_say_never_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..60), version in 0i16..5,
        ) {
            bytes.splice(0..0, version.to_be_bytes());
            let bytes = Bytes::from(bytes);
            let _ = Subscription::read(&bytes);
            let _ = read_assignment(&bytes);
        }
    }
}
