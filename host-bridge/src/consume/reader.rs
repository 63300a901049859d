//! A feed, and where its readers start: what brokers say of its topics and their offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_client::{At, ConnectionFailure, NotReady, Reason, Stage};
use kafka_upstream_core::expression::RecordExpression;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::broadcasts::Broadcasts;
use super::cursor::{self, Cursor, Position, TopicPositions};
use super::dead_letters::{DeadLetters, Writing};
use super::decoding::{Decoder, Lookup};
use super::feed_metrics::FeedMetrics;
use super::feeds::Feed;
use super::hub::{Hub, is_unknown_topic};
use super::matching::Matching;
use super::refusal::{Code, Refusal};
use super::select::Placed;
use super::selection::{DECODE_ERROR, Decoded, Identity, Selected};
use super::source::Source;
use super::start::{Gap, GapReason, Given, KnownTopic, Scope, Start, Starts};
use super::steps::Steps;
use super::topic_log::{Segment, Stored};
use super::topics::Topics;
use super::waiting::{Waiting, WaitsFor};
use crate::clock::now_ms;
use crate::limits::{
    FEED_CHUNK_BYTES, FEED_DECODED_AHEAD, FEED_GRACE, FEED_KNOWN, FEED_LISTED, FEED_LOOK_AGAIN,
    FEED_PATIENCE, FEED_UNKNOWN,
};
use crate::registry::Registry;

/// A feed, and what reads it.
#[derive(Clone)]
pub(crate) struct FeedReader {
    pub(crate) feed: Arc<Feed>,
    /// Its place among all feeds.
    pub(crate) number: usize,
    pub(crate) hub: Arc<Hub>,
    /// What the hub reads.
    pub(crate) source: Arc<Source>,
    pub(crate) metrics: Arc<FeedMetrics>,
    /// Readers at a time.
    pub(crate) connections: Arc<Semaphore>,
    /// Of a feed with a pattern.
    matching: Option<Arc<Matching>>,
    /// Where records go that cannot be delivered.
    dead_letters: Option<Arc<DeadLetters>>,
    decoder: Option<Arc<Decoder>>,
    /// Where what it gives depends on who reads.
    identity: Identity,
    filter: Option<RecordExpression>,
    /// What its readers were sent last; none where each gets another thing.
    pub(crate) steps: Option<Arc<Steps>>,
    /// The same over WebSockets.
    socket_steps: Arc<Steps>,
    /// Event streams that are written to together; none where another one may find other topics.
    pub(crate) broadcasts: Option<Arc<Broadcasts>>,
}

impl FeedReader {
    pub(crate) fn new(
        feed: Feed,
        number: usize,
        hub: Arc<Hub>,
        dead_letters: Option<DeadLetters>,
        metrics: Arc<FeedMetrics>,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(feed.connections_max));
        let matching = Matching::new(&feed.topics).map(Arc::new);
        let (feed, dead_letters) = (Arc::new(feed), dead_letters.map(Arc::new));
        let identity = Identity::default();
        let (filter, steps) = (None, Some(hub.resources.steps()));
        let socket_steps = hub.resources.steps();
        let source = Arc::new(Source::of(&feed.cluster));
        Self {
            feed,
            number,
            hub,
            source,
            metrics,
            connections,
            matching,
            dead_letters,
            decoder: None,
            identity,
            filter,
            steps,
            socket_steps,
            broadcasts: Some(Arc::default()),
        }
    }

    /// The same with the registry that has the schemas of its records, if it has any.
    pub(crate) fn decoding(self, registry: Option<Arc<Registry>>) -> Self {
        Self { decoder: Decoder::new(&self.feed, registry).map(Arc::new), ..self }
    }

    /// The same feed read elsewhere.
    pub(super) fn elsewhere(&self, source: Source, hub: Arc<Hub>) -> Self {
        Self {
            source: Arc::new(source),
            matching: Matching::new(&self.feed.topics).map(Arc::new),
            steps: Some(hub.resources.steps()),
            socket_steps: hub.resources.steps(),
            hub,
            ..self.clone()
        }
    }

    /// Whether a reader has what this reads with.
    pub(super) fn is_held(&self) -> bool {
        Arc::strong_count(&self.source) > 1
    }

    /// The same for readers over WebSockets, which are sent other bytes.
    pub(crate) fn over_socket(self: &Arc<Self>) -> Arc<Self> {
        let steps = self.steps.as_ref().map(|_| Arc::clone(&self.socket_steps));
        Arc::new(Self { steps, ..(**self).clone() })
    }

    /// The same for one reader: a feed with fewer topics, if any, and who it is, if that matters.
    pub(crate) fn held_to(self: &Arc<Self>, feed: Option<Feed>, identity: Identity) -> Arc<Self> {
        if feed.is_none() && !self.feed.selection.is_per_client() && !self.takes_filters() {
            return Arc::clone(self);
        }
        let broadcasts = self.broadcasts.clone().filter(|_| feed.is_none());
        let feed = feed.map_or_else(|| Arc::clone(&self.feed), Arc::new);
        let steps = self.steps.clone().filter(|_| !self.feed.selection.is_per_client());
        Arc::new(Self { feed, identity, steps, broadcasts, ..(**self).clone() })
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
                let message =
                    "this feed takes no filter from readers: allow_client_filter is false";
                Err(Code::FilterInvalid.because(message))
            }
            filter => Ok(Arc::new(Self { filter, steps: None, ..(**self).clone() })),
        }
    }

    /// The same for a reader with a share of a group: hardly another one is where it is.
    pub(crate) fn alone(&self) -> Self {
        Self { steps: None, ..self.clone() }
    }

    fn takes_filters(&self) -> bool {
        self.feed.selection.allow_client_filter
    }

    /// What this reader gets of a record.
    pub(crate) fn select(&self, topic: &str, partition: i32, stored: &Stored) -> Selected {
        let placed = Placed { topic, partition, record: &stored.record };
        let selected = self.select_for_all(placed, stored);
        let client = self.identity.as_client();
        let passes = |filter| placed.holds(filter, &self.feed, client, &self.decoded(stored));
        match &self.filter {
            // At what ends readers all of them end, whatever they like.
            Some(filter) if selected.is_given() => {
                // What it cannot tell is not for this reader.
                if passes(filter).is_ok_and(|passes| passes) {
                    return selected;
                }
                self.metrics.filtered.inc();
                Selected::Nothing
            }
            _ => selected,
        }
    }

    fn select_for_all(&self, placed: Placed<'_>, stored: &Stored) -> Selected {
        if self.feed.takes_all() {
            return Selected::Whole;
        }
        let select = || {
            let client = self.identity.as_client();
            let selected = placed.select(&self.feed, client, &self.decoded(stored));
            if let Some(error) = selected.error() {
                self.metrics.error(error);
            }
            self.metrics.filtered.inc_by(u64::from(!selected.is_given()));
            match self.feed.selection.value_expression {
                Some(_) => selected.with_value(|bytes| self.held(bytes)),
                // What was decoded is held already.
                None => selected,
            }
        };
        if self.feed.selection.is_per_client() {
            select()
        } else {
            stored.selected(self.number, select)
        }
    }

    /// As it was decoded when it was decided on.
    fn decoded(&self, stored: &Stored) -> Decoded {
        let Some(decoder) = &self.decoder else { return Decoded::default() };
        let decoded = stored.decoded(self.number, || decoder.decode(&stored.record));
        let missing = |_| Decoded { error: Some(DECODE_ERROR), ..Decoded::default() };
        decoded.unwrap_or_else(missing)
    }

    /// Decodes a record, unless that was done. Returns the bytes that were looked at and made.
    fn decode(&self, stored: &Stored) -> Result<usize, Lookup> {
        let Some(decoder) = &self.decoder else { return Ok(0) };
        let mut bytes = 0;
        stored.decoded(self.number, || {
            let decoded = decoder.decode(&stored.record)?;
            bytes = stored.bytes() + decoded.bytes();
            Ok(decoded.map(|json| self.held(json)))
        })?;
        Ok(bytes)
    }

    /// Bytes that count as memory of readers.
    fn held(&self, bytes: bytes::Bytes) -> bytes::Bytes {
        self.hub.resources.memory.hold(bytes.len()).keep(bytes)
    }

    /// The place in a segment that readers may come to, looking at as many records for readers as are
    /// wanted: what is before it is decoded, and what is no reader's is in the dead-letter topic. With
    /// what is to be waited for there.
    pub(crate) fn decided(
        &self,
        (topic, partition, segment): (&str, i32, &Segment),
        at: usize,
        wanted: usize,
    ) -> (usize, Option<Waiting>) {
        let end = segment.records.len();
        if self.dead_letters.is_none() && self.decoder.is_none() {
            return (end, None);
        }
        let (mut left, mut decoded) = (wanted, 0);
        for (index, stored) in segment.records.iter().enumerate().skip(at) {
            // A small record may be a large text.
            let is_spent = || self.hub.resources.memory.is_spent();
            let is_enough = self.decoder.is_some() && index >= at + FEED_DECODED_AHEAD;
            if left == 0 || is_enough || decoded > FEED_CHUNK_BYTES || decoded > 0 && is_spent() {
                return (index, None);
            }
            match self.decode(stored) {
                Ok(bytes) => decoded += bytes,
                Err(lookup) => return (index, Some(Waiting::Schema(lookup))),
            }
            let Some(dead_letters) = &self.dead_letters else { continue };
            let placed = Placed { topic, partition, record: &stored.record };
            // A reader's own filter makes no dead letter.
            let selected = self.select_for_all(placed, stored);
            left -= usize::from(selected.is_given());
            let Selected::DeadLetter(reason) = selected else { continue };
            let writing = dead_letters.write(placed, segment.topic_id, reason);
            if !writing.is_done() {
                return (index, Some(Waiting::DeadLetter(writing)));
            }
        }
        (end, None)
    }

    /// Writes a record that its client refuses to the dead-letter topic, if there is one.
    pub(crate) fn dead_letter(
        &self,
        placed: Placed<'_>,
        topic_id: Option<u128>,
        reason: &str,
    ) -> Option<Writing> {
        let dead_letters = self.dead_letters.as_ref()?;
        Some(dead_letters.write(placed, topic_id, reason))
    }

    /// Why a record is not decided on, if that is known.
    pub(crate) fn fault(&self, of: WaitsFor) -> Option<Refusal> {
        match of {
            WaitsFor::DeadLetterTopic => self.dead_letters.as_ref().and_then(|it| it.fault()),
            WaitsFor::Registry => self.decoder.as_ref().and_then(|it| it.fault()),
        }
    }

    /// Writes a record that a receiver did not take to the dead-letter topic.
    ///
    /// # Errors
    /// Why it is not known to be written.
    pub(crate) async fn undelivered(
        &self,
        placed: Placed<'_>,
        (webhook, attempts): (&str, u32),
    ) -> Result<(), Refusal> {
        let Some(dead_letters) = &self.dead_letters else { return Ok(()) };
        dead_letters.write_undelivered(placed, (webhook, attempts)).await
    }

    /// The same for who has waited in vain.
    pub(crate) fn late(&self, of: WaitsFor) -> Option<Refusal> {
        let late = |it: &Arc<DeadLetters>| it.refusal("does not take a record in time");
        self.fault(of).or_else(|| match of {
            WaitsFor::DeadLetterTopic => self.dead_letters.as_ref().map(late),
            WaitsFor::Registry => self.decoder.as_ref().map(|decoder| decoder.late()),
        })
    }

    /// The positions of a start in every partition, and what has to be reported to the reader.
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
            feed: &self.feed.topics,
            asked: topics,
            reset: self.feed.reset,
            check_topic_existence: self.feed.check_topic_existence,
        };
        let known = async |age| self.partitions(start, topics, age, within).await;
        let starts = scope.starts(start, &known(FEED_KNOWN).await?);
        // What is known may be older than the partition or the topic.
        let starts = match is_as_expected(&starts) {
            true => starts,
            false => scope.starts(start, &known(Duration::ZERO).await?),
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

    /// The partitions of the topics that a start is about, as brokers said within `age`.
    ///
    /// # Errors
    /// Brokers do not say, or there are too many.
    pub(crate) async fn partitions(
        &self,
        start: &Given,
        topics: Option<&[String]>,
        age: Duration,
        within: Duration,
    ) -> Result<BTreeMap<String, KnownTopic>, Refusal> {
        let asking = async {
            let names = self.names(start, topics, within).await?;
            cursor::check_names(&names)?;
            self.known(&names, age, within).await
        };
        asking.await.map_err(|refusal| self.because_of_the_credential(refusal))
    }

    /// Where Kafka refuses the credential of the request, that is the error, not that it is unavailable.
    fn because_of_the_credential(&self, refusal: Refusal) -> Refusal {
        let is_own = self.source.credential.is_some();
        let is_refused = |fault: &ConnectionFailure| fault.stage == Stage::Credential;
        match refusal.code {
            Code::KafkaUnavailable if is_own && self.hub.client.faults().iter().any(is_refused) => {
                Code::AuthExpired.because("Kafka does not take the token (kafka-upstream-token)")
            }
            _ => refusal,
        }
    }

    /// Where a reader whose position is gone may go on.
    pub(crate) async fn both_ends(&self) -> Value {
        let end = async |start| {
            let (cursor, _) = self.open(&Given::From(start), None, FEED_PATIENCE).await.ok()?;
            Some(cursor.encode(self.feed.encode_message_id))
        };
        json!({ "earliest": end(Start::Earliest).await, "latest": end(Start::Latest).await })
    }

    /// The topics that a start is about, as far as they may exist. Those of a pattern do, as brokers said
    /// lately; where one that the reader names is not among them, they are asked until it is: another
    /// bridge may have read it before all brokers know of it.
    async fn names(
        &self,
        start: &Given,
        asked: Option<&[String]>,
        within: Duration,
    ) -> Result<Vec<String>, Refusal> {
        let named: Vec<&String> = match (asked, start) {
            (Some(asked), _) => asked.iter().collect(),
            (None, Given::Cursor(cursor)) => cursor.topics.keys().collect(),
            (None, Given::From(_) | Given::Nothing) => Vec::new(),
        };
        let is_asked = |topic: &&String| asked.is_none_or(|asked| asked.contains(topic));
        if let Topics::List(list) = &self.feed.topics {
            return Ok(list.iter().filter(is_asked).cloned().collect());
        }
        let patience = Instant::now() + within.min(FEED_UNKNOWN);
        let mut age = FEED_LISTED;
        loop {
            let listed = self.matching(age, within).await;
            let listed = listed
                .map_err(|error| Code::KafkaUnavailable.because(format!("topics: {error}")))?;
            let mut ours = named.iter().filter(|name| self.feed.topics.has(name));
            if ours.all(|name| listed.contains(*name)) || Instant::now() >= patience {
                return Ok(listed.iter().filter(is_asked).cloned().collect());
            }
            sleep(FEED_UNKNOWN / 10).await;
            age = Duration::ZERO;
        }
    }

    /// The feed's topics: those of its list, or those of its pattern that the cluster has.
    ///
    /// # Errors
    /// No broker answers.
    pub(crate) async fn topics(&self) -> Result<BTreeSet<String>, NotReady> {
        match &self.feed.topics {
            Topics::List(list) => Ok(list.iter().cloned().collect()),
            Topics::Pattern(_) => self.matching(FEED_LISTED, FEED_PATIENCE).await,
        }
    }

    /// The topics of the pattern that the cluster has.
    async fn matching(
        &self,
        age: Duration,
        within: Duration,
    ) -> Result<BTreeSet<String>, NotReady> {
        let Some(matching) = &self.matching else { return Ok(BTreeSet::new()) };
        let all = matching.among(&self.hub.listed(age, within).await?);
        Ok(all.iter().filter(|topic| self.feed.topics.has(topic)).cloned().collect())
    }

    /// Whether the cluster may have a topic of the feed: where it does not, nothing is kept of it.
    ///
    /// # Errors
    /// No broker answers.
    pub(crate) async fn may_exist(&self, topic: &str) -> Result<bool, NotReady> {
        match &self.feed.topics {
            Topics::List(_) => Ok(true),
            Topics::Pattern(_) => {
                Ok(self.matching(FEED_KNOWN, FEED_PATIENCE).await?.contains(topic))
            }
        }
    }

    /// Whether its topics are those that match a pattern, whatever there are.
    pub(crate) fn has_pattern(&self) -> bool {
        matches!(self.feed.topics, Topics::Pattern(_))
    }

    /// Where the topics of the pattern begin that are not among these. What brokers do not say now is
    /// asked again later.
    ///
    /// # Errors
    /// [`Code::FeedTooWide`].
    pub(crate) async fn created_beside(
        &self,
        followed: &BTreeSet<&str>,
    ) -> Result<Vec<(String, TopicPositions)>, Refusal> {
        let listed = self.matching(FEED_LOOK_AGAIN / 2, FEED_GRACE).await.unwrap_or_default();
        cursor::check_names(&listed)?;
        let created = listed.into_iter().filter(|topic| !followed.contains(&**topic));
        let asking = created.map(async |name| {
            let topic = self.hub.topic(&name);
            let known = self.hub.known(&topic, FEED_KNOWN, FEED_GRACE).await.ok()?;
            let partitions: Vec<_> = (0..known.partitions).collect();
            let begins =
                self.hub.offsets(&topic, &partitions, At::Earliest, FEED_GRACE).await.into_iter();
            let begins = partitions.into_iter().zip(begins).filter_map(|(partition, begin)| {
                Some((partition, Position::Offset { next: begin.ok()?, epoch: None }))
            });
            let positions = TopicPositions { tag: known.tag, partitions: begins.collect() };
            let is_whole = positions.partitions.len() == usize::try_from(known.partitions).ok()?;
            is_whole.then_some((name, positions))
        });
        Ok(join_all(asking).await.into_iter().flatten().collect())
    }

    /// What the cluster has of these topics, as brokers said it within `age`.
    async fn known(
        &self,
        topics: &[String],
        age: Duration,
        within: Duration,
    ) -> Result<BTreeMap<String, KnownTopic>, Refusal> {
        let asking = topics.iter().map(|topic| async move {
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
        Err(it) => !matches!(it.code, Code::CursorUnknownPartition | Code::OffsetOutOfRange),
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
