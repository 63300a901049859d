//! `POST /v1/produce`: a filter's batch comes in, its outcomes go out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use kafka_upstream_core::limits::FRAME_BYTES_MAX;
use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_core::wire::{self, Batch, Delivery, Head, WireError};
use tokio::time::Instant;

use crate::batches;
use crate::bridge::Bridge;
use crate::failing::Topics;
use crate::limits::ANSWER_GRACE;
use crate::pipeline::Pipeline;
use crate::queued;
use crate::recent::{Accepted, Seen};
use crate::reply::{refusal, reply};

/// Takes a batch: decodes all of it, then produces it, or answers as it did before.
pub(crate) async fn produce(
    State(bridge): State<Arc<Bridge>>,
    request: Request<Body>,
) -> Response<Body> {
    match take(&bridge, request).await {
        Ok(outcomes) => reply(StatusCode::OK, wire::OUTCOMES_TYPE, outcomes.into()),
        Err(refused) => {
            bridge.metrics.batch_refused(refused.status());
            refused
        }
    }
}

async fn take(bridge: &Arc<Bridge>, request: Request<Body>) -> Result<Bytes, Response<Body>> {
    let (parts, body) = request.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    if content_type.is_none_or(|value| value != wire::BATCH_TYPE) {
        let error = format!("content-type must be {}", wire::BATCH_TYPE);
        return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", &error));
    }
    let (frame, held) = bridge.bodies.read(&parts, body, FRAME_BYTES_MAX).await?;
    let bad_frame =
        |error: WireError| refusal(StatusCode::BAD_REQUEST, "bad_frame", &error.to_string());
    let batch = wire::decode_frame(&frame).map_err(bad_frame)?;
    let Head { profile, delivery, budget_ms, .. } = batch.head;
    let Some(pipeline) = bridge.profiles.get(&profile) else {
        let error = "register the profile, then send the batch again";
        return Err(refusal(StatusCode::NOT_FOUND, "unknown_profile", error));
    };
    let budget = Duration::from_millis(u64::from(budget_ms));
    let deadline = Instant::now() + budget;
    let mut taken = match look_up(bridge, &batch, deadline).await? {
        Known::New(taken) => taken,
        Known::Answered(outcomes) => return Ok(outcomes),
    };
    if delivery == Delivery::Queued {
        return Ok(taken.answer(&queue(bridge, &pipeline, &frame, &batch, deadline).await));
    }
    let limits = pipeline.limits(delivery, deadline);
    let enqueued = batches::enqueue(&pipeline, &batch.records, limits).await;
    // From here on the records may be written, whether or not the filter waits: the outcomes must
    // be there when it asks again.
    taken.enqueued();
    let topics = Topics::of(&batch.records);
    let metrics = Arc::clone(&bridge.metrics);
    let settled = tokio::spawn(async move {
        let outcomes = enqueued.settle(&metrics, &pipeline, delivery, &topics).await;
        taken.answer(&outcomes)
    });
    drop((frame, held));
    match tokio::time::timeout_at(limits.waiting + ANSWER_GRACE, settled).await {
        Ok(settled) => settled.map_err(|error| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            refusal(status, "internal", &error.to_string())
        }),
        Err(_) => Err(in_progress()),
    }
}

/// Queues the records of a batch that fit their schemas. They are encoded before their clients have a
/// 200, and never again: a later version of a schema might refuse them.
pub(crate) async fn queue(
    bridge: &Bridge,
    pipeline: &Arc<Pipeline>,
    frame: &[u8],
    batch: &Batch<'_>,
    deadline: Instant,
) -> Vec<Outcome> {
    let end = |is_queued: bool| match is_queued {
        true => Outcome::Queued,
        // In the words of outcomes, so that the client hears which queue is full.
        false => Outcome::NotWritten(Reason::new(Code::QueueFull, QUEUE_FULL)),
    };
    let Some(encoder) = pipeline.encoder() else {
        return vec![end(bridge.queued.push(pipeline, frame, batch)); batch.records.len()];
    };
    let encoded = encoder.encode(&batch.records, deadline).await;
    let fit = Batch { head: batch.head, records: encoded.records(&batch.records), encoded: &[] };
    let count = fit.records.len();
    let frame = queued::encode(&fit.head, &fit.records.iter().collect::<Vec<_>>());
    let is_queued = count == 0 || bridge.queued.push(pipeline, &frame, &fit);
    drop(fit);
    encoded.outcomes(vec![end(is_queued); count])
}

/// A batch that has an answer, or is to be produced.
enum Known {
    New(Accepted),
    Answered(Bytes),
}

/// Looks a batch up; one that is under way is waited for.
async fn look_up(
    bridge: &Bridge,
    batch: &Batch<'_>,
    deadline: Instant,
) -> Result<Known, Response<Body>> {
    let Head { vm, sequence, .. } = batch.head;
    loop {
        let answer = match bridge.recent.take(batch) {
            Seen::New(taken) => return Ok(Known::New(taken)),
            Seen::Answered(outcomes) => {
                bridge.metrics.batch_repeated();
                return Ok(Known::Answered(outcomes));
            }
            Seen::UnderWay(answer) => answer,
            Seen::Differs => {
                let vm = u128::from_be_bytes(vm);
                tracing::error!(vm = format!("{vm:032x}"), sequence, "batch_conflict");
                let error = "another batch of this VM had this number";
                return Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, "batch_conflict", error));
            }
            Seen::Settled => {
                let error = "the VM has said that the batch is settled";
                return Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, "batch_settled", error));
            }
            Seen::Full => {
                let error = "the bridge remembers as many batches as it may";
                return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "queue_full", error));
            }
        };
        bridge.metrics.batch_repeated();
        match tokio::time::timeout_at(deadline + ANSWER_GRACE, answer).await {
            Ok(Ok(outcomes)) => return Ok(Known::Answered(outcomes)),
            // Whoever took it is gone, and has written nothing: it is new again. Or it is settled.
            Ok(Err(_)) => {}
            Err(_) => return Err(in_progress()),
        }
    }
}

/// The filter reads any 5xx but 503 as "may be written", and asks for the same batch again.
fn in_progress() -> Response<Body> {
    let error = "the batch is under way: send it again to hear its outcomes";
    refusal(StatusCode::GATEWAY_TIMEOUT, "in_progress", error)
}

const QUEUE_FULL: &str = "the bridge queues as much as it may";

#[cfg(test)]
mod tests;
