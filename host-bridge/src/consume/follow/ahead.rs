//! What is read before a reader comes for it.

use std::sync::Arc;

use tokio::time::Instant;

use super::Follower;
use crate::consume::hub::Wanted;
use crate::consume::refusal::Refusal;
use crate::consume::topic_log::Look;
use crate::limits::FEED_QUIET;

impl Follower {
    /// The reader is here.
    pub(crate) fn has_come(&self) {
        self.reader.hub.resources.ahead.end(self.id());
    }

    /// Has brokers asked about the positions of which nothing is in memory, if they answer at once: who
    /// cannot read on is to know before it has read anything.
    ///
    /// # Errors
    /// As [`Self::more`].
    pub(crate) async fn check(&mut self) -> Result<(), Refusal> {
        let found = self.look();
        self.start_reading(&found.behind);
        let until = Instant::now() + FEED_QUIET;
        while self.reading.is_some() && Instant::now() < until {
            self.wait(until, false, Vec::new()).await?;
        }
        Ok(())
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
