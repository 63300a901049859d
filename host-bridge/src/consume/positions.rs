//! Where a reader is in every partition of its topics, and the cursor that says so.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::cursor::{Cursor, Position, TopicPositions};
use super::cursor_text::CursorText;
use super::envelope::Shape;
use super::hub::{Hub, Topic};
use super::reader::FeedReader;
use super::steps::Here;
use crate::limits::FEED_RETRY;

pub(super) struct Positions {
    pub(super) topics: Vec<Followed>,
    /// In the order of the cursor.
    pub(super) places: Vec<Place>,
    pub(super) text: CursorText,
    /// Grows with every move.
    pub(super) moves: u64,
    /// Grows when there may be other places.
    pub(super) layout: u64,
    hub: Arc<Hub>,
    encode_message_id: bool,
    /// Whether it is of all partitions, not a share of them.
    complete: bool,
}

/// A topic, and when there may be more of it.
pub(super) struct Followed {
    pub(super) topic: Arc<Topic>,
    pub(super) tag: Option<u32>,
    /// Partitions that have a place.
    count: usize,
    changed: watch::Receiver<()>,
    caught_up: watch::Receiver<()>,
}

/// A partition, and where the reader is in it.
pub(super) struct Place {
    /// Of the topics.
    pub(super) topic: usize,
    pub(super) partition: i32,
    pub(super) position: Position,
    /// No broker answered: it is not asked before.
    pub(super) retry_at: Option<Instant>,
}

impl Positions {
    pub(super) fn new(cursor: &Cursor, reader: &FeedReader) -> Self {
        let encode_message_id = reader.feed.encode_message_id;
        let mut positions = Self {
            topics: Vec::new(),
            places: Vec::new(),
            text: CursorText::new(cursor, encode_message_id),
            moves: 0,
            layout: 0,
            hub: Arc::clone(&reader.hub),
            encode_message_id,
            complete: cursor.complete,
        };
        positions.set(cursor);
        positions
    }

    pub(super) fn move_to(&mut self, index: usize, next: i64, epoch: Option<i32>) {
        if let Some(place) = self.places.get_mut(index) {
            place.position = Position::Offset { next, epoch };
            place.retry_at = None;
            self.text.move_to(index, next, epoch);
            self.moves += 1;
        }
    }

    /// A broker has reported the epoch of a position; that is no move.
    pub(super) fn set_epoch(&mut self, index: usize, next: i64, epoch: Option<i32>) {
        if let Some(place) = self.places.get_mut(index).filter(|it| it.next() == Some(next)) {
            place.position = Position::Offset { next, epoch };
            self.text.move_to(index, next, epoch);
        }
    }

    /// Where the reader is, for others.
    pub(super) fn here(&self, shape: Shape) -> Here {
        let positions = self.places.iter().map(|place| place.position).collect();
        Here { shape, positions, text: self.text.clone() }
    }

    /// Goes to where another reader of the same places is.
    pub(super) fn go(&mut self, here: &Here) {
        for (place, position) in self.places.iter_mut().zip(&here.positions) {
            if place.position != *position {
                (place.position, place.retry_at) = (*position, None);
            }
        }
        self.text.copy(&here.text);
        self.moves += 1;
    }

    /// Grows with what comes to the tails of the topics.
    pub(super) fn version(&self) -> u64 {
        self.topics.iter().map(|followed| followed.topic.log.version()).sum()
    }

    /// No broker answered for it: it is not asked for a time.
    pub(super) fn pause(&mut self, index: usize) {
        if let Some(place) = self.places.get_mut(index) {
            place.retry_at = Some(Instant::now() + FEED_RETRY);
        }
    }

    /// The name of a place's topic.
    pub(super) fn topic_of(&self, index: usize) -> Option<&Arc<str>> {
        let place = self.places.get(index)?;
        Some(&self.topics.get(place.topic)?.topic.log.name)
    }

    /// What changes from now on is a change.
    pub(super) fn mark_unchanged(&mut self) {
        for followed in &mut self.topics {
            followed.changed.mark_unchanged();
            followed.caught_up.mark_unchanged();
        }
    }

    /// Waits until one of the tails has more; or, if that is waited for, until a read is over.
    pub(super) async fn changed(&mut self, is_being_read: bool) {
        let topics = &mut self.topics;
        if let ([followed], false) = (&mut **topics, is_being_read) {
            let _closed = followed.changed.changed().await;
            return;
        }
        let waiting = topics.iter_mut().flat_map(|followed| {
            let caught_up = is_being_read.then(|| followed.caught_up.changed().boxed());
            [Some(followed.changed.changed().boxed()), caught_up].into_iter().flatten()
        });
        let waiting: Vec<_> = waiting.collect();
        match waiting.is_empty() {
            true => pending().await,
            false => drop(select_all(waiting).await),
        }
    }

    /// Partitions that were added since are read from their log start. Says whether there are any: the
    /// places are others then.
    pub(super) fn add_partitions(&mut self) -> bool {
        let mut cursor = None;
        for followed in self.topics.iter().filter(|_| self.complete) {
            let (tag, count) = followed.topic.log.lock().known();
            if count <= followed.count {
                continue;
            }
            let cursor = cursor.get_or_insert_with(|| self.cursor());
            let name = followed.topic.log.name.to_string();
            let positions = cursor.topics.entry(name).or_default();
            if positions.partitions.is_empty() {
                positions.tag = tag;
            }
            for partition in 0..i32::try_from(count).unwrap_or(i32::MAX) {
                let start = Position::Offset { next: 0, epoch: None };
                positions.partitions.entry(partition).or_insert(start);
            }
        }
        if let Some(cursor) = &cursor {
            self.set(cursor);
        }
        cursor.is_some()
    }

    /// Topics that are read from these positions, too. Says whether there are any.
    pub(super) fn add_topics(&mut self, topics: Vec<(String, TopicPositions)>) -> bool {
        if topics.is_empty() {
            return false;
        }
        let mut cursor = self.cursor();
        for (name, positions) in topics {
            cursor.topics.entry(name).or_insert(positions);
        }
        self.set(&cursor);
        true
    }

    pub(super) fn cursor(&self) -> Cursor {
        let mut topics = BTreeMap::new();
        for (index, followed) in self.topics.iter().enumerate() {
            let of_topic = self.places.iter().filter(|place| place.topic == index);
            let partitions = of_topic.map(|place| (place.partition, place.position)).collect();
            let positions = TopicPositions { tag: followed.tag, partitions };
            topics.insert(followed.topic.log.name.to_string(), positions);
        }
        Cursor { topics, complete: self.complete }
    }

    /// Takes its positions from a cursor.
    pub(super) fn set(&mut self, cursor: &Cursor) {
        self.text = CursorText::new(cursor, self.encode_message_id);
        self.moves += 1;
        self.layout += 1;
        self.topics.clear();
        self.places.clear();
        for (index, (name, positions)) in cursor.topics.iter().enumerate() {
            let topic = self.hub.topic(name);
            let (changed, caught_up) = (topic.log.subscribe(), topic.log.subscribe_caught_up());
            let (tag, count) = (positions.tag, positions.partitions.len());
            self.topics.push(Followed { topic, tag, count, changed, caught_up });
            self.places.extend(positions.partitions.iter().map(|(partition, position)| Place {
                topic: index,
                partition: *partition,
                position: *position,
                retry_at: None,
            }));
        }
    }
}

impl Place {
    pub(super) fn epoch(&self) -> Option<i32> {
        match self.position {
            Position::Offset { epoch, .. } => epoch,
            Position::Time(_) => None,
        }
    }

    pub(super) fn next(&self) -> Option<i64> {
        self.position.next()
    }
}
