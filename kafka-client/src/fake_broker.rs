//! Brokers in this process that speak real bytes and fail on command.
//!
//! A [`FakeCluster`] is driven by the tokio clock. Clients made by [`FakeCluster::client`] reach it
//! through streams in memory, which a paused clock can drive; others through
//! [`FakeCluster::listen`].
//!
//! # As an embedded broker
//!
//! With [`FakeSettings::embedded`] and [`FakeCluster::listen`] it is a broker for a demonstration
//! on one machine: producers write to it, and consumers read the record batches back as they were
//! written. It serves ApiVersions, Metadata, Produce, InitProducerId, ListOffsets, Fetch,
//! OffsetForLeaderEpoch, groups in both protocols and SASL.
//!
//! It is no Kafka broker:
//!
//! - Everything is in memory. Nothing is written to a disk, so there is nothing to fsync, and an
//!   acknowledgement with `acks=all` says only that the leader has the records. They end with the
//!   process.
//! - Nothing is replicated, whatever the number of brokers: each partition is on its leader alone,
//!   and its high watermark is the end of its log.
//! - Groups forget their members when the process ends, and keep all offsets until then.
//! - There are no transactions but for those that [`FakeCluster::put`] puts into a log, no fetch sessions, no quotas and no compaction, and topics are
//!   made by [`FakeCluster::create_topic`] alone.
//! - Listeners are plaintext, at 127.0.0.1. A client that connects and says nothing keeps its
//!   connection for as long as it likes.

mod answers;
mod classic_groups;
mod dice;
mod epochs;
mod exchange;
mod execute;
mod faults;
mod fetch;
mod group_answers;
mod group_requests;
mod group_state;
mod groups;
mod leadership;
mod list_offsets;
mod log;
mod modern_groups;
mod produce;
mod requests;
mod sasl;
mod sequences;
mod serve;
mod settings;
mod state;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::time::sleep;

pub use dice::Dice;
pub use faults::{Fault, Trace, When};
pub use group_state::FakeOffset;
pub use leadership::Leader;
pub use requests::{
    API_VERSIONS, CONSUMER_GROUP_HEARTBEAT, FETCH, FIND_COORDINATOR, HEARTBEAT, INIT_PRODUCER_ID,
    JOIN_GROUP, LEAVE_GROUP, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH,
    OFFSET_FOR_LEADER_EPOCH, PRODUCE, SASL_AUTHENTICATE, SASL_HANDSHAKE, SYNC_GROUP,
};
pub use sasl::FakeSasl;
pub use sequences::WithoutState;
pub use settings::FakeSettings;
pub use state::{Arrival, Fate};

use crate::backoff::seed_this_thread;
use crate::cluster::{InMemory, Network};
use crate::lock::Lock;
use crate::record_batch::StoredRecord;
use crate::resolve::Endpoint;
use crate::{Client, Config, CredentialSource};
use log::Checked;
use state::{Broker, ClusterState};

/// A cluster. Cheap to clone. Its tasks end with their connections, with [`FakeCluster::kill`], or
/// with the runtime.
#[derive(Debug, Clone)]
pub struct FakeCluster {
    state: Arc<Lock<ClusterState>>,
}

/// Pause after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl FakeCluster {
    /// A cluster without topics, all brokers up.
    pub fn new(settings: FakeSettings) -> Self {
        Self { state: Arc::new(Lock::new(ClusterState::new(settings))) }
    }

    /// The addresses of all brokers, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.state.lock().addresses().join(",")
    }

    /// A client whose connections are streams in memory. Seeds the jitter of this thread's clients
    /// with the cluster's seed, and with how many there have been.
    ///
    /// Must be called inside a tokio runtime with time enabled.
    pub fn client(&self, config: Config) -> Client {
        self.seed();
        Client::on(config, Network::Memory(Box::new(self.clone())), None)
    }

    /// As [`FakeCluster::client`], with a source of credentials.
    pub fn client_with(&self, config: Config, source: Arc<dyn CredentialSource>) -> Client {
        self.seed();
        Client::on(config, Network::Memory(Box::new(self.clone())), Some(source))
    }

    fn seed(&self) {
        let mut state = self.state.lock();
        seed_this_thread(state.settings.seed.wrapping_add(state.clients << 32));
        state.clients += 1;
    }

    /// Opens a socket for each broker, at a free port of 127.0.0.1, and advertises that. Connections
    /// are taken until the runtime ends; those to a broker that is down are closed at once.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn listen(&self) -> std::io::Result<()> {
        let brokers = self.state.lock().broker_ids();
        for broker in brokers {
            let listener = self.socket(broker).await?;
            let cluster = self.clone();
            tokio::spawn(async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        // Such as too many open files: others may be closed in the meantime.
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    // Else an answer may wait for the acknowledgement of the one before it.
                    let _slower_if_refused = stream.set_nodelay(true);
                    cluster.take(broker, stream);
                }
            });
        }
        Ok(())
    }

    /// A socket at a free port of 127.0.0.1 that the broker advertises, for who takes streams from
    /// it and hands them over by [`FakeCluster::take`].
    pub(crate) async fn socket(&self, broker: i32) -> std::io::Result<TcpListener> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        self.state.lock().move_to(broker, "127.0.0.1", listener.local_addr()?.port());
        Ok(listener)
    }

    /// From now on the broker is said to be here, wherever it listens.
    pub fn advertise(&self, broker: i32, host: &str, port: u16) {
        self.state.lock().move_to(broker, host, port);
    }

    /// From now on it demands this of whoever connects or authenticates again.
    pub fn demand(&self, sasl: FakeSasl) {
        self.state.lock().settings.sasl = Some(sasl);
    }

    /// Creates a topic with these leaders, one partition each.
    pub fn create_topic(&self, name: &str, leaders: &[i32]) {
        self.state.lock().create_topic(name, leaders);
    }

    /// Deletes a topic with its records, and with what groups have committed of it.
    pub fn delete_topic(&self, name: &str) {
        let mut state = self.state.lock();
        state.topics.remove(name);
        state.deleted += 1;
        for group in state.groups.by_id.values_mut() {
            group.offsets.retain(|(topic, _), _| topic != name);
        }
    }

    /// A topic gets one more partition, with this leader.
    pub fn add_partition(&self, topic: &str, leader: i32) {
        self.state.lock().add_partition(topic, leader);
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: &str) -> i32 {
        let state = self.state.lock();
        let count = state.topics.get(topic).map_or(0, |topic| topic.partitions.len());
        i32::try_from(count).unwrap_or(i32::MAX)
    }

    /// The id of a topic, if there is one of that name.
    pub fn topic_id(&self, topic: &str) -> Option<u128> {
        self.state.lock().topics.get(topic).map(|topic| topic.id)
    }

    /// Who really leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<Leader> {
        self.state.lock().partition(topic, partition).map(|partition| partition.leadership.now())
    }

    /// A new leader, or none, in a new epoch. Brokers hear of it one by one, within the metadata
    /// delay.
    pub fn lead(&self, topic: &str, partition: i32, leader: Option<i32>) {
        self.state.lock().lead(topic, partition, leader);
    }

    /// A broker goes down: its connections close, new ones are refused, and what it had read but
    /// not executed is lost. Its partitions keep it as their leader until [`FakeCluster::lead`].
    pub fn kill(&self, broker: i32) {
        self.state.lock().kill(broker);
    }

    /// A broker is elsewhere from now on, and advertises that; its connections close.
    pub fn move_to(&self, broker: i32, host: &str, port: u16) {
        let mut state = self.state.lock();
        state.kill(broker);
        state.move_to(broker, host, port);
        state.restart(broker);
    }

    /// An address that leads to a broker and that nobody advertises, as a load balancer's.
    pub fn alias(&self, host: &str, port: u16, broker: i32) {
        self.state.lock().aliases.insert((host.to_owned(), port), broker);
    }

    /// Whoever connects to this host hears nothing.
    pub fn silence(&self, host: &str) {
        self.state.lock().silent.insert(host.to_owned(), Vec::new());
    }

    /// A broker leaves the cluster for good, and another one joins it.
    pub fn replace(&self, broker: i32, by: i32) {
        let mut state = self.state.lock();
        state.kill(broker);
        state.brokers.remove(&broker);
        state.brokers.insert(by, Broker::new(by));
    }

    /// Another cluster, with this id, takes the place of this one at the same addresses: it has no
    /// topics, and gives producer ids from the first one on.
    pub fn rebuild(&self, id: &str) {
        self.state.lock().rebuild(id);
    }

    /// A broker is back.
    pub fn restart(&self, broker: i32) {
        self.state.lock().restart(broker);
    }

    /// A broker restarts with other versions of an API; none if `most` is below `least`.
    pub fn upgrade(&self, broker: i32, api: i16, least: i16, most: i16) {
        let mut state = self.state.lock();
        state.kill(broker);
        state.set_versions(broker, api, least, most);
        state.restart(broker);
    }

    /// Makes requests of an API fail.
    pub fn arm(&self, api: i16, when: When, fault: Fault) {
        self.state.lock().faults.arm(api, when, fault);
    }

    /// From now on nothing is made to fail; what is failing already goes on.
    pub fn disarm(&self) {
        self.state.lock().faults.disarm();
    }

    /// A partition forgets all its producers, as after `producer.id.expiration.ms`.
    pub fn expire_producers(&self, topic: &str, partition: i32) {
        if let Some(partition) = self.state.lock().partition_mut(topic, partition) {
            partition.log.producers.forget();
        }
    }

    /// A partition loses every batch that reaches beyond `end`, as after an unclean election: a new
    /// leader epoch begins there.
    pub fn truncate(&self, topic: &str, partition: i32, end: i64) {
        self.state.lock().truncate(topic, partition, end);
    }

    /// Appends a batch as it is, for what producers do not write: compacted and empty batches, those of
    /// transactions and their markers, damaged ones. It gets the next offset, and nothing if it has no
    /// whole header.
    pub fn put(&self, topic: &str, partition: i32, batch: Bytes) {
        let mut state = self.state.lock();
        let found = state.partition_mut(topic, partition);
        if let (Some(partition), Some(batch)) = (found, Checked::unchecked(batch)) {
            let epoch = partition.leadership.now().epoch;
            partition.log.append(&batch, epoch);
            state.changed.notify_waiters();
        }
    }

    /// A partition's leader sends readers with a rack to this broker, which may be read from as well
    /// (KIP-392).
    pub fn prefer(&self, topic: &str, partition: i32, replica: Option<i32>) {
        if let Some(partition) = self.state.lock().partition_mut(topic, partition) {
            partition.preferred = replica;
        }
    }

    /// A partition begins at this offset from now on, as after DeleteRecords.
    pub fn expire(&self, topic: &str, partition: i32, start: i64) {
        let mut state = self.state.lock();
        if let Some(partition) = state.partition_mut(topic, partition) {
            partition.log.expire(start);
            state.changed.notify_waiters();
        }
    }

    /// The records that a partition has now, in order.
    pub fn log(&self, topic: &str, partition: i32) -> Vec<StoredRecord> {
        let state = self.state.lock();
        state.partition(topic, partition).map_or_else(Vec::new, |found| found.log.records())
    }

    /// From now on this broker coordinates the group.
    pub fn coordinate(&self, group: &str, broker: i32) {
        self.state.lock().groups.chosen.insert(group.to_owned(), broker);
    }

    /// The members of a group now, by id.
    pub fn members(&self, group: &str) -> Vec<String> {
        let state = self.state.lock();
        let group = state.groups.by_id.get(group);
        group.map_or_else(Vec::new, |it| [it.classic.members(), it.modern.members()].concat())
    }

    /// What a group has committed of a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<FakeOffset> {
        let state = self.state.lock();
        let offsets = &state.groups.by_id.get(group)?.offsets;
        offsets.get(&(topic.to_owned(), partition)).cloned()
    }

    /// What a group has committed of a partition expires.
    pub fn forget_committed(&self, group: &str, topic: &str, partition: i32) {
        let mut state = self.state.lock();
        if let Some(group) = state.groups.by_id.get_mut(group) {
            group.offsets.remove(&(topic.to_owned(), partition));
        }
    }

    /// The log start of a partition, and the batches that it has now, in order.
    pub fn batches(&self, topic: &str, partition: i32) -> (i64, Vec<Bytes>) {
        let state = self.state.lock();
        let found = state.partition(topic, partition);
        found.map_or_else(Default::default, |found| (found.log.start(), found.log.batches()))
    }

    /// Every batch that reached a broker, in order of execution; nothing without
    /// [`FakeSettings::records_arrivals`].
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.state.lock().arrivals.clone()
    }

    /// Requests of an API that reached a broker, malformed ones and those that failed included.
    pub fn requests(&self, api: i16) -> u64 {
        self.state.lock().requests.get(&api).copied().unwrap_or(0)
    }

    /// The broker of each write that came on a connection while its client had been told to pause
    /// (KIP-219).
    pub fn impatient(&self) -> Vec<i32> {
        self.state.lock().impatient.clone()
    }

    /// Connections that brokers have open.
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }
}

impl InMemory for FakeCluster {
    fn dial(&self, endpoint: &Endpoint) -> Result<DuplexStream, String> {
        let (broker, room) = {
            let mut state = self.state.lock();
            let room = state.settings.stream_bytes;
            if let Some(silent) = state.silent.get_mut(&endpoint.host) {
                let (ours, theirs) = tokio::io::duplex(room);
                silent.push(theirs);
                return Ok(ours);
            }
            let broker = state.broker_at(&endpoint.host, endpoint.port);
            (broker.ok_or("connection refused")?, room)
        };
        let (ours, theirs) = tokio::io::duplex(room);
        self.take(broker, theirs);
        Ok(ours)
    }
}

#[cfg(test)]
mod tests;
