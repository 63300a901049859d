//! What a group has committed, where its readers start by that, and what is committed next (pure).

use std::collections::BTreeMap;

use kafka_client::GroupOffset;

use crate::consume::cursor::{Cursor, Position, TopicPositions, is_same_topic};
use crate::consume::delivery::Qos;
use crate::consume::feeds::{Feed, Reset};
use crate::consume::refusal::{Code, Refusal};
use crate::consume::start::{Gap, GapReason, Given, KnownTopic, Start};

/// Positions of a group, which only go forward.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Committed {
    positions: BTreeMap<String, BTreeMap<i32, Next>>,
    /// When the group began, ms: a partition that has no position starts there.
    pub(super) anchor_ms: Option<i64>,
}

/// Where a group goes on in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) offset: i64,
    /// Leader epoch of the record before it.
    pub(super) epoch: Option<i32>,
    /// Of the topic: what was committed of a former one of the same name means nothing.
    pub(super) tag: Option<u32>,
}

impl Next {
    /// As it is committed: with when the group began, and of which topic it is.
    pub(super) fn of(self, topic: &str, partition: i32, anchor_ms: i64) -> GroupOffset<'_> {
        let tag = self.tag.map(|tag| format!(" {TOPIC}{tag:08x}")).unwrap_or_default();
        let offset = GroupOffset::new(topic, partition, self.offset).epoch(self.epoch);
        offset.metadata(format!("{ANCHOR}{anchor_ms}{tag}"))
    }
}

/// Where a reader of a group starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GroupStart {
    pub(super) given: Given,
    /// Partitions whose position is gone: they start where the group began.
    pub(super) uncommitted: Vec<(String, i32)>,
}

impl Committed {
    fn insert(&mut self, topic: &str, partition: i32, next: Next) {
        self.positions.entry(topic.to_owned()).or_default().insert(partition, next);
    }

    /// The log is another one, or shorter: what is there now is committed from here on.
    pub(super) fn go_back(&mut self, topic: &str, partition: i32, to: i64) {
        self.insert(topic, partition, Next { offset: to, epoch: None, tag: None });
    }

    /// As Kafka has it, with the metadata of the commit.
    pub(super) fn read(
        &mut self,
        (topic, partition): (&str, i32),
        (offset, epoch): (i64, Option<i32>),
        metadata: &str,
    ) {
        let mut words = metadata.split(' ');
        let anchor_ms = words.next().and_then(|word| word.strip_prefix(ANCHOR)?.parse().ok());
        let tag = words.next().and_then(|word| word.strip_prefix(TOPIC));
        let tag = tag.and_then(|tag| u32::from_str_radix(tag, 16).ok());
        self.insert(topic, partition, Next { offset, epoch, tag });
        self.anchor_ms = self.anchor_ms.into_iter().chain(anchor_ms).min();
    }

    /// Everything before this cursor is acknowledged.
    pub(super) fn advance(&mut self, cursor: &Cursor) {
        for (topic, positions) in &cursor.topics {
            for (partition, position) in &positions.partitions {
                // Where nothing was read yet there is nothing to acknowledge.
                let Position::Offset { next, epoch } = *position else { continue };
                self.settle(topic, *partition, Next { offset: next, epoch, tag: positions.tag });
            }
        }
    }

    /// Everything before this offset is acknowledged.
    pub(super) fn settle(&mut self, topic: &str, partition: i32, next: Next) {
        let of_topic = self.positions.entry(topic.to_owned()).or_default();
        let kept = of_topic.entry(partition).or_insert(next);
        let tag = next.tag.or(kept.tag);
        if !is_same_topic(kept.tag, next.tag) || kept.offset < next.offset {
            *kept = next;
        }
        kept.tag = tag;
    }

    /// As Kafka has it now, but for what this bridge itself moves.
    pub(super) fn refresh(&mut self, fresh: Self, is_own: impl Fn(&str, i32) -> bool) {
        let before = std::mem::replace(self, fresh);
        for (topic, partition, next) in before.iter().filter(|(topic, it, _)| is_own(topic, *it)) {
            self.insert(topic, partition, next);
        }
        self.anchor_ms = self.anchor_ms.into_iter().chain(before.anchor_ms).min();
    }

    pub(super) fn next(&self, topic: &str, partition: i32) -> Option<Next> {
        self.positions.get(topic)?.get(&partition).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, i32, Next)> {
        self.positions.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, next)| (&**topic, *partition, *next))
        })
    }

    /// In the topic that there is now.
    pub(super) fn position(
        &self,
        known: &BTreeMap<String, KnownTopic>,
        topic: &str,
        partition: i32,
    ) -> Option<Position> {
        let Next { offset: next, epoch, tag } = self.next(topic, partition)?;
        let is_there = known.get(topic).is_some_and(|known| is_same_topic(tag, known.tag));
        is_there.then_some(Position::Offset { next, epoch })
    }

    /// Where to start in the topics that are known, for who asks for this.
    ///
    /// # Errors
    /// [`Code::InvalidParameter`], [`Code::PositionRequired`].
    pub(super) fn start(
        &self,
        asked: &Given,
        known: &BTreeMap<String, KnownTopic>,
        feed: &Feed,
    ) -> Result<GroupStart, Refusal> {
        let is_new = self.positions.values().all(BTreeMap::is_empty);
        match asked {
            Given::From(_) if !is_new => {
                let message = "from: the group has a position; to read from elsewhere, ask for a \
                               cursor (/cursor?at=)";
                Err(Code::InvalidParameter.because(message))
            }
            Given::From(_) | Given::Nothing if is_new => {
                Ok(GroupStart { given: asked.clone(), uncommitted: Vec::new() })
            }
            Given::Cursor(cursor) => {
                let is_later_kept = feed.delivery.qos == Qos::AtMostOnce;
                let given = Given::Cursor(self.beside(cursor, known, is_later_kept));
                Ok(GroupStart { given, uncommitted: Vec::new() })
            }
            _ => self.go_on(known, feed, false),
        }
    }

    /// Where to start in partitions that a member is given, for a reader that asked for this when it
    /// came: the group may have begun since.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn share(
        &self,
        asked: &Given,
        known: &BTreeMap<String, KnownTopic>,
        feed: &Feed,
        now_ms: i64,
    ) -> Result<GroupStart, Refusal> {
        if self.positions.values().all(BTreeMap::is_empty) {
            return self.start(asked, known, feed);
        }
        // No position can be gone of a group that began just now: the partition was never read.
        let is_young = self.anchor_ms.is_some_and(|anchor_ms| now_ms < anchor_ms + YOUNG_MS);
        let is_whole = feed.reset == Reset::Earliest || *asked == Given::From(Start::Earliest);
        let GroupStart { given, mut uncommitted } =
            self.go_on(known, feed, is_young && is_whole)?;
        let (Given::Cursor(asked), Given::Cursor(base)) = (asked, &given) else {
            return Ok(GroupStart { given, uncommitted });
        };
        let mut merged = self.beside(asked, known, feed.delivery.qos == Qos::AtMostOnce);
        for (topic, positions) in &base.topics {
            let of_topic = merged.topics.entry(topic.clone()).or_default();
            for (partition, position) in &positions.partitions {
                of_topic.partitions.entry(*partition).or_insert(*position);
            }
        }
        merged.complete = base.complete;
        let is_named = |topic: &str, partition: i32| {
            asked.topics.get(topic).is_some_and(|it| it.partitions.contains_key(&partition))
        };
        uncommitted.retain(|(topic, partition)| !is_named(topic, *partition));
        Ok(GroupStart { given: Given::Cursor(merged), uncommitted })
    }

    /// A cursor, and what is committed of the partitions that it does not name.
    fn beside(
        &self,
        cursor: &Cursor,
        known: &BTreeMap<String, KnownTopic>,
        is_later_kept: bool,
    ) -> Cursor {
        let mut merged = cursor.clone();
        for (topic, partition) in all(known) {
            let Some(committed) = self.position(known, topic, partition) else { continue };
            let positions = merged.topics.entry(topic.to_owned()).or_default();
            let given = positions.partitions.entry(partition).or_insert(committed);
            let is_before = match (&given, committed) {
                (Position::Offset { next, .. }, Position::Offset { next: kept, .. }) => {
                    *next < kept
                }
                _ => true,
            };
            if is_later_kept && is_before {
                *given = committed;
            }
        }
        merged
    }

    /// A partition without a position starts where the group began, or at the log start if the group
    /// wants all of it. Nobody knows that of a group that others have made.
    fn go_on(
        &self,
        known: &BTreeMap<String, KnownTopic>,
        feed: &Feed,
        is_whole: bool,
    ) -> Result<GroupStart, Refusal> {
        let mut uncommitted = Vec::new();
        // With a complete one a partition that it does not name starts at the log start.
        let complete = self.anchor_ms.is_some() || feed.delivery.loses_nothing();
        let mut cursor = Cursor { topics: BTreeMap::new(), complete };
        for (topic, known) in known {
            let positions = TopicPositions { tag: known.tag, partitions: BTreeMap::new() };
            cursor.topics.insert(topic.clone(), positions);
        }
        for (topic, partition) in all(known) {
            let position = match (self.position(known, topic, partition), self.anchor_ms) {
                (Some(position), _) => position,
                (None, Some(_)) if is_whole => continue,
                (None, Some(anchor_ms)) => {
                    uncommitted.push((topic.to_owned(), partition));
                    Position::Time(anchor_ms)
                }
                (None, None) if !complete && feed.reset == Reset::None => {
                    let message = format!(
                        "the group has no position in {topic}-{partition}, and \
                                           auto_offset_reset is none: give a cursor"
                    );
                    return Err(Code::PositionRequired.because(message));
                }
                (None, None) => continue,
            };
            if let Some(positions) = cursor.topics.get_mut(topic) {
                positions.partitions.insert(partition, position);
            }
        }
        Ok(GroupStart { given: Given::Cursor(cursor), uncommitted })
    }
}

impl GroupStart {
    /// What is reported to a reader that starts at this cursor.
    pub(super) fn gaps(&self, cursor: &Cursor) -> Vec<Gap> {
        let gap = |(topic, partition): &(String, i32)| {
            let to = match cursor.topics.get(topic)?.partitions.get(partition)? {
                // Nothing is before it: the partition was created later.
                Position::Offset { next: 0, .. } => return None,
                Position::Offset { next, .. } => Some(*next),
                Position::Time(_) => None,
            };
            let (topic, partition, reason) = (topic.clone(), *partition, GapReason::Uncommitted);
            Some(Gap { topic, partition, from: None, to, reason })
        };
        self.uncommitted.iter().filter_map(gap).collect()
    }
}

/// Every partition of these topics.
pub(super) fn all(known: &BTreeMap<String, KnownTopic>) -> impl Iterator<Item = (&str, i32)> {
    known.iter().flat_map(|(topic, known)| {
        (0..known.partitions).map(move |partition| (&**topic, partition))
    })
}

/// Before when the group began, and before the topic's tag, in the metadata of a commit.
const ANCHOR: &str = "anchor=";
const TOPIC: &str = "topic=";
/// How long no position of a group that begins can be gone: brokers keep them for days.
const YOUNG_MS: i64 = 60 * 60 * 1000;

#[cfg(test)]
mod tests;
