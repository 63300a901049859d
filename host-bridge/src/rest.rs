//! `POST /v1/clusters/{cluster}/topics/{topic}`: one record without a filter.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use kafka_upstream_core::limits::BODY_BYTES_MAX;
use kafka_upstream_core::outcome::Code;
use kafka_upstream_core::record::{Header, Record};
use kafka_upstream_core::reply::{Replies, Reply};
use tokio::time::Instant;

use crate::batches;
use crate::bridge::Bridge;
use crate::clock::now_ms;
use crate::outcomes;
use crate::reply::{from_core, refusal};

/// Produces the raw body as the value of one record, and answers as the filter does in `acked`
/// mode. `kafka-key`, `kafka-partition` and `kafka-header-NAME` set the rest of the record.
pub(crate) async fn produce(
    State(bridge): State<Arc<Bridge>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request<Body>,
) -> Response<Body> {
    let (cluster, topic) = match path {
        Ok(Path(names)) => names,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "bad_path", &error.body_text()),
    };
    let (parts, body) = request.into_parts();
    let Some(pipeline) = bridge.clusters.named(&cluster) else {
        let error = format!("cluster `{cluster}` is not in the bridge's configuration");
        return refusal(StatusCode::NOT_FOUND, "unknown_cluster", &error);
    };
    let partition = match partition(&parts.headers) {
        Ok(partition) => partition,
        Err(reply) => return from_core(reply),
    };
    let limit = usize::try_from(BODY_BYTES_MAX).unwrap_or(usize::MAX);
    let (value, _held) = match bridge.bodies.read(&parts, body, limit).await {
        Ok(read) => read,
        Err(unread) => return unread.into(),
    };
    let record = Record {
        topic: &topic,
        partition,
        timestamp_ms: now_ms(),
        key: parts.headers.get("kafka-key").map(|key| key.as_bytes()),
        value: Some(&value),
        headers: record_headers(&parts.headers),
    };
    let (records, deadline) = (std::slice::from_ref(&record), Instant::now() + DELIVERY_TIMEOUT);
    let outcomes = batches::write(&bridge.metrics, pipeline, records, deadline).await;
    let outcome = outcomes.into_iter().next().unwrap_or_else(outcomes::no_outcome);
    from_core(Replies { reveal: true, ..Replies::default() }.of(&outcome, &topic))
}

fn partition(headers: &HeaderMap) -> Result<Option<i32>, Reply> {
    let Some(value) = headers.get("kafka-partition") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse::<i32>().ok());
    number.filter(|number| *number >= 0).map(Some).ok_or_else(|| {
        Reply::refused(Code::BadRequest, "kafka-partition must be a number from 0 on")
    })
}

fn record_headers(headers: &HeaderMap) -> Vec<Header<'_>> {
    headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("kafka-header-")?;
            Some((name.as_bytes(), Some(value.as_bytes())))
        })
        .collect()
}

/// How long a record that comes by itself may take.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
