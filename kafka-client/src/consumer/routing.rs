//! Which broker is asked for which partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use crate::error::Reason;
use crate::metadata::{Metadata, Trust};

/// A partition that is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// How often it stands in the list before: a request has room for a partition once.
    repeats: usize,
}

/// Partitions of each request, by their places in the list; with the broker that is asked.
pub(super) type Requests = BTreeMap<(i32, usize), Vec<usize>>;

impl Wanted {
    pub(super) fn list<'a>(partitions: impl Iterator<Item = (&'a str, i32)>) -> Vec<Self> {
        let mut topics = HashMap::<&str, Arc<str>>::new();
        let mut seen = HashMap::new();
        let wanted = partitions.map(|(topic, partition)| {
            let repeats = seen.entry((topic, partition)).or_insert(0);
            let topic = topics.entry(topic).or_insert_with(|| topic.into()).clone();
            *repeats += 1;
            Self { topic, partition, repeats: *repeats - 1 }
        });
        wanted.collect()
    }

    /// Puts it into the request to a broker.
    pub(super) fn put(&self, place: usize, broker: i32, requests: &mut Requests) {
        requests.entry((broker, self.repeats)).or_default().push(place);
    }
}

/// Whether each of these partitions exists: no for those that brokers say so of now. All topics are
/// looked up by the same rounds.
pub(super) async fn check(
    metadata: &Metadata,
    wanted: impl Iterator<Item = &Wanted> + Clone,
    deadline: Instant,
) -> Vec<Result<(), Reason>> {
    for Wanted { topic, .. } in wanted.clone() {
        let _puts_it_into_use = metadata.leader(topic, 0);
    }
    let mut counts = HashMap::<Arc<str>, (Trust, Result<usize, Reason>)>::new();
    let mut checked = Vec::new();
    for Wanted { topic, partition, .. } in wanted {
        if !counts.contains_key(topic) {
            let count = metadata.partitions(topic, Trust::Believed, deadline).await;
            counts.insert(topic.clone(), (Trust::Believed, count));
        }
        let has_it =
            |count: &usize| usize::try_from(*partition).is_ok_and(|partition| partition < *count);
        if let Some((Trust::Believed, Ok(count))) = counts.get(topic)
            && !has_it(count)
        {
            // It may have been added since.
            let count = metadata.partitions(topic, Trust::Doubted, deadline).await;
            counts.insert(topic.clone(), (Trust::Doubted, count));
        }
        checked.push(match counts.get(topic) {
            Some((_, Ok(count))) if has_it(count) => Ok(()),
            Some((_, Ok(count))) => {
                Err(Reason::NoSuchPartition { partition: *partition, count: *count })
            }
            Some((_, Err(reason))) => Err(reason.clone()),
            None => Err(Reason::UnknownTopic),
        });
    }
    checked
}
