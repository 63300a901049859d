//! A reader's share of a group's partitions: what it is given, what is taken from it, and what it has
//! settled.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::membership::{Membership, commits};
use super::shares::{News, Partition, is_among};
use crate::clock::now_ms;
use crate::consume::cursor::{Cursor, Position};
use crate::consume::delivery::{Commit, Delivery, Qos};
use crate::consume::groups::committed::Committed;
use crate::consume::query::Query;
use crate::consume::reader::FeedReader;
use crate::consume::refusal::Refusal;
use crate::consume::start::{Gap, GapReason, Given, KnownTopic};
use crate::limits::{FEED_KNOWN, FEED_PATIENCE};

/// Partitions come and go by [`Share::next`]. It is given back when this is dropped.
pub(crate) struct Share {
    membership: Arc<Membership>,
    number: u64,
    reader: Arc<FeedReader>,
    /// Where it wants to start, as far as it has not.
    asked: Given,
    topics: Option<Vec<String>>,
    /// Where it was in what was taken from it.
    was_at: Cursor,
    changed: watch::Receiver<()>,
    sent_moves: u64,
}

impl Share {
    /// Of a client that has what is before `acked`. None if the membership is over.
    pub(super) fn of(
        membership: &Arc<Membership>,
        reader: &Arc<FeedReader>,
        query: &Query,
        acked: &Cursor,
    ) -> Option<Self> {
        let changed = membership.news.subscribe();
        let mut state = membership.lock();
        if state.end.is_some() {
            return None;
        }
        let number = state.enter();
        drop(state);
        if matches!(query.start, Given::Cursor(_)) && commits(reader) {
            membership.acknowledge(acked);
        }
        membership.news.send_replace(());
        Some(Self {
            membership: Arc::clone(membership),
            number,
            reader: Arc::clone(reader),
            asked: query.start.clone(),
            topics: query.topics.clone(),
            was_at: Cursor::default(),
            changed,
            sent_moves: 0,
        })
    }

    /// Waits until it has been given partitions, or is to give some up. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The membership is over.
    pub(crate) async fn next(&mut self) -> Result<News, Refusal> {
        loop {
            self.changed.mark_unchanged();
            let news = self.membership.lock().news(self.number)?;
            if !news.is_empty() {
                return Ok(news);
            }
            if self.changed.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    /// Where to start in partitions that are given; the group begins there, if it is new.
    ///
    /// # Errors
    /// Kafka does not say.
    pub(crate) async fn starts(
        &mut self,
        given: &[Partition],
    ) -> Result<(Cursor, Vec<Gap>), Refusal> {
        let (reader, topics) = (&self.reader, self.topics.as_deref());
        let known = reader.partitions(&self.asked, topics, FEED_KNOWN, FEED_PATIENCE).await?;
        let committed = self.membership.lock().committed.clone();
        let start = committed.share(&self.asked, &known, &reader.feed, now_ms())?;
        let (mut cursor, mut gaps) = reader.open(&start.given, topics, FEED_PATIENCE).await?;
        gaps.extend(start.gaps(&cursor));
        let is_given = |topic: &str, partition: i32| is_among(given, topic, partition);
        cursor.retain(is_given);
        cursor.complete = false;
        gaps.retain(|gap| is_given(&gap.topic, gap.partition));
        for (topic, partition) in given {
            let positions = cursor.topics.entry(topic.to_string()).or_default();
            // It was created just now.
            let log_start = Position::Offset { next: 0, epoch: None };
            positions.partitions.entry(*partition).or_insert(log_start);
        }
        if commits(reader) {
            let mut state = self.membership.lock();
            state.settle(self.number, &cursor);
            state.is_urgent = true;
            self.membership.wake.notify_one();
        }
        self.go_on(&mut cursor, &mut gaps, &committed, &known);
        if let Given::Cursor(asked) = &mut self.asked {
            asked.retain(|topic, partition| !is_given(topic, partition));
        }
        self.was_at.retain(|topic, partition| !is_given(topic, partition));
        Ok((cursor, gaps))
    }

    /// What it was sent before it is not sent again. Of a topic that was created again it is sent all,
    /// but for what the group has of that.
    fn go_on(
        &self,
        cursor: &mut Cursor,
        gaps: &mut Vec<Gap>,
        group: &Committed,
        known: &BTreeMap<String, KnownTopic>,
    ) {
        for (topic, positions) in &mut cursor.topics {
            let Some(were) = self.was_at.topics.get(topic) else { continue };
            // Of one that was created just now no tag is known.
            let is_same = were.tag.is_none() || were.tag == positions.tag;
            for (partition, start) in &mut positions.partitions {
                let Some(was) = were.partitions.get(partition) else { continue };
                let next = start.next();
                let is_behind = was.next().zip(next).is_some_and(|(was, next)| was > next);
                if is_same && !is_behind {
                    continue;
                }
                gaps.retain(|gap| (&*gap.topic, gap.partition) != (topic, *partition));
                if is_same {
                    *start = *was;
                    continue;
                }
                let is_in_it = group.position(known, topic, *partition).is_some();
                let to = next.filter(|_| is_in_it).unwrap_or(0);
                *start = Position::Offset { next: to, epoch: None };
                let gap = Gap::new(topic, *partition, was, GapReason::Recreated);
                gaps.push(Gap { to: Some(to), ..gap });
            }
        }
    }

    /// It has stopped at these partitions, where the cursor says: others of the bridge may have them, if
    /// it owes no acknowledgement.
    pub(crate) fn give_up(&mut self, taken: &Cursor) {
        self.remember(taken);
        let owes = self.delivery().commit == Commit::Client;
        let ack_timeout = self.reader.feed.conversation.ack_timeout;
        let until = owes.then(|| Instant::now() + ack_timeout);
        self.membership.lock().give_up(self.number, taken, until);
        self.membership.news.send_replace(());
        self.membership.wake.notify_one();
    }

    /// It has stopped where it had to, whoever has it now.
    pub(crate) fn remember(&mut self, gone: &Cursor) {
        self.was_at.extend(gone);
    }

    /// What is before the cursor is with the client, as far as the bridge can tell. It is asked for
    /// only where its moves are others than before.
    pub(crate) fn sent(&mut self, moves: u64, cursor: impl FnOnce() -> Cursor) {
        let Delivery { qos, commit, .. } = self.delivery();
        if *commit == Commit::Auto && *qos != Qos::AtMostOnce && self.sent_moves != moves {
            self.sent_moves = moves;
            self.membership.lock().settle(self.number, &cursor());
        }
    }

    /// The client has acknowledged what is before the cursor.
    pub(crate) fn settled(&self, cursor: &Cursor) {
        if self.delivery().commit == Commit::Client {
            self.membership.lock().settle(self.number, cursor);
            // Partitions may have waited for that.
            self.membership.wake.notify_one();
        }
    }

    /// What is reported to the reader. Where the log is another one, or shorter, the group goes back with it.
    pub(crate) fn hear(&self, gaps: &[Gap]) {
        for gap in gaps {
            if let Some(to) = gap.goes_back_to().filter(|_| commits(&self.reader)) {
                self.membership.lock().go_back(self.number, &gap.topic, gap.partition, to);
            }
        }
    }

    /// Whether records are committed before they are sent, at most once.
    pub(crate) fn is_committed_before(&self) -> bool {
        let Delivery { qos, commit, .. } = self.delivery();
        *commit == Commit::Auto && *qos == Qos::AtMostOnce
    }

    /// Commits what is before the cursor, before it is sent.
    ///
    /// # Errors
    /// Kafka does not take it: it is not to be sent.
    pub(crate) async fn commit(&self, cursor: &Cursor) -> Result<(), Refusal> {
        self.membership.commit_before(self.number, cursor).await
    }

    fn delivery(&self) -> &Delivery {
        &self.reader.feed.delivery
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.membership.lock().exit(self.number);
        self.membership.news.send_replace(());
        self.membership.wake.notify_one();
    }
}
