//! The handle: reserve memory, enqueue a record, await its outcome.

mod accumulator;
mod batch;
mod batch_queue;
mod identity;
mod memory;
mod partitioner;
mod routing;
mod sender;
mod sequence;
mod settle;
mod timer;
mod topic;
mod verdict;

use std::any::Any;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

pub use memory::Permit;
pub use settle::{Outcome, Ticket};
pub use topic::Topic;

use batch::BatchLimits;
use memory::Memory;
use routing::Routing;
use sender::Sender;
use settle::Ledger;
use topic::PartitionSettings;

use crate::cluster::Cluster;
use crate::config::ProducerConfig;
use crate::deadline::Deadline;
use crate::error::Reason;
use crate::limits::{HEADER_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES};
use crate::metadata::{Metadata, Trust};
use crate::record_batch::Record;
use settle::all_settled;
use topic::{TopicState, is_topic_name};

/// Sends records. Cheap to clone; all handles with equal settings share memory and batches.
#[derive(Debug, Clone)]
pub struct Producer {
    pub(crate) producing: Arc<Producing>,
    /// Keeps the client alive, which ends its tasks when it is dropped.
    pub(crate) _client: Arc<dyn Any + Send + Sync>,
}

/// What all handles of a producer share: its queues, and the tasks behind them.
#[derive(Debug)]
pub(crate) struct Producing {
    pub(crate) routing: Arc<Routing>,
    settings: PartitionSettings,
}

impl Producing {
    /// Starts the tasks of a producer of this cluster.
    pub(crate) fn start(
        config: ProducerConfig,
        cluster: Arc<Cluster>,
        metadata: Arc<Metadata>,
    ) -> Arc<Self> {
        let limits = BatchLimits {
            batch_bytes: config.batch_bytes,
            batch_records: config.batch_records,
            request_bytes: config.request_bytes,
            buffer_bytes: config.buffer_bytes,
            linger: config.linger,
            idempotent_in_flight: config.is_idempotent().then_some(config.in_flight),
        };
        let stats = cluster.settings.stats.clone();
        let memory = Memory::new(config.buffer_bytes, stats.clone());
        let settings = PartitionSettings {
            limits,
            partitioner: config.partitioner,
            ledger: Ledger::new(memory, stats),
        };
        let tasks = cluster.settings.tasks.clone();
        let routing = Routing::new(config, cluster, metadata, Sender::start);
        tasks.spawn(routing.clone().follow_metadata());
        tasks.spawn(routing.clone().follow_timer());
        if let Some(producer_id) = &routing.producer_id {
            tasks.spawn(producer_id.clone().run(routing.shutdown.clone()));
            tasks.spawn(routing.clone().follow_producer_id(producer_id.clone()));
        }
        Arc::new(Self { routing, settings })
    }

    /// Waits until there is a producer id, if it is to have one. `Err` has the last failure.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<(), Option<Arc<Reason>>> {
        match &self.routing.producer_id {
            Some(producer_id) => producer_id.ready(deadline).await,
            None => Ok(()),
        }
    }

    /// Whether it holds no record, and so many hold it, its client included.
    pub(crate) fn is_idle(self: &Arc<Self>, holders: usize) -> bool {
        Arc::strong_count(self) == holders && self.settings.ledger.memory.is_free()
    }

    /// Takes no record any more, and lets those that are queued go without lingering.
    pub(crate) fn drain(&self) {
        self.settings.ledger.memory.close();
        for partition in self.routing.partitions() {
            partition.queue.lock().drain();
            self.routing.attend(&partition);
        }
    }

    /// Waits until nothing is queued.
    pub(crate) async fn drained(&self) {
        self.settings.ledger.drained().await;
    }

    /// Settles what is left as closed, and ends its tasks.
    pub(crate) fn end(&self) {
        for partition in self.routing.partitions() {
            partition.queue.lock().give_up(&Reason::Closed);
        }
        self.routing.shutdown.cancel();
    }
}

/// Bytes to reserve for a record: key, value, headers, and a fixed overhead for what the client
/// keeps with it. The sum over all unsettled records is bounded by `buffer.memory`.
pub fn record_size(record: &Record<'_>) -> usize {
    let field = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let headers =
        record.headers.iter().map(|(key, value)| key.len() + field(*value) + HEADER_OVERHEAD_BYTES);
    RECORD_OVERHEAD_BYTES + field(record.key) + field(record.value) + headers.sum::<usize>()
}

impl Producer {
    /// Whether it holds no record, and this is its only handle.
    pub fn is_idle(&self) -> bool {
        self.producing.is_idle(2)
    }

    fn deadline(&self, given: impl Into<Deadline>) -> Instant {
        given.into().or(self.producing.routing.config.delivery_timeout)
    }

    /// Finds a topic. If it is unknown, asks the brokers, for up to 5 s.
    ///
    /// # Errors
    /// [`Reason::InvalidTopic`], [`Reason::UnknownTopic`], [`Reason::Unauthorized`],
    /// [`Reason::TooManyTopics`]; [`Reason::DeadlineExceeded`] at the deadline; [`Reason::Closed`].
    pub async fn topic(&self, name: &str, deadline: impl Into<Deadline>) -> Result<Topic, Reason> {
        let deadline = self.deadline(deadline);
        self.producing.routing.cluster.check_open()?;
        if let Some(topic) = self.producing.routing.known_topic(name) {
            return Ok(Topic(topic));
        }
        if !is_topic_name(name) {
            return Err(Reason::InvalidTopic);
        }
        let partitions =
            self.producing.routing.metadata.partitions(name, Trust::Believed, deadline).await?;
        let make = |era| TopicState::new(name, self.producing.settings.clone(), era);
        let topic = self.producing.routing.topic_or(name, make)?;
        self.count(&topic, partitions);
        Ok(Topic(topic))
    }

    /// Asks the brokers how many partitions a topic has now. To be called when
    /// [`Producer::enqueue`] says [`Reason::NoSuchPartition`], before that is told to anyone: what
    /// is known may be old.
    ///
    /// # Errors
    /// As [`Producer::topic`].
    pub async fn recount(
        &self,
        topic: &Topic,
        deadline: impl Into<Deadline>,
    ) -> Result<(), Reason> {
        let deadline = self.deadline(deadline);
        let name = topic.name();
        let partitions =
            self.producing.routing.metadata.partitions(name, Trust::Doubted, deadline).await?;
        self.count(&topic.0, partitions);
        Ok(())
    }

    fn count(&self, topic: &TopicState, partitions: usize) {
        let known = self.producing.routing.metadata.known(topic.name());
        let (id, partitions) = known.unwrap_or((0, partitions));
        topic.follow(id, partitions);
    }

    /// Waits, first come first served, for `bytes` of the producer's memory. Dropping the future takes nothing.
    ///
    /// # Errors
    /// [`Reason::BufferFull`] at the deadline, [`Reason::TooLarge`] if `buffer.memory` is smaller,
    /// [`Reason::Closed`].
    pub async fn reserve(
        &self,
        bytes: usize,
        deadline: impl Into<Deadline>,
    ) -> Result<Permit, Reason> {
        let deadline = self.deadline(deadline);
        self.producing.settings.ledger.memory.reserve(bytes, deadline).await
    }

    /// Takes memory if it is free and nobody waits for it.
    pub fn try_reserve(&self, bytes: usize) -> Option<Permit> {
        self.producing.settings.ledger.memory.try_reserve(bytes).ok()
    }

    /// Puts a record into the batch of its partition, and takes [`record_size`] out of the permit.
    /// From here on the record belongs to the producer: dropping the ticket neither withdraws nor
    /// delays it.
    ///
    /// A batch is settled as a whole, at the earliest deadline of its records at the latest, and
    /// takes records whose deadlines differ by 1 s (or `linger.ms`) at most: equal patience for all
    /// records of a topic makes the largest batches.
    ///
    /// # Errors
    /// The record was not enqueued: [`Reason::BufferFull`] (the permit is too small, or the
    /// partition holds a quarter of `buffer.memory` already), [`Reason::NoSuchPartition`],
    /// [`Reason::TooLarge`], [`Reason::InvalidRecord`], [`Reason::DeadlineExceeded`],
    /// [`Reason::Closed`], or [`Reason::UnknownTopic`] if its leader said so less than 1 s ago.
    pub fn enqueue(
        &self,
        permit: &mut Permit,
        topic: &Topic,
        record: Record<'_>,
        deadline: impl Into<Deadline>,
    ) -> Result<Ticket, Reason> {
        let deadline = self.deadline(deadline);
        self.producing.routing.cluster.check_open()?;
        let now = Instant::now();
        if record.timestamp_ms < 0 {
            return Err(Reason::InvalidRecord("a negative timestamp".into()));
        }
        if deadline <= now {
            return Err(Reason::DeadlineExceeded { last: None });
        }
        let bytes = record_size(&record);
        let partition = topic.0.choose(&record, bytes, now)?;
        permit.spend(bytes)?;
        let mut queue = partition.queue.lock();
        let pushed = queue.push(&record, bytes, deadline, now);
        let (due, alarm) = (queue.poll_due(now), queue.poll_alarm());
        partition.set_queued_bytes(queue.buffered());
        drop(queue);
        if due {
            self.producing.routing.schedule(&partition);
        }
        if let Some(at) = alarm {
            self.producing.routing.timer.set(at, &partition);
        }
        match pushed {
            Ok((cell, index)) => Ok(Ticket { cell, index, timestamp_ms: record.timestamp_ms }),
            Err(reason) => {
                permit.refund(bytes);
                topic.0.reconsider();
                Err(reason)
            }
        }
    }

    /// Sends one record and waits for its outcome: topic, memory, enqueue and ticket in one. While
    /// its partition is full it waits too, without holding memory. The outcome comes by the deadline,
    /// which is `delivery.timeout.ms` from now on for `None`.
    ///
    /// Dropping the future before the record is enqueued withdraws it; afterwards that changes
    /// nothing.
    pub async fn send(
        &self,
        topic: &str,
        record: Record<'_>,
        deadline: impl Into<Deadline>,
    ) -> Outcome {
        let deadline = self.deadline(deadline);
        let put = match self.topic(topic, deadline).await {
            Ok(topic) => self.put(&topic, record, deadline).await,
            Err(reason) => Err(reason),
        };
        match put {
            Ok(ticket) => ticket.outcome().await,
            Err(reason) => Outcome::NotWritten(reason),
        }
    }

    /// Waits until every record that was enqueued before this call is settled, and lets it go
    /// without lingering. Records enqueued later are not waited for. Each has its deadline, so this
    /// ends.
    pub async fn flush(&self) {
        let mut cells = Vec::new();
        for partition in self.producing.routing.partitions() {
            cells.extend(partition.queue.lock().flush());
            self.producing.routing.attend(&partition);
        }
        all_settled(cells).await;
    }

    /// Enqueues one record as soon as there is room for it: memory and enqueue in one. For many
    /// records one after the other, whose tickets are heard later or by another task.
    ///
    /// Dropping the future before the record is enqueued withdraws it.
    ///
    /// # Errors
    /// As [`Producer::reserve`] and [`Producer::enqueue`]; [`Reason::BufferFull`] only at the
    /// deadline.
    pub async fn put(
        &self,
        topic: &Topic,
        record: Record<'_>,
        deadline: impl Into<Deadline>,
    ) -> Result<Ticket, Reason> {
        let deadline = self.deadline(deadline);
        let bytes = record_size(&record);
        if let Some(mut permit) = self.try_reserve(bytes) {
            match self.enqueue(&mut permit, topic, record, deadline) {
                Err(Reason::BufferFull | Reason::NoSuchPartition { .. }) => {}
                other => return other,
            }
        }
        let mut is_counted = false;
        loop {
            let mut room = std::pin::pin!(topic.0.room.notified());
            room.as_mut().enable();
            let mut permit = self.reserve(bytes, deadline).await?;
            match self.enqueue(&mut permit, topic, record, deadline) {
                Err(Reason::BufferFull) => drop(permit),
                Err(Reason::NoSuchPartition { .. }) if !is_counted => {
                    drop(permit);
                    self.recount(topic, deadline).await?;
                    is_counted = true;
                    continue;
                }
                other => return other,
            }
            timeout_at(deadline, room).await.map_err(|_| Reason::BufferFull)?;
        }
    }
}

#[cfg(test)]
mod tests;
