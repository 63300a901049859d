//! What a reader will want next is read before it comes for it.

use std::sync::Arc;

use super::Follower;
use crate::consume::hub::Wanted;
use crate::consume::topic_log::Look;

impl Follower {
    /// The reader is here.
    pub(crate) fn has_come(&self) {
        self.reader.hub.resources.ahead.end(self.id());
    }

    /// Has so many bytes behind the cursor read from Kafka, as far as they are not in memory. It is kept
    /// there as all that is read, and nobody waits for it who does not come.
    pub(crate) fn read_ahead(&self, bytes: usize) {
        let (mut in_memory, mut wanted) = (0, Vec::new());
        for (index, place) in self.at.places.iter().enumerate() {
            let Some(followed) = self.at.topics.get(place.topic) else { continue };
            let Some(mut next) = place.next() else { continue };
            let (mut epoch, topic) = (place.epoch(), &followed.topic);
            let state = topic.log.lock();
            loop {
                match state.look(followed.tag, place.partition, (next, epoch)) {
                    Look::Here(segment) => {
                        in_memory += segment.bytes_from(next);
                        (next, epoch) = (segment.next, segment.epoch);
                    }
                    Look::Behind => {
                        let (topic, partition) = (Arc::clone(topic), place.partition);
                        break wanted.push(Wanted { topic, partition, next, epoch, place: index });
                    }
                    Look::End | Look::Failing | Look::BeingRead => break,
                }
            }
        }
        let (hub, bytes) = (&self.reader.hub, bytes.saturating_sub(in_memory));
        let has_room = hub.resources.memory.try_hold(bytes).is_some();
        if !wanted.is_empty() && bytes > 0 && has_room && hub.resources.ahead.begin(self.id()) {
            self.reader.metrics.catch_up_reads.inc_by(wanted.len() as u64);
            tokio::spawn(hub.read(wanted, bytes));
        }
    }
}
