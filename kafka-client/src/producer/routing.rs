//! Brings due partitions to the sender of their leader, and keeps those that have none.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::identity::ProducerId;
use super::timer::Timer;
use super::topic::{Partition, TopicState};
use super::verdict::RetryLimits;
use crate::cluster::Cluster;
use crate::config::ProducerConfig;
use crate::error::Reason;
use crate::limits::{COMPRESSION_THREADS, TOPICS};
use crate::lock::Lock;
use crate::metadata::Metadata;

/// Everything the tasks of one producer share.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) config: ProducerConfig,
    /// Ends the producer, with its client or before it.
    pub(crate) shutdown: CancellationToken,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) timer: Timer<Partition>,
    topics: Lock<BTreeMap<Arc<str>, Arc<TopicState>>>,
    leaders: Lock<BTreeMap<i32, Arc<LeaderQueue>>>,
    /// Starts the task behind a new queue.
    start_sender: fn(Arc<Self>, Arc<LeaderQueue>),
    leaderless: Lock<Vec<Arc<Partition>>>,
    /// A place for each batch that is compressed on a thread.
    pub(crate) compression_threads: Semaphore,
    /// With idempotence: the id, and those that wait for one.
    pub(crate) producer_id: Option<Arc<ProducerId>>,
    without_producer_id: Lock<Vec<Arc<Partition>>>,
}

/// Due partitions of one leader, in the order in which they became due.
#[derive(Debug)]
pub(crate) struct LeaderQueue {
    pub(crate) broker: i32,
    /// In which era of the cluster the number is this broker's.
    pub(crate) era: u64,
    ready: Lock<Ready>,
    pub(crate) wake: Notify,
}

#[derive(Debug, Default)]
struct Ready {
    due: VecDeque<Arc<Partition>>,
    /// Its sender ends: who is due goes elsewhere.
    is_closed: bool,
}

impl Routing {
    pub(crate) fn new(
        config: ProducerConfig,
        cluster: Arc<Cluster>,
        metadata: Arc<Metadata>,
        start_sender: fn(Arc<Self>, Arc<LeaderQueue>),
    ) -> Arc<Self> {
        let is_idempotent = config.is_idempotent();
        Arc::new(Self {
            shutdown: cluster.settings.shutdown.child_token(),
            config,
            producer_id: is_idempotent.then(|| ProducerId::new(cluster.clone())),
            without_producer_id: Lock::default(),
            cluster,
            metadata,
            timer: Timer::default(),
            topics: Lock::default(),
            leaders: Lock::default(),
            start_sender,
            leaderless: Lock::default(),
            compression_threads: Semaphore::new(COMPRESSION_THREADS),
        })
    }

    pub(crate) fn retry_limits(&self) -> RetryLimits {
        let config = &self.config;
        let (retries, idempotent) = (config.retries, config.is_idempotent());
        let policy_throttles = config.policy_throttles;
        RetryLimits { retries, idempotent, policy_throttles, backoff: self.cluster.config.retry }
    }

    /// The topic, if it is in use in this cluster.
    pub(crate) fn known_topic(&self, name: &str) -> Option<Arc<TopicState>> {
        self.topic(name).filter(|topic| topic.is_known())
    }

    /// The topic, if it is in use or was in the cluster before this one.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<TopicState>> {
        self.topics.lock().get(name).cloned()
    }

    /// The topic, put into use by `make` if it is not.
    pub(crate) fn topic_or(
        &self,
        name: &str,
        make: impl FnOnce(u64) -> TopicState,
    ) -> Result<Arc<TopicState>, Reason> {
        let mut topics = self.topics.lock();
        if let Some(topic) = topics.get(name) {
            return Ok(topic.clone());
        }
        if topics.len() >= TOPICS {
            topics.retain(|_, topic| !topic.is_unused());
            // With the queues their sequences are forgotten. A topic that is used again under the same
            // id would begin at sequence 0, and brokers, which remember its last batches, would take
            // its new ones for duplicates of those and drop them.
            let forgot = topics.len() < TOPICS;
            self.producer_id.iter().filter(|_| forgot).for_each(|id| id.retire());
        }
        if topics.len() >= TOPICS {
            return Err(Reason::TooManyTopics);
        }
        let topic = Arc::new(make(self.cluster.era()));
        topics.insert(topic.name().clone(), topic.clone());
        Ok(topic)
    }

    /// All partitions that may hold anything.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.lock().values().flat_map(|topic| topic.all()).collect()
    }

    /// After any change to a partition's queue: makes sure that it is sent and woken in time.
    pub(crate) fn attend(self: &Arc<Self>, partition: &Arc<Partition>) {
        let now = tokio::time::Instant::now();
        let mut queue = partition.queue.lock();
        let (due, alarm, room) = (queue.poll_due(now), queue.poll_alarm(), queue.poll_room());
        partition.set_queued_bytes(queue.buffered());
        drop(queue);
        if due {
            self.schedule(partition);
        }
        if let Some(at) = alarm {
            self.timer.set(at, partition);
        }
        if room {
            partition.room.notify_waiters();
        }
    }

    /// Gives a due partition to the sender of its leader.
    pub(crate) fn schedule(self: &Arc<Self>, partition: &Arc<Partition>) {
        if !self.identify(partition) {
            return;
        }
        let leader = self.metadata.leader(&partition.topic, partition.index);
        partition.set_leader(leader.is_some());
        if let Some(broker) = leader {
            // A queue can close between the look-up and the push, when its broker leaves the cluster;
            // what were pushed to it then would wait until its deadline. One that closes just now has
            // a successor.
            while !self.leader(broker).push(partition) {}
            return;
        }
        // A broker that shuts down says that it leads no more, and that is old when nobody answers.
        let silent = self.metadata.failure().map(Reason::Unreachable);
        if !partition.queue.lock().on_blocked(&Arc::new(silent.unwrap_or(Reason::NoLeader))) {
            return;
        }
        if let Some(topic) = self.topic(&partition.topic) {
            topic.reconsider();
        }
        self.leaderless.lock().push(partition.clone());
        // Of what is known by now: an answer that came since we looked found nobody here.
        self.metadata.complain(self.metadata.generation());
    }

    /// Sees to it that batches have an identity before they are sent; without one they wait.
    fn identify(&self, partition: &Arc<Partition>) -> bool {
        let Some(producer_id) = &self.producer_id else { return true };
        let mut queue = partition.queue.lock();
        if queue.identify(None) {
            return true;
        }
        queue.spent_id().into_iter().for_each(|spent| producer_id.discard(spent));
        // Parked before the question, so that an answer that comes meanwhile is not missed: it wakes
        // those that are in the list, once.
        self.without_producer_id.lock().push(partition.clone());
        let waits = match producer_id.held() {
            Ok(held) => !queue.identify(Some(held)),
            Err(why) => queue.on_blocked(&Arc::new(Reason::NoProducerId(why))),
        };
        let ready = queue.identify(None);
        if !waits || ready {
            self.without_producer_id.lock().retain(|other| !Arc::ptr_eq(other, partition));
        }
        ready
    }

    /// The queue of a broker, with a sender behind it.
    fn leader(self: &Arc<Self>, broker: i32) -> Arc<LeaderQueue> {
        let mut leaders = self.leaders.lock();
        if let Some(queue) = leaders.get(&broker).filter(|queue| !queue.is_closed()) {
            return queue.clone();
        }
        let era = self.cluster.era();
        let queue =
            Arc::new(LeaderQueue { broker, era, ready: Lock::default(), wake: Notify::new() });
        (self.start_sender)(self.clone(), queue.clone());
        leaders.insert(broker, queue.clone());
        queue
    }

    /// Another cluster has taken the place of the one that was known: what the former one may have
    /// is settled, the rest begins anew. Numbers of brokers, leader epochs, producer ids and sequences
    /// mean something else in the new one, so that none of them may be carried over.
    fn start_over(self: &Arc<Self>, era: u64) {
        for leader in std::mem::take(&mut *self.leaders.lock()).into_values() {
            leader.close();
        }
        self.leaderless.lock().clear();
        self.without_producer_id.lock().clear();
        let topics: Vec<_> = self.topics.lock().values().cloned().collect();
        for partition in topics.iter().flat_map(|topic| topic.start_over(era)) {
            self.attend(&partition);
        }
    }

    /// Ends the senders of brokers that the cluster no longer has. Clusters that replace their brokers
    /// one by one give each a new number: the tasks of the old ones would add up.
    fn dismiss_departed(&self) {
        let advertised = self.cluster.brokers();
        let is_there = |broker| advertised.iter().any(|(id, _)| *id == broker);
        self.leaders.lock().retain(|broker, queue| is_there(*broker) || !queue.close_if_empty());
    }

    /// Follows the metadata until the client is closed: partitions are added, those that wait
    /// with the wrong broker or with none move on.
    pub(crate) async fn follow_metadata(self: Arc<Self>) {
        let shutdown = self.shutdown.clone();
        let (mut rounds, mut era) = (self.metadata.rounds(), 0);
        while shutdown.run_until_cancelled(rounds.next()).await.is_some() {
            let now = self.cluster.era();
            if std::mem::replace(&mut era, now) != now {
                self.start_over(now);
            }
            let topics: Vec<_> = self.topics.lock().values().cloned().collect();
            for topic in topics {
                if let Some((id, count)) = self.metadata.known(topic.name()) {
                    topic.follow(id, count);
                }
            }
            // What waits for a former leader would only be refused there (NOT_LEADER_OR_FOLLOWER), a
            // round trip later. What is in flight to it stays: its answer decides.
            let leaders: Vec<_> = self.leaders.lock().values().cloned().collect();
            let mut moved = std::mem::take(&mut *self.leaderless.lock());
            for leader in leaders {
                let is_elsewhere = |partition: &Arc<Partition>| {
                    let now = self.metadata.leader(&partition.topic, partition.index);
                    now != Some(leader.broker)
                };
                moved.extend(leader.take_if(is_elsewhere));
            }
            for partition in moved {
                self.schedule(&partition);
            }
            self.dismiss_departed();
        }
    }

    /// Lets those go on that wait for a producer id, until the client is closed.
    pub(crate) async fn follow_producer_id(self: Arc<Self>, producer_id: Arc<ProducerId>) {
        let shutdown = self.shutdown.clone();
        let mut changes = producer_id.changes();
        while shutdown.run_until_cancelled(changes.next()).await.is_some() {
            let waiting = std::mem::take(&mut *self.without_producer_id.lock());
            waiting.iter().for_each(|partition| self.schedule(partition));
        }
    }

    /// Acts on alarms until the client is closed.
    pub(crate) async fn follow_timer(self: Arc<Self>) {
        let shutdown = self.shutdown.clone();
        while let Some(partition) = shutdown.run_until_cancelled(self.timer.next()).await {
            partition.queue.lock().on_alarm(tokio::time::Instant::now());
            self.attend(&partition);
        }
    }
}

impl LeaderQueue {
    /// Whether it was taken: the sender of a closed one ends.
    fn push(&self, partition: &Arc<Partition>) -> bool {
        let mut ready = self.ready.lock();
        if ready.is_closed {
            return false;
        }
        ready.due.push_back(partition.clone());
        drop(ready);
        self.wake.notify_one();
        true
    }

    /// Back to the front: it was its turn, but there was no room.
    pub(crate) fn push_front(&self, partition: Arc<Partition>) {
        self.ready.lock().due.push_front(partition);
    }

    pub(crate) fn pop(&self) -> Option<Arc<Partition>> {
        self.ready.lock().due.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.lock().due.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.ready.lock().is_closed
    }

    /// Notes for every partition that waits why nothing moves; one that has nothing left to send leaves.
    pub(crate) fn on_blocked(&self, cause: &Arc<Reason>) {
        self.ready.lock().due.retain(|partition| partition.queue.lock().on_blocked(cause));
    }

    /// Takes no one any more; gives who is left.
    pub(crate) fn close(&self) -> VecDeque<Arc<Partition>> {
        let mut ready = self.ready.lock();
        ready.is_closed = true;
        let left = std::mem::take(&mut ready.due);
        drop(ready);
        self.wake.notify_one();
        left
    }

    fn close_if_empty(&self) -> bool {
        let mut ready = self.ready.lock();
        ready.is_closed |= ready.due.is_empty();
        let is_closed = ready.is_closed;
        drop(ready);
        self.wake.notify_one();
        is_closed
    }

    fn take_if(&self, is_taken: impl Fn(&Arc<Partition>) -> bool) -> Vec<Arc<Partition>> {
        let mut ready = self.ready.lock();
        let (taken, kept) = ready.due.drain(..).partition::<Vec<_>, _>(|p| is_taken(p));
        ready.due = kept.into();
        taken
    }
}
