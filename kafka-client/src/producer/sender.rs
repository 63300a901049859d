//! One leader's loop: sends a batch of each due partition together, and settles the answers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::batch::{Ending, InFlightBatch, NextBatch, Regrouped, ResendReason, Sealer};
use super::routing::{LeaderQueue, Routing};
use super::topic::Partition;
use super::verdict::{Verdict, judge, judge_lost};
use crate::backoff::random;
use crate::calls::produce::{Append, AppendAnswer, Appended, TopicBatches};
use crate::cluster::link::Link;
use crate::config::Acks;
use crate::connection::{Connection, Lost, LostReason};
use crate::error::Reason;
use crate::limits::{PRODUCE_PARTITION_BYTES, PRODUCE_PATIENCE};
use crate::record_batch::Compression;
use crate::versions::PRODUCE_WITH_ZSTD;

pub(crate) struct Sender {
    routing: Arc<Routing>,
    queue: Arc<LeaderQueue>,
    link: Link,
    sealer: Sealer,
    requests: JoinSet<()>,
}

type InFlightBatches = Vec<(Arc<Partition>, InFlightBatch)>;

impl Sender {
    /// Starts the sender of a queue.
    pub(crate) fn start(routing: Arc<Routing>, queue: Arc<LeaderQueue>) {
        let link = Link::new(routing.cluster.clone(), queue.broker);
        let sealer = Sealer::new(routing.config.compression());
        let tasks = routing.cluster.settings.tasks.clone();
        tasks.spawn(Self { routing, queue, link, sealer, requests: JoinSet::new() }.run());
    }

    /// Sends until the client is closed, or the broker is no longer one of the cluster's.
    async fn run(mut self) {
        let shutdown = self.routing.shutdown.clone();
        shutdown
            .run_until_cancelled(async {
                while self.work().await {
                    self.step().await;
                }
                for partition in self.queue.close() {
                    self.routing.schedule(&partition);
                }
                // Whatever the former cluster answers is not heard any more.
                while self.is_of_this_era() && self.requests.join_next().await.is_some() {}
            })
            .await;
    }

    fn is_of_this_era(&self) -> bool {
        self.queue.era == self.routing.cluster.era()
    }

    /// Waits until there is something to send, and a place for one more request; `false` if there
    /// will be nothing any more.
    async fn work(&mut self) -> bool {
        let most = self.routing.config.in_flight;
        loop {
            if self.queue.is_closed() || !self.is_of_this_era() {
                return false;
            }
            if !self.queue.is_empty() && self.requests.len() < most {
                return true;
            }
            if self.requests.is_empty() {
                self.queue.wake.notified().await;
            } else if self.requests.len() >= most {
                propagate(self.requests.join_next().await);
            } else {
                tokio::select! {
                    biased;
                    () = self.queue.wake.notified() => {}
                    ended = self.requests.join_next() => propagate(ended),
                }
            }
        }
    }

    async fn step(&mut self) {
        let generation = self.routing.metadata.generation();
        let connection = match self.link.connection().await {
            Ok(connection) => connection,
            Err(error) => {
                self.queue.on_blocked(&Arc::new(Reason::Unreachable(error.cause())));
                self.routing.metadata.complain(generation);
                return;
            }
        };
        if !self.is_of_this_era() {
            // It was made for the former cluster, or leads to the one that took its place.
            return;
        }
        if let Some(reason) = self.refusal(&connection) {
            self.refuse(reason, connection.serial());
            yield_now().await;
            return;
        }
        let shipments = self.collect(connection.serial()).await;
        if !shipments.is_empty() {
            self.ship(connection, shipments).await;
        }
    }

    /// Why this broker cannot take what we are configured to write.
    fn refusal(&self, connection: &Connection) -> Option<Reason> {
        let version = connection.version::<Append>().ok()?;
        let compression = self.routing.config.compression();
        let is_too_old = matches!(compression, Compression::Zstd(_)) && version < PRODUCE_WITH_ZSTD;
        is_too_old.then(|| {
            let what = format!(
                "compression.type=zstd needs Produce {PRODUCE_WITH_ZSTD}, broker {} has {version}",
                self.queue.broker
            );
            Reason::Unsupported(what.into())
        })
    }

    /// Gives up the next batch; no other codec is taken in its place.
    fn refuse(&self, reason: Reason, connection: u64) {
        let Some(partition) = self.queue.pop() else { return };
        let mut queue = partition.queue.lock();
        let taken = queue.take(Instant::now(), usize::MAX, true, connection);
        if let NextBatch::Batch { id, records, attempts, .. } = taken {
            let batch = InFlightBatch { id, bytes: Bytes::new(), records, attempts };
            queue.finish(batch, Ending::GaveUp(reason));
        }
        drop(queue);
        self.routing.attend(&partition);
    }

    /// One batch of each due partition, until the request is full. What a batch takes in it is
    /// known when it is compressed; whether it is tried follows from its size before.
    ///
    /// The order in which batches are stamped here is the order in which they are written:
    /// requests are queued one by one.
    async fn collect(&mut self, connection: u64) -> InFlightBatches {
        let mut room = self.routing.config.request_bytes;
        let mut shipments = Vec::new();
        let mut present = HashSet::new();
        while let Some(partition) = self.queue.pop() {
            if present.contains(&Arc::as_ptr(&partition).addr()) {
                // It is due again already, but a request takes one batch of it.
                self.queue.push_front(partition);
                break;
            }
            let fits = room.saturating_sub(PRODUCE_PARTITION_BYTES);
            let taken = {
                let mut queue = partition.queue.lock();
                if queue.era() != self.queue.era {
                    // Scheduled again when it starts over, or has been.
                    continue;
                }
                // Read under the lock: with an older time a record enqueued meanwhile would look
                // as if it came from the future, not due yet.
                queue.take(Instant::now(), fits, shipments.is_empty(), connection)
            };
            match taken {
                NextBatch::Nothing => self.routing.attend(&partition),
                NextBatch::NoRoom => {
                    self.queue.push_front(partition);
                    break;
                }
                NextBatch::Batch { id, content, records, attempts, stamp } => {
                    let travels_alone = attempts.travels_alone();
                    let threads = &self.routing.compression_threads;
                    let bytes = self.sealer.seal(content, stamp, threads).await;
                    let sealed = bytes.is_ok();
                    let bytes = bytes.unwrap_or_default();
                    let batch = InFlightBatch { id, bytes, records, attempts };
                    if sealed {
                        room = room.saturating_sub(batch.bytes.len() + PRODUCE_PARTITION_BYTES);
                        present.insert(Arc::as_ptr(&partition).addr());
                        shipments.push((partition.clone(), batch));
                    } else {
                        let ending = Ending::GaveUp(unreadable());
                        partition.queue.lock().finish(batch, ending);
                    }
                    self.routing.attend(&partition);
                    if travels_alone {
                        break;
                    }
                }
            }
        }
        shipments
    }

    async fn ship(&mut self, connection: Arc<Connection>, shipments: InFlightBatches) {
        let (acks, timeout) =
            (self.routing.config.acks, self.routing.cluster.config.request_timeout);
        let call = Append { acks: acks.wire(), timeout, topics: by_topic(&shipments) };
        let stats = &self.routing.cluster.settings.stats;
        stats.produce_requests.add(1);
        stats.batches_sent.add(shipments.len());
        stats.produce_bytes.add(shipments.iter().map(|(_, s)| s.bytes.len()).sum());
        let resent = |(_, s): &&(_, InFlightBatch)| s.attempts.resent > 0;
        stats.batches_resent.add(shipments.iter().filter(resent).count());
        let patience = timeout + PRODUCE_PATIENCE;
        let ending = Answers {
            routing: self.routing.clone(),
            connection: connection.clone(),
            era: self.queue.era,
            generation: self.routing.metadata.generation(),
            shipments,
        };
        if acks == Acks::None {
            let reply = connection.submit_unanswered(&call, patience).await;
            let ended = async move {
                match reply {
                    Ok(reply) => ending.taken(reply.answer().await),
                    Err(lost) => ending.taken(Err(lost)),
                }
            };
            self.requests.spawn(ended.in_current_span());
        } else {
            let reply = connection.submit(Arc::new(call), patience).await;
            let ended = async move {
                match reply {
                    Ok(reply) => ending.answered(reply.answer().await),
                    Err(lost) => ending.answered(Err(lost)),
                }
            };
            self.requests.spawn(ended.in_current_span());
        }
    }
}

/// A request whose task panicked leaves its batches without an end, and the sender is to blame.
fn propagate(ended: Option<Result<(), JoinError>>) {
    if let Some(Err(error)) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

fn by_topic(shipments: &InFlightBatches) -> Vec<TopicBatches> {
    let mut topics: BTreeMap<&Arc<str>, Vec<(i32, Bytes)>> = BTreeMap::new();
    for (partition, batch) in shipments {
        let batches = topics.entry(&partition.topic).or_default();
        batches.push((partition.index, batch.bytes.clone()));
    }
    topics.into_iter().map(|(topic, batches)| (topic.clone(), batches)).collect()
}

/// A request that was queued, and everything needed to settle it.
struct Answers {
    routing: Arc<Routing>,
    connection: Arc<Connection>,
    /// Of the cluster that it was sent to.
    era: u64,
    /// What was known of the cluster when the request was sent.
    generation: u64,
    shipments: InFlightBatches,
}

impl Answers {
    /// acks 0: the socket took it, or not.
    fn taken(mut self, taken: Result<(), Lost>) {
        for (partition, batch) in self.shipments() {
            match &taken {
                Ok(()) => {
                    let ending = Ending::Written { base_offset: None, log_append_ms: None };
                    self.end(&partition, batch, ending);
                }
                Err(lost) => self.lost(&partition, batch, lost),
            }
        }
    }

    fn answered(mut self, answer: Result<AppendAnswer, Lost>) {
        let shipments = self.shipments();
        match answer {
            Ok(mut answer) => {
                for (partition, batch) in shipments {
                    match answer.take(&partition.topic, partition.index) {
                        Some(appended) => self.appended(&partition, batch, appended),
                        None => {
                            self.connection.close();
                            let lost = Lost { fault: LostReason::Incomplete, handed_over: true };
                            self.lost(&partition, batch, &lost);
                        }
                    }
                }
            }
            Err(lost) => {
                for (partition, batch) in shipments {
                    self.lost(&partition, batch, &lost);
                }
            }
        }
    }

    /// What is to be settled: nothing if another cluster has taken the place of the one that was
    /// asked, because then everything is settled already.
    fn shipments(&mut self) -> InFlightBatches {
        let shipments = std::mem::take(&mut self.shipments);
        if self.era == self.routing.cluster.era() { shipments } else { InFlightBatches::new() }
    }

    fn appended(&self, partition: &Arc<Partition>, mut batch: InFlightBatch, appended: Appended) {
        let code = appended.code;
        let hint = appended.leader.as_ref();
        let is_news = hint.is_some_and(|hint| {
            self.routing.metadata.hint(&partition.topic, partition.index, hint, self.era)
        });
        let limits = self.routing.retry_limits();
        let (records, now) = (batch.records, Instant::now());
        let mut verdict = judge(appended, &mut batch.attempts, records, limits, now, random());
        if let (true, Verdict::Resend { pause, .. }) = (is_news, &mut verdict) {
            // The new leader is known: there is nothing to wait for.
            *pause = Duration::ZERO;
        }
        if code != 0 {
            tracing::debug!(topic = %partition.topic, partition = partition.index, code, ?verdict, "batch_answered");
        }
        self.carry_out(partition, batch, verdict, ResendReason::Refused);
    }

    fn lost(&self, partition: &Arc<Partition>, mut batch: InFlightBatch, lost: &Lost) {
        let limits = self.routing.retry_limits();
        let verdict = judge_lost(lost, &mut batch.attempts, limits, random());
        let cut_off = ResendReason::CutOff(Instant::now());
        let why = if lost.handed_over { cut_off } else { ResendReason::Refused };
        self.carry_out(partition, batch, verdict, why);
    }

    fn carry_out(
        &self,
        partition: &Arc<Partition>,
        batch: InFlightBatch,
        verdict: Verdict,
        why: ResendReason,
    ) {
        let ending = match verdict {
            Verdict::Written { base_offset, log_append_ms } => {
                Ending::Written { base_offset, log_append_ms }
            }
            Verdict::Resend { pause, cause, refresh } => {
                if refresh {
                    self.routing.metadata.complain(self.generation);
                }
                Ending::Resend { at: Instant::now() + pause, cause, why }
            }
            Verdict::SequenceError { error, pause, cause } => {
                let why = ResendReason::Sequence(error);
                Ending::Resend { at: Instant::now() + pause, cause, why }
            }
            Verdict::GiveUp { reason, topic_unknown } => {
                if topic_unknown && let Some(topic) = self.routing.topic(&partition.topic) {
                    topic.refuse(reason.clone(), Instant::now());
                }
                Ending::GaveUp(reason)
            }
            Verdict::Halve => self.regroup(Regrouped::halves(&batch.bytes)),
            Verdict::Without(faults) => {
                let without = Regrouped::without(&batch.bytes, &faults);
                self.regroup(without.or_else(|| Regrouped::halves(&batch.bytes)))
            }
        };
        self.end(partition, batch, ending);
    }

    fn regroup(&self, regrouped: Option<Regrouped>) -> Ending {
        self.routing.cluster.settings.stats.batches_split.add(1);
        regrouped.map_or_else(|| Ending::GaveUp(unreadable()), Ending::Regroup)
    }

    fn end(&self, partition: &Arc<Partition>, batch: InFlightBatch, ending: Ending) {
        partition.queue.lock().finish(batch, ending);
        self.routing.attend(partition);
    }
}

fn unreadable() -> Reason {
    Reason::InvalidRecord("the batch is unreadable".into())
}
