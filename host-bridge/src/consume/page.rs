//! A page of a feed: its start in every partition, and the records that come within a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use kafka_client::{At, Consumer, Fetched, ReadError, Reason, StoredRecord};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cursor::{Cursor, Position, TopicPositions};
use super::feeds::{Feed, Reset};
use super::query::Query;
use super::refusal::{Code, Refusal};
use super::start::{FeedTopics, Gap, GapReason, Given, KnownTopic, Scope, Start, Starts};
use crate::clock::now_ms;
use crate::limits::{
    FEED_CHUNK_BYTES, FEED_GRACE, FEED_KNOWN, FEED_PATIENCE, FEED_QUIET, ITEM_OVERHEAD_BYTES,
};

/// A feed, and what reads it.
pub(crate) struct FeedReader {
    pub(crate) feed: Feed,
    consumer: Consumer,
    /// What brokers said of the topics, and when.
    known: Mutex<BTreeMap<String, (Instant, KnownTopic)>>,
}

/// What a reader gets.
pub(crate) struct Page {
    pub(crate) items: Vec<Item>,
    /// Behind the last item, in every partition.
    pub(crate) cursor: Cursor,
    pub(crate) gaps: Vec<Gap>,
    /// Records between the cursor and the log ends, where these are known.
    pub(crate) lag: i64,
    /// Why there are not more items.
    pub(crate) error: Option<Refusal>,
    /// Memory for the items, given back with them.
    pub(crate) memory: Vec<OwnedSemaphorePermit>,
}

/// A record, and where to go on behind it.
pub(crate) struct Item {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) record: StoredRecord,
    /// The cursor behind this record.
    pub(crate) id: String,
}

/// A page in the making.
struct Reading<'a> {
    reader: &'a FeedReader,
    query: &'a Query,
    page: Page,
    bytes: usize,
    log_ends: BTreeMap<(String, i32), i64>,
    /// A permit for each chunk of memory that all readers may take.
    budget: &'a Arc<Semaphore>,
}

impl FeedReader {
    pub(crate) fn new(feed: Feed, consumer: Consumer) -> Self {
        Self { feed, consumer, known: Mutex::default() }
    }

    /// Reads a page; a shutdown ends the wait for more. `budget` has a permit for each chunk of
    /// memory that all readers may take.
    ///
    /// # Errors
    /// Why there is no page; nothing was read.
    pub(crate) async fn page(
        &self,
        query: &Query,
        budget: &Arc<Semaphore>,
        shutdown: &CancellationToken,
    ) -> Result<Page, Refusal> {
        let deadline = Instant::now() + query.timeout;
        let within = FEED_PATIENCE.min(query.timeout + FEED_GRACE);
        let open = self.open(&query.start, query.topics.as_deref(), within);
        let Some(opened) = shutdown.run_until_cancelled(open).await else {
            return Err(Code::Overloaded.because("the bridge is about to end: ask again"));
        };
        let (cursor, gaps) = opened?;
        cursor.check_width()?;
        let (items, memory) = (Vec::new(), Vec::new());
        let page = Page { items, cursor, gaps, lag: 0, error: None, memory };
        let log_ends = BTreeMap::new();
        let mut reading = Reading { reader: self, query, page, bytes: 0, log_ends, budget };
        if let Some(read) = shutdown.run_until_cancelled(reading.read(deadline)).await {
            read?;
        }
        reading.page.lag = reading.lag();
        Ok(reading.page)
    }

    /// The positions of a start in every partition, and what the reader has to be told.
    ///
    /// # Errors
    /// As [`Scope::starts`], or the brokers do not say.
    pub(crate) async fn open(
        &self,
        start: &Given,
        topics: Option<&[String]>,
        within: Duration,
    ) -> Result<(Cursor, Vec<Gap>), Refusal> {
        let scope = Scope {
            feed: FeedTopics::List(&self.feed.topics),
            asked: topics,
            reset: self.feed.reset,
            check_topic_existence: self.feed.check_topic_existence,
        };
        let asked = topics.unwrap_or(&self.feed.topics);
        let starts = scope.starts(start, &self.known(asked, FEED_KNOWN, within).await?);
        // What is known may be older than the partition or the topic.
        let starts = match is_as_expected(&starts) {
            true => starts,
            false => scope.starts(start, &self.known(asked, Duration::ZERO, within).await?),
        };
        let Starts { topics, mut gaps } = starts?;
        let (mut cursor, mut open) =
            (Cursor { topics: BTreeMap::new(), complete: true }, Vec::new());
        for (topic, starts) in topics {
            let mut positions = TopicPositions { tag: starts.tag, partitions: BTreeMap::new() };
            for (partition, start) in starts.partitions {
                match start {
                    Start::At { next, epoch } => {
                        positions.partitions.insert(partition, Position::Offset { next, epoch });
                    }
                    Start::Earliest => open.push((topic.clone(), partition, At::Earliest)),
                    Start::Latest => open.push((topic.clone(), partition, At::Latest)),
                    Start::Time(ms) => open.push((topic.clone(), partition, At::Time(ms))),
                }
            }
            cursor.topics.insert(topic, positions);
        }
        self.resolve(&mut cursor, open, within).await?;
        for gap in &mut gaps {
            let positions = cursor.topics.get(&gap.topic);
            let position = positions.and_then(|found| found.partitions.get(&gap.partition));
            if let Some(Position::Offset { next, .. }) = position {
                gap.to = Some(*next);
            }
        }
        Ok((cursor, gaps))
    }

    /// What the cluster has of these topics, as brokers said it within `age`.
    async fn known(
        &self,
        topics: &[String],
        age: Duration,
        within: Duration,
    ) -> Result<BTreeMap<String, KnownTopic>, Refusal> {
        let of_feed = topics.iter().filter(|topic| self.feed.topics.contains(topic));
        let asking = of_feed.map(|topic| async move {
            let said = self.lock_known().get(topic).copied();
            match said.filter(|(at, _)| at.elapsed() < age) {
                Some((_, known)) => (topic, Ok(known)),
                None => (topic, self.ask(topic, within).await),
            }
        });
        let mut known = BTreeMap::new();
        for (topic, answer) in join_all(asking).await {
            match answer {
                Ok(found) => drop(known.insert(topic.clone(), found)),
                Err(reason) if is_unknown_topic(&reason) => {}
                Err(reason) => return Err(refused(topic, &reason)),
            }
        }
        Ok(known)
    }

    async fn ask(&self, topic: &str, within: Duration) -> Result<KnownTopic, Reason> {
        let found = self.consumer.partitions(topic, within).await?;
        let tag = found.id.and_then(tag_of);
        let partitions = i32::try_from(found.leaders.len()).unwrap_or(i32::MAX);
        let known = KnownTopic { tag, partitions };
        self.lock_known().insert(topic.to_owned(), (Instant::now(), known));
        Ok(known)
    }

    fn lock_known(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, KnownTopic)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the offsets of these partitions into a cursor. One whose leader does not answer has a
    /// time instead, by which it is resolved later: it must not hold back the others.
    async fn resolve(
        &self,
        cursor: &mut Cursor,
        mut open: Vec<(String, i32, At)>,
        within: Duration,
    ) -> Result<(), Refusal> {
        let count = open.len();
        let mut failures = Vec::new();
        while let Some((_, _, at)) = open.first() {
            let at = *at;
            let (these, others): (Vec<_>, _) = open.into_iter().partition(|one| one.2 == at);
            open = others;
            let asked: Vec<_> =
                these.iter().map(|(topic, partition, _)| (topic.as_str(), *partition)).collect();
            let answers = self.consumer.offsets(&asked, at, within).await;
            for ((topic, partition, _), answer) in these.into_iter().zip(answers) {
                let position = match answer {
                    Ok(next) => Position::Offset { next, epoch: None },
                    Err(reason) => {
                        let refusal = refused(&topic, &reason);
                        if refusal.code != Code::KafkaUnavailable {
                            return Err(refusal);
                        }
                        failures.push(refusal);
                        Position::Time(match at {
                            At::Earliest => 0,
                            At::Latest => now_ms(),
                            At::Time(ms) => ms,
                        })
                    }
                };
                if let Some(positions) = cursor.topics.get_mut(&topic) {
                    positions.partitions.insert(partition, position);
                }
            }
        }
        // With none to resolve there is none that failed.
        let last = if failures.len() == count { failures.pop() } else { None };
        last.map_or(Ok(()), Err)
    }
}

impl Reading<'_> {
    async fn read(&mut self, deadline: Instant) -> Result<(), Refusal> {
        while !self.is_full() && self.page.error.is_none() {
            if !self.take_memory() {
                if self.page.items.is_empty() {
                    let message = "the bridge reads as much as it may: ask again later";
                    return Err(Code::Overloaded.because(message));
                }
                break;
            }
            self.resolve_times().await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let enough = self.page.items.len() >= self.query.min;
            let wait = if enough { left.min(FEED_QUIET) } else { left };
            let asked = self.positions();
            let borrowed: Vec<_> = asked
                .iter()
                .map(|(topic, partition, next)| (&**topic, *partition, *next))
                .collect();
            let answers = self.reader.consumer.fetch(&borrowed, FEED_CHUNK_BYTES, wait).await;
            let before = self.page.items.len();
            let (mut fetched, mut unavailable) = (Vec::new(), None);
            let mut recreated = BTreeSet::new();
            for ((topic, partition, next), answer) in asked.into_iter().zip(answers) {
                match answer {
                    Ok(found) if self.is_of_another_topic(&topic, &found) => {
                        recreated.insert(topic);
                    }
                    Err(ReadError::Recreated) => drop(recreated.insert(topic)),
                    Ok(found) => fetched.push((topic, partition, found)),
                    // It is waited for.
                    Err(ReadError::Refused(reason))
                        if is_unknown_topic(&reason) && !self.reader.feed.check_topic_existence => {
                    }
                    Err(ReadError::Unavailable(reason)) => {
                        unavailable = Some(refused(&topic, &reason));
                    }
                    Err(error) => self.go_on_after(&topic, partition, next, &error).await?,
                }
            }
            // Also what its other partitions gave: it was read at offsets of the former topic.
            fetched.retain(|(topic, ..)| !recreated.contains(topic));
            for topic in recreated {
                self.start_anew(&topic).await?;
            }
            let is_answered = !fetched.is_empty();
            if !is_answered {
                tokio::time::sleep(left.min(FEED_QUIET)).await;
            }
            self.take(fetched);
            let is_quiet = self.page.items.len() == before;
            if Instant::now() >= deadline || (is_quiet && enough) {
                return match unavailable.filter(|_| !is_answered && self.page.items.is_empty()) {
                    Some(refusal) => Err(refusal),
                    None => Ok(()),
                };
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.page.items.len() >= self.query.limit || self.bytes >= self.query.max_bytes
    }

    /// Memory for the next chunk; what is read of it stays until the page is sent.
    fn take_memory(&mut self) -> bool {
        let needed = self.bytes / FEED_CHUNK_BYTES + 1;
        while self.page.memory.len() < needed {
            match Arc::clone(self.budget).try_acquire_owned() {
                Ok(permit) => self.page.memory.push(permit),
                Err(_) => return false,
            }
        }
        true
    }

    /// Partitions that had no leader are looked at again.
    async fn resolve_times(&mut self) -> Result<(), Refusal> {
        let mut open = Vec::new();
        for (topic, positions) in &self.page.cursor.topics {
            for (partition, position) in &positions.partitions {
                if let Position::Time(ms) = position {
                    open.push((topic.clone(), *partition, At::Time(*ms)));
                }
            }
        }
        match self.reader.resolve(&mut self.page.cursor, open, FEED_GRACE).await {
            Err(refusal) if refusal.code == Code::KafkaUnavailable => Ok(()),
            other => other,
        }
    }

    fn positions(&self) -> Vec<(String, i32, i64)> {
        let topics = self.page.cursor.topics.iter();
        topics
            .flat_map(|(topic, positions)| {
                positions.partitions.iter().filter_map(|(partition, position)| match position {
                    Position::Offset { next, .. } => Some((topic.clone(), *partition, *next)),
                    Position::Time(_) => None,
                })
            })
            .collect()
    }

    fn move_to(&mut self, topic: &str, partition: i32, next: i64) {
        if let Some(positions) = self.page.cursor.topics.get_mut(topic) {
            positions.partitions.insert(partition, Position::Offset { next, epoch: None });
        }
    }

    /// Takes records in turns, so that a busy partition leaves room for the others.
    fn take(&mut self, fetched: Vec<(String, i32, Fetched)>) {
        let mut queues = Vec::new();
        for (topic, partition, found) in fetched {
            self.log_ends.insert((topic.clone(), partition), found.log_end);
            if found.records.is_empty() {
                // Control batches, aborted records and what compaction took are behind.
                self.move_to(&topic, partition, found.next_offset);
            } else {
                queues.push((
                    topic,
                    partition,
                    found.next_offset,
                    found.records.into_iter().peekable(),
                ));
            }
        }
        while !queues.is_empty() && !self.is_full() {
            queues.retain_mut(|(topic, partition, end, records)| {
                let Some(record) = records.next_if(|_| !self.is_full()) else { return true };
                let is_last = records.peek().is_none();
                let next = if is_last { *end } else { record.offset + 1 };
                self.push(topic, *partition, next, record);
                !is_last
            });
        }
    }

    fn push(&mut self, topic: &str, partition: i32, next: i64, record: StoredRecord) {
        self.move_to(topic, partition, next);
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        let headers: usize =
            record.headers.iter().map(|(name, value)| name.len() + length(&value)).sum();
        let id = self.page.cursor.encode(self.reader.feed.encode_message_id);
        self.bytes += length(&record.key) + length(&record.value) + headers + id.len();
        self.bytes += ITEM_OVERHEAD_BYTES;
        // As it came it would keep its whole batch, of up to 64 MiB.
        let record = record.detached();
        self.page.items.push(Item { topic: topic.to_owned(), partition, record, id });
    }

    /// A partition that cannot be read from here: its position moves, with a gap in the page, or the
    /// page ends.
    async fn go_on_after(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
        error: &ReadError,
    ) -> Result<(), Refusal> {
        let moved = match (error, self.reader.feed.reset) {
            (ReadError::OutOfRange { .. }, Reset::None) => {
                return self
                    .end(Code::OffsetOutOfRange.because(format!("{topic}-{partition}: {error}")));
            }
            (ReadError::OutOfRange { log_start, log_end }, reset) => {
                let reason =
                    if from < *log_start { GapReason::Expired } else { GapReason::BeyondEnd };
                let to = if reset == Reset::Earliest { *log_start } else { *log_end };
                Some((to, reason))
            }
            (ReadError::TooLarge { next_offset, .. }, _) => {
                Some((*next_offset, GapReason::TooLarge))
            }
            (ReadError::Unreadable { next_offset: Some(next), .. }, _) => {
                Some((*next, GapReason::Unreadable))
            }
            (ReadError::Refused(reason), _) => return self.end(refused(topic, reason)),
            _ => None,
        };
        let Some((to, reason)) = moved else {
            return self.end(Code::Internal.because(format!("{topic}-{partition}: {error}")));
        };
        self.move_to(topic, partition, to);
        let (topic, from, to) = (topic.to_owned(), Some(from), Some(to));
        self.page.gaps.push(Gap { topic, partition, from, to, reason });
        Ok(())
    }

    /// Whether records are of a topic of the same name that was created since.
    fn is_of_another_topic(&self, topic: &str, found: &Fetched) -> bool {
        let tag = self.page.cursor.topics.get(topic).and_then(|positions| positions.tag);
        tag.zip(found.topic_id.and_then(tag_of)).is_some_and(|(ours, theirs)| ours != theirs)
    }

    /// A topic was deleted and created again: its new log is read from its start.
    async fn start_anew(&mut self, topic: &str) -> Result<(), Refusal> {
        if self.reader.feed.reset == Reset::None {
            let message = format!("the topic `{topic}` was deleted and created again");
            return self.end(Code::OffsetOutOfRange.because(message));
        }
        let known = self.reader.ask(topic, FEED_GRACE).await;
        let known = known.map_err(|reason| refused(topic, &reason))?;
        let Some(positions) = self.page.cursor.topics.get_mut(topic) else { return Ok(()) };
        positions.tag = known.tag;
        let before = std::mem::take(&mut positions.partitions);
        let start = |partition| (partition, Position::Offset { next: 0, epoch: None });
        positions.partitions = (0..known.partitions).map(start).collect();
        for (partition, position) in before {
            let Position::Offset { next, .. } = position else { continue };
            let (topic, from, to) = (topic.to_owned(), Some(next), Some(0));
            self.page.gaps.push(Gap { topic, partition, from, to, reason: GapReason::Recreated });
        }
        Ok(())
    }

    /// With items the page tells of the error; without, it is the reply.
    fn end(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        if self.page.items.is_empty() {
            return Err(refusal);
        }
        self.page.error = Some(refusal);
        Ok(())
    }

    fn lag(&self) -> i64 {
        let positions = self.positions().into_iter();
        let behind = positions.filter_map(|(topic, partition, next)| {
            self.log_ends.get(&(topic, partition)).map(|end| (end - next).max(0))
        });
        behind.sum()
    }
}

/// The beginning of a topic's id, by which a cursor knows it.
fn tag_of(id: u128) -> Option<u32> {
    u32::try_from(id >> 96).ok()
}

/// Whether nothing in a start contradicts what is known of the topics.
fn is_as_expected(starts: &Result<Starts, Refusal>) -> bool {
    match starts {
        Ok(starts) => starts.gaps.iter().all(|gap| gap.reason != GapReason::Recreated),
        Err(refusal) => {
            !matches!(refusal.code, Code::CursorUnknownPartition | Code::OffsetOutOfRange)
        }
    }
}

/// Also where brokers have been asked for less than the 5 s after which they are believed.
fn is_unknown_topic(reason: &Reason) -> bool {
    match reason {
        Reason::UnknownTopic => true,
        Reason::DeadlineExceeded { last: Some(last) } => matches!(**last, Reason::UnknownTopic),
        _ => false,
    }
}

/// The refusal for a client's reason.
fn refused(topic: &str, reason: &Reason) -> Refusal {
    let chain = format!("{topic}: {}", reason.chain());
    match reason {
        reason if is_unknown_topic(reason) => {
            Code::TopicNotFound.because(format!("there is no topic `{topic}`"))
        }
        Reason::InvalidTopic => Code::TopicNotFound.because(chain),
        Reason::Unauthorized { .. } => {
            Code::TopicNotAllowed.because(format!("the topic `{topic}` may not be read"))
        }
        Reason::Unsupported(_) | Reason::Refused { .. } => Code::KafkaRefused.because(chain),
        _ => Code::KafkaUnavailable.because(chain),
    }
}
