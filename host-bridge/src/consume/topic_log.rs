//! What is in memory of a topic: its tail, which grows as Kafka gets records, and older parts that
//! readers behind it have read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka_client::{Fetched, ReadError, StoredRecord};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cursor::is_same_topic;
use super::envelope::Shape;
use super::memory::{Held, Memory};
use super::selection::{Decoded, Selected};
use super::sse::Rendered;
use crate::limits::{FEED_RETRY, FEED_TAIL_BYTES, ITEM_OVERHEAD_BYTES, SEGMENT_OVERHEAD_BYTES};

/// A topic as all its readers share it.
#[derive(Debug)]
pub(crate) struct TopicLog {
    pub(crate) name: Arc<str>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// How often that was rung.
    version: AtomicU64,
    /// Apart from that, since it is for readers behind the tail alone.
    caught_up: watch::Sender<()>,
}

/// Records of a partition from one offset to another, without a gap. Their parts are memory of their
/// own, which is counted until the last reader has done with it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: i64,
    /// The leader epoch of what is before it, if it is known.
    base_epoch: Option<i32>,
    /// Behind the records, and behind what is not for readers.
    pub(crate) next: i64,
    /// The leader epoch of what is before that.
    pub(crate) epoch: Option<i32>,
    pub(crate) records: Vec<Stored>,
    pub(crate) topic_id: Option<u128>,
    bytes: usize,
    _held: Held,
}

/// A record, and its event once somebody has needed it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) record: StoredRecord,
    rendered: OnceLock<(View, Rendered<Bytes>)>,
    /// What readers of a feed, by its number, get of it.
    selected: OnceLock<(usize, Selected)>,
    /// What it is by the schemas of a registry, for each feed that decodes it.
    decoded: Mutex<Vec<(usize, Decoded)>>,
}

/// What decides how a record looks as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// The feed, by its number.
    pub(crate) feed: usize,
    pub(crate) shape: Shape,
}

/// What there is for a reader at an offset.
#[derive(Debug)]
pub(crate) enum Look {
    Here(Arc<Segment>),
    /// Nothing; the tail waits there for what comes next.
    End,
    /// As [`Look::End`], but the brokers do not answer.
    Failing,
    /// It must be read from Kafka.
    Behind,
    /// Another reader reads it from Kafka now.
    BeingRead,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Of the topic that all of this is of: offsets mean nothing in another of the same name.
    id: Option<u128>,
    tag: Option<u32>,
    leaders: Vec<Option<i32>>,
    partitions: BTreeMap<i32, PartitionLog>,
    /// The tail's segments, oldest first: partition, base and bytes.
    tail: VecDeque<(i32, i64, usize)>,
    tail_bytes: usize,
    /// When the topic was last seen to have a reader.
    used: Option<Instant>,
}

#[derive(Debug, Default)]
struct PartitionLog {
    /// By their bases. They may overlap.
    segments: BTreeMap<i64, Arc<Segment>>,
    tail: Option<Tail>,
    /// The highest log end that a broker has reported.
    log_end: i64,
    /// Offsets from which readers read now.
    being_read: BTreeSet<i64>,
    /// Why it could not be read, whatever the offset, and until when nobody asks again.
    failure: Option<(ReadError, Instant)>,
}

/// Where the next records of a partition are waited for.
#[derive(Debug)]
struct Tail {
    next: i64,
    /// The leader epoch of what is before it.
    epoch: Option<i32>,
    is_failing: bool,
}

impl PartitionLog {
    fn forget(&mut self) {
        self.segments.clear();
        (self.tail, self.log_end) = (None, 0);
    }
}

impl Segment {
    /// What was fetched from a position; with what it takes of the readers' memory.
    pub(crate) fn new(
        (base, base_epoch): (i64, Option<i32>),
        fetched: Fetched,
        memory: &Arc<Memory>,
    ) -> Self {
        // As they came they would keep their whole batches, of up to 64 MiB.
        let records = StoredRecord::detached(&fetched.records).into_iter().map(|record| Stored {
            record,
            rendered: OnceLock::new(),
            selected: OnceLock::new(),
            decoded: Mutex::default(),
        });
        let records: Vec<_> = records.collect();
        let bytes = SEGMENT_OVERHEAD_BYTES + records.iter().map(Stored::bytes).sum::<usize>();
        let Fetched { next_offset: next, epoch, topic_id, .. } = fetched;
        let _held = memory.hold(bytes);
        Self { base, base_epoch, next, epoch, records, topic_id, bytes, _held }
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same of its records from an offset on.
    pub(crate) fn bytes_from(&self, next: i64) -> usize {
        let (count, before) = (self.records.len(), self.place_of(next));
        self.bytes * (count - before) / count.max(1)
    }

    /// Whether it goes on from a position whose epoch is this: another log may have been truncated
    /// before.
    fn follows(&self, next: i64, epoch: Option<i32>) -> bool {
        let before = self.place_of(next).checked_sub(1).and_then(|place| self.records.get(place));
        let ours = match before {
            _ if next == self.base => self.base_epoch,
            Some(stored) => stored.epoch(),
            None => return epoch.is_none(),
        };
        epoch.zip(ours).is_none_or(|(epoch, ours)| epoch == ours)
    }

    /// The first record at or behind an offset, by its place.
    pub(crate) fn place_of(&self, next: i64) -> usize {
        self.records.partition_point(|stored| stored.record.offset < next)
    }
}

impl Stored {
    /// The leader epoch that it was written in.
    pub(crate) fn epoch(&self) -> Option<i32> {
        Some(self.record.leader_epoch).filter(|epoch| *epoch >= 0)
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        bytes_of(&self.record) + ITEM_OVERHEAD_BYTES
    }

    /// What readers of a feed get of it: looked at once for all of them; another feed looks anew.
    pub(crate) fn selected(&self, feed: usize, select: impl FnOnce() -> Selected) -> Selected {
        match self.selected.get() {
            Some((of, selected)) if *of == feed => selected.clone(),
            Some(_) => select(),
            None => {
                let selected = select();
                let _another_was_first = self.selected.set((feed, selected.clone()));
                selected
            }
        }
    }

    /// What it is by the schemas of a feed's registry: decoded once, and kept as long as the record.
    ///
    /// # Errors
    /// Those of `decode`.
    pub(crate) fn decoded<E>(
        &self,
        feed: usize,
        decode: impl FnOnce() -> Result<Decoded, E>,
    ) -> Result<Decoded, E> {
        let mut all = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, decoded)) = all.iter().find(|(of, _)| *of == feed) {
            return Ok(decoded.clone());
        }
        let decoded = decode()?;
        all.push((feed, decoded.clone()));
        Ok(decoded)
    }

    /// Its event: made once for all readers of a view; another view makes its own.
    pub(crate) fn rendered(
        &self,
        view: View,
        render: impl FnOnce() -> Rendered<Bytes>,
    ) -> Rendered<Bytes> {
        match self.rendered.get() {
            Some((of, rendered)) if *of == view => rendered.clone(),
            Some(_) => render(),
            None => {
                let rendered = render();
                let _another_was_first = self.rendered.set((view, rendered.clone()));
                rendered
            }
        }
    }
}

impl TopicLog {
    pub(crate) fn new(name: &str) -> Self {
        let [changed, caught_up] = [(); 2].map(|()| watch::channel(()).0);
        let version = AtomicU64::new(0);
        Self { name: name.into(), state: Mutex::default(), changed, version, caught_up }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says when the tail has more. Who has one is a reader.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Says when a read behind the tail is over.
    pub(crate) fn subscribe_caught_up(&self) -> watch::Receiver<()> {
        self.caught_up.subscribe()
    }

    pub(crate) fn ring(&self) {
        self.version.fetch_add(1, SeqCst);
        let _nobody_reads = self.changed.send(());
    }

    /// Grows with every [`Self::ring`].
    pub(crate) fn version(&self) -> u64 {
        self.version.load(SeqCst)
    }

    pub(crate) fn ring_caught_up(&self) {
        let _nobody_waits = self.caught_up.send(());
    }

    /// Whether nobody has read it for a time. What was in memory goes then.
    pub(crate) fn is_idle(&self, after: Duration) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        if self.changed.receiver_count() > 0 || state.used.is_none() {
            state.used = Some(now);
        }
        let is_idle = state.used.is_some_and(|used| now - used >= after);
        if is_idle {
            state.clear();
        }
        is_idle
    }
}

impl State {
    /// What a reader of the topic with this tag finds behind something of this leader epoch.
    pub(crate) fn look(
        &self,
        tag: Option<u32>,
        partition: i32,
        (next, epoch): (i64, Option<i32>),
    ) -> Look {
        let is_other = !is_same_topic(tag, self.id.and_then(tag_of));
        let Some(log) = self.partitions.get(&partition).filter(|_| !is_other) else {
            return Look::Behind;
        };
        // Most readers wait at the tail.
        let end = |tail: &Tail| if tail.is_failing { Look::Failing } else { Look::End };
        if let Some(tail) = log.tail.as_ref().filter(|tail| tail.next == next) {
            return end(tail);
        }
        let before = log.segments.range(..=next).next_back().map(|(_, segment)| segment);
        if let Some(segment) = before.filter(|segment| next < segment.next) {
            // Else brokers decide whether the log was truncated.
            let is_same = segment.follows(next, epoch);
            return if is_same { Look::Here(Arc::clone(segment)) } else { Look::Behind };
        }
        let is_same = |tail: &Tail| epoch.zip(tail.epoch).is_none_or(|(ours, its)| ours == its);
        match &log.tail {
            Some(tail) if next == tail.next && !is_same(tail) => Look::Behind,
            // Who is ahead of the tail knows from a broker that it is at the end.
            Some(tail) if (tail.next..=log.log_end).contains(&next) => end(tail),
            _ if log.being_read.contains(&next) => Look::BeingRead,
            _ => Look::Behind,
        }
    }

    /// Marks an offset as being read, until [`Self::unmark`].
    pub(crate) fn mark(&mut self, partition: i32, next: i64) {
        self.partitions.entry(partition).or_default().being_read.insert(next);
    }

    pub(crate) fn unmark(&mut self, partition: i32, next: i64) {
        if let Some(log) = self.partitions.get_mut(&partition) {
            log.being_read.remove(&next);
        }
    }

    /// Brokers do not have the partition, or do not answer for it: all who read it need not ask.
    pub(crate) fn fail(&mut self, partition: i32, error: &ReadError) {
        let failure = Some((error.clone(), Instant::now() + FEED_RETRY));
        self.partitions.entry(partition).or_default().failure = failure;
    }

    /// Why a read of this partition failed just now.
    pub(crate) fn failure(&self, partition: i32) -> Option<ReadError> {
        let (error, until) = self.partitions.get(&partition)?.failure.as_ref()?;
        (*until > Instant::now()).then(|| error.clone())
    }

    /// Keeps what was read behind the tail, if it is longer than what is there; and where the log ends.
    pub(crate) fn keep(&mut self, partition: i32, segment: &Arc<Segment>, log_end: i64) {
        self.set_id(segment.topic_id);
        let log = self.partitions.entry(partition).or_default();
        log.failure = None;
        log.log_end = log.log_end.max(log_end);
        let is_longer = |there: &Arc<Segment>| segment.next > there.next;
        if segment.next > segment.base && log.segments.get(&segment.base).is_none_or(is_longer) {
            log.segments.insert(segment.base, Arc::clone(segment));
        }
    }

    /// A reader has come to the log end: the tail begins there, unless it has begun.
    pub(crate) fn begin_tail(&mut self, partition: i32, next: i64, epoch: Option<i32>) {
        self.used = Some(Instant::now());
        let log = self.partitions.entry(partition).or_default();
        log.tail.get_or_insert(Tail { next, epoch, is_failing: false });
    }

    /// The tail has read on from `base`. Returns whether it was there.
    pub(crate) fn append(&mut self, partition: i32, log_end: i64, segment: &Arc<Segment>) -> bool {
        self.set_id(segment.topic_id);
        let Some(log) = self.partitions.get_mut(&partition) else { return false };
        let Some(tail) = log.tail.as_mut().filter(|tail| tail.next == segment.base) else {
            return false;
        };
        *tail = Tail { next: segment.next, epoch: segment.epoch, is_failing: false };
        log.log_end = log_end;
        if segment.next > segment.base {
            log.segments.insert(segment.base, Arc::clone(segment));
            self.tail.push_back((partition, segment.base, segment.bytes));
            self.tail_bytes += segment.bytes;
            self.shrink_tail(FEED_TAIL_BYTES);
        }
        true
    }

    /// No broker answers for the tail at this offset.
    pub(crate) fn tail_is_failing(&mut self, partition: i32, next: i64) {
        if let Some(tail) = self.tail_at(partition, next) {
            tail.is_failing = true;
        }
    }

    /// The tail at this offset cannot be read: its readers ask, and hear why.
    pub(crate) fn end_tail(&mut self, partition: i32, next: i64) {
        if self.tail_at(partition, next).is_some() {
            self.forget(partition);
        }
    }

    /// The log was truncated: what is in memory of it may not be there any more.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.partitions.entry(partition).or_default().forget();
    }

    fn tail_at(&mut self, partition: i32, next: i64) -> Option<&mut Tail> {
        let tail = self.partitions.get_mut(&partition)?.tail.as_mut();
        tail.filter(|tail| tail.next == next)
    }

    /// Drops the oldest segments of the tail while it has more bytes.
    pub(crate) fn shrink_tail(&mut self, most: usize) {
        while self.tail_bytes > most {
            let Some((partition, base, bytes)) = self.tail.pop_front() else { break };
            self.tail_bytes -= bytes;
            self.drop_segment(partition, base);
        }
    }

    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    pub(crate) fn drop_segment(&mut self, partition: i32, base: i64) {
        if let Some(log) = self.partitions.get_mut(&partition) {
            log.segments.remove(&base);
        }
    }

    /// What brokers say of the topic now.
    pub(crate) fn set_known(&mut self, tag: Option<u32>, leaders: Vec<Option<i32>>) {
        (self.tag, self.leaders) = (tag, leaders);
        self.partitions.values_mut().for_each(|log| log.failure = None);
    }

    /// The topic's tag and how many partitions it has, as far as brokers were asked.
    pub(crate) fn known(&self) -> (Option<u32>, usize) {
        (self.tag, self.leaders.len())
    }

    /// The highest log end that a broker has reported.
    pub(crate) fn log_end(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition).map(|log| log.log_end)
    }

    /// Who is asked for a partition; nobody certain while it does not answer.
    fn leader(&self, partition: i32, tail: &Tail) -> Option<i32> {
        let index = usize::try_from(partition).ok()?;
        self.leaders.get(index).copied().flatten().filter(|_| !tail.is_failing)
    }

    /// Partitions whose tail a leader is asked for, and from where.
    pub(crate) fn tails_of(&self, leader: Option<i32>) -> Vec<(i32, i64, Option<i32>)> {
        let tails = self.partitions.iter().filter_map(|(partition, log)| {
            let tail = log.tail.as_ref()?;
            (self.leader(*partition, tail) == leader).then_some((*partition, tail.next, tail.epoch))
        });
        tails.collect()
    }

    /// Who is asked for the tails.
    pub(crate) fn leaders_of_tails(&self) -> BTreeSet<Option<i32>> {
        let tails = self.partitions.iter().filter_map(|(partition, log)| {
            log.tail.as_ref().map(|tail| self.leader(*partition, tail))
        });
        tails.collect()
    }

    /// What was read of a former topic of the name goes.
    fn set_id(&mut self, id: Option<u128>) {
        if self.id.zip(id).is_some_and(|(before, now)| before != now) {
            self.clear();
        }
        self.id = id.or(self.id);
    }

    fn clear(&mut self) {
        self.partitions.values_mut().for_each(PartitionLog::forget);
        self.tail.clear();
        self.tail_bytes = 0;
    }
}

/// The beginning of a topic's id, by which a cursor knows it.
pub(crate) fn tag_of(id: u128) -> Option<u32> {
    u32::try_from(id >> 96).ok()
}

/// Bytes of a record's key, value and headers.
pub(crate) fn bytes_of(record: &StoredRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|(name, value)| name.len() + length(&value));
    length(&record.key) + length(&record.value) + headers.sum::<usize>()
}
