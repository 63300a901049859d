//! `GET /v1/status`: what an operator wants to see at a glance; never a secret.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use kafka_client::{Client, TlsStatus};
use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::metrics::days_between;
use crate::reply;

/// Every client, asked now whether it is ready, with what is wrong with the connections to its brokers.
pub(crate) async fn status(State(bridge): State<Arc<Bridge>>) -> Response<Body> {
    let clients = bridge.clusters.clients();
    let asking: Vec<_> =
        clients.into_iter().map(|(name, client)| tokio::spawn(one(name, client))).collect();
    let mut clients = Vec::new();
    for asked in asking {
        clients.extend(asked.await);
    }
    let queued = bridge.queued.depth();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": bridge.began.elapsed().as_secs(),
        "queued": {
            "records": queued.records, "bytes": queued.bytes,
            "slow_topics": bridge.queued.slow_lanes(),
        },
        "failing_topics": bridge.metrics.failing.json(),
        "refused_profiles": bridge.profiles.refused_json(),
        "halted_webhooks": bridge.webhooks.faults(),
        "schema_registries": bridge.clusters.registries().faults(),
        "clients": clients,
    });
    reply::json(StatusCode::OK, &body)
}

async fn one(cluster: String, client: Client) -> Value {
    let ready = client.ready(PATIENCE).await;
    let stats = client.stats();
    let fault = |fault: kafka_client::ConnectionFailure| {
        json!({
            "broker": fault.server, "stage": fault.stage.name(), "reason": &*fault.cause,
            "seconds": fault.lasts.as_secs(),
        })
    };
    let faults: Vec<_> = client.faults().into_iter().map(fault).collect();
    json!({
        "cluster": cluster,
        "bootstrap_servers": client.bootstrap_servers(),
        "ready": ready.is_ok(),
        "reason": ready.err().map(|reason| reason.to_string()),
        "faults": faults,
        "mechanism": client.mechanism(),
        "tls": client.tls().map(tls),
        "connections": stats.connections_open,
        "buffered_bytes": stats.buffered_bytes,
    })
}

fn tls(status: TlsStatus) -> Value {
    let now = SystemTime::now();
    let days = |end: Option<SystemTime>| end.map(|end| days_between(now, end));
    json!({
        "checks": status.checks,
        "certificate_days_left": days(status.certificate_ends),
        "truststore_days_left": days(status.truststore_ends),
        "fault": status.fault.map(|fault| fault.to_string()),
    })
}

/// How long a cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
