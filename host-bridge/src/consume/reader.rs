//! A feed, and where its readers start: what brokers say of its topics and their offsets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_client::{At, Reason};
use kafka_upstream_core::expression::RecordExpression;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::cursor::{Cursor, Position, TopicPositions};
use super::dead_letters::DeadLetters;
use super::feeds::Feed;
use super::hub::Hub;
use super::refusal::{Code, Refusal};
use super::select::Placed;
use super::selection::{Identity, Selected};
use super::start::{FeedTopics, Gap, GapReason, Given, KnownTopic, Scope, Start, Starts};
use super::steps::Steps;
use super::topic_log::{Segment, Stored};
use crate::clock::now_ms;
use crate::limits::{FEED_CONNECTIONS, FEED_KNOWN, FEED_PATIENCE};

/// A feed, and what reads it.
#[derive(Clone)]
pub(crate) struct FeedReader {
    pub(crate) feed: Arc<Feed>,
    /// Its place among all feeds.
    pub(crate) number: usize,
    pub(crate) hub: Arc<Hub>,
    /// Readers at a time.
    pub(crate) connections: Arc<Semaphore>,
    /// Where records go that cannot be delivered.
    dead_letters: Option<Arc<DeadLetters>>,
    /// Where what it gives depends on who reads.
    identity: Identity,
    filter: Option<RecordExpression>,
    /// What its readers were sent last; none where each gets another thing.
    pub(crate) steps: Option<Arc<Steps>>,
}

impl FeedReader {
    pub(crate) fn new(
        feed: Feed,
        number: usize,
        hub: Arc<Hub>,
        dead_letters: Option<DeadLetters>,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(FEED_CONNECTIONS));
        let (feed, dead_letters) = (Arc::new(feed), dead_letters.map(Arc::new));
        let identity = Identity::default();
        let steps = Some(hub.resources.steps());
        Self { feed, number, hub, connections, dead_letters, identity, filter: None, steps }
    }

    /// The same for one reader: a feed with fewer topics, if any, and who it is, if that matters.
    pub(crate) fn held_to(self: &Arc<Self>, feed: Option<Feed>, identity: Identity) -> Arc<Self> {
        if feed.is_none() && !self.feed.selection.is_per_client() && !self.takes_filters() {
            return Arc::clone(self);
        }
        let feed = feed.map_or_else(|| Arc::clone(&self.feed), Arc::new);
        let steps = self.steps.clone().filter(|_| !self.feed.selection.is_per_client());
        Arc::new(Self { feed, identity, steps, ..(**self).clone() })
    }

    /// The same for a reader that has a filter of its own.
    ///
    /// # Errors
    /// The feed takes none.
    pub(crate) fn filtered(
        self: &Arc<Self>,
        filter: Option<RecordExpression>,
    ) -> Result<Arc<Self>, Refusal> {
        match filter {
            None => Ok(Arc::clone(self)),
            Some(_) if !self.takes_filters() => {
                let message = "filter: the feed takes none of its readers (allow_client_filter)";
                Err(Code::FilterInvalid.because(message))
            }
            filter => Ok(Arc::new(Self { filter, steps: None, ..(**self).clone() })),
        }
    }

    fn takes_filters(&self) -> bool {
        self.feed.selection.allow_client_filter
    }

    /// What this reader gets of a record.
    pub(crate) fn select(&self, topic: &str, partition: i32, stored: &Stored) -> Selected {
        let placed = Placed { topic, partition, record: &stored.record };
        let selected = self.select_for_all(placed, stored);
        let passes = |filter| placed.holds(filter, &self.feed, self.identity.as_client());
        match &self.filter {
            Some(filter) if !matches!(selected, Selected::Nothing | Selected::DeadLetter(_)) => {
                // What it cannot tell is not for this reader.
                if passes(filter) == Ok(true) { selected } else { Selected::Nothing }
            }
            _ => selected,
        }
    }

    fn select_for_all(&self, placed: Placed<'_>, stored: &Stored) -> Selected {
        let selection = &self.feed.selection;
        if selection.takes_all() {
            return Selected::Whole;
        }
        let select = || match placed.select(&self.feed, self.identity.as_client()) {
            Selected::Value { bytes: Some(bytes), deserializer } => {
                let held = self.hub.resources.memory.hold(bytes.len());
                Selected::Value { bytes: Some(held.keep(bytes)), deserializer }
            }
            selected => selected,
        };
        if selection.is_per_client() { select() } else { stored.selected(self.number, select) }
    }

    /// Writes those of a segment's records to the dead-letter topic that no reader can get.
    ///
    /// # Errors
    /// The place of one that is not there, and why: readers have to wait before it.
    pub(crate) async fn write_dead_letters(
        &self,
        topic: &str,
        partition: i32,
        segment: &Segment,
        at: usize,
    ) -> Result<(), (usize, Refusal)> {
        let Some(dead_letters) = &self.dead_letters else { return Ok(()) };
        for (index, stored) in segment.records.iter().enumerate().skip(at) {
            let placed = Placed { topic, partition, record: &stored.record };
            // A reader's own filter makes no dead letter.
            let Selected::DeadLetter(reason) = self.select_for_all(placed, stored) else {
                continue;
            };
            let written = dead_letters.write(placed, segment.topic_id, reason).await;
            written.map_err(|reason| (index, refused("the dead-letter topic", &reason)))?;
        }
        Ok(())
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
        cursor.check_width()?;
        Ok((cursor, gaps))
    }

    /// Where a reader whose position is gone may go on.
    pub(crate) async fn both_ends(&self) -> Value {
        let end = async |start| {
            let (cursor, _) = self.open(&Given::From(start), None, FEED_PATIENCE).await.ok()?;
            Some(cursor.encode(self.feed.encode_message_id))
        };
        json!({ "earliest": end(Start::Earliest).await, "latest": end(Start::Latest).await })
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
            (topic, self.hub.known(&self.hub.topic(topic), age, within).await)
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

    /// Puts the offsets of these partitions into a cursor. One whose leader does not answer has a
    /// time instead, by which it is resolved later: it must not hold back the others.
    async fn resolve(
        &self,
        cursor: &mut Cursor,
        open: Vec<(String, i32, At)>,
        within: Duration,
    ) -> Result<(), Refusal> {
        let count = open.len();
        let mut questions: Vec<(String, At, Vec<i32>)> = Vec::new();
        for (topic, partition, at) in open {
            match questions.iter_mut().find(|(of, when, _)| *of == topic && *when == at) {
                Some((.., partitions)) => partitions.push(partition),
                None => questions.push((topic, at, vec![partition])),
            }
        }
        let asking = questions.iter().map(async |(topic, at, partitions)| {
            self.hub.offsets(&self.hub.topic(topic), partitions, *at, within).await
        });
        let answers = join_all(asking).await;
        let mut failures = Vec::new();
        for ((topic, at, partitions), answers) in questions.iter().zip(answers) {
            for (partition, answer) in partitions.iter().zip(answers) {
                let position = match answer {
                    Ok(next) => Position::Offset { next, epoch: None },
                    Err(reason) => {
                        let refusal = refused(topic, &reason);
                        if refusal.code != Code::KafkaUnavailable {
                            return Err(refusal);
                        }
                        failures.push(refusal);
                        Position::Time(match at {
                            At::Earliest => 0,
                            At::Latest => now_ms(),
                            At::Time(ms) => *ms,
                        })
                    }
                };
                if let Some(positions) = cursor.topics.get_mut(topic) {
                    positions.partitions.insert(*partition, position);
                }
            }
        }
        // With none to resolve there is none that failed.
        let last = if failures.len() == count { failures.pop() } else { None };
        last.map_or(Ok(()), Err)
    }
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
pub(crate) fn is_unknown_topic(reason: &Reason) -> bool {
    match reason {
        Reason::UnknownTopic => true,
        Reason::DeadlineExceeded { last: Some(last) } => matches!(**last, Reason::UnknownTopic),
        _ => false,
    }
}

/// The refusal for a client's reason.
pub(crate) fn refused(topic: &str, reason: &Reason) -> Refusal {
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
