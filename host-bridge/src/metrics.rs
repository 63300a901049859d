//! `GET /metrics`: counters of the bridge and of its Kafka clients, for Prometheus.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use kafka_client::{Client, Stage, Stats};
use kafka_upstream_core::outcome::{Code, Outcome};
use kafka_upstream_core::wire::Delivery;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clusters::Clusters;
use crate::consume::feed_metrics::FeedFamilies;
use crate::failing::{Failing, Topics};
use crate::logging;
use crate::webhooks::metrics::WebhookFamilies;

/// How much the bridge's queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

/// The bridge's own counters.
pub(crate) struct Metrics {
    registry: Registry,
    batches: Counter,
    repeated: Counter,
    refused: Family<Refused, Counter>,
    bypassed: Counter,
    captures: Family<Captured, Counter>,
    records: Family<Settled, Counter>,
    pub(crate) failing: Failing,
    pub(crate) feeds: FeedFamilies,
    pub(crate) webhooks: WebhookFamilies,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Captured {
    capture: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Settled {
    outcome: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailingTopics {
    cluster: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SchemaRegistry {
    registry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    cluster: String,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checks {
    cluster: String,
    checks: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    cluster: String,
    certificate: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("host_bridge");
        let (batches, repeated, bypassed): (Counter, Counter, Counter) = Default::default();
        let (refused, records): (Family<_, _>, Family<_, _>) = Default::default();
        registry.register("batches", "Batches settled", batches.clone());
        registry.register("batches_repeated", "Batches answered from memory", repeated.clone());
        registry.register("batches_refused", "Batches refused whole", refused.clone());
        registry.register("bypassed", "Requests that no filter answered", bypassed.clone());
        let captures = Family::<Captured, Counter>::default();
        let help = "Requests to capture routes, by their replies";
        registry.register("capture_requests", help, captures.clone());
        registry.register("records", "Records by what became of them", records.clone());
        let (failing, feeds) = (Failing::default(), FeedFamilies::default());
        feeds.register(&mut registry);
        let webhooks = WebhookFamilies::default();
        webhooks.register(&mut registry);
        Self {
            registry,
            batches,
            repeated,
            refused,
            bypassed,
            captures,
            records,
            failing,
            feeds,
            webhooks,
        }
    }
}

impl Metrics {
    /// Each record of a batch has its outcome.
    pub(crate) fn batch_settled(
        &self,
        cluster: &str,
        delivery: Delivery,
        topics: &Topics,
        outcomes: &[Outcome],
    ) {
        self.failing.settled(cluster, delivery, topics, outcomes);
        self.batches.inc();
        for outcome in outcomes {
            let (outcome, code) = match outcome {
                Outcome::Written { .. } => ("written", ""),
                Outcome::Queued => ("queued", ""),
                Outcome::NotWritten(reason) => ("not_written", reason.code.name()),
                Outcome::Unknown(reason) => ("unknown", reason.code.name()),
            };
            self.records.get_or_create(&Settled { outcome, code }).inc();
        }
    }

    pub(crate) fn batch_repeated(&self) {
        self.repeated.inc();
    }

    pub(crate) fn batch_refused(&self, status: StatusCode) {
        self.refused.get_or_create(&Refused { status: status.as_u16() }).inc();
    }

    pub(crate) fn bypassed(&self) {
        self.bypassed.inc();
    }

    /// A request to a capture route has its reply.
    pub(crate) fn captured(&self, capture: &str, status: StatusCode) {
        let labels = Captured { capture: capture.to_owned(), status: status.as_u16() };
        self.captures.get_or_create(&labels).inc();
    }

    /// The text of a scrape.
    pub(crate) fn text(
        &self,
        clusters: &Clusters,
        queued: Depth,
    ) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        self.feeds.look_at_lags();
        text::encode_registry(&mut page, &self.registry)?;
        text::encode_registry(&mut page, &queue(queued))?;
        text::encode_registry(&mut page, &failing_topics(clusters, &self.failing))?;
        text::encode_registry(&mut page, &log())?;
        text::encode_registry(&mut page, &clients(clusters))?;
        text::encode_registry(&mut page, &schema_registries(clusters))?;
        text::encode_eof(&mut page)?;
        Ok(page)
    }
}

/// What waits in the bridge's memory.
fn queue(depth: Depth) -> Registry {
    let mut registry = Registry::with_prefix("host_bridge");
    for (name, help, value) in [
        ("queued_records", "Records that wait in the bridge's memory", depth.records),
        ("queued_bytes", "Bytes of the batches that hold them", depth.bytes),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
    registry
}

/// Each cluster has its row for a missing topic before one is, so that an alert can be written.
fn failing_topics(clusters: &Clusters, failing: &Failing) -> Registry {
    let mut registry = Registry::with_prefix("host_bridge");
    let family = Family::<FailingTopics, Gauge>::default();
    for (cluster, _) in clusters.clients() {
        family.get_or_create(&FailingTopics { cluster, code: Code::UnknownTopic.name() }).set(0);
    }
    for ((cluster, code), topics) in failing.counts() {
        let row = FailingTopics { cluster, code: code.name() };
        family.get_or_create(&row).set(i64::try_from(topics).unwrap_or(i64::MAX));
    }
    let help = "Topics whose records are not written now, a hundred at most";
    registry.register("failing_topics", help, family);
    registry
}

/// What the log could not take.
fn log() -> Registry {
    let mut registry = Registry::with_prefix("host_bridge");
    let lost: Counter = Counter::default();
    lost.inc_by(logging::lost());
    registry.register("log_lines_lost", "Lines that could not be written to the log", lost);
    registry
}

/// What the Kafka clients count, read at the scrape and added up by cluster.
fn clients(clusters: &Clusters) -> Registry {
    let mut registry = Registry::with_prefix("host_bridge_kafka");
    let listed = clusters.clients();
    let clients: Vec<_> = listed
        .iter()
        .map(|(cluster, client)| (Cluster { cluster: cluster.clone() }, client.stats()))
        .collect();
    for (name, help, value) in GAUGES {
        let family = Family::<Cluster, Gauge>::default();
        for (label, stats) in &clients {
            let value = i64::try_from(value(stats)).unwrap_or(i64::MAX);
            family.get_or_create(label).inc_by(value);
        }
        registry.register(*name, *help, family);
    }
    for (name, help, value) in COUNTERS {
        let family = Family::<Cluster, Counter>::default();
        for (label, stats) in &clients {
            family.get_or_create(label).inc_by(value(stats));
        }
        registry.register(*name, *help, family);
    }
    let family = Family::<Cluster, Gauge>::default();
    for (cluster, is_ready) in clusters.readiness() {
        let row = Cluster { cluster: cluster.to_owned() };
        family.get_or_create(&row).set(is_ready.into());
    }
    let help = "Whether a configured cluster answers (1); 0 until it has";
    registry.register("ready", help, family);
    faults(&mut registry, &listed);
    tls(&mut registry, &listed);
    registry
}

/// What the clients of schema registries count. Of several with one name the worst is reported.
fn schema_registries(clusters: &Clusters) -> Registry {
    let mut registry = Registry::with_prefix("host_bridge_schema_registry");
    let up = Family::<SchemaRegistry, Gauge>::default();
    let counters: [(&str, &str, Family<SchemaRegistry, Counter>); 3] = [
        ("answers", "Schemas that a registry gave, or said not to have", Family::default()),
        ("failures", "Questions for schemas without an answer", Family::default()),
        ("stale", "Uses of schemas that could not be asked for again", Family::default()),
    ];
    for one in clusters.registries().all() {
        let (label, health) = (SchemaRegistry { registry: one.name().to_owned() }, one.health());
        let former = up.get(&label).map_or(1, |gauge| gauge.get());
        up.get_or_create(&label).set(former.min(health.fault.is_none().into()));
        let counts = [health.answers, health.failures, health.stale];
        for ((_, _, family), count) in counters.iter().zip(counts) {
            family.get_or_create(&label).inc_by(count);
        }
    }
    registry.register("up", "Whether a registry answered when it was last asked (1)", up);
    for (name, help, family) in counters {
        registry.register(name, help, family);
    }
    registry
}

/// Each stage has its row before anything fails there, so that an alert can be written. A broker
/// that several clients of a cluster cannot reach counts once.
fn faults(registry: &mut Registry, clients: &[(String, Client)]) {
    let family = Family::<FaultLabels, Gauge>::default();
    let mut brokers = BTreeSet::new();
    for (cluster, client) in clients {
        for stage in Stage::ALL {
            let row = FaultLabels { cluster: cluster.clone(), stage: stage.name() };
            family.get_or_create(&row).set(0);
        }
        let faults = client.faults().into_iter();
        brokers.extend(faults.map(|fault| (cluster, fault.stage.name(), fault.server)));
    }
    for (cluster, stage, _) in brokers {
        family.get_or_create(&FaultLabels { cluster: cluster.clone(), stage }).inc();
    }
    let help = "Brokers that cannot be reached now, by the stage that fails";
    registry.register("faults", help, family);
}

/// What is in force of TLS: equal rows of several clients of one cluster become one, the worst.
fn tls(registry: &mut Registry, clients: &[(String, Client)]) {
    let (checks, ends) =
        (Family::<Checks, Gauge>::default(), Family::<Certificate, Gauge>::default());
    let now = SystemTime::now();
    for (cluster, client) in clients {
        let Some(status) = client.tls() else { continue };
        let cluster = cluster.clone();
        checks.get_or_create(&Checks { cluster: cluster.clone(), checks: status.checks }).inc();
        let certificates =
            [("client", status.certificate_ends), ("truststore", status.truststore_ends)];
        for (certificate, end) in certificates {
            let Some(end) = end else { continue };
            let label = Certificate { cluster: cluster.clone(), certificate };
            let days = days_between(now, end);
            let former = ends.get(&label).map_or(i64::MAX, |gauge| gauge.get());
            ends.get_or_create(&label).set(days.min(former));
        }
    }
    let help = "Clients with TLS by what they check of a broker's certificate";
    registry.register("tls_clients", help, checks);
    let help = "Days until the first certificate of the client's chain or of its truststore ends";
    registry.register("certificate_days_left", help, ends);
}

/// Whole days; negative once `end` has passed.
pub(crate) fn days_between(now: SystemTime, end: SystemTime) -> i64 {
    let days = |time: Duration| i64::try_from(time.as_secs() / DAY_SECONDS).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => days(left),
        Err(passed) => -1 - days(passed.duration()),
    }
}

const DAY_SECONDS: u64 = 86_400;

/// Name, help and where the value is.
type Row = (&'static str, &'static str, fn(&Stats) -> u64);

const GAUGES: &[Row] = &[
    ("buffered_bytes", "Bytes of records that are not settled", |stats| stats.buffered_bytes),
    ("connections_open", "Open connections to brokers", |stats| stats.connections_open),
];

const COUNTERS: &[Row] = &[
    ("produce_requests", "Produce requests sent", |stats| stats.produce_requests),
    ("produce_bytes", "Bytes of batches sent, compressed", |stats| stats.produce_bytes),
    ("batches_sent", "Record batches sent, resends included", |stats| stats.batches_sent),
    ("batches_resent", "Record batches sent again", |stats| stats.batches_resent),
    ("batches_split", "Record batches cut after a refusal", |stats| stats.batches_split),
    ("fetch_requests", "Fetch requests sent", |stats| stats.fetch_requests),
    ("fetch_bytes", "Bytes of batches in answers to them, compressed", |stats| stats.fetch_bytes),
    ("records_read", "Records given to readers", |stats| stats.records_read),
    ("producer_resets", "New producer epochs or ids of a partition", |stats| stats.producer_resets),
    ("sequence_losses", "Times a broker's log lacked records that it had acknowledged", |stats| {
        stats.sequence_losses
    }),
    ("cluster_changes", "Times another cluster was found behind the brokers' addresses", |stats| {
        stats.cluster_changes
    }),
    ("connections_opened", "Connections made", |stats| stats.connections_opened),
    ("connect_failures", "Attempts to connect that failed", |stats| stats.connect_failures),
    ("tls_loads", "Times the files of a TLS configuration were loaded", |stats| stats.tls_loads),
    ("tls_load_failures", "Times they could not be used", |stats| stats.tls_load_failures),
    ("metadata_failures", "Rounds without a Metadata answer", |stats| stats.metadata_failures),
    ("throttled_answers", "Answers that asked for a pause", |stats| stats.throttled_answers),
];

#[cfg(test)]
mod tests {
    use kafka_upstream_core::outcome::Reason;

    use super::*;
    use crate::registry::connection::Connection;
    use crate::{Args, Config};

    /// A row of the documentation for each metric of a scrape.
    fn rows(scrape: &str) -> Vec<String> {
        let mut rows = Vec::new();
        let mut help = "";
        for line in scrape.lines().filter(|line| *line != "# EOF") {
            if let Some(described) = line.strip_prefix("# HELP ") {
                help = described.split_once(' ').unwrap().1.trim_end_matches('.');
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let labels = line.split_once('{').map_or("", |(_, rest)| rest);
                let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
                let mut labels: Vec<_> = pairs.map(|(label, _)| format!("`{label}`")).collect();
                if labels.is_empty() {
                    labels.push("–".to_owned());
                }
                rows.push(format!("| `{name}` | {} | {help} |", labels.join(" ")));
            }
        }
        rows.dedup();
        rows
    }

    #[tokio::test]
    async fn the_documentation_lists_every_metric_and_no_other() {
        let servers = Some("127.0.0.1:1".to_owned());
        let args = Args { bootstrap_servers: servers, ..Default::default() };
        let mut config = Config::load(&args, std::iter::empty()).unwrap();
        let (confluent, trust) = (Default::default(), kafka_client::HttpsTrust::System);
        let registry = Connection::new(&confluent, trust);
        config.schemas.registries.insert("main".to_owned(), registry);
        let clusters = Clusters::new(&config).unwrap();
        let metrics = Metrics::default();
        let outcome = Outcome::Unknown(Reason::new(Code::BadReply, ""));
        metrics.batch_settled("default", Delivery::Acked, &Topics::of(&[]), &[outcome]);
        metrics.batch_refused(StatusCode::BAD_REQUEST);
        metrics.captured("orders", StatusCode::OK);
        let _counters = (metrics.feeds.of("orders"), metrics.webhooks.of("hook"));
        let page = include_str!("../../docs/metrics.md");
        let queued = Depth { records: 0, bytes: 0 };
        let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(listed, rows(&metrics.text(&clusters, queued).unwrap()));
    }

    #[test]
    fn days_are_whole_and_negative_after_the_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10 * DAY_SECONDS);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(days_between(now, at(12 * DAY_SECONDS - 1)), 1);
        assert_eq!(days_between(now, at(10 * DAY_SECONDS)), 0);
        assert_eq!(days_between(now, at(10 * DAY_SECONDS - 1)), -1);
        assert_eq!(days_between(now, at(9 * DAY_SECONDS - 1)), -2);
    }
}
