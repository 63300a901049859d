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
        frame: Bytes,
        records: usize,
    ) -> bool {
        let mut held = self.lock();
        if held.records + records > QUEUE_RECORDS || held.bytes + frame.len() > QUEUE_BYTES {
            return false;
        }
        held.records += records;
        held.bytes += frame.len();
        let is_running = held.waiting.contains_key(&profile);
        let entry = Entry { frame, left: (0..records).collect() };
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
        let mut records = 0;
        let fits = |entry: &&Entry| {
            records += entry.left.len();
            records <= WAVE_RECORDS
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
    let mut outcomes = outcomes.into_iter();
    for entry in entries.iter_mut() {
        let before = entry.left.len();
        entry.left.retain(|_| outcomes.next().is_none_or(|outcome| is_kept(&outcome)));
        let bytes = if entry.left.is_empty() { entry.frame.len() } else { 0 };
        bridge.queued.release(before - entry.left.len(), bytes);
    }
    entries.retain(|entry| !entry.left.is_empty());
}

fn is_kept(outcome: &Outcome) -> bool {
    let (Outcome::NotWritten(reason) | Outcome::Unknown(reason)) = outcome else { return false };
    let Reason { code, detail } = reason;
    if code.is_permanent() {
        warn!(code = code.name(), detail, "event=queued_record_dropped");
    }
    !code.is_permanent()
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
/// How long an attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const DRAIN_POLL: Duration = Duration::from_millis(10);
