//! What is to be done when a Produce request has ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Again, Ending, Shipment};
use super::regroup::Regrouped;
use super::routing::Routing;
use super::sender::Shipments;
use super::topic::Partition;
use super::verdict::{Verdict, judge, judge_lost};
use crate::backoff::random;
use crate::calls::produce::{AppendAnswer, Appended};
use crate::connection::{Connection, Lost, LostReason};
use crate::error::Reason;

/// A request that was queued, and everything needed to settle it.
pub(super) struct Answers {
    pub(super) routing: Arc<Routing>,
    pub(super) connection: Arc<Connection>,
    /// Of the cluster that it was sent to.
    pub(super) era: u64,
    /// What was known of the cluster when the request was sent.
    pub(super) generation: u64,
    pub(super) shipments: Shipments,
}

impl Answers {
    /// acks 0: the socket took it, or not.
    pub(super) fn taken(mut self, taken: Result<(), Lost>) {
        for (partition, shipment) in self.shipments() {
            match &taken {
                Ok(()) => {
                    let ending = Ending::Written { base_offset: None, log_append_ms: None };
                    self.end(&partition, shipment, ending);
                }
                Err(lost) => self.lost(&partition, shipment, lost),
            }
        }
    }

    pub(super) fn answered(mut self, answer: Result<AppendAnswer, Lost>) {
        let shipments = self.shipments();
        match answer {
            Ok(mut answer) => {
                for (partition, shipment) in shipments {
                    match answer.take(&partition.topic, partition.index) {
                        Some(appended) => self.appended(&partition, shipment, appended),
                        None => {
                            self.connection.condemn();
                            let lost = Lost { fault: LostReason::Incomplete, handed_over: true };
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

    /// What is to be settled: nothing if another cluster has taken the place of the one that was
    /// asked, because then everything is settled already.
    fn shipments(&mut self) -> Shipments {
        let shipments = std::mem::take(&mut self.shipments);
        if self.era == self.routing.cluster.era() { shipments } else { Shipments::new() }
    }

    fn appended(&self, partition: &Arc<Partition>, mut shipment: Shipment, appended: Appended) {
        let code = appended.code;
        let hint = appended.leader.as_ref();
        let is_news = hint.is_some_and(|hint| {
            self.routing.metadata.hint(&partition.topic, partition.index, hint, self.era)
        });
        let limits = self.routing.retry_limits();
        let (records, now) = (shipment.records, Instant::now());
        let mut verdict = judge(appended, &mut shipment.attempts, records, limits, now, random());
        if let (true, Verdict::Resend { pause, .. }) = (is_news, &mut verdict) {
            // The new leader is known: there is nothing to wait for.
            *pause = Duration::ZERO;
        }
        if code != 0 {
            tracing::debug!(topic = %partition.topic, partition = partition.index, code, ?verdict, "batch_answered");
        }
        self.carry_out(partition, shipment, verdict, Again::Refused);
    }

    fn lost(&self, partition: &Arc<Partition>, mut shipment: Shipment, lost: &Lost) {
        let limits = self.routing.retry_limits();
        let verdict = judge_lost(lost, &mut shipment.attempts, limits, random());
        let cut_off = Again::CutOff(Instant::now());
        let why = if lost.handed_over { cut_off } else { Again::Refused };
        self.carry_out(partition, shipment, verdict, why);
    }

    fn carry_out(
        &self,
        partition: &Arc<Partition>,
        shipment: Shipment,
        verdict: Verdict,
        why: Again,
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
            Verdict::Trouble { trouble, pause, cause } => {
                let why = Again::Trouble(trouble);
                Ending::Resend { at: Instant::now() + pause, cause, why }
            }
            Verdict::GiveUp { reason, topic_unknown } => {
                if topic_unknown && let Some(topic) = self.routing.topic(&partition.topic) {
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
        regrouped.map_or_else(|| Ending::GaveUp(unreadable()), Ending::Regroup)
    }

    fn end(&self, partition: &Arc<Partition>, shipment: Shipment, ending: Ending) {
        partition.queue.lock().finish(shipment, ending);
        self.routing.attend(partition);
    }
}

pub(super) fn unreadable() -> Reason {
    Reason::InvalidRecord("the batch is unreadable".into())
}
