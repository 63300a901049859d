//! A topic in use: its partitions, and which of them a record goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::accumulator::Accumulator;
use super::batch::BatchLimits;
use super::partitioner::{Load, Sticky};
use super::settle::Ledger;
use crate::backoff::random;
use crate::config::Partitioner;
use crate::error::Reason;
use crate::limits::{NEGATIVE_ENTRY, TOPIC_NAME_BYTES};
use crate::lock::Lock;
use crate::record_batch::Record;

/// A handle to a topic whose partitions are known. Cheap to clone and to keep.
#[derive(Debug, Clone)]
pub struct Topic(pub(crate) Arc<TopicState>);

impl Topic {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many partitions it has, as far as is known. It can grow.
    pub fn partitions(&self) -> usize {
        self.0.view.lock().count
    }
}

/// What all partitions of a producer share.
#[derive(Debug, Clone)]
pub(crate) struct PartitionSettings {
    pub(crate) limits: BatchLimits,
    pub(crate) partitioner: Partitioner,
    pub(crate) ledger: Arc<Ledger>,
}

#[derive(Debug)]
pub(crate) struct TopicState {
    name: Arc<str>,
    settings: PartitionSettings,
    view: Lock<View>,
    /// Tells callers of `send` that a full partition has room again.
    pub(crate) room: Arc<Notify>,
}

#[derive(Debug, Default)]
struct View {
    partitions: Vec<Arc<Partition>>,
    /// Partitions that exist now: fewer than we have queues for after a topic was recreated.
    count: usize,
    /// Which topic of this name it is; 0 from brokers before 2.8.
    id: u128,
    /// Of the cluster that it is in.
    era: u64,
    sticky: Sticky,
    /// The leader does not know the topic: no record is taken until then.
    refused: Option<(Instant, Reason)>,
}

/// One partition's queue, and what is asked of it without its lock.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) topic: Arc<str>,
    pub(crate) index: i32,
    pub(crate) queue: Lock<Accumulator>,
    pub(crate) room: Arc<Notify>,
    queued_bytes: AtomicUsize,
    has_leader: AtomicBool,
}

impl TopicState {
    pub(crate) fn new(name: &str, settings: PartitionSettings, era: u64) -> Self {
        let view = Lock::new(View { era, ..View::default() });
        Self { name: name.into(), settings, view, room: Arc::default() }
    }

    /// Whether it is known how many partitions it has.
    pub(crate) fn is_known(&self) -> bool {
        self.view.lock().count > 0
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The partition for a record: the caller's, the key's, or one that does well.
    pub(crate) fn choose(
        &self,
        record: &Record<'_>,
        bytes: usize,
        now: Instant,
    ) -> Result<Arc<Partition>, Reason> {
        let mut view = self.view.lock();
        match &view.refused {
            Some((until, reason)) if now < *until => return Err(reason.clone()),
            Some(_) => view.refused = None,
            None => {}
        }
        let View { partitions, count, sticky, .. } = &mut *view;
        let missing = |partition| Reason::NoSuchPartition { partition, count: *count };
        let place = match record.partition {
            Some(chosen) => usize::try_from(chosen)
                .ok()
                .filter(|place| place < count)
                .ok_or_else(|| missing(chosen))?,
            None => self.settings.partitioner.keyed(record.key, *count).unwrap_or_else(|| {
                let loads = || partitions.iter().take(*count).map(|p| p.load()).collect();
                sticky.pick(bytes, self.settings.limits.batch_bytes, random, loads)
            }),
        };
        partitions.get(place).cloned().ok_or_else(|| missing(-1))
    }

    /// Follows the metadata: the queues of new partitions are made, none is thrown away.
    pub(crate) fn follow(&self, id: u128, count: usize) {
        let mut view = self.view.lock();
        if view.id != 0 && id != 0 && view.id != id {
            view.partitions.iter().for_each(|partition| partition.queue.lock().on_recreated());
        }
        if view.count != count {
            // The partition in use may be gone.
            view.sticky.reconsider();
        }
        (view.id, view.count) = (id, count);
        for index in view.partitions.len()..count {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            let partition = Partition {
                topic: self.name.clone(),
                index,
                queue: Lock::new(Accumulator::new(
                    index,
                    view.era,
                    self.settings.limits,
                    self.settings.ledger.clone(),
                )),
                room: self.room.clone(),
                queued_bytes: AtomicUsize::new(0),
                has_leader: AtomicBool::new(true),
            };
            view.partitions.push(Arc::new(partition));
        }
    }

    /// Another cluster has taken the place of the one that it was in: it is unknown there until its
    /// partitions are. Gives its queues, which must be attended to.
    pub(crate) fn start_over(&self, era: u64) -> Vec<Arc<Partition>> {
        let mut view = self.view.lock();
        (view.era, view.id, view.count, view.refused) = (era, 0, 0, None);
        view.sticky.reconsider();
        for partition in &view.partitions {
            partition.queue.lock().start_over(era);
            // Who waits for room asks for the topic.
            partition.room.notify_waiters();
        }
        view.partitions.clone()
    }

    /// The leader does not know the topic: refuse its records for a while without a question.
    pub(crate) fn refuse(&self, reason: Reason, now: Instant) {
        self.view.lock().refused = Some((now + NEGATIVE_ENTRY, reason));
    }

    /// Makes the next record without a key choose its partition anew.
    pub(crate) fn reconsider(&self) {
        self.view.lock().sticky.reconsider();
    }

    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.view.lock().partitions.clone()
    }

    /// Whether nobody outside holds it and nothing is queued.
    pub(crate) fn is_unused(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
            && self.view.lock().partitions.iter().all(|partition| {
                Arc::strong_count(partition) == 1 && partition.queue.lock().is_empty()
            })
    }
}

impl Partition {
    pub(crate) fn set_queued_bytes(&self, bytes: usize) {
        self.queued_bytes.store(bytes, Relaxed);
    }

    pub(crate) fn set_leader(&self, has_leader: bool) {
        self.has_leader.store(has_leader, Relaxed);
    }

    pub(crate) fn has_leader(&self) -> bool {
        self.has_leader.load(Relaxed)
    }

    fn load(&self) -> Load {
        let queued_bytes = self.queued_bytes.load(Relaxed);
        Load { queued_bytes, has_leader: self.has_leader() }
    }
}

/// Whether a broker would take the name at all.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty()
        && name.len() <= TOPIC_NAME_BYTES
        && name != "."
        && name != ".."
        && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_broker_takes_are_known() {
        for name in ["orders", "a.b_c-d", "...", "0"] {
            assert!(is_topic_name(name), "{name}");
        }
        let long = "x".repeat(250);
        for name in ["", ".", "..", "a b", "a/b", "ä", long.as_str()] {
            assert!(!is_topic_name(name), "{name}");
        }
    }
}
