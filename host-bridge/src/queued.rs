//! Records that the bridge took with the word that they are queued: held in bounded memory, in
//! order of arrival, until Kafka has them or refuses them for good.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka_upstream_core::outcome::{Outcome, Reason};
use kafka_upstream_core::record::Record;
use kafka_upstream_core::wire;
use tokio::time::Instant;
use tracing::warn;

use crate::Bridge;
use crate::batches;
use crate::clusters::Shared;

/// The queues of all profiles.
#[derive(Default)]
pub(crate) struct Queues(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// What no task has taken yet; a profile is here as long as its task runs.
    waiting: HashMap<[u8; 32], VecDeque<Entry>>,
    records: usize,
    bytes: usize,
}

/// A batch as it came, and the positions of its records that are left.
struct Entry {
    frame: Bytes,
    left: Vec<usize>,
}

/// How much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Queues {
    /// Takes a batch of so many records in; false when there is no room.
    pub(crate) fn push(
        &self,
        bridge: &Arc<Bridge>,
        profile: [u8; 32],
        shared: &Arc<Shared>,
        frame: &[u8],
        records: usize,
    ) -> bool {
        let mut held = self.lock();
        if held.records + records > QUEUE_RECORDS || held.bytes + frame.len() > QUEUE_BYTES {
            return false;
        }
        held.records += records;
        held.bytes += frame.len();
        let is_running = held.waiting.contains_key(&profile);
        // A copy: what came is a part of a connection's buffer, many times as large, and holds all
        // of it.
        let entry = Entry { frame: Bytes::copy_from_slice(frame), left: (0..records).collect() };
        held.waiting.entry(profile).or_default().push_back(entry);
        if !is_running {
            tokio::spawn(write(Arc::clone(bridge), profile, Arc::clone(shared)));
        }
        true
    }

    pub(crate) fn depth(&self) -> Depth {
        let held = self.lock();
        Depth { records: held.records, bytes: held.bytes }
    }

    /// Waits until nothing is held; what is left at the deadline is lost.
    pub(crate) async fn drain(&self, deadline: Instant) {
        while self.depth().records > 0 {
            if Instant::now() >= deadline {
                warn!(records = self.depth().records, "event=queued_records_lost");
                return;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// The next batches of a profile; none when it has no more, and its task ends.
    fn take(&self, profile: &[u8; 32]) -> Option<Vec<Entry>> {
        let mut held = self.lock();
        let waiting = held.waiting.get_mut(profile).filter(|waiting| !waiting.is_empty());
        let Some(waiting) = waiting else {
            held.waiting.remove(profile);
            return None;
        };
        let (mut records, mut bytes) = (0, 0);
        let fits = |entry: &&Entry| {
            records += entry.left.len();
            bytes += entry.frame.len();
            records <= WAVE_RECORDS && bytes <= WAVE_BYTES
        };
        let count = waiting.iter().take_while(fits).count().max(1);
        Some(waiting.drain(..count).collect())
    }

    fn release(&self, records: usize, bytes: usize) {
        let mut held = self.lock();
        held.records -= records;
        held.bytes -= bytes;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what a profile has queued, one wave after the other, so that a key's records stay in
/// order.
async fn write(bridge: Arc<Bridge>, profile: [u8; 32], shared: Arc<Shared>) {
    while let Some(mut entries) = bridge.queued.take(&profile) {
        let mut backoff = BACKOFF_MIN;
        loop {
            attempt(&bridge, &shared, &mut entries).await;
            if entries.is_empty() {
                break;
            }
            tokio::time::sleep(backoff).await;
            backoff = (2 * backoff).min(BACKOFF_MAX);
        }
    }
}

/// Sends what is left once, and keeps what may yet be written.
async fn attempt(bridge: &Bridge, shared: &Arc<Shared>, entries: &mut Vec<Entry>) {
    let deadline = Instant::now() + ATTEMPT_TIMEOUT;
    let outcomes = {
        let records: Vec<Record<'_>> = entries.iter().flat_map(Entry::records).collect();
        let producer = bridge.clusters.producer(shared);
        batches::enqueue(&producer, &records, deadline).await.outcomes().await
    };
    bridge.metrics.batch_settled(&outcomes);
    warn_of_dropped(&outcomes);
    let mut outcomes = outcomes.iter();
    for entry in entries.iter_mut() {
        let before = entry.left.len();
        entry.left.retain(|_| outcomes.next().is_none_or(may_yet_be_written));
        let bytes = if entry.left.is_empty() { entry.frame.len() } else { 0 };
        bridge.queued.release(before - entry.left.len(), bytes);
    }
    entries.retain(|entry| !entry.left.is_empty());
}

fn may_yet_be_written(outcome: &Outcome) -> bool {
    failure(outcome).is_some_and(|reason| !reason.code.is_permanent())
}

/// One line for all that no other attempt can help: how many, and why the first.
fn warn_of_dropped(outcomes: &[Outcome]) {
    let dropped =
        || outcomes.iter().filter_map(failure).filter(|reason| reason.code.is_permanent());
    if let Some(Reason { code, detail }) = dropped().next() {
        let records = dropped().count();
        warn!(records, code = code.name(), detail, "event=queued_records_dropped");
    }
}

fn failure(outcome: &Outcome) -> Option<&Reason> {
    match outcome {
        Outcome::NotWritten(reason) | Outcome::Unknown(reason) => Some(reason),
        Outcome::Written { .. } | Outcome::Queued => None,
    }
}

impl Entry {
    /// The records that are left. The frame was decoded before it was taken in.
    fn records(&self) -> Vec<Record<'_>> {
        let records = wire::decode_frame(&self.frame).map(|batch| batch.records);
        let all = records.unwrap_or_default();
        self.left.iter().filter_map(|position| all.get(*position).cloned()).collect()
    }
}

/// Most records that wait, as the filter's own queue by default.
const QUEUE_RECORDS: usize = 50_000;
/// Most bytes of the frames that wait.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Records that are sent at a time.
const WAVE_RECORDS: usize = 10_000;
/// Bytes of the frames that are sent at a time, unless one alone has more: a quarter of what a
/// producer holds for a partition by default.
const WAVE_BYTES: usize = 4 * 1024 * 1024;
/// How long an attempt may take: Kafka's own `delivery.timeout.ms`. What is in doubt at its end is
/// sent anew and may then be there twice, so it outlives most outages.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const DRAIN_POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
