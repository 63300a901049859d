//! What comes next in a partition, read together with all who read it.

use std::sync::Arc;

use kafka_client::{ReadError, Reason};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::consume::hub::{Topic, Wanted};
use crate::consume::reader::FeedReader;
use crate::consume::topic_log::{Look, Segment};
use crate::consume::waiting::Waiting;
use crate::limits::{FEED_CHUNK_BYTES, FEED_QUIET, FEED_RETRY};

/// A partition to be read from.
#[derive(Clone)]
pub(super) struct Source {
    reader: Arc<FeedReader>,
    topic: Arc<Topic>,
    partition: i32,
    /// Begins the id of the topic that offsets are of.
    pub(super) tag: Option<u32>,
    changed: watch::Receiver<()>,
    caught_up: watch::Receiver<()>,
}

/// Records from one offset on, all of which are decided on: they are decoded, and what is to go to the
/// dead-letter topic of the feed is there.
pub(super) struct Portion {
    pub(super) segment: Arc<Segment>,
    pub(super) at: usize,
    pub(super) end: usize,
}

/// What is in the way.
pub(super) enum Trouble {
    /// Nobody answers now.
    Passing(String),
    Position(ReadError),
}

impl Source {
    pub(super) fn new(
        reader: Arc<FeedReader>,
        topic: Arc<Topic>,
        partition: i32,
        tag: Option<u32>,
    ) -> Self {
        let (changed, caught_up) = (topic.log.subscribe(), topic.log.subscribe_caught_up());
        Self { reader, topic, partition, tag, changed, caught_up }
    }

    /// Waits until there is something from an offset on, behind something of this leader epoch.
    pub(super) async fn next(mut self, next: i64, epoch: Option<i32>) -> Result<Portion, Trouble> {
        let mut is_empty = false;
        loop {
            self.changed.mark_unchanged();
            self.caught_up.mark_unchanged();
            let position = (next, epoch);
            let look = self.topic.log.lock().look(self.tag, self.partition, position);
            let segment = match look {
                Look::Here(segment) => segment,
                Look::End | Look::Failing => {
                    let _topic_is_kept = self.changed.changed().await;
                    continue;
                }
                Look::BeingRead => {
                    let _topic_is_kept = self.caught_up.changed().await;
                    continue;
                }
                Look::Behind => {
                    if is_empty {
                        sleep(FEED_QUIET).await;
                    }
                    self.read(next, epoch).await?
                }
            };
            // Else the tail begins here.
            is_empty = segment.next <= next;
            if is_empty {
                continue;
            }
            if let Some(portion) = self.decided(segment, next).await? {
                return Ok(portion);
            }
        }
    }

    async fn read(&self, next: i64, epoch: Option<i32>) -> Result<Arc<Segment>, Trouble> {
        self.reader.metrics.catch_up_reads.inc();
        let topic = Arc::clone(&self.topic);
        let wanted = Wanted { topic, partition: self.partition, next, epoch, place: 0 };
        let mut answers = self.reader.hub.read(vec![wanted], FEED_CHUNK_BYTES).await;
        match answers.pop() {
            Some((_, Ok(segment))) if self.is_of_another(&segment) => {
                Err(Trouble::Position(ReadError::Recreated))
            }
            Some((_, Ok(segment))) => Ok(segment),
            Some((_, Err(ReadError::Unavailable(reason) | ReadError::Refused(reason)))) => {
                // Also what an operator can mend: a topic that is missing, a right that is not given.
                Err(Trouble::Passing(self.told(&reason)))
            }
            Some((_, Err(error))) => Err(Trouble::Position(error)),
            None => Err(Trouble::Passing("no answer".to_owned())),
        }
    }

    fn is_of_another(&self, segment: &Segment) -> bool {
        let tag = segment.topic_id.and_then(crate::consume::topic_log::tag_of);
        self.tag.zip(tag).is_some_and(|(ours, its)| ours != its)
    }

    fn told(&self, reason: &Reason) -> String {
        format!("{}-{}: {}", self.topic.log.name, self.partition, reason.chain())
    }

    /// What of a segment may be given now; none if that is to be asked again.
    async fn decided(&self, segment: Arc<Segment>, next: i64) -> Result<Option<Portion>, Trouble> {
        let at = segment.place_of(next);
        let of_topic = (&*self.topic.log.name, self.partition, &*segment);
        let (end, waiting) = self.reader.decided(of_topic, at, usize::MAX);
        let of = waiting.as_ref().map(Waiting::waits_for);
        match waiting {
            Some(waiting) if end == at => match waiting.done().await {
                true => Ok(None),
                false => {
                    sleep(FEED_RETRY).await;
                    let refusal = of.and_then(|of| self.reader.late(of));
                    Err(Trouble::Passing(refusal.map_or_else(String::new, |it| it.message)))
                }
            },
            _ => Ok(Some(Portion { segment, at, end })),
        }
    }
}
