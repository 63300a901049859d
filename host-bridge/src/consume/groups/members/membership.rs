//! The bridge as a member of a group: what its readers share, and what they have settled of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_client::{Group, GroupConfig, Member, MemberEvents};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::shares::{News, Partition, Shares};
use crate::clock::now_ms;
use crate::consume::cursor::{Cursor, Position, is_same_topic};
use crate::consume::delivery::Commit;
use crate::consume::groups::answers::{committed_of, refused};
use crate::consume::groups::committed::{Committed, Next, all};
use crate::consume::reader::FeedReader;
use crate::consume::refusal::{Code, Refusal};
use crate::consume::start::{Given, KnownTopic};
use crate::limits::{FEED_KNOWN, FEED_PATIENCE};

pub(in crate::consume::groups) struct Membership {
    group: Group,
    pub(super) member: Member,
    state: Mutex<State>,
    /// For the readers: they may have news.
    pub(super) news: watch::Sender<()>,
    /// For the keeper: it may have something to do.
    pub(super) wake: Notify,
    /// Commits are made one after the other, so that none moves a position back.
    turn: tokio::sync::Mutex<()>,
    /// The first of its readers, and the topics.
    pub(super) reader: Arc<FeedReader>,
    topics: Vec<String>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) shares: Shares,
    pub(super) committed: Committed,
    /// The partitions that it has, with what Kafka has of them.
    kept: BTreeMap<Partition, Option<Next>>,
    waits: Vec<Wait>,
    readers: u64,
    /// Whether what is settled is committed at once.
    pub(super) is_urgent: bool,
    /// Since when nobody reads.
    pub(super) idle_since: Option<Instant>,
    /// Why the membership is over.
    pub(super) end: Option<Refusal>,
}

/// A partition that a reader gives up when it has been acknowledged up to here, or then.
struct Wait {
    reader: u64,
    partition: Partition,
    next: i64,
    until: Instant,
}

impl Membership {
    pub(super) fn join(
        group: Group,
        config: &GroupConfig,
        topics: &[String],
        reader: &Arc<FeedReader>,
    ) -> (Arc<Self>, MemberEvents) {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let (member, events) = group.join(&names, config);
        let membership = Self {
            group,
            member,
            state: Mutex::default(),
            news: watch::Sender::new(()),
            wake: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            reader: Arc::clone(reader),
            topics: topics.to_vec(),
        };
        (Arc::new(membership), events)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes these partitions over, with where the group is in them.
    ///
    /// # Errors
    /// Kafka does not say where.
    pub(super) async fn adopt(&self, assigned: &[Partition]) -> Result<(), Refusal> {
        // Of all partitions: whether the group is new is to be known.
        let known = self.known(Duration::ZERO).await?;
        let assigned_too = assigned.iter().map(|(topic, partition)| (&**topic, *partition));
        let mut partitions: Vec<_> = all(&known).chain(assigned_too).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let fresh = committed_of(&self.group, partitions, FEED_PATIENCE).await?;
        let mut state = self.lock();
        let State { committed, kept, shares, .. } = &mut *state;
        let own = |topic: &str, it| kept.contains_key(&(Arc::from(topic), it));
        committed.refresh(fresh, own);
        for partition in assigned {
            let next = committed.next(&partition.0, partition.1);
            kept.insert(partition.clone(), next);
        }
        shares.hold(assigned.iter().cloned());
        drop(state);
        self.news.send_replace(());
        Ok(())
    }

    /// Its topics, as brokers said within `age`.
    async fn known(&self, age: Duration) -> Result<BTreeMap<String, KnownTopic>, Refusal> {
        let topics = Some(&*self.topics);
        self.reader.partitions(&Given::Nothing, topics, age, FEED_PATIENCE).await
    }

    /// Commits what has been settled, or all that there is.
    ///
    /// # Errors
    /// Kafka does not take a position.
    pub(in crate::consume::groups) async fn commit(&self, is_all: bool) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        let due = self.lock().due(is_all, &Cursor::default());
        self.keep(due).await
    }

    /// Commits what a reader is about to be sent: only then it is settled.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(super) async fn commit_before(&self, reader: u64, cursor: &Cursor) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        let due = {
            let state = self.lock();
            state.due(false, &state.of_reader(reader, cursor))
        };
        let kept = self.keep(due).await;
        if self.has_committed(cursor) {
            return Ok(());
        }
        kept?;
        Err(Code::GroupInUse.because("the partitions have gone to another member of the group"))
    }

    async fn keep(
        &self,
        (mut due, anchor_ms): (Vec<(Partition, Next)>, i64),
    ) -> Result<(), Refusal> {
        if due.is_empty() {
            return Ok(());
        }
        // Nothing is committed of a topic that is no more: there may be another of its name.
        let known = self.known(FEED_KNOWN).await?;
        due.retain(|((topic, _), next)| {
            known.get(&**topic).is_some_and(|known| is_same_topic(next.tag, known.tag))
        });
        let offsets: Vec<_> =
            due.iter().map(|((topic, it), next)| next.of(topic, *it, anchor_ms)).collect();
        let answers = self.member.commit(&offsets, FEED_PATIENCE).await;
        let (mut done, mut state) = (Ok(()), self.lock());
        for ((partition, next), answer) in due.iter().zip(answers) {
            match answer {
                Ok(()) => state.is_kept(partition, *next),
                Err(error) => done = Err(refused(&error)),
            }
        }
        let metrics = &self.reader.metrics;
        if done.is_ok() { &metrics.commits } else { &metrics.commit_failures }.inc();
        done
    }

    /// Whether it has all partitions of a cursor.
    pub(in crate::consume::groups) fn has(&self, topic: &str, partition: i32) -> bool {
        self.lock().shares.is_held(&(Arc::from(topic), partition))
    }

    /// A client has what is before this cursor; partitions that are not here are none of its.
    pub(in crate::consume::groups) fn acknowledge(&self, cursor: &Cursor) {
        let mut state = self.lock();
        let mut ours = cursor.clone();
        ours.retain(|topic, partition| state.shares.is_held(&(Arc::from(topic), partition)));
        state.advance(&ours);
        state.is_urgent = true;
        drop(state);
        self.wake.notify_one();
    }

    /// Whether Kafka has all of what is here of this cursor.
    fn has_committed(&self, cursor: &Cursor) -> bool {
        let state = self.lock();
        let is_kept = |topic: &String, tag, partition: &i32, next| {
            let kept = state.kept.get(&(Arc::from(&**topic), *partition)).copied().flatten();
            kept.is_some_and(|kept| kept.offset >= next && is_same_topic(kept.tag, tag))
        };
        cursor.topics.iter().all(|(topic, positions)| {
            let mut partitions = positions.partitions.iter();
            partitions.all(|(partition, position)| {
                position.next().is_none_or(|next| is_kept(topic, positions.tag, partition, next))
            })
        })
    }
}

impl State {
    pub(super) fn enter(&mut self) -> u64 {
        (self.readers, self.idle_since) = (self.readers + 1, None);
        self.shares.enter(self.readers);
        self.readers
    }

    pub(super) fn exit(&mut self, reader: u64) {
        self.waits.retain(|wait| wait.reader != reader);
        self.shares.exit(reader);
        self.idle_since = (!self.shares.has_readers()).then(Instant::now);
        self.is_urgent = true;
    }

    /// # Errors
    /// The membership is over.
    pub(super) fn news(&mut self, reader: u64) -> Result<News, Refusal> {
        self.end.clone().map_or_else(|| Ok(self.shares.news(reader)), Err)
    }

    /// A reader has settled what is before this cursor, as far as it has the partitions.
    pub(super) fn settle(&mut self, reader: u64, cursor: &Cursor) {
        let own = self.of_reader(reader, cursor);
        self.advance(&own);
    }

    /// The log has no longer what was settled: what is there now is committed from here on.
    pub(super) fn go_back(&mut self, reader: u64, topic: &str, partition: i32, to: i64) {
        if self.shares.is_read_by(reader, &(Arc::from(topic), partition)) {
            self.committed.go_back(topic, partition, to);
        }
    }

    fn of_reader(&self, reader: u64, cursor: &Cursor) -> Cursor {
        let mut own = cursor.clone();
        own.retain(|topic, it| self.shares.is_read_by(reader, &(Arc::from(topic), it)));
        own
    }

    fn advance(&mut self, cursor: &Cursor) {
        self.committed.advance(cursor);
        self.committed.anchor_ms.get_or_insert_with(now_ms);
    }

    /// A reader gives up these partitions: at once, or when they are acknowledged, or then.
    pub(super) fn give_up(&mut self, reader: u64, taken: &Cursor, until: Option<Instant>) {
        for (topic, partition, position) in taken.iter() {
            let partition = (Arc::from(topic), partition);
            match (position, until) {
                (Position::Offset { next, .. }, Some(until)) => {
                    self.waits.push(Wait { reader, partition, next, until });
                }
                _ => self.shares.given_up(reader, &partition),
            }
        }
    }

    /// Has partitions given up whose time has come. Says whether there were any, and when there is another.
    pub(super) fn look_at_waits(&mut self, now: Instant) -> (bool, Option<Instant>) {
        let Self { waits, shares, committed, .. } = self;
        let before = waits.len();
        waits.retain(|wait| {
            let (topic, partition) = &wait.partition;
            let settled = committed.next(topic, *partition);
            let is_over = now >= wait.until
                || !shares.is_held(&wait.partition)
                || settled.is_some_and(|settled| settled.offset >= wait.next);
            if is_over {
                shares.given_up(wait.reader, &wait.partition);
            }
            !is_over
        });
        (waits.len() < before, waits.iter().map(|wait| wait.until).min())
    }

    /// The member has these no longer.
    pub(super) fn lose(&mut self, partitions: &[Partition]) {
        self.waits.retain(|wait| !partitions.contains(&wait.partition));
        self.shares.lose(partitions);
        self.kept.retain(|partition, _| !partitions.contains(partition));
    }

    /// What Kafka does not have yet, or all, with what is before a cursor; and when the group began.
    fn due(&self, is_all: bool, ahead: &Cursor) -> (Vec<(Partition, Next)>, i64) {
        let mut committed = self.committed.clone();
        committed.advance(ahead);
        let due = self.kept.iter().filter_map(|(partition, kept)| {
            let next = committed.next(&partition.0, partition.1)?;
            (is_all || *kept != Some(next)).then(|| (partition.clone(), next))
        });
        (due.collect(), committed.anchor_ms.unwrap_or_else(now_ms))
    }

    fn is_kept(&mut self, partition: &Partition, next: Next) {
        if let Some(kept) = self.kept.get_mut(partition) {
            *kept = Some(next);
            self.committed.settle(&partition.0, partition.1, next);
        }
    }
}

/// Whether readers of a feed move the group's position at all.
pub(super) fn commits(reader: &FeedReader) -> bool {
    reader.feed.delivery.commit != Commit::Off
}
