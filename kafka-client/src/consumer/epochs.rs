//! Where the epochs of positions end in the leaders' logs: each leader is asked once (KIP-320).

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::connections::Question;
use super::partition_read::PartitionRead;
use super::reading::Reading;
use super::routing::Requests;
use crate::calls::epoch_ends::{AskEpochEnds, EpochAsked, EpochEnd};
use crate::error::Reason;

/// A code and, if it is 0, the end of each partition's epoch; or why it is not known.
pub(super) async fn ask<'a>(
    reading: &Reading,
    reads: impl Iterator<Item = &'a PartitionRead>,
    deadline: Instant,
) -> Vec<Result<(i16, EpochEnd), Reason>> {
    let reads: Vec<_> = reads.collect();
    let silent = || Err(Reason::NoAnswer("about leader epochs".into()));
    let mut answers: Vec<_> = reads.iter().map(|_| silent()).collect();
    let mut requests = Requests::new();
    for (place, read) in reads.iter().enumerate() {
        let route = reading.metadata.read_route(&read.wanted.topic, read.wanted.partition);
        if let Some(leader) = route.and_then(|route| route.leader) {
            read.wanted.put(place, leader, &mut requests);
        }
    }
    let (sender, mut replies) = mpsc::channel(requests.len().max(1));
    for ((broker, _), about) in requests {
        let partitions = about.iter().filter_map(|place| reads.get(*place));
        let partitions = partitions.map(|read| EpochAsked {
            topic: read.wanted.topic.clone(),
            partition: read.wanted.partition,
            leader_epoch: read.leader_epoch,
            epoch: read.epoch.unwrap_or(-1),
        });
        let call = AskEpochEnds { partitions: partitions.collect() };
        let question = Question { broker, call, wait: Duration::ZERO, about };
        reading.connections.ask(question, deadline, &sender);
    }
    drop(sender);
    while let Ok(Some((about, reply))) = timeout_at(deadline, replies.recv()).await {
        let found = reply.as_ref().map(Vec::as_slice).unwrap_or_default().iter();
        let found: HashMap<_, _> =
            found.map(|it| ((it.topic.as_str(), it.partition), (it.code, it.end))).collect();
        for place in about {
            let (Some(read), Some(answer)) = (reads.get(place), answers.get_mut(place)) else {
                continue;
            };
            let key = (&*read.wanted.topic, read.wanted.partition);
            *answer = match &reply {
                Ok(_) => found.get(&key).copied().map_or_else(silent, Ok),
                Err(reason) => Err(reason.clone()),
            };
        }
    }
    answers
}
