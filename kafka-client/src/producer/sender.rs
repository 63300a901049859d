//! One leader's loop: sends a batch of each due partition together, and settles the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;

use super::batch::{Ending, Shipment, Taken};
use super::regroup::Regrouped;
use super::routing::{LeaderQueue, Routing};
use super::sealer::Sealer;
use super::topic::Partition;
use super::verdict::{Verdict, judge, judge_lost};
use crate::backoff::random;
use crate::calls::produce::{Append, AppendAnswer, Appended, TopicBatches};
use crate::cluster::Link;
use crate::config::Acks;
use crate::connection::{Connection, Fault, Lost};
use crate::error::Reason;
use crate::limits::{PRODUCE_IN_FLIGHT, PRODUCE_PARTITION_BYTES, PRODUCE_PATIENCE};
use crate::record_batch::Compression;
use crate::versions::PRODUCE_WITH_ZSTD;

pub(crate) struct Sender {
    routing: Arc<Routing>,
    queue: Arc<LeaderQueue>,
    link: Link,
    sealer: Sealer,
    requests: JoinSet<()>,
}

type Shipments = Vec<(Arc<Partition>, Shipment)>;

impl Sender {
    pub(crate) fn new(routing: Arc<Routing>, queue: Arc<LeaderQueue>) -> Self {
        let link = Link::new(routing.cluster.clone(), queue.broker);
        let sealer = Sealer::new(routing.cluster.config.compression());
        Self { routing, queue, link, sealer, requests: JoinSet::new() }
    }

    /// Sends until the client is closed.
    pub(crate) async fn run(mut self) {
        let shutdown = self.routing.cluster.settings.shutdown.clone();
        shutdown
            .run_until_cancelled(async {
                loop {
                    self.work().await;
                    self.step().await;
                }
            })
            .await;
    }

    /// Waits until there is something to send, and a place for one more request.
    async fn work(&mut self) {
        while self.queue.is_empty() || self.requests.len() >= PRODUCE_IN_FLIGHT {
            if self.requests.is_empty() {
                self.queue.wake.notified().await;
            } else if self.requests.len() >= PRODUCE_IN_FLIGHT {
                self.requests.join_next().await;
            } else {
                tokio::select! {
                    () = self.queue.wake.notified() => {}
                    _ = self.requests.join_next() => {}
                }
            }
        }
    }

    async fn step(&mut self) {
        let generation = self.routing.metadata.generation();
        let connection = match self.link.connection().await {
            Ok(connection) => connection,
            Err(error) => {
                self.queue.on_blocked(&error.cause());
                self.routing.metadata.complain(generation);
                return;
            }
        };
        if let Some(reason) = self.refusal(&connection) {
            self.refuse(reason);
            yield_now().await;
            return;
        }
        let shipments = self.collect().await;
        if !shipments.is_empty() {
            self.ship(connection, shipments).await;
        }
    }

    /// Why this broker cannot take what we are configured to write.
    fn refusal(&self, connection: &Connection) -> Option<Reason> {
        let version = connection.version::<Append>().ok()?;
        let compression = self.routing.cluster.config.compression();
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
    fn refuse(&self, reason: Reason) {
        let Some(partition) = self.queue.pop() else { return };
        let mut queue = partition.queue.lock();
        let taken = queue.take(Instant::now(), usize::MAX, true);
        if let Taken::Batch { id, records, attempts, .. } = taken {
            let shipment = Shipment { id, bytes: Bytes::new(), records, attempts };
            queue.finish(shipment, Ending::GaveUp(reason));
        }
        drop(queue);
        self.routing.attend(&partition);
    }

    /// One batch of each due partition, until the request is full. What a batch takes in it is
    /// known when it is compressed; whether it is tried follows from its size before.
    async fn collect(&mut self) -> Shipments {
        let mut room = self.routing.cluster.config.request_bytes;
        let mut shipments = Vec::new();
        while let Some(partition) = self.queue.pop() {
            let fits = room.saturating_sub(PRODUCE_PARTITION_BYTES);
            let taken = {
                let mut queue = partition.queue.lock();
                // Read under the lock: with an older time a record enqueued meanwhile would look
                // as if it came from the future, not due yet.
                queue.take(Instant::now(), fits, shipments.is_empty())
            };
            match taken {
                Taken::Nothing => self.routing.attend(&partition),
                Taken::NoRoom => {
                    self.queue.push_front(partition);
                    break;
                }
                Taken::Batch { id, content, records, attempts } => {
                    self.routing.attend(&partition);
                    let travels_alone = attempts.travels_alone();
                    let bytes = self.sealer.seal(content, &self.routing.compression_threads).await;
                    room = room.saturating_sub(bytes.len() + PRODUCE_PARTITION_BYTES);
                    shipments.push((partition, Shipment { id, bytes, records, attempts }));
                    if travels_alone {
                        break;
                    }
                }
            }
        }
        shipments
    }

    async fn ship(&mut self, connection: Arc<Connection>, shipments: Shipments) {
        let config = &self.routing.cluster.config;
        let call = Append {
            acks: config.acks.wire(),
            timeout: config.request_timeout,
            topics: by_topic(&shipments),
        };
        let stats = &self.routing.cluster.settings.stats;
        stats.produce_requests.add(1);
        stats.batches_sent.add(shipments.len());
        stats.produce_bytes.add(shipments.iter().map(|(_, s)| s.bytes.len()).sum());
        let resent = |(_, s): &&(_, Shipment)| s.attempts.resent > 0;
        stats.batches_resent.add(shipments.iter().filter(resent).count());
        let patience = config.request_timeout + PRODUCE_PATIENCE;
        let ending = Answers {
            routing: self.routing.clone(),
            connection: connection.clone(),
            generation: self.routing.metadata.generation(),
            shipments,
        };
        if config.acks == Acks::None {
            let reply = connection.submit_unanswered(&call, patience).await;
            self.requests.spawn(async move {
                match reply {
                    Ok(reply) => ending.taken(reply.answer().await),
                    Err(lost) => ending.taken(Err(lost)),
                }
            });
        } else {
            let reply = connection.submit(&call, patience).await;
            self.requests.spawn(async move {
                match reply {
                    Ok(reply) => ending.answered(reply.answer().await),
                    Err(lost) => ending.answered(Err(lost)),
                }
            });
        }
    }
}

fn by_topic(shipments: &Shipments) -> Vec<TopicBatches> {
    let mut topics: BTreeMap<&Arc<str>, Vec<(i32, Bytes)>> = BTreeMap::new();
    for (partition, shipment) in shipments {
        let batches = topics.entry(&partition.topic).or_default();
        batches.push((partition.index, shipment.bytes.clone()));
    }
    topics.into_iter().map(|(topic, batches)| (topic.clone(), batches)).collect()
}

/// What is to be done when a request has ended.
struct Answers {
    routing: Arc<Routing>,
    connection: Arc<Connection>,
    /// What was known of the cluster when the request was sent.
    generation: u64,
    shipments: Shipments,
}

impl Answers {
    /// acks 0: the socket took it, or not.
    fn taken(mut self, taken: Result<(), Lost>) {
        for (partition, shipment) in std::mem::take(&mut self.shipments) {
            match &taken {
                Ok(()) => {
                    let ending = Ending::Written { base_offset: None, log_append_ms: None };
                    self.end(&partition, shipment, ending);
                }
                Err(lost) => self.lost(&partition, shipment, lost),
            }
        }
    }

    fn answered(mut self, answer: Result<AppendAnswer, Lost>) {
        let shipments = std::mem::take(&mut self.shipments);
        match answer {
            Ok(mut answer) => {
                for (partition, shipment) in shipments {
                    match answer.take(&partition.topic, partition.index) {
                        Some(appended) => self.appended(&partition, shipment, appended),
                        None => {
                            self.connection.condemn();
                            let lost = Lost { fault: Fault::Incomplete, handed_over: true };
                            self.lost(&partition, shipment, &lost);
                        }
                    }
                }
            }
            Err(lost) => {
                for (partition, shipment) in shipments {
                    self.lost(&partition, shipment, &lost);
                }
            }
        }
    }

    fn appended(&self, partition: &Arc<Partition>, mut shipment: Shipment, appended: Appended) {
        let code = appended.code;
        let hint = appended.leader.as_ref();
        let is_news = hint.is_some_and(|hint| {
            self.routing.metadata.hint(&partition.topic, partition.index, hint)
        });
        let limits = self.routing.retry_limits();
        let (records, now) = (shipment.records, Instant::now());
        let mut verdict = judge(appended, &mut shipment.attempts, records, limits, now, random());
        if let (true, Verdict::Resend { pause, .. }) = (is_news, &mut verdict) {
            // The new leader is known: there is nothing to wait for.
            *pause = Duration::ZERO;
        }
        if code != 0 {
            tracing::debug!(topic = %partition.topic, partition = partition.index, code, ?verdict);
        }
        self.carry_out(partition, shipment, verdict);
    }

    fn lost(&self, partition: &Arc<Partition>, mut shipment: Shipment, lost: &Lost) {
        let limits = self.routing.retry_limits();
        let verdict = judge_lost(lost, &mut shipment.attempts, limits, random());
        self.carry_out(partition, shipment, verdict);
    }

    fn carry_out(&self, partition: &Arc<Partition>, shipment: Shipment, verdict: Verdict) {
        let ending = match verdict {
            Verdict::Written { base_offset, log_append_ms } => {
                Ending::Written { base_offset, log_append_ms }
            }
            Verdict::Resend { pause, cause, refresh } => {
                if refresh {
                    self.routing.metadata.complain(self.generation);
                }
                Ending::Resend { at: Instant::now() + pause, cause }
            }
            Verdict::GiveUp { reason, topic_refused } => {
                if topic_refused && let Some(topic) = self.routing.topic(&partition.topic) {
                    topic.refuse(reason.clone(), Instant::now());
                }
                Ending::GaveUp(reason)
            }
            Verdict::Halve => self.regroup(Regrouped::halves(&shipment.bytes)),
            Verdict::Without(faults) => {
                let without = Regrouped::without(&shipment.bytes, &faults);
                self.regroup(without.or_else(|| Regrouped::halves(&shipment.bytes)))
            }
        };
        self.end(partition, shipment, ending);
    }

    fn regroup(&self, regrouped: Option<Regrouped>) -> Ending {
        self.routing.cluster.settings.stats.batches_split.add(1);
        let unreadable = || Ending::GaveUp(Reason::InvalidRecord("the batch is unreadable".into()));
        regrouped.map_or_else(unreadable, Ending::Regroup)
    }

    fn end(&self, partition: &Arc<Partition>, shipment: Shipment, ending: Ending) {
        partition.queue.lock().finish(shipment, ending);
        self.routing.attend(partition);
    }
}
