//! Everything a fake cluster knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::faults::{Fault, Faults};
use super::group_state::Groups;
use super::leadership::Leadership;
use super::log::Log;
use super::requests::{
    API_VERSIONS, CONSUMER_GROUP_HEARTBEAT, FETCH, FIND_COORDINATOR, HEARTBEAT, INIT_PRODUCER_ID,
    JOIN_GROUP, LEAVE_GROUP, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH,
    OFFSET_FOR_LEADER_EPOCH, PRODUCE, SASL_AUTHENTICATE, SASL_HANDSHAKE, SYNC_GROUP,
};
use super::settings::FakeSettings;
use crate::record_batch::BatchHeader;

/// A Produce request's batch that reached a broker.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When it was executed.
    pub at: Instant,
    /// Who executed it.
    pub broker: i32,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// As in the request.
    pub acks: i16,
    /// The batch as it was on the wire.
    pub batch: Bytes,
    /// Its header, if it has one that can be read.
    pub header: Option<BatchHeader>,
    /// What the broker did with it.
    pub fate: Fate,
}

/// What a broker did with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Appended at this offset.
    Appended(i64),
    /// It was in the log already, at this offset.
    Duplicate(i64),
    /// Refused with this code; nothing was appended.
    Refused(i16),
    /// Not executed.
    Dropped,
}

#[derive(Debug)]
pub(super) struct ClusterState {
    pub(super) settings: FakeSettings,
    pub(super) cluster_id: String,
    /// Addresses that lead to a broker and that it does not advertise.
    pub(super) aliases: BTreeMap<(String, u16), i32>,
    /// Hosts that nothing comes back from, and our ends of the streams to them.
    pub(super) silent: BTreeMap<String, Vec<DuplexStream>>,
    pub(super) dice: Dice,
    pub(super) faults: Faults,
    pub(super) brokers: BTreeMap<i32, Broker>,
    pub(super) topics: BTreeMap<String, FakeTopic>,
    /// How many were deleted: ids begin with that, so that one of the same name has another beginning.
    pub(super) deleted: u32,
    pub(super) groups: Groups,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) requests: BTreeMap<i16, u64>,
    pub(super) connections: usize,
    /// Clients that were made so far.
    pub(super) clients: u64,
    /// Brokers that were sent something while their client had been told to pause.
    pub(super) impatient: Vec<i32>,
    pub(super) next_producer_id: i64,
    /// Wakes each Fetch that waits, whenever a log or its leader has changed.
    pub(super) changed: Arc<Notify>,
}

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) host: String,
    pub(super) port: u16,
    /// Least and most version of each API that it advertises.
    pub(super) versions: BTreeMap<i16, (i16, i16)>,
    /// Ends its connections; `None` while it is down.
    running: Option<CancellationToken>,
}

#[derive(Debug)]
pub(super) struct FakeTopic {
    pub(super) id: u128,
    pub(super) partitions: Vec<FakePartition>,
}

#[derive(Debug)]
pub(super) struct FakePartition {
    pub(super) leadership: Leadership,
    pub(super) log: Log,
    /// Where readers with a rack are sent.
    pub(super) preferred: Option<i32>,
}

/// What a broker of Kafka 4 advertises: versions below the least that it executes included
/// (KAFKA-18659).
const ADVERTISED: [(i16, (i16, i16)); 17] = [
    (PRODUCE, (0, 12)),
    (FETCH, (4, 18)),
    (LIST_OFFSETS, (1, 10)),
    (METADATA, (0, 13)),
    (OFFSET_COMMIT, (2, 9)),
    (OFFSET_FETCH, (1, 9)),
    (FIND_COORDINATOR, (0, 4)),
    (SASL_HANDSHAKE, (0, 1)),
    (API_VERSIONS, (0, 4)),
    (INIT_PRODUCER_ID, (0, 5)),
    (OFFSET_FOR_LEADER_EPOCH, (2, 4)),
    (SASL_AUTHENTICATE, (0, 2)),
    (JOIN_GROUP, (2, 9)),
    (HEARTBEAT, (0, 4)),
    (LEAVE_GROUP, (0, 5)),
    (SYNC_GROUP, (0, 5)),
    (CONSUMER_GROUP_HEARTBEAT, (0, 1)),
];

/// Versions that are advertised for old clients' sake and refused.
const EXECUTED_FROM: [(i16, i16); 1] = [(PRODUCE, 3)];

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;

impl ClusterState {
    pub(super) fn new(settings: FakeSettings) -> Self {
        Self {
            cluster_id: "fake".to_owned(),
            aliases: BTreeMap::new(),
            silent: BTreeMap::new(),
            dice: Dice::new(settings.seed),
            faults: Faults::default(),
            brokers: (1..=settings.brokers).map(|id| (id, Broker::new(id))).collect(),
            topics: BTreeMap::new(),
            deleted: 0,
            groups: Groups::default(),
            arrivals: Vec::new(),
            requests: BTreeMap::new(),
            connections: 0,
            clients: 0,
            impatient: Vec::new(),
            next_producer_id: FIRST_PRODUCER_ID,
            changed: Arc::default(),
            settings,
        }
    }

    pub(super) fn broker_ids(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        let address = |broker: &Broker| format!("{}:{}", broker.host, broker.port);
        self.brokers.values().map(address).collect()
    }

    /// The broker at an address, if it is up.
    pub(super) fn broker_at(&self, host: &str, port: u16) -> Option<i32> {
        let at = |broker: &Broker| broker.host == host && broker.port == port && broker.is_up();
        let found = self.brokers.iter().find(|(_, broker)| at(broker)).map(|(id, _)| *id);
        found.or_else(|| {
            let alias = self.aliases.get(&(host.to_owned(), port))?;
            self.brokers.get(alias).filter(|broker| broker.is_up()).map(|_| *alias)
        })
    }

    /// The cluster is built anew: no topics, and producer ids from the first one on.
    pub(super) fn rebuild(&mut self, id: &str) {
        for broker in self.broker_ids() {
            self.kill(broker);
            self.restart(broker);
        }
        self.cluster_id = id.to_owned();
        self.topics.clear();
        self.groups = Groups::default();
        self.next_producer_id = FIRST_PRODUCER_ID;
        self.changed.notify_waiters();
    }

    pub(super) fn move_to(&mut self, broker: i32, host: &str, port: u16) {
        if let Some(broker) = self.brokers.get_mut(&broker) {
            (broker.host, broker.port) = (host.to_owned(), port);
        }
    }

    /// What ends a connection to the broker; `None` while it is down.
    pub(super) fn running(&self, broker: i32) -> Option<CancellationToken> {
        self.brokers.get(&broker)?.running.as_ref().map(CancellationToken::child_token)
    }

    pub(super) fn kill(&mut self, broker: i32) {
        if let Some(running) = self.brokers.get_mut(&broker).and_then(|it| it.running.take()) {
            running.cancel();
        }
    }

    pub(super) fn restart(&mut self, broker: i32) {
        if let Some(broker) = self.brokers.get_mut(&broker) {
            broker.running.get_or_insert_with(CancellationToken::new);
        }
    }

    pub(super) fn set_versions(&mut self, broker: i32, api: i16, least: i16, most: i16) {
        if let Some(broker) = self.brokers.get_mut(&broker) {
            broker.versions.insert(api, (least, most));
            broker.versions.retain(|_, (least, most)| least <= most);
        }
    }

    /// Whether the broker executes this version of an API.
    pub(super) fn executes(&self, broker: i32, api: i16, version: i16) -> bool {
        let advertised = self.brokers.get(&broker).and_then(|it| it.versions.get(&api));
        let from = EXECUTED_FROM.iter().find(|(key, _)| *key == api).map_or(0, |(_, from)| *from);
        advertised.is_some_and(|(least, most)| (*least.max(&from)..=*most).contains(&version))
    }

    pub(super) fn create_topic(&mut self, name: &str, leaders: &[i32]) {
        let id = u128::from(self.deleted) << 96 | u128::from(self.dice.any());
        let partitions = leaders.iter().map(|leader| FakePartition::new(*leader)).collect();
        self.topics.insert(name.to_owned(), FakeTopic { id, partitions });
        self.changed.notify_waiters();
    }

    pub(super) fn add_partition(&mut self, topic: &str, leader: i32) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.partitions.push(FakePartition::new(leader));
        }
    }

    pub(super) fn partition(&self, topic: &str, index: i32) -> Option<&FakePartition> {
        self.topics.get(topic)?.partitions.get(usize::try_from(index).ok()?)
    }

    pub(super) fn partition_mut(&mut self, topic: &str, index: i32) -> Option<&mut FakePartition> {
        self.topics.get_mut(topic)?.partitions.get_mut(usize::try_from(index).ok()?)
    }

    /// The name of the topic with this id.
    pub(super) fn topic_of(&self, id: u128) -> Option<&str> {
        self.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.as_str())
    }

    /// A partition that the broker leads, for a client that knows of this leader epoch, or of none
    /// if it is −1; or the code of the refusal.
    pub(super) fn readable(
        &self,
        broker: i32,
        topic: &str,
        index: i32,
        epoch: i32,
    ) -> Result<&FakePartition, i16> {
        let partition = self.partition(topic, index).ok_or(UNKNOWN_TOPIC_OR_PARTITION)?;
        let (now, leadership) = (Instant::now(), &partition.leadership);
        let known = leadership.heard_by(broker, now).epoch;
        match epoch {
            0.. if epoch < known => Err(FENCED_LEADER_EPOCH),
            0.. if epoch > known => Err(UNKNOWN_LEADER_EPOCH),
            _ if partition.preferred == Some(broker) => Ok(partition),
            _ if !leadership.is_led_by(broker, now) => Err(NOT_LEADER_OR_FOLLOWER),
            _ => Ok(partition),
        }
    }

    /// Drops every batch of a partition that reaches beyond `end`; its leader is elected anew.
    pub(super) fn truncate(&mut self, topic: &str, index: i32, end: i64) {
        if let Some(partition) = self.partition_mut(topic, index) {
            partition.log.truncate(end);
            let leader = partition.leadership.now().id;
            self.lead(topic, index, leader);
        }
    }

    pub(super) fn lead(&mut self, topic: &str, index: i32, leader: Option<i32>) {
        let (now, longest) = (Instant::now(), self.settings.metadata_delay);
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let mut heard_at = BTreeMap::new();
        for broker in self.broker_ids() {
            let delay = std::time::Duration::from_millis(self.dice.between(0, longest));
            heard_at.insert(broker, now + delay);
        }
        if let Some(partition) = self.partition_mut(topic, index) {
            partition.leadership.change(leader, heard_at);
            self.changed.notify_waiters();
        }
    }

    /// A broker other than the leader takes over, if one is up.
    pub(super) fn move_leader(&mut self, topic: &str, index: i32) {
        let now = self.partition(topic, index).and_then(|it| it.leadership.now().id);
        let is_other = |(id, broker): &(&i32, &Broker)| Some(**id) != now && broker.is_up();
        let others: Vec<i32> = self.brokers.iter().filter(is_other).map(|(id, _)| *id).collect();
        if let Some(next) = self.dice.pick(&others).copied() {
            self.lead(topic, index, Some(next));
        }
    }

    /// A request has arrived: counted, and struck by a fault if one is due.
    pub(super) fn strike(&mut self, api: i16) -> Option<Fault> {
        *self.requests.entry(api).or_insert(0) += 1;
        self.faults.strike(api, &mut self.dice)
    }
}

impl FakePartition {
    /// None leads it if `leader` is negative.
    fn new(leader: i32) -> Self {
        let leadership = Leadership::new(Some(leader).filter(|id| *id >= 0));
        Self { leadership, log: Log::default(), preferred: None }
    }
}

/// The id before the first one that is given.
const FIRST_PRODUCER_ID: i64 = 1000;

impl Broker {
    pub(super) fn new(id: i32) -> Self {
        Self {
            host: format!("broker-{id}"),
            port: 9092,
            versions: BTreeMap::from(ADVERTISED),
            running: Some(CancellationToken::new()),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }
}
