//! Offsets of partitions: each leader is asked, and asked again where it was not the one.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answers::{Reaction, Refusals, reaction};
use super::connections::{Question, Reply};
use super::reading::Reading;
use super::routing::{Requests, Wanted, check};
use crate::backoff::random;
use crate::calls::list_offsets::{EARLIEST, LATEST, ListOffsets, OffsetAsked, OffsetFound};
use crate::error::Reason;
use crate::limits::FETCH_PATIENCE;

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The log start: the first record that is still there.
    Earliest,
    /// The log end: behind the last record that may be read, which under read_committed is the last
    /// stable offset (KIP-98).
    Latest,
    /// The first record of this time or later, ms since the Unix epoch; the log end if there is none.
    /// Times before the epoch count as 0.
    Time(i64),
}

/// One call of [`Consumer::offsets`](crate::Consumer::offsets).
pub(super) struct Listing<'a> {
    reading: &'a Reading,
    sought: Vec<Sought>,
}

/// An offset, and the leader epoch that brokers gave with it: that of the record there, or of whoever
/// leads now.
pub(super) type LogOffset = (i64, Option<i32>);

struct Sought {
    wanted: Wanted,
    timestamp: i64,
    refusals: Refusals,
    outcome: Option<Result<LogOffset, Reason>>,
}

impl<'a> Listing<'a> {
    pub(super) fn new(reading: &'a Reading, partitions: &[(&str, i32)], at: At) -> Self {
        let timestamp = match at {
            At::Earliest => EARLIEST,
            At::Latest => LATEST,
            // Below 0 they mean something else.
            At::Time(ms) => ms.max(0),
        };
        let sought = Wanted::list(partitions.iter().copied()).into_iter().map(|wanted| Sought {
            wanted,
            timestamp,
            refusals: Refusals::default(),
            outcome: None,
        });
        Self { reading, sought: sought.collect() }
    }

    pub(super) async fn run(mut self, deadline: Instant) -> Vec<Result<LogOffset, Reason>> {
        let Reading { cluster, metadata, .. } = self.reading;
        if let Err(closed) = cluster.check_open() {
            return self.sought.iter().map(|_| Err(closed.clone())).collect();
        }
        let wanted = self.sought.iter().map(|sought| &sought.wanted);
        let checked = check(metadata, wanted, deadline).await;
        for (sought, checked) in self.sought.iter_mut().zip(checked) {
            sought.outcome = checked.err().map(Err);
        }
        let mut failures = 0;
        while self.sought.iter().any(|sought| sought.outcome.is_none()) {
            let generation = metadata.generation();
            let has_failed = self.round(deadline.min(Instant::now() + FETCH_PATIENCE)).await;
            let now = Instant::now();
            if now >= deadline || cluster.settings.shutdown.is_cancelled() {
                break;
            }
            if has_failed {
                metadata.complain(generation);
                failures += 1;
                let pause = cluster.config.retry.after(failures, random());
                sleep_until(deadline.min(now + pause)).await;
            }
        }
        let outcomes = self
            .sought
            .into_iter()
            .map(|sought| sought.outcome.unwrap_or_else(|| Err(sought.refusals.into_reason())));
        outcomes.collect()
    }

    /// Asks each leader once; says whether one of them could not answer.
    async fn round(&mut self, deadline: Instant) -> bool {
        let Reading { metadata, connections, .. } = self.reading;
        let mut has_failed = false;
        let mut requests = Requests::new();
        for (place, sought) in self.sought.iter_mut().enumerate() {
            let Wanted { topic, partition, .. } = &sought.wanted;
            if sought.outcome.is_some() {
                continue;
            }
            match metadata.read_route(topic, *partition).and_then(|route| route.leader) {
                Some(leader) => sought.wanted.put(place, leader, &mut requests),
                None => {
                    sought.refusals.on_failure(Reason::NoLeader);
                    has_failed = true;
                }
            }
        }
        let mut waiting = requests.len();
        let (sender, mut replies) = mpsc::channel(waiting.max(1));
        for ((broker, _), about) in requests {
            let question =
                Question { broker, call: self.call(&about), wait: Duration::ZERO, about };
            connections.ask(question, deadline, &sender);
        }
        drop(sender);
        while let Ok(Some(reply)) = timeout_at(deadline, replies.recv()).await {
            waiting -= 1;
            has_failed |= self.take(reply);
        }
        has_failed || waiting > 0
    }

    fn call(&self, about: &[usize]) -> ListOffsets {
        let metadata = &self.reading.metadata;
        let sought = about.iter().filter_map(|place| self.sought.get(*place));
        let partitions = sought.map(|Sought { wanted, timestamp, .. }| OffsetAsked {
            topic: wanted.topic.clone(),
            partition: wanted.partition,
            epoch: metadata.read_route(&wanted.topic, wanted.partition).map_or(-1, |it| it.epoch),
            timestamp: *timestamp,
        });
        let isolation = self.reading.config.isolation.wire();
        ListOffsets { isolation, partitions: partitions.collect() }
    }

    /// Says whether something of it has failed.
    fn take(&mut self, (about, answer): Reply<Vec<OffsetFound>>) -> bool {
        let mut has_failed = false;
        let all = answer.as_ref().map(Vec::as_slice).unwrap_or_default().iter();
        let all: HashMap<_, _> = all.map(|it| ((it.topic.as_str(), it.partition), it)).collect();
        for place in about {
            let Some(sought) = self.sought.get_mut(place) else { continue };
            let key = (&*sought.wanted.topic, sought.wanted.partition);
            has_failed |= match answer.as_ref().map(|_| all.get(&key)) {
                Ok(Some(found)) => sought.take(found),
                Ok(None) => sought.fail(Reason::NoAnswer("it lacks the partition".into())),
                Err(Reason::Unsupported(what)) => {
                    sought.outcome = Some(Err(Reason::Unsupported(what.clone())));
                    false
                }
                Err(reason) => sought.fail(reason.clone()),
            };
        }
        has_failed
    }
}

impl Sought {
    fn take(&mut self, found: &OffsetFound) -> bool {
        match (reaction(found.code), found.offset) {
            (Reaction::Read, 0..) => {
                let epoch = Some(found.epoch).filter(|epoch| *epoch >= 0);
                self.outcome = Some(Ok((found.offset, epoch)));
            }
            // Nothing is of this time or later: what comes next is.
            (Reaction::Read, _) if self.timestamp >= 0 => self.timestamp = LATEST,
            _ => {
                self.outcome = self.refusals.on_code(found.code, Instant::now()).map(Err);
                return self.outcome.is_none();
            }
        }
        false
    }

    fn fail(&mut self, reason: Reason) -> bool {
        self.refusals.on_failure(reason);
        true
    }
}
