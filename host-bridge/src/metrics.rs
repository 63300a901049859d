//! `GET /metrics`: counters of the bridge and of its Kafka clients, for Prometheus.

use axum::http::StatusCode;
use kafka_upstream_core::outcome::Outcome;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clusters::Clusters;

/// The bridge's own counters.
pub(crate) struct Metrics {
    registry: Registry,
    batches: Counter,
    repeated: Counter,
    refused: Family<Refused, Counter>,
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
        let metrics =
            (Counter::default(), Counter::default(), Family::default(), Family::default());
        let (batches, repeated, refused, records) = metrics;
        registry.register("batches", "Batches settled", batches.clone());
        registry.register("batches_repeated", "Batches answered from memory", repeated.clone());
        registry.register("batches_refused", "Batches refused whole", refused.clone());
        registry.register("records", "Records by what became of them", records.clone());
        Self { registry, batches, repeated, refused, records }
    }
}

impl Metrics {
    pub(crate) fn batch_settled(&self, outcomes: &[Outcome]) {
        self.batches.inc();
        for outcome in outcomes {
            let (outcome, code) = match outcome {
                Outcome::Written { .. } => ("written", ""),
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

    /// The text of a scrape.
    pub(crate) fn text(&self, clusters: &Clusters) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, &self.registry)?;
        text::encode_registry(&mut page, &clients(clusters))?;
        text::encode_eof(&mut page)?;
        Ok(page)
    }
}

/// What the Kafka clients count, read at the scrape and added up by cluster.
fn clients(clusters: &Clusters) -> Registry {
    let mut registry = Registry::with_prefix("host_bridge_kafka");
    let gauge = |registry: &mut Registry, name: &str, help: &str| {
        let family = Family::<Cluster, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    };
    let buffered = gauge(&mut registry, "buffered_bytes", "Bytes of records that are not settled");
    let connections = gauge(&mut registry, "connections_open", "Open connections to brokers");
    let requests = gauge(&mut registry, "produce_requests", "Produce requests sent so far");
    let resent = gauge(&mut registry, "batches_resent", "Record batches sent again so far");
    for (cluster, client) in clusters.clients() {
        let (label, stats) = (Cluster { cluster }, client.stats());
        for (family, value) in [
            (&buffered, stats.buffered_bytes),
            (&connections, stats.connections_open),
            (&requests, stats.produce_requests),
            (&resent, stats.batches_resent),
        ] {
            family.get_or_create(&label).inc_by(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
    registry
}
