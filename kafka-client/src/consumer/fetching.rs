//! Records of partitions: rounds of one Fetch to each leader, until one has something or time is over.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connections::{Question, Reply};
use super::cursor::ReadBudget;
use super::epochs;
use super::fetched::{Fetched, ReadError};
use super::inflating::{Job, JobsUnderWay};
use super::isolation::Isolation;
use super::listing::{At, Listing};
use super::partition_read::{Doubt, PartitionRead, Round, failed};
use super::position::Position;
use super::reading::Reading;
use super::routing::{Requests, Wanted, check};
use crate::backoff::random;
use crate::calls::fetch::{Fetch, FetchAnswer, FetchAsked, FetchByName, FetchFound};
use crate::config::IsolationLevel;
use crate::error::Reason;
use crate::limits::{
    COMPRESSED_INLINE_BYTES, FETCH_GATHERING, FETCH_PATIENCE, INFLATED_BATCH_BYTES, INFLATION,
};

/// One call of [`Consumer::fetch`](crate::Consumer::fetch).
pub(super) struct Fetching<'a> {
    reading: &'a Reading,
    reads: Vec<PartitionRead>,
    max_bytes: usize,
    budget: ReadBudget,
    /// Memory for decompressed batches, once the budget is spent.
    room: Option<OwnedSemaphorePermit>,
    deadline: Instant,
}

impl<'a> Fetching<'a> {
    pub(super) fn new(
        reading: &'a Reading,
        positions: &[Position<'_>],
        max_bytes: usize,
        deadline: Instant,
    ) -> Self {
        let wanted = Wanted::list(positions.iter().map(|it| (it.topic, it.partition)));
        let reads = wanted.into_iter().zip(positions);
        let reads = reads.map(|(wanted, position)| PartitionRead::new(wanted, position));
        let max_bytes = max_bytes.max(1);
        let (reads, budget) = (reads.collect(), ReadBudget(max_bytes));
        Self { reading, reads, max_bytes, budget, room: None, deadline }
    }

    /// Waits for records until `until`, and for brokers until the deadline.
    pub(super) async fn run(mut self, until: Instant) -> Vec<Result<Fetched, ReadError>> {
        let deadline = self.deadline;
        let Reading { cluster, metadata, config, .. } = self.reading;
        if let Err(closed) = cluster.check_open() {
            return self
                .reads
                .iter()
                .map(|_| Err(ReadError::Unavailable(closed.clone())))
                .collect();
        }
        let wanted = self.reads.iter().map(|read| &read.wanted);
        let checked = check(metadata, wanted, deadline).await;
        for (read, checked) in self.reads.iter_mut().zip(checked) {
            read.outcome = checked.err().map(|reason| Err(failed(reason)));
        }
        let (mut wait, mut failures) = (Duration::ZERO, 0);
        while !self.reads.is_empty() {
            let generation = metadata.generation();
            let round = self.round(wait).await;
            let now = Instant::now();
            let is_over = now >= until && self.reads.iter().all(|read| read.outcome.is_some());
            let is_closed = cluster.settings.shutdown.is_cancelled();
            if self.has_news() || is_over || is_closed || now >= deadline {
                break;
            }
            if round.has_failed {
                metadata.complain(generation);
                failures += 1;
                let pause = cluster.config.retry.after(failures, random());
                sleep_until(deadline.min(now + pause)).await;
                wait = Duration::ZERO;
                continue;
            }
            failures = 0;
            let longest = config.fetch_wait.max(LEAST_WAIT);
            let left = until.saturating_duration_since(now);
            wait = if round.has_moved { Duration::ZERO } else { longest.min(left) };
        }
        let outcomes = self.reads.into_iter().map(|read| {
            let unavailable = || Err(ReadError::Unavailable(read.refusals.into_reason()));
            read.outcome.unwrap_or_else(unavailable)
        });
        outcomes.collect()
    }

    /// Whether there is something that a reader should not wait with.
    fn has_news(&self) -> bool {
        self.reads.iter().any(|read| match &read.outcome {
            Some(Ok(fetched)) => !fetched.records.is_empty(),
            Some(Err(_)) => true,
            None => false,
        })
    }

    /// Asks each leader once, all at the same time. Once one has given records, the others have
    /// little time left.
    async fn round(&mut self, wait: Duration) -> Round {
        let Reading { cluster, connections, .. } = self.reading;
        let mut within = self.deadline.min(Instant::now() + wait + FETCH_PATIENCE);
        let era = cluster.era();
        let mut round = Round::default();
        let requests = self.route(&mut round);
        let mut waiting = requests.len();
        cluster.settings.stats.fetch_requests.add(waiting);
        let (sender, mut replies) = mpsc::channel(waiting.max(1));
        let max_bytes = self.max_bytes / waiting.max(1);
        for ((broker, _), about) in requests {
            let call = self.call(&about, wait, max_bytes);
            if call.partitions.iter().all(|asked| asked.topic_id != 0) {
                connections.ask(Question { broker, call, wait, about }, within, &sender);
            } else {
                let call = FetchByName(call);
                connections.ask(Question { broker, call, wait, about }, within, &sender);
            }
        }
        drop(sender);
        while let Ok(Some(reply)) = timeout_at(within, replies.recv()).await {
            waiting -= 1;
            self.take(reply, era, &mut round).await;
            if self.has_news() {
                within = within.min(Instant::now() + FETCH_GATHERING);
            }
        }
        round.has_failed |= waiting > 0;
        self.settle_doubts(&mut round).await;
        round
    }

    /// Which broker is asked for which partitions, beginning with another one each time.
    fn route(&mut self, round: &mut Round) -> Requests {
        let (metadata, mut requests) = (&self.reading.metadata, Requests::new());
        let turn = self.reading.connections.turn() % self.reads.len().max(1);
        let places = (0..self.reads.len()).cycle().skip(turn).take(self.reads.len());
        for place in places {
            let Some(read) = self.reads.get_mut(place) else { continue };
            if read.is_settled() {
                continue;
            }
            let route = metadata.read_route(&read.wanted.topic, read.wanted.partition);
            let id = route.map_or(0, |route| route.topic_id);
            if read.topic_id != 0 && id != 0 && read.topic_id != id {
                read.outcome = Some(Err(ReadError::Recreated));
                continue;
            }
            read.topic_id = if id == 0 { read.topic_id } else { id };
            read.leader_epoch = route.map_or(-1, |route| route.epoch);
            match read.replica.or(route.and_then(|route| route.leader)) {
                Some(broker) => read.wanted.put(place, broker, &mut requests),
                None => read.fail(Reason::NoLeader, round),
            }
        }
        requests
    }

    fn call(&self, about: &[usize], wait: Duration, max_bytes: usize) -> Fetch {
        let config = &self.reading.config;
        let reads = about.iter().filter_map(|place| self.reads.get(*place));
        let partitions = reads.map(|read| FetchAsked {
            topic: read.wanted.topic.clone(),
            topic_id: read.topic_id,
            partition: read.wanted.partition,
            epoch: read.leader_epoch,
            offset: read.offset,
            last_epoch: read.epoch,
        });
        let max_bytes = max_bytes.clamp(1, config.fetch_bytes);
        Fetch {
            wait,
            min_bytes: config.fetch_min_bytes,
            max_bytes,
            partition_bytes: config.partition_bytes.min(max_bytes),
            isolation: config.isolation.wire(),
            rack: config.rack.as_str().into(),
            partitions: partitions.collect(),
        }
    }

    async fn take(&mut self, (about, answer): Reply<FetchAnswer>, era: u64, round: &mut Round) {
        let answer = match answer {
            Ok(answer) if answer.code == 0 => answer,
            other => {
                let code = other.as_ref().map_or(0, |answer| answer.code);
                for place in about {
                    let Some(read) = self.reads.get_mut(place) else { continue };
                    match &other {
                        Ok(_) => read.on_code(code, round),
                        Err(Reason::Unsupported(what)) => {
                            let reason = Reason::Unsupported(what.clone());
                            read.outcome = Some(Err(ReadError::Refused(reason)));
                        }
                        Err(reason) => read.fail(reason.clone(), round),
                    }
                }
                return;
            }
        };
        let bytes = answer.partitions.iter().map(|found| found.records.len()).sum();
        self.reading.cluster.settings.stats.fetch_bytes.add(bytes);
        let mut found: Vec<_> = about.iter().map(|_| None).collect();
        for partition in answer.partitions {
            if let Some(place) = found.get_mut(partition.asked) {
                *place = Some(partition);
            }
        }
        let mut jobs = Vec::new();
        for (place, found) in about.into_iter().zip(found) {
            jobs.extend(self.sort(place, found, answer.compares_epochs, era, round));
        }
        self.read(jobs, round).await;
    }

    /// What there is to read for one partition, if there is.
    fn sort(
        &mut self,
        place: usize,
        found: Option<FetchFound>,
        compares_epochs: bool,
        era: u64,
        round: &mut Round,
    ) -> Option<Job> {
        let (config, metadata) = (&self.reading.config, &self.reading.metadata);
        let read = self.reads.get_mut(place)?;
        let Some(mut found) = found else {
            read.fail(Reason::NoAnswer("it lacks the partition".into()), round);
            return None;
        };
        if let Some(hint) = &found.leader {
            let Wanted { topic, partition, .. } = &read.wanted;
            if metadata.hint(topic, *partition, hint, era) && found.code != 0 {
                read.refusals.on_failure(Reason::of_code(found.code));
                round.has_moved = true;
                return None;
            }
        }
        if found.code != 0 {
            read.on_code(found.code, round);
            return None;
        }
        if let Some(end) = found.diverging {
            read.on_epoch_end(end, round);
            return None;
        }
        if !compares_epochs && read.may_be_truncated() {
            // Whatever the answer has may be of another log.
            read.doubt = Some(Doubt::Epoch);
            return None;
        }
        if let (Some(replica), None, true) = (found.replica, read.replica, found.records.is_empty())
        {
            read.replica = Some(replica);
            round.has_moved = true;
            return None;
        }
        let is_committed = config.isolation == IsolationLevel::ReadCommitted;
        let aborted = std::mem::take(&mut found.aborted);
        let isolation = is_committed.then(|| Isolation::new(aborted));
        Some(Job { place, offset: read.offset, found, isolation })
    }

    /// Reads what an answer has. Most batches do not grow by much; those that do are read again when
    /// there is memory for the largest.
    async fn read(&mut self, jobs: Vec<Job>, round: &mut Round) {
        let limit = jobs.iter().map(Job::inflated_bytes).max().unwrap_or(0);
        let grown = self.read_within(jobs, limit, round).await;
        self.read_within(grown, INFLATED_BATCH_BYTES, round).await;
    }

    /// As [`Self::read`], for batches of up to `limit` bytes when they are decompressed; gives back
    /// what has a larger one.
    async fn read_within(&mut self, jobs: Vec<Job>, limit: usize, round: &mut Round) -> Vec<Job> {
        if jobs.is_empty() {
            return Vec::new();
        }
        let permits = if self.budget.0 == 0 { 0 } else { limit };
        let inflating = self.reading.connections.inflating.clone();
        let room = inflating.acquire_many_owned(u32::try_from(permits).unwrap_or(u32::MAX));
        let Ok(Ok(room)) = timeout_at(self.deadline, room).await else {
            round.has_failed = true;
            return Vec::new();
        };
        let reading = JobsUnderWay { jobs, limit, budget: self.budget, room };
        let bytes: usize = reading.jobs.iter().map(|job| job.found.records.len()).sum();
        let done = if bytes.max(limit / INFLATION) <= COMPRESSED_INLINE_BYTES {
            reading.work()
        } else {
            // Whoever stops listening leaves the room to it until it has ended.
            match spawn_blocking(|| reading.work()).await {
                Ok(done) => done,
                // The runtime shuts down.
                Err(_) => {
                    round.has_failed = true;
                    return Vec::new();
                }
            }
        };
        self.budget = done.budget;
        if self.budget.0 == 0 {
            // The last record may be larger than what was left, and this is the last room we need.
            self.room.get_or_insert(done.room);
        }
        let level = self.reading.config.isolation;
        for (job, given) in done.done {
            self.reading.cluster.settings.stats.records_read.add(given.records.len());
            if let Some(read) = self.reads.get_mut(job.place) {
                read.settle(given, &job.found, level, round);
            }
        }
        done.grown
    }

    /// Partitions whose position may not be in the log: asks about its epoch, and where the log begins
    /// and ends.
    async fn settle_doubts(&mut self, round: &mut Round) {
        let deadline = self.deadline.min(Instant::now() + FETCH_PATIENCE);
        let doubtful = self.places(|read| read.doubt.is_some() && read.epoch.is_some());
        if !doubtful.is_empty() {
            let reads = doubtful.iter().filter_map(|place| self.reads.get(*place));
            let ends = epochs::ask(self.reading, reads, deadline).await;
            for (place, end) in doubtful.into_iter().zip(ends) {
                if let Some(read) = self.reads.get_mut(place) {
                    read.on_epoch_answer(end, round);
                }
            }
        }
        let lost = self.places(|read| read.doubt.is_some());
        if lost.is_empty() {
            return;
        }
        let reads = lost.iter().filter_map(|place| self.reads.get(*place));
        let partitions: Vec<_> =
            reads.map(|read| (&*read.wanted.topic, read.wanted.partition)).collect();
        let starts = Listing::new(self.reading, &partitions, At::Earliest).run(deadline).await;
        let ends = Listing::new(self.reading, &partitions, At::Latest).run(deadline).await;
        for (place, ends) in lost.into_iter().zip(starts.into_iter().zip(ends)) {
            let Some(read) = self.reads.get_mut(place) else { continue };
            match ends {
                (Ok((log_start, _)), Ok((log_end, _))) => {
                    read.on_ends(log_start, log_end, round);
                }
                (Err(reason), _) | (_, Err(reason)) => read.fail(reason, round),
            }
        }
    }

    fn places(&self, which: impl Fn(&PartitionRead) -> bool) -> Vec<usize> {
        let reads = self.reads.iter().enumerate();
        reads.filter(|(_, read)| which(read)).map(|(place, _)| place).collect()
    }
}

/// Even who wants no waiting must not ask a broker as fast as it answers.
const LEAST_WAIT: Duration = Duration::from_millis(1);
