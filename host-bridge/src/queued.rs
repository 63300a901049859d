//! Records that the bridge took with the word that they are queued: held in bounded memory, in
//! order of arrival, until Kafka has them or refuses them for good.
//!
//! Each topic of a profile has a lane of its own, whose task sends one wave after the other, so that
//! a key's records stay in order and no topic waits for another.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use kafka_upstream_core::outcome::Outcome;
use kafka_upstream_core::record::Record;
use kafka_upstream_core::wire::{self, Batch, Delivery, Head};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::batches;
use crate::failing::{Topics, shown};
use crate::limits::{
    DRAIN_POLL, FAILING_TOPICS, QUEUE_BYTES, QUEUE_LANES, QUEUE_RECORDS, SLOW_BATCH, WAVE_BACKOFF,
    WAVE_BYTES, WAVE_PATIENCE, WAVE_RECORDS,
};
use crate::metrics::{Depth, Metrics};
use crate::pipeline::Pipeline;

/// The lanes of all profiles.
pub(crate) struct Queues {
    held: Mutex<Held>,
    metrics: Arc<Metrics>,
    /// Waves that are to panic.
    #[cfg(test)]
    panics: std::sync::atomic::AtomicUsize,
}

#[derive(Default)]
struct Held {
    /// A lane is here as long as its task runs.
    lanes: HashMap<LaneId, Lane>,
    records: usize,
    bytes: usize,
    /// It takes nothing any more.
    is_closed: bool,
}

/// A profile and a topic.
type LaneId = ([u8; 32], Arc<str>);

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Entry>,
    records: usize,
    bytes: usize,
    /// Waves in a row of which something was not written.
    failures: u32,
}

/// A batch of one topic as it came, and the positions of its records that are left.
#[derive(Clone)]
struct Entry {
    frame: Bytes,
    left: Vec<usize>,
    since: Instant,
}

impl Queues {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::default(),
            metrics,
            #[cfg(test)]
            panics: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// Takes a batch in whose records are encoded already, all of it or nothing; false when there is no
    /// room.
    pub(crate) fn push(
        self: &Arc<Self>,
        pipeline: &Arc<Pipeline>,
        frame: &[u8],
        batch: &Batch<'_>,
    ) -> bool {
        let parts = by_topic(frame, batch);
        let mut held = self.lock();
        if !held.admits(&batch.head.profile, &parts) {
            return false;
        }
        for (topic, entry) in parts {
            let id = (batch.head.profile, topic);
            held.records += entry.left.len();
            held.bytes += entry.frame.len();
            if !held.lanes.contains_key(&id) {
                tokio::spawn(run(Arc::clone(self), id.clone(), Arc::clone(pipeline)));
            }
            held.lanes.entry(id).or_default().push(entry);
        }
        true
    }

    /// Whether the last so many waves of a topic have failed.
    pub(crate) fn is_failing(&self, profile: [u8; 32], topic: &str, failures: u32) -> bool {
        let lane = (profile, Arc::from(topic));
        self.lock().lanes.get(&lane).is_some_and(|lane| lane.failures >= failures)
    }

    pub(crate) fn depth(&self) -> Depth {
        let held = self.lock();
        Depth { records: held.records, bytes: held.bytes }
    }

    /// Takes nothing from now on: the process ends.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Waits until nothing is held; what is left at the deadline is lost.
    pub(crate) async fn drain(&self, deadline: Instant) {
        while self.depth().records > 0 {
            if Instant::now() >= deadline {
                warn!(records = self.depth().records, "queued_records_lost");
                return;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// The topics whose oldest record waits for long, the longest first.
    pub(crate) fn slow_lanes(&self) -> Vec<Value> {
        let held = self.lock();
        let oldest = |lane: &Lane| Some(lane.waiting.front()?.since.elapsed());
        let mut slow: Vec<_> = held
            .lanes
            .iter()
            .filter_map(|((_, topic), lane)| Some((oldest(lane)?, topic, lane)))
            .filter(|(waits, ..)| *waits >= SLOW_BATCH)
            .collect();
        slow.sort_by_key(|(waits, ..)| std::cmp::Reverse(*waits));
        let one = |(waits, topic, lane): (std::time::Duration, &Arc<str>, &Lane)| {
            json!({
                "topic": shown(topic), "records": lane.records, "bytes": lane.bytes,
                "seconds": waits.as_secs(),
            })
        };
        slow.into_iter().take(FAILING_TOPICS).map(one).collect()
    }

    /// The next batches of a lane, which stay in it until they are settled; none when it has no
    /// more, and its task ends.
    fn wave(&self, id: &LaneId) -> Option<Vec<Entry>> {
        let mut held = self.lock();
        let lane = held.lanes.get(id).filter(|lane| !lane.waiting.is_empty());
        let Some(lane) = lane else {
            held.lanes.remove(id);
            return None;
        };
        let (mut records, mut bytes) = (0, 0);
        let fits = |entry: &&Entry| {
            records += entry.left.len();
            bytes += entry.frame.len();
            records <= WAVE_RECORDS && bytes <= WAVE_BYTES
        };
        let count = lane.waiting.iter().take_while(fits).count().max(1);
        Some(lane.waiting.iter().take(count).cloned().collect())
    }

    /// Forgets what is written or can never be. Says whether that is the whole wave.
    fn settle(&self, id: &LaneId, wave: usize, outcomes: &[Outcome]) -> bool {
        let mut guard = self.lock();
        let held = &mut *guard;
        let Some(lane) = held.lanes.get_mut(id) else { return true };
        let (mut outcomes, mut freed) = (outcomes.iter(), Depth { records: 0, bytes: 0 });
        let mut is_whole = true;
        for entry in lane.waiting.iter_mut().take(wave) {
            let before = entry.left.len();
            entry.left.retain(|_| outcomes.next().is_none_or(may_yet_be_written));
            freed.records += before - entry.left.len();
            is_whole &= entry.left.is_empty();
            freed.bytes += if entry.left.is_empty() { entry.frame.len() } else { 0 };
        }
        lane.failures = if is_whole { 0 } else { lane.failures.saturating_add(1) };
        lane.waiting.retain(|entry| !entry.left.is_empty());
        lane.records -= freed.records;
        lane.bytes -= freed.bytes;
        held.records -= freed.records;
        held.bytes -= freed.bytes;
        is_whole
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// A lane holds no more than is left free, so that one which cannot be written leaves half of
    /// the queue to the others, and two leave a third.
    fn admits(&self, profile: &[u8; 32], parts: &[(Arc<str>, Entry)]) -> bool {
        let free = (QUEUE_RECORDS - self.records, QUEUE_BYTES - self.bytes);
        let (mut records, mut bytes) = (0, 0);
        let mut lanes = self.lanes.len();
        for (topic, entry) in parts {
            let lane = self.lanes.get(&(*profile, Arc::clone(topic)));
            lanes += usize::from(lane.is_none());
            let (held_records, held_bytes) = lane.map_or((0, 0), |lane| (lane.records, lane.bytes));
            records += entry.left.len();
            bytes += entry.frame.len();
            if held_records + entry.left.len() > free.0 || held_bytes + entry.frame.len() > free.1 {
                return false;
            }
        }
        !self.is_closed && records <= free.0 && bytes <= free.1 && lanes <= QUEUE_LANES
    }
}

impl Lane {
    fn push(&mut self, entry: Entry) {
        self.records += entry.left.len();
        self.bytes += entry.frame.len();
        self.waiting.push_back(entry);
    }
}

/// A batch's records by topic. One of a single topic is kept as it came, as a copy: what came is a
/// part of a connection's buffer, many times as large, and holds all of it.
fn by_topic(frame: &[u8], batch: &Batch<'_>) -> Vec<(Arc<str>, Entry)> {
    let mut topics = BTreeMap::<&str, Vec<&Record<'_>>>::new();
    for record in &batch.records {
        topics.entry(record.topic).or_default().push(record);
    }
    let is_single = topics.len() == 1;
    let part = |(topic, records): (&str, Vec<&Record<'_>>)| {
        let frame = if is_single { frame.to_vec() } else { encode(&batch.head, &records) };
        let (left, since) = ((0..records.len()).collect(), Instant::now());
        (Arc::from(topic), Entry { frame: frame.into(), left, since })
    };
    topics.into_iter().map(part).collect()
}

/// Encoding what was decoded cannot fail.
pub(crate) fn encode(head: &Head, records: &[&Record<'_>]) -> Vec<u8> {
    let encoded: Vec<_> =
        records.iter().map(|record| wire::encode_record(record).unwrap_or_default()).collect();
    wire::encode_frame(head, encoded.iter().map(Vec::as_slice)).unwrap_or_default()
}

/// A lane's task. What it holds has been promised: a panic does not end it.
async fn run(queues: Arc<Queues>, id: LaneId, pipeline: Arc<Pipeline>) {
    let mut panicked = false;
    loop {
        let writing = async {
            if panicked {
                error!(cluster = pipeline.cluster(), topic = ?shown(&id.1), "queue_task_panicked");
                tokio::time::sleep(WAVE_BACKOFF.1).await;
            }
            write(&queues, &id, &pipeline).await;
        };
        match AssertUnwindSafe(writing).catch_unwind().await {
            Ok(()) => return,
            Err(_) => panicked = true,
        }
    }
}

/// Writes what a lane has queued, one wave after the other.
async fn write(queues: &Queues, id: &LaneId, pipeline: &Pipeline) {
    let mut backoff = WAVE_BACKOFF.0;
    while let Some(wave) = queues.wave(id) {
        let outcomes = send(queues, pipeline, &wave).await;
        if queues.settle(id, wave.len(), &outcomes) {
            backoff = WAVE_BACKOFF.0;
        } else {
            tokio::time::sleep(backoff).await;
            backoff = (2 * backoff).min(WAVE_BACKOFF.1);
        }
    }
}

/// Sends a wave, and waits until each record has an outcome: what is in doubt is the producer's to
/// resolve, because under another identity it would be written twice.
async fn send(queues: &Queues, pipeline: &Pipeline, wave: &[Entry]) -> Vec<Outcome> {
    #[cfg(test)]
    tests::panic_if_asked(queues);
    let limits = pipeline.limits(Delivery::Queued, Instant::now() + WAVE_PATIENCE);
    let (enqueued, topics) = {
        let records: Vec<Record<'_>> = wave.iter().flat_map(Entry::records).collect();
        let topics = Topics::of(&records);
        (batches::enqueue_encoded(pipeline, &records, limits).await, topics)
    };
    enqueued.settle(&queues.metrics, pipeline, Delivery::Queued, &topics).await
}

fn may_yet_be_written(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::NotWritten(reason) | Outcome::Unknown(reason) => !reason.code.is_permanent(),
        Outcome::Written { .. } | Outcome::Queued => false,
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

#[cfg(test)]
pub(crate) mod tests;
