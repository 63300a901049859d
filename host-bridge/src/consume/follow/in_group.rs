//! A reader that has a share of the partitions, which come and go.

use std::sync::Arc;

use super::Follower;
use crate::consume::cursor::Cursor;
use crate::consume::groups::{Partition, is_among};
use crate::consume::reader::FeedReader;
use crate::consume::start::Gap;

impl Follower {
    /// It has no partition yet.
    pub(crate) fn of_share(reader: &Arc<FeedReader>) -> Self {
        Self::at(Arc::new(reader.alone()), &Cursor::default())
    }

    /// Reads these partitions, too. Where it still has some of a former topic of the same name, it finds
    /// out for all that there is a new one.
    pub(crate) fn give(&mut self, given: &Cursor, gaps: Vec<Gap>) {
        let mut cursor = self.at.cursor();
        for (topic, positions) in &given.topics {
            let of_topic = cursor.topics.entry(topic.clone()).or_default();
            of_topic.tag = of_topic.tag.or(positions.tag);
            of_topic.partitions.extend(&positions.partitions);
        }
        self.gaps.extend(gaps);
        self.change(&cursor);
    }

    /// Reads these no longer. Gives where it was.
    pub(crate) fn take_away(&mut self, partitions: &[Partition]) -> Cursor {
        let is_taken = |topic: &str, partition: i32| is_among(partitions, topic, partition);
        let (mut cursor, mut taken) = (self.at.cursor(), self.at.cursor());
        taken.retain(is_taken);
        cursor.retain(|topic, partition| !is_taken(topic, partition));
        self.gaps.retain(|gap| !is_taken(&gap.topic, gap.partition));
        self.change(&cursor);
        taken
    }

    /// What was being read is of the places as they were.
    fn change(&mut self, cursor: &Cursor) {
        self.reading = None;
        self.set(cursor);
    }
}
