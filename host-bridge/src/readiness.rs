//! `GET /readyz`: whether each configured cluster answers, asked now.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use serde_json::{Map, Value};

use crate::Bridge;
use crate::reply::json;

/// 200 when every configured cluster answers, else 503; the body has a reason for each that does
/// not. Without a configured cluster there is nothing to wait for: filters name their brokers
/// themselves, and the body says so.
pub(crate) async fn readyz(State(bridge): State<Arc<Bridge>>) -> Response<Body> {
    let mut asking = tokio::task::JoinSet::new();
    for (name, client) in bridge.clusters.all() {
        asking.spawn(async move { (name, client.ready(PATIENCE).await) });
    }
    let (mut ready, mut clusters) = (true, Map::new());
    for (name, answer) in asking.join_all().await {
        ready &= answer.is_ok();
        let state = answer.map_or_else(|reason| reason.to_string(), |()| "ready".to_owned());
        clusters.insert(name, Value::String(state));
    }
    let is_alone = clusters.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = serde_json::json!({ "ready": ready, "clusters": clusters });
    if let (true, Some(body)) = (is_alone, body.as_object_mut()) {
        body.insert("note".to_owned(), NO_CLUSTER.into());
    }
    json(status, &body)
}

const NO_CLUSTER: &str = "no cluster is configured: only filters with bootstrap_servers are served";

/// How long a cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
