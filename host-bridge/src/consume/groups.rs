//! Consumer groups of readers. Without members a request starts where its group is, and commits what is
//! acknowledged; of a group one at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_client::Group;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::cursor::{Cursor, Position, is_same_topic};
use super::delivery::{Commit, Delivery, Qos};
use super::ending::unless_ending;
use super::feeds::MemberOf;
use super::query::Query;
use super::reader::FeedReader;
use super::refusal::{Code, Refusal};
use super::source::Source;
use super::start::{Gap, GapReason, Given, KnownTopic};
use crate::clock::now_ms;
use crate::limits::{FEED_AT_RISK, FEED_GRACE, FEED_GROUPS, FEED_KNOWN, FEED_PATIENCE, FEED_QUIET};
use answers::{committed_of, refused};
use committed::{Committed, GroupStart, all};
use members::Members;
use members::membership::Membership;
pub(crate) use members::share::Share;
pub(crate) use members::shares::{News, Partition, is_among};
use written::written;

mod answers;
mod committed;
mod members;
mod written;

/// The groups of the bridge.
#[derive(Default)]
pub(crate) struct Groups {
    /// Those that are read without being a member, by what they are of and by id.
    seats: Mutex<BTreeMap<(Source, String), Arc<Seat>>>,
    members: Members,
}

/// A group, and whose turn it is.
struct Seat {
    group: Group,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A request's turn in its group. While it is held no other request of this bridge has one.
pub(crate) struct Turn {
    seat: Arc<Seat>,
    reader: Arc<FeedReader>,
    committed: Committed,
    start: GroupStart,
    /// Whether it says up to where it has all.
    has_cursor: bool,
    anchor_ms: i64,
    /// Until the group's position is known to move no more by this request.
    held: Option<OwnedMutexGuard<()>>,
}

impl Groups {
    pub(crate) fn of_bridge(member: &MemberOf) -> Self {
        Self { members: Members::of_bridge(member), ..Self::default() }
    }

    /// As [`Members::join`].
    ///
    /// # Errors
    /// As [`Members::join`].
    pub(crate) async fn join(
        &self,
        reader: &Arc<FeedReader>,
        id: &str,
        query: &Query,
        shutdown: &CancellationToken,
    ) -> Result<Share, Refusal> {
        unless_ending(self.members.join(reader, id, query, shutdown), shutdown).await
    }

    /// As [`Members::close`].
    pub(crate) async fn close(&self) {
        self.members.close().await;
    }

    /// Waits for a turn in a group, for as long as the query waits for records; the query starts where
    /// the group is then.
    ///
    /// # Errors
    /// [`Code::GroupInUse`], those of [`Committed::start`], or Kafka does not say.
    pub(crate) async fn turn(
        &self,
        reader: &Arc<FeedReader>,
        id: &str,
        query: &mut Query,
        shutdown: &CancellationToken,
    ) -> Result<Turn, Refusal> {
        let until = Instant::now() + query.timeout;
        let turn = unless_ending(self.begin(reader, id, query, until), shutdown).await?;
        query.start = turn.start.given.clone();
        query.timeout = until.saturating_duration_since(Instant::now());
        if reader.feed.delivery.qos == Qos::AtMostOnce {
            query.limit = query.limit.min(FEED_AT_RISK);
            query.min = query.min.min(query.limit);
        }
        Ok(turn)
    }

    async fn begin(
        &self,
        reader: &Arc<FeedReader>,
        id: &str,
        query: &Query,
        until: Instant,
    ) -> Result<Turn, Refusal> {
        let seat = self.seat(reader, id);
        let held = seat.wait(until).await?;
        let left = until.saturating_duration_since(Instant::now());
        let within = FEED_PATIENCE.min(left + FEED_GRACE);
        let (asked, topics) = (&query.start, query.topics.as_deref());
        let known = reader.partitions(asked, topics, FEED_KNOWN, within).await?;
        let committed = seat.committed(&known, within).await?;
        let start = committed.start(asked, &known, &reader.feed)?;
        let has_cursor = matches!(asked, Given::Cursor(_));
        Ok(Turn { has_cursor, ..Turn::new(seat, reader, committed, start, held) })
    }

    /// Commits what is before a cursor, all of it or nothing.
    ///
    /// # Errors
    /// What is wrong with the cursor; [`Code::GroupInUse`]; or Kafka does not take it.
    pub(crate) async fn acknowledge(
        &self,
        reader: &Arc<FeedReader>,
        id: &str,
        cursor: Cursor,
    ) -> Result<(), Refusal> {
        let until = Instant::now() + FEED_PATIENCE;
        let given = Given::Cursor(cursor.clone());
        let known = async |age| reader.partitions(&given, None, age, FEED_PATIENCE).await;
        let mut checked = check(&cursor, reader, &known(FEED_KNOWN).await?);
        if checked.is_err() {
            // What is known may be older than the partition.
            checked = check(&cursor, reader, &known(Duration::ZERO).await?);
        }
        checked?;
        if written(reader, &cursor, FEED_GRACE).await != cursor {
            return Err(Code::OffsetOutOfRange.because("cursor: it is beyond the log end"));
        }
        let members = self.members.of(&reader.source, id);
        if !members.is_empty() {
            return acknowledge(members, cursor).await;
        }
        let seat = self.seat(reader, id);
        let held = seat.wait(until).await?;
        let committed = seat.committed(&known(FEED_KNOWN).await?, FEED_PATIENCE).await?;
        let start = GroupStart { given, uncommitted: Vec::new() };
        Turn::new(seat, reader, committed, start, held).commit(&cursor).await
    }

    fn seat(&self, reader: &FeedReader, id: &str) -> Arc<Seat> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = seats.len() >= FEED_GROUPS;
        // Nobody may come with the same credential again, and its client ends with its last seat.
        let has_own = reader.source.credential.is_some();
        seats.retain(|(source, _), seat| {
            let may_go = is_full || (has_own && source.credential.is_some());
            !may_go || Arc::strong_count(seat) > 1
        });
        let key = ((*reader.source).clone(), id.to_owned());
        let seat = || Arc::new(Seat { group: reader.hub.client.group(id), turn: Arc::default() });
        Arc::clone(seats.entry(key).or_insert_with(seat))
    }
}

impl Seat {
    async fn wait(&self, until: Instant) -> Result<OwnedMutexGuard<()>, Refusal> {
        let turn = timeout_at(until, Arc::clone(&self.turn).lock_owned()).await;
        let message = "another request of the group is being answered: ask again later";
        turn.map_err(|_| Code::GroupInUse.because(message))
    }

    async fn committed(
        &self,
        known: &BTreeMap<String, KnownTopic>,
        within: Duration,
    ) -> Result<Committed, Refusal> {
        committed_of(&self.group, all(known).collect(), within).await
    }
}

/// Commits what is before a cursor as a member, if the bridge has all of its partitions.
async fn acknowledge(members: Vec<Arc<Membership>>, cursor: Cursor) -> Result<(), Refusal> {
    let is_here = |topic: &str, partition| members.iter().any(|it| it.has(topic, partition));
    if !cursor.iter().all(|(topic, partition, _)| is_here(topic, partition)) {
        let message = "another member of the group has a partition of the cursor";
        return Err(Code::GroupInUse.because(message));
    }
    for member in members {
        member.acknowledge(&cursor);
        member.commit(false).await?;
    }
    Ok(())
}

impl Turn {
    fn new(
        seat: Arc<Seat>,
        reader: &Arc<FeedReader>,
        committed: Committed,
        start: GroupStart,
        held: OwnedMutexGuard<()>,
    ) -> Self {
        let anchor_ms = committed.anchor_ms.unwrap_or_else(now_ms);
        let (reader, held) = (Arc::clone(reader), Some(held));
        Self { seat, reader, committed, start, has_cursor: false, anchor_ms, held }
    }

    /// The request starts at this cursor: the group keeps that, unless it is further. Gives what the
    /// reader is to be sent.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) async fn begin(&mut self, cursor: &Cursor) -> Result<Vec<Gap>, Refusal> {
        // Also what has not changed: only so it is known that the group has no members, and nothing
        // of it expires that is seldom written.
        match self.has_cursor {
            true => self.commit(&written(&self.reader, cursor, FEED_QUIET).await).await?,
            false => self.commit(cursor).await?,
        }
        if self.delivery().commit != Commit::Auto {
            self.held = None;
        }
        Ok(self.start.gaps(cursor))
    }

    /// The gaps that the reader is sent. Where the log is another one, or shorter, the group goes back,
    /// unless it was the reader's cursor alone that was beyond the log end.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) async fn hear(&mut self, gaps: &[Gap]) -> Result<(), Refusal> {
        let mut is_back = false;
        for gap in gaps {
            let Some(to) = gap.goes_back_to() else { continue };
            let log_end = self.reader.hub.topic(&gap.topic).log.lock().log_end(gap.partition);
            let kept = self.committed.next(&gap.topic, gap.partition);
            let is_in_log = kept.zip(log_end).is_some_and(|(next, log_end)| next.offset <= log_end);
            if gap.reason != GapReason::BeyondEnd || !is_in_log {
                self.committed.go_back(&gap.topic, gap.partition, to);
                is_back = true;
            }
        }
        if is_back { self.commit(&Cursor::default()).await } else { Ok(()) }
    }

    /// Before the records up to this cursor are sent.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) async fn before(&mut self, cursor: &Cursor) -> Result<(), Refusal> {
        match self.delivery() {
            Delivery { qos: Qos::AtMostOnce, commit: Commit::Auto, .. } => {
                self.commit(cursor).await
            }
            _ => Ok(()),
        }
    }

    /// The records up to this cursor have been sent. What cannot be committed is sent again.
    pub(crate) async fn after(mut self, cursor: &Cursor) {
        let Delivery { qos, commit, .. } = self.delivery();
        if *commit == Commit::Auto && *qos != Qos::AtMostOnce {
            let group = self.seat.group.id().to_owned();
            if let Err(refusal) = self.commit(cursor).await {
                tracing::debug!(group, %refusal, "page_not_committed");
            }
        }
    }

    fn delivery(&self) -> &Delivery {
        &self.reader.feed.delivery
    }

    /// Commits all partitions, so that none expires before the others.
    ///
    /// # Errors
    /// [`Code::GroupInUse`], or Kafka does not take it.
    async fn commit(&mut self, cursor: &Cursor) -> Result<(), Refusal> {
        if self.delivery().commit == Commit::Off {
            return Ok(());
        }
        self.committed.advance(cursor);
        let kept = self.committed.iter();
        let offsets: Vec<_> =
            kept.map(|(topic, it, next)| next.of(topic, it, self.anchor_ms)).collect();
        let kept = self.seat.group.commit(&offsets, FEED_PATIENCE).await;
        let metrics = &self.reader.metrics;
        let kept = kept.into_iter().collect::<Result<(), _>>().map_err(|error| refused(&error));
        if kept.is_ok() { &metrics.commits } else { &metrics.commit_failures }.inc();
        kept
    }
}

/// Whether there is all that a cursor names, for this reader.
fn check(
    cursor: &Cursor,
    reader: &FeedReader,
    known: &BTreeMap<String, KnownTopic>,
) -> Result<(), Refusal> {
    for (topic, positions) in &cursor.topics {
        if !reader.feed.topics.has(topic) {
            return Err(Refusal::foreign_topic(topic));
        }
        let Some(known) = known.get(topic) else {
            return Err(Code::TopicNotFound.because(format!("there is no topic `{topic}`")));
        };
        if !is_same_topic(positions.tag, known.tag) {
            let message = format!("the topic `{topic}` was deleted and created again");
            return Err(Code::TopicDeleted.because(message));
        }
        let last = positions.partitions.keys().next_back();
        if let Some(unknown) = last.filter(|partition| **partition >= known.partitions) {
            let message = format!("cursor: the topic `{topic}` has no partition {unknown}");
            return Err(Code::CursorUnknownPartition.because(message));
        }
    }
    let mut all = cursor.topics.values().flat_map(|positions| positions.partitions.values());
    match all.any(|position| matches!(position, Position::Offset { .. })) {
        true => Ok(()),
        false => Err(Code::CursorIncomplete.because("cursor: it has no offset to commit")),
    }
}

#[cfg(test)]
mod tests;
