//! All webhooks of the process.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::WebhookConfig;
use super::credentials;
use super::halt::{Halt, Why};
use super::metrics::WebhookFamilies;
use super::redelivery::{self, Wish};
use super::subscription;
use super::webhook::Webhook;
use crate::config::{ConfigError, field};
use crate::consume::feeds::MemberOf;
use crate::consume::memory::Memory;
use crate::consume::reader::FeedReader;
use crate::limits::WEBHOOK_MEMORY_BYTES;

/// All webhooks, by name.
#[derive(Default)]
pub(crate) struct Webhooks {
    all: BTreeMap<String, Arc<Webhook>>,
    /// The threads on which they run.
    threads: OnceLock<Handle>,
}

/// Why nothing is sent again.
pub(super) enum NotRedelivered {
    Invalid(String),
    /// It does so already, or the bridge is about to start.
    Busy,
}

impl Webhooks {
    /// The configured ones; none sends yet. Reads the files of their credentials.
    ///
    /// # Errors
    /// The first that has something wrong with these.
    pub(crate) fn new(
        (configs, member): (&BTreeMap<String, WebhookConfig>, &MemberOf),
        feed: impl Fn(&str) -> Option<Arc<FeedReader>>,
        families: &WebhookFamilies,
    ) -> Result<Self, ConfigError> {
        let memory = Memory::new(WEBHOOK_MEMORY_BYTES);
        let mut webhooks = BTreeMap::new();
        for (name, config) in configs {
            // The configuration was checked: the feed is there.
            let Some(reader) = feed(&config.feed) else { continue };
            let (metrics, memory) = (families.of(name), Arc::clone(&memory));
            let webhook = Webhook::new(name, config, reader, metrics, memory, member);
            let webhook = webhook.map_err(|fault| field(&format!("webhooks.{name}"), &fault))?;
            webhooks.insert(name.clone(), Arc::new(webhook));
        }
        Ok(Self { all: webhooks, threads: OnceLock::new() })
    }

    /// Sends until the process is to end; then what is under way has so long, and all is committed.
    pub(crate) fn run(
        self: &Arc<Self>,
        shutdown: &CancellationToken,
        grace: Duration,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (own, shutdown) = (Arc::clone(self), shutdown.clone());
        async move {
            own.threads.get_or_init(Handle::current);
            let webhooks: Vec<_> = own.all.values().cloned().collect();
            let mut following = JoinSet::new();
            for webhook in &webhooks {
                following.spawn(webhook.receiver.follow());
            }
            let running = webhooks
                .into_iter()
                .map(|webhook| tokio::spawn(subscription::run(webhook, shutdown.clone(), grace)));
            join_all(running).await;
        }
    }

    /// What `GET /v1/webhooks` says.
    pub(super) fn json(&self) -> Vec<Value> {
        self.all.values().map(|webhook| webhook.json()).collect()
    }

    /// Those that do not send all they should, and why.
    pub(crate) fn faults(&self) -> Vec<Value> {
        self.all.values().filter_map(|webhook| webhook.fault()).collect()
    }

    /// Sends a range once more, in this bridge. Says which offsets of which partitions.
    pub(super) fn redeliver(
        &self,
        name: &str,
        wish: Wish,
    ) -> Option<Result<Vec<Value>, NotRedelivered>> {
        let webhook = self.all.get(name)?;
        let ranges = match wish.ranges(webhook) {
            Ok(ranges) => ranges,
            Err(why) => return Some(Err(NotRedelivered::Invalid(why))),
        };
        let progress = redelivery::begin(&ranges);
        let threads = self.threads.get().filter(|_| webhook.begin_redelivery(&progress));
        let Some(threads) = threads else { return Some(Err(NotRedelivered::Busy)) };
        let told = ranges.iter().map(|((topic, partition), (from, to))| {
            json!({ "topic": topic, "partition": partition, "from": from, "to": to })
        });
        let told = told.collect();
        threads.spawn(wish.run(Arc::clone(webhook), ranges, progress));
        Some(Ok(told))
    }

    /// Pauses one, or resumes it, in this bridge: says for which partitions, and whether Kafka has it.
    pub(super) async fn set_paused(&self, name: &str, is_paused: bool) -> Option<Vec<Value>> {
        let webhook = self.all.get(name)?;
        let halt = is_paused.then(|| Halt::new(Why::Paused, "by an operator"));
        webhook.set_halt(halt.as_ref());
        webhook.commit().await;
        Some(webhook.recorded())
    }
}

/// What is wrong with the files that webhooks have their credentials from.
pub(crate) fn faults(configs: &BTreeMap<String, WebhookConfig>) -> Vec<ConfigError> {
    let fault = |(name, config): (&String, &WebhookConfig)| {
        let fault = credentials::load(config).err()?;
        Some(field(&format!("webhooks.{name}"), &fault))
    };
    configs.iter().filter_map(fault).collect()
}
