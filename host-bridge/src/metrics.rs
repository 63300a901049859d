//! `GET /metrics`: counters of the bridge and of its Kafka clients, for Prometheus.

use axum::http::StatusCode;
use kafka_client::Stats;
use kafka_upstream_core::outcome::Outcome;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clusters::Clusters;
use crate::queued::Depth;

/// The bridge's own counters.
pub(crate) struct Metrics {
    registry: Registry,
    batches: Counter,
    repeated: Counter,
    refused: Family<Refused, Counter>,
    bypassed: Counter,
    records: Family<Settled, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Settled {
    outcome: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
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
        registry.register("records", "Records by what became of them", records.clone());
        Self { registry, batches, repeated, refused, bypassed, records }
    }
}

impl Metrics {
    pub(crate) fn batch_settled(&self, outcomes: &[Outcome]) {
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

    /// The text of a scrape.
    pub(crate) fn text(
        &self,
        clusters: &Clusters,
        queued: Depth,
    ) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, &self.registry)?;
        text::encode_registry(&mut page, &queue(queued))?;
        text::encode_registry(&mut page, &clients(clusters))?;
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

/// What the Kafka clients count, read at the scrape and added up by cluster.
fn clients(clusters: &Clusters) -> Registry {
    let mut registry = Registry::with_prefix("host_bridge_kafka");
    let clients: Vec<_> = clusters
        .clients()
        .into_iter()
        .map(|(cluster, client)| (Cluster { cluster }, client.stats()))
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
    registry
}

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
    ("producer_resets", "New producer epochs or ids of a partition", |stats| stats.producer_resets),
    ("sequence_losses", "Times a broker's log lacked records that it had acknowledged", |stats| {
        stats.sequence_losses
    }),
    ("connections_opened", "Connections made", |stats| stats.connections_opened),
    ("connect_failures", "Attempts to connect that failed", |stats| stats.connect_failures),
    ("metadata_failures", "Rounds without a Metadata answer", |stats| stats.metadata_failures),
    ("throttled_answers", "Answers that asked for a pause", |stats| stats.throttled_answers),
];

#[cfg(test)]
mod tests {
    use kafka_upstream_core::outcome::{Code, Reason};

    use super::*;
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
        rows
    }

    #[tokio::test]
    async fn the_documentation_lists_every_metric_and_no_other() {
        let servers = Some("127.0.0.1:1".to_owned());
        let args = Args { bootstrap_servers: servers, ..Default::default() };
        let clusters = Clusters::new(&Config::load(&args, std::iter::empty()).unwrap()).unwrap();
        let metrics = Metrics::default();
        metrics.batch_settled(&[Outcome::Unknown(Reason::new(Code::BadReply, ""))]);
        metrics.batch_refused(StatusCode::BAD_REQUEST);
        let page = include_str!("../../docs/metrics.md");
        let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(listed, rows(&metrics.text(&clusters).unwrap()));
    }
}
