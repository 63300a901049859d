//! Where a reader starts in each partition, from what it gave and what the cluster has.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Position, TopicPositions, is_same_topic};
use super::feeds::Reset;
use super::refusal::{Code, Refusal};
use super::topics::Topics;

/// What a reader gave to start at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    Cursor(Cursor),
    From(Start),
    /// The feed's reset policy decides.
    Nothing,
}

/// Where to start in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// As a cursor says. The offset may be out of range, the epoch of a log that was truncated.
    At { next: i64, epoch: Option<i32> },
    /// The first record at or after a time in ms; the log end if there is none.
    Time(i64),
    /// The log start.
    Earliest,
    /// The log end: the last stable offset where only what is committed is read.
    Latest,
}

/// The topics that may be read, and those that are.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) feed: &'a Topics,
    /// The request's `topics`: it narrows the feed.
    pub(crate) asked: Option<&'a [String]>,
    pub(crate) reset: Reset,
    /// Whether a listed topic that the cluster does not have is refused, rather than waited for.
    pub(crate) check_topic_existence: bool,
}

/// A topic as the cluster's metadata has it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownTopic {
    /// Begins the topic's id, if the brokers give ids.
    pub(crate) tag: Option<u32>,
    /// They are numbered from 0.
    pub(crate) partitions: i32,
}

/// Where to start in each topic in scope, and what has to be reported to the reader before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    pub(crate) topics: BTreeMap<String, TopicStarts>,
    pub(crate) gaps: Vec<Gap>,
}

/// A topic that is waited for has what its cursor had, or no partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicStarts {
    pub(crate) tag: Option<u32>,
    pub(crate) partitions: BTreeMap<i32, Start>,
}

/// Records that a reader's position promised and that it does not get from there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Gap {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The next offset by the cursor, unless that had a time.
    pub(crate) from: Option<i64>,
    /// Where reading goes on; none after a deletion, and until the log start is known.
    pub(crate) to: Option<i64>,
    pub(crate) reason: GapReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapReason {
    /// The position is before the log start.
    Expired,
    /// The position is behind the log end.
    BeyondEnd,
    /// Records were lost when a replica without them became leader (an unclean election).
    Truncated,
    /// The topic was deleted and created again.
    Recreated,
    Deleted,
    /// A batch is larger than may be read.
    TooLarge,
    /// A batch is damaged.
    Unreadable,
    /// The group's position is gone, and it goes on where the group began.
    Uncommitted,
}

impl GapReason {
    pub(super) const ALL: [Self; 8] = [
        Self::Expired,
        Self::BeyondEnd,
        Self::Truncated,
        Self::Recreated,
        Self::Deleted,
        Self::TooLarge,
        Self::Unreadable,
        Self::Uncommitted,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::BeyondEnd => "beyond_end",
            Self::Truncated => "truncated",
            Self::Recreated => "recreated",
            Self::Deleted => "deleted",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::Uncommitted => "uncommitted",
        }
    }
}

impl serde::Serialize for GapReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Scope<'_> {
    /// Where to start. `known` has what exists of the feed's topics.
    ///
    /// # Errors
    /// [`Code::TopicNotAllowed`], [`Code::TopicNotFound`], [`Code::TopicDeleted`],
    /// [`Code::CursorUnknownPartition`], [`Code::CursorIncomplete`], [`Code::PositionRequired`],
    /// [`Code::OffsetOutOfRange`].
    pub(crate) fn starts(
        &self,
        given: &Given,
        known: &BTreeMap<String, KnownTopic>,
    ) -> Result<Starts, Refusal> {
        let cursor = match given {
            Given::Cursor(cursor) => Some(cursor),
            Given::From(_) | Given::Nothing => None,
        };
        // A refusal of a foreign topic does not tell whether it exists.
        let of_cursor = cursor.into_iter().flat_map(|cursor| cursor.topics.keys());
        let foreign = self.asked.into_iter().flatten().chain(of_cursor);
        foreign.into_iter().try_for_each(|topic| self.check_allowed(topic))?;
        let mut starts = Starts::default();
        for topic in self.topics(known, cursor) {
            let positions = cursor.and_then(|cursor| cursor.topics.get(topic));
            let Some(known) = known.get(topic) else {
                if let Some(waiting) = self.missing(topic, positions, &mut starts.gaps)? {
                    starts.topics.insert(topic.to_owned(), waiting);
                }
                continue;
            };
            let of_topic = match positions {
                Some(positions) => {
                    let complete = cursor.is_some_and(|cursor| cursor.complete);
                    self.go_on(topic, positions, complete, known, &mut starts.gaps)?
                }
                None => known.all(self.without_position(topic, given)?),
            };
            starts.topics.insert(topic.to_owned(), of_topic);
        }
        Ok(starts)
    }

    /// Those asked for, or all of the feed.
    fn topics<'b>(
        &'b self,
        known: &'b BTreeMap<String, KnownTopic>,
        cursor: Option<&'b Cursor>,
    ) -> impl Iterator<Item = &'b str> {
        let mut topics: Vec<&str> = match (self.asked, self.feed) {
            (Some(asked), _) => asked.iter().map(String::as_str).collect(),
            (None, Topics::List(list)) => list.iter().map(String::as_str).collect(),
            (None, Topics::Pattern(_)) => {
                let of_cursor = cursor.into_iter().flat_map(|cursor| cursor.topics.keys());
                known.keys().chain(of_cursor).map(String::as_str).collect()
            }
        };
        topics.sort_unstable();
        topics.dedup();
        topics.into_iter()
    }

    fn check_allowed(&self, topic: &str) -> Result<(), Refusal> {
        self.feed.has(topic).then_some(()).ok_or_else(|| Refusal::foreign_topic(topic))
    }

    /// A topic that the cluster does not have: refused, waited for, or dropped from the vector.
    fn missing(
        &self,
        topic: &str,
        positions: Option<&TopicPositions>,
        gaps: &mut Vec<Gap>,
    ) -> Result<Option<TopicStarts>, Refusal> {
        let lost = positions.filter(|positions| !positions.partitions.is_empty());
        match (self.feed, lost) {
            (Topics::Pattern(_), _) if positions.is_some() => {
                let lost = lost.into_iter().flat_map(|positions| &positions.partitions);
                let gap = |(partition, position): (&i32, _)| {
                    Gap::new(topic, *partition, position, GapReason::Deleted)
                };
                gaps.extend(lost.map(gap));
                Ok(None)
            }
            (Topics::List(_), _) if !self.check_topic_existence => {
                let positions = positions.cloned().unwrap_or_default();
                let start = |(partition, position)| (partition, Start::from(position));
                let partitions = positions.partitions.into_iter().map(start).collect();
                Ok(Some(TopicStarts { tag: positions.tag, partitions }))
            }
            (_, Some(_)) => {
                Err(Code::TopicDeleted.because(format!("the topic `{topic}` was deleted")))
            }
            (_, None) => Err(Code::TopicNotFound.because(format!("there is no topic `{topic}`"))),
        }
    }

    /// A topic that the cursor has.
    fn go_on(
        &self,
        topic: &str,
        positions: &TopicPositions,
        complete: bool,
        known: &KnownTopic,
        gaps: &mut Vec<Gap>,
    ) -> Result<TopicStarts, Refusal> {
        // Before the partitions' numbers: the new topic may have fewer.
        if !is_same_topic(positions.tag, known.tag) {
            if self.reset == Reset::None && !positions.partitions.is_empty() {
                let message = format!("the topic `{topic}` was deleted and created again");
                return Err(Code::OffsetOutOfRange.because(message));
            }
            let gap = |(partition, position): (&i32, _)| {
                Gap::new(topic, *partition, position, GapReason::Recreated)
            };
            gaps.extend(positions.partitions.iter().map(gap));
            return Ok(known.all(Start::Earliest));
        }
        let last = positions.partitions.keys().next_back();
        if let Some(unknown) = last.filter(|partition| **partition >= known.partitions) {
            let message = format!("cursor: the topic `{topic}` has no partition {unknown}");
            return Err(Code::CursorUnknownPartition.because(message));
        }
        let mut starts = TopicStarts { tag: known.tag, partitions: BTreeMap::new() };
        for partition in 0..known.partitions {
            let start = match positions.partitions.get(&partition) {
                Some(position) => Start::from(*position),
                None if complete => Start::Earliest,
                None => self.reset(|| {
                    let message = format!("cursor: partition {partition} of {topic} is missing");
                    Code::CursorIncomplete.because(message)
                })?,
            };
            starts.partitions.insert(partition, start);
        }
        Ok(starts)
    }

    /// A topic about which the reader said nothing.
    fn without_position(&self, topic: &str, given: &Given) -> Result<Start, Refusal> {
        match (given, self.feed, self.asked) {
            (Given::From(start), ..) => Ok(*start),
            // Created after the cursor. A topic of a list, or one that is asked for by name, existed
            // before, and was added by somebody.
            (Given::Cursor(Cursor { complete: true, .. }), Topics::Pattern(_), None) => {
                Ok(Start::Earliest)
            }
            (Given::Cursor(_), ..) => self.reset(|| {
                Code::CursorIncomplete.because(format!("cursor: the topic {topic} is missing"))
            }),
            (Given::Nothing, ..) => self.reset(|| {
                Code::PositionRequired.because("auto_offset_reset is none: give cursor or from")
            }),
        }
    }

    fn reset(&self, none: impl FnOnce() -> Refusal) -> Result<Start, Refusal> {
        match self.reset {
            Reset::Earliest => Ok(Start::Earliest),
            Reset::Latest => Ok(Start::Latest),
            Reset::None => Err(none()),
        }
    }
}

impl KnownTopic {
    fn all(&self, start: Start) -> TopicStarts {
        let partitions = (0..self.partitions).map(|partition| (partition, start)).collect();
        TopicStarts { tag: self.tag, partitions }
    }
}

impl Gap {
    /// Where reading goes on in another log, or in one that has become shorter: what was committed before
    /// means nothing there.
    pub(crate) fn goes_back_to(&self) -> Option<i64> {
        use GapReason::{BeyondEnd, Recreated, Truncated};
        self.to.filter(|_| matches!(self.reason, BeyondEnd | Recreated | Truncated))
    }

    /// Where reading goes on is not known.
    pub(super) fn new(topic: &str, partition: i32, position: &Position, reason: GapReason) -> Self {
        let from = match position {
            Position::Offset { next, .. } => Some(*next),
            Position::Time(_) => None,
        };
        Self { topic: topic.to_owned(), partition, from, to: None, reason }
    }
}

impl From<Position> for Start {
    fn from(position: Position) -> Self {
        match position {
            Position::Offset { next, epoch } => Self::At { next, epoch },
            Position::Time(ms) => Self::Time(ms),
        }
    }
}

#[cfg(test)]
mod tests;
