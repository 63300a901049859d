//! What is counted of each webhook, for `/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::retry::Verdict;

/// The counters of all webhooks.
#[derive(Default)]
pub(crate) struct WebhookFamilies {
    attempts: Family<OfOutcome, Counter>,
    records: Family<OfOutcome, Counter>,
    gaps: Family<OfWebhook, Counter>,
    commits_failed: Family<OfWebhook, Counter>,
    partitions: Family<OfWebhook, Gauge>,
    halted: Family<OfWebhook, Gauge>,
    lag: Family<OfWebhook, Gauge>,
}

/// Those of one webhook.
pub(crate) struct WebhookMetrics {
    attempts: [Counter; 4],
    pub(super) delivered: Counter,
    pub(super) dead_lettered: Counter,
    pub(super) skipped: Counter,
    pub(super) gaps: Counter,
    pub(super) commits_failed: Counter,
    pub(super) partitions: Gauge,
    pub(super) halted: Gauge,
    pub(super) lag: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWebhook {
    webhook: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    webhook: String,
    outcome: &'static str,
}

impl WebhookFamilies {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Requests to receivers by what became of them";
        registry.register("webhook_attempts", help, self.attempts.clone());
        let help = "Records of webhooks by what became of them";
        registry.register("webhook_records", help, self.records.clone());
        let help = "Positions of webhooks that could not be read from, and were moved";
        registry.register("webhook_gaps", help, self.gaps.clone());
        let help = "Offsets of webhooks that Kafka did not keep; they are committed again";
        registry.register("webhook_commits_failed", help, self.commits_failed.clone());
        let help = "Partitions that this bridge sends from";
        registry.register("webhook_partitions", help, self.partitions.clone());
        let help = "Partitions of these that are paused, stopped or disabled";
        registry.register("webhook_halted_partitions", help, self.halted.clone());
        let help = "Records of these partitions that are not settled";
        registry.register("webhook_lag", help, self.lag.clone());
    }

    /// The counters of a webhook, each with its row from now on.
    pub(crate) fn of(&self, webhook: &str) -> WebhookMetrics {
        let row = OfWebhook { webhook: webhook.to_owned() };
        let of = |family: &Family<OfOutcome, Counter>, outcome| {
            family.get_or_create_owned(&OfOutcome { webhook: webhook.to_owned(), outcome })
        };
        WebhookMetrics {
            attempts: OUTCOMES.map(|outcome| of(&self.attempts, outcome)),
            delivered: of(&self.records, "delivered"),
            dead_lettered: of(&self.records, "dead_lettered"),
            skipped: of(&self.records, "skipped"),
            gaps: self.gaps.get_or_create_owned(&row),
            commits_failed: self.commits_failed.get_or_create_owned(&row),
            partitions: self.partitions.get_or_create_owned(&row),
            halted: self.halted.get_or_create_owned(&row),
            lag: self.lag.get_or_create_owned(&row),
        }
    }
}

impl WebhookMetrics {
    pub(super) fn attempt(&self, verdict: Verdict) {
        let [delivered, again, refused, gone] = &self.attempts;
        match verdict {
            Verdict::Delivered => delivered.inc(),
            Verdict::Again { .. } => again.inc(),
            Verdict::Refused => refused.inc(),
            Verdict::Gone => gone.inc(),
        };
    }
}

const OUTCOMES: [&str; 4] = ["delivered", "again", "refused", "gone"];
