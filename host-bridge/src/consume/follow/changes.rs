//! Topics and partitions that are created, created again or deleted under a reader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka_client::ReadError;
use tokio::time::Instant;

use super::Follower;
use crate::consume::cursor::{Cursor, Position, TopicPositions, is_same_topic};
use crate::consume::feeds::Reset;
use crate::consume::hub::Answer;
use crate::consume::reader::refused;
use crate::consume::refusal::{Code, Refusal};
use crate::consume::start::{Gap, GapReason};
use crate::consume::topic_log::tag_of;
use crate::limits::{FEED_GRACE, FEED_UNKNOWN};

impl Follower {
    /// Partitions and topics that were created since are read from their log start.
    ///
    /// # Errors
    /// The cursor has no room for them.
    pub(super) fn add_created(&mut self) -> Result<(), Refusal> {
        if self.at.add_partitions() | self.at.add_topics(std::mem::take(&mut self.created)) {
            self.caught.clear();
            self.at.cursor().check_width()?;
        }
        Ok(())
    }

    /// A topic that brokers do not know, once that is so for a time.
    pub(super) fn deleted(&mut self, topic: &str) -> Option<String> {
        let now = Instant::now();
        let since = *self.unknown_since.entry(topic.to_owned()).or_insert(now);
        (now >= since + FEED_UNKNOWN).then(|| topic.to_owned())
    }

    pub(super) fn drop_deleted(&mut self, topics: &BTreeSet<String>) {
        if topics.is_empty() {
            return;
        }
        let mut cursor = self.at.cursor();
        for (name, positions) in topics.iter().filter_map(|name| cursor.topics.remove_entry(name)) {
            let gap = |(partition, position): (&i32, _)| {
                Gap::new(&name, *partition, position, GapReason::Deleted)
            };
            self.gaps.extend(positions.partitions.iter().map(gap));
            self.unknown_since.remove(&name);
        }
        self.set(&cursor);
    }

    /// Takes all positions from a cursor. Answers that are awaited would be of other places.
    pub(super) fn set(&mut self, cursor: &Cursor) {
        self.asking = None;
        self.caught.clear();
        self.at.set(cursor);
    }

    /// Topics of the same names that were created since, by what was read of them. An offset that is
    /// not in the log may be of a former one: brokers are asked.
    pub(super) async fn recreated(
        &mut self,
        answers: &[Answer],
    ) -> Result<BTreeSet<usize>, Refusal> {
        let mut recreated = BTreeSet::new();
        for (wanted, answer) in answers {
            let Some(place) = self.at.places.get(wanted.place) else { continue };
            let tag = self.at.topics.get(place.topic).and_then(|followed| followed.tag);
            let is_other = |now: Option<u32>| !is_same_topic(tag, now);
            let is_recreated = match answer {
                _ if recreated.contains(&place.topic) => continue,
                Ok(segment) => is_other(segment.topic_id.and_then(tag_of)),
                Err(ReadError::Recreated) => true,
                Err(ReadError::OutOfRange { .. } | ReadError::Truncated { .. }) => {
                    let hub = &self.reader.hub;
                    let known = hub.known(&wanted.topic, Duration::ZERO, FEED_GRACE).await;
                    let name = &wanted.topic.log.name;
                    is_other(known.map_err(|reason| refused(name, &reason))?.tag)
                }
                Err(_) => false,
            };
            if is_recreated {
                recreated.insert(place.topic);
            }
        }
        Ok(recreated)
    }

    /// A topic was deleted and created again: its new log is read from its start.
    pub(super) async fn start_anew(&mut self, index: usize) -> Result<(), Refusal> {
        let Some(followed) = self.at.topics.get(index) else { return Ok(()) };
        let (topic, name) = (Arc::clone(&followed.topic), Arc::clone(&followed.topic.log.name));
        if self.reader.feed.reset == Reset::None {
            let message = format!("the topic `{name}` was deleted and created again");
            return Err(Code::OffsetOutOfRange.because(message));
        }
        let known = self.reader.hub.known(&topic, Duration::ZERO, FEED_GRACE).await;
        let known = known.map_err(|reason| refused(&name, &reason))?;
        for place in self.at.places.iter().filter(|place| place.topic == index) {
            let Some(next) = place.next() else { continue };
            let (topic, from, to) = (name.to_string(), Some(next), Some(0));
            let partition = place.partition;
            self.gaps.push(Gap { topic, partition, from, to, reason: GapReason::Recreated });
        }
        let mut cursor = self.at.cursor();
        let start = |partition| (partition, Position::Offset { next: 0, epoch: None });
        // Of a share no others.
        let is_ours = |it: &i32| cursor.complete || cursor.position(&name, *it).is_some();
        let partitions = (0..known.partitions).filter(is_ours).map(start).collect();
        cursor.topics.insert(name.to_string(), TopicPositions { tag: known.tag, partitions });
        self.set(&cursor);
        Ok(())
    }
}
