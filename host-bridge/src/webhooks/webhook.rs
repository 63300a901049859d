//! A webhook in this bridge: its receiver, the partitions that it sends from here, and their commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_client::{Assignor, Group, GroupConfig, GroupOffset, Member};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::config::{Qos, WebhookConfig};
use super::halt::Halt;
use super::item::{Item, Origin, Whole};
use super::message::{Message, idempotency_key};
use super::metrics::WebhookMetrics;
use super::place::{NewOffset, Place};
use super::progress::Progress;
use super::receiver::Receiver;
use crate::consume::feeds::MemberOf;
use crate::consume::memory::Memory;
use crate::consume::reader::FeedReader;

/// The partitions that are here, by topic and number.
type Places = BTreeMap<(Arc<str>, i32), Arc<Place>>;

/// A webhook.
pub(super) struct Webhook {
    pub(super) name: String,
    pub(super) config: WebhookConfig,
    pub(super) reader: Arc<FeedReader>,
    pub(super) group: Group,
    /// How the bridge is a member of it.
    pub(super) membership_config: GroupConfig,
    pub(super) receiver: Receiver,
    pub(super) metrics: WebhookMetrics,
    /// Of all webhooks.
    pub(super) memory: Arc<Memory>,
    /// Requests at a time.
    pub(super) requests: Semaphore,
    places: Mutex<Places>,
    /// What is read, and who commits, while the bridge is in the group.
    membership: Mutex<Option<(BTreeSet<String>, Member)>>,
    /// Why the bridge is not in the group, until it is.
    group_error: Mutex<Option<String>>,
    /// What an operator has had sent again last.
    redelivery: Mutex<Option<Arc<Progress>>>,
    /// One commit at a time: a later one must not be overtaken.
    committing: tokio::sync::Mutex<()>,
}

impl Webhook {
    pub(super) fn new(
        name: &str,
        config: &WebhookConfig,
        reader: Arc<FeedReader>,
        metrics: WebhookMetrics,
        memory: Arc<Memory>,
        member: &MemberOf,
    ) -> Result<Self, String> {
        let (name, config) = (name.to_owned(), config.clone());
        let group = reader.hub.client.group(&config.group_id);
        let membership_config = membership_config(&name, member);
        let receiver = Receiver::new(&config)?;
        let requests = Semaphore::new(config.concurrency);
        let (places, membership) = (Mutex::default(), Mutex::default());
        let (group_error, redelivery) = (Mutex::default(), Mutex::default());
        let committing = tokio::sync::Mutex::default();
        Ok(Self {
            name,
            config,
            reader,
            group,
            membership_config,
            receiver,
            metrics,
            memory,
            requests,
            places,
            membership,
            group_error,
            redelivery,
            committing,
        })
    }

    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bridge is in the group, for these topics.
    pub(super) fn begin(&self, topics: BTreeSet<String>, member: Member) {
        *self.membership() = Some((topics, member));
    }

    pub(super) fn end(&self) {
        *self.membership() = None;
    }

    /// Whether the group has the bridge as a member.
    pub(super) fn set_group_error(&self, error: Option<String>) {
        *self.group_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Those that are read now.
    pub(super) fn topics(&self) -> BTreeSet<String> {
        self.membership().as_ref().map(|(topics, _)| topics.clone()).unwrap_or_default()
    }

    fn membership(&self) -> MutexGuard<'_, Option<(BTreeSet<String>, Member)>> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Halts all partitions that are here, or has them go on.
    pub(super) fn set_halt(&self, halt: Option<&Halt>) {
        self.places().values().for_each(|place| place.set_halt(halt.cloned()));
        match halt {
            Some(Halt { why, reason }) => {
                let (webhook, why) = (&*self.name, why.name());
                tracing::warn!(webhook, why, reason, effect = "nothing_is_sent", "webhook_halted");
            }
            None => tracing::info!(webhook = &*self.name, "webhook_resumed"),
        }
    }

    /// The partitions that are here, and whether Kafka has what was said of them.
    pub(super) fn recorded(&self) -> Vec<Value> {
        let places = self.places();
        let each = places.values().map(|place| {
            let (topic, partition) = (&*place.topic.log.name, place.partition);
            json!({ "topic": topic, "partition": partition, "recorded": place.is_recorded() })
        });
        each.collect()
    }

    /// The request with these records.
    pub(super) fn message(
        &self,
        origin: &Origin,
        topic_id: Option<u128>,
        items: &[&Item],
        salt: Option<u64>,
    ) -> Message {
        let cluster = self.reader.hub.client.cluster_id();
        let key = |range| idempotency_key(cluster.as_deref(), topic_id, origin, range, salt);
        let offset = |item: Option<&&Item>| item.map_or(-1, |item| item.offset);
        let id = key((offset(items.first()), offset(items.last())));
        let of_one = |item: &Item| key((item.offset, item.offset));
        let Whole { headers, content_type, body } =
            Whole::new(&self.config, &self.reader.feed, items, of_one);
        Message { id, headers, content_type, body }
    }

    /// A position had to be moved.
    pub(super) fn gap(&self, topic: &str, partition: i32, reason: &str, from: i64) {
        self.metrics.gaps.inc();
        tracing::warn!(webhook = &*self.name, topic, partition, from, reason, "webhook_gap");
    }

    /// One redelivery at a time. Says whether this one may begin.
    pub(super) fn begin_redelivery(&self, progress: &Arc<Progress>) -> bool {
        let mut last = self.redelivery.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = last.as_ref().is_none_or(|last| last.is_over());
        if is_free {
            *last = Some(Arc::clone(progress));
        }
        is_free
    }

    /// Commits what is new.
    pub(super) async fn commit(&self) {
        let _turn = self.committing.lock().await;
        let member = self.membership().as_ref().map(|(_, member)| member.clone());
        let Some(member) = member.filter(|_| self.config.qos != Qos::None) else { return };
        let places: Vec<_> = self.places().values().cloned().collect();
        let new = places.iter().filter_map(|it| it.new_offset().map(|offset| (it, offset)));
        let new: Vec<_> = new.collect();
        if new.is_empty() {
            return;
        }
        let offsets: Vec<_> = new
            .iter()
            .map(|(place, NewOffset { position, note, .. })| {
                GroupOffset::new(&place.topic.log.name, place.partition, *position).metadata(note)
            })
            .collect();
        let kept = member.commit(&offsets, COMMIT_WITHIN).await;
        for ((place, offset), kept) in new.iter().zip(kept) {
            let Err(error) = kept else {
                place.is_committed(offset);
                continue;
            };
            self.metrics.commits_failed.inc();
            let (webhook, partition) = (&*self.name, place.partition);
            tracing::warn!(webhook, partition, %error, "webhook_offset_not_committed");
        }
    }

    /// Has all positions committed again: brokers forget what has not been for long.
    pub(super) fn renew(&self) {
        self.places().values().for_each(|place| place.renew());
    }

    /// What is told of it now.
    pub(super) fn measure(&self) {
        let places = self.places();
        let count = |it: usize| i64::try_from(it).unwrap_or(i64::MAX);
        self.metrics.partitions.set(count(places.len()));
        self.metrics.halted.set(count(places.values().filter(|it| it.is_halted()).count()));
        self.metrics.lag.set(places.values().filter_map(|place| place.lag()).sum());
    }

    pub(super) fn json(&self) -> Value {
        let places: Vec<_> = self.places().values().map(|place| place.json()).collect();
        let redelivery = self.redelivery.lock().unwrap_or_else(PoisonError::into_inner);
        let group_error = self.group_error.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "name": self.name,
            "feed": self.config.feed,
            "group_id": self.config.group_id,
            "group_error": *group_error,
            // What follows may be a secret.
            "url": self.config.url.split('?').next(),
            "partitions": places,
            "redelivery": redelivery.as_ref().map(|it| it.json()),
        })
    }

    /// Why it does not send from a partition, if it does not.
    pub(super) fn fault(&self) -> Option<Value> {
        let places = self.places();
        let halts = places.values().filter_map(|place| place.halts().borrow().clone());
        let Halt { why, reason } = halts.into_iter().next()?;
        Some(json!({ "webhook": self.name, "state": why.name(), "reason": reason }))
    }
}

/// A static member where the bridge has a name and the protocol has that: a bridge that was killed finds
/// its partitions again when it is back.
fn membership_config(webhook: &str, MemberOf { instance, session }: &MemberOf) -> GroupConfig {
    let config = GroupConfig::default().assignors(&[Assignor::CooperativeSticky]);
    let config = config.session_timeout(*session);
    match instance {
        // Two webhooks may have one group.
        Some(instance) => config.instance_id(&format!("{instance}-webhook-{webhook}")),
        None => config,
    }
}

/// How long Kafka may take for a commit.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);
