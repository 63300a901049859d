//! What a reader has brokers asked beside records: offsets of partitions that had no leader, and what
//! was created since.

use std::sync::Arc;

use kafka_client::{At, Reason};

use super::cursor::TopicPositions;
use super::hub::Topic;
use super::reader::FeedReader;
use super::refusal::Refusal;
use crate::limits::{FEED_GRACE, FEED_LOOK_AGAIN};

/// The questions.
#[derive(Default)]
pub(super) struct Asking {
    /// Places that have a time: topic, partition and the time in ms.
    pub(super) open: Vec<(usize, Arc<Topic>, i32, i64)>,
    /// The reader's topics, where it is time to look whether they have more partitions.
    pub(super) topics: Vec<Arc<Topic>>,
    /// And whether there are more topics.
    pub(super) looks_for_topics: bool,
}

/// The answers.
pub(super) struct Asked {
    /// Offsets of places that had a time.
    pub(super) resolved: Vec<(usize, Result<i64, Reason>)>,
    /// Topics that were created since, and where they begin; or that there are too many.
    pub(super) created: Result<Vec<(String, TopicPositions)>, Refusal>,
}

impl Asking {
    /// How many partitions there are is kept with each topic.
    pub(super) async fn ask(self, reader: &FeedReader) -> Asked {
        let Self { open, topics, looks_for_topics } = self;
        let (hub, mut resolved, mut created) = (&reader.hub, Vec::new(), Ok(Vec::new()));
        for topic in &topics {
            let _kept_there = hub.known(topic, FEED_LOOK_AGAIN / 2, FEED_GRACE).await;
        }
        if looks_for_topics {
            let names = topics.iter().map(|topic| &*topic.log.name).collect();
            created = reader.created_beside(&names).await;
        }
        for (index, topic, partition, ms) in open {
            let mut answer = hub.offsets(&topic, &[partition], At::Time(ms), FEED_GRACE).await;
            resolved.extend(answer.pop().map(|answer| (index, answer)));
        }
        Asked { resolved, created }
    }
}
