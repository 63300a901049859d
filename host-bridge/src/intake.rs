//! `POST /v1/produce`: a filter's batch comes in, its outcomes go out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body as _;
use kafka_upstream_core::limits::FRAME_BYTES_MAX;
use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_core::wire::{self, Delivery, Head, WireError};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::Bridge;
use crate::batches;
use crate::recent::Seen;
use crate::reply::{refusal, reply};

/// Room for request bodies that are being read or written.
pub(crate) struct Room(Semaphore);

impl Default for Room {
    fn default() -> Self {
        Self(Semaphore::new(ROOM_BYTES as usize))
    }
}

impl Room {
    /// Reads a body of at most `limit` bytes, whose length must be announced.
    ///
    /// # Errors
    /// The reply: 411 without a length, 413 above the limit, 503 when there is no room now, 400
    /// when the body breaks off, 408 when it does not arrive in time.
    pub(crate) async fn read(
        &self,
        body: Body,
        limit: usize,
    ) -> Result<(Bytes, SemaphorePermit<'_>), Response<Body>> {
        let Some(length) = body.size_hint().exact() else {
            let error = "content-length is required";
            return Err(refusal(StatusCode::LENGTH_REQUIRED, "length_required", error));
        };
        if length > limit as u64 {
            let error = format!("{length} bytes are more than {limit}");
            return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &error));
        }
        let bytes = u32::try_from(length).unwrap_or(u32::MAX).max(1);
        let Ok(permit) = self.0.try_acquire_many(bytes) else {
            let error = "the bridge holds as many requests as it may";
            return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "queue_full", error));
        };
        match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
            Ok(Ok(read)) => Ok((read.to_bytes(), permit)),
            Ok(Err(error)) => {
                Err(refusal(StatusCode::BAD_REQUEST, "body_broke_off", &error.to_string()))
            }
            Err(_) => {
                let error = "the body did not arrive in time";
                Err(refusal(StatusCode::REQUEST_TIMEOUT, "body_timeout", error))
            }
        }
    }
}

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
    let (frame, _permit) = bridge.intake.read(body, FRAME_BYTES_MAX).await?;
    let bad_frame =
        |error: WireError| refusal(StatusCode::BAD_REQUEST, "bad_frame", &error.to_string());
    let batch = wire::decode_frame(&frame).map_err(bad_frame)?;
    let Head { profile, vm, sequence, budget_ms, .. } = batch.head;
    let Some(shared) = bridge.profiles.get(&profile) else {
        let error = "register the profile, then send the batch again";
        return Err(refusal(StatusCode::NOT_FOUND, "unknown_profile", error));
    };
    let taken = match bridge.recent.take((vm, sequence, profile)) {
        Seen::New(taken) => taken,
        Seen::Before(mut answer) => {
            bridge.metrics.batch_repeated();
            let answered = answer.wait_for(Option::is_some).await;
            return answered.ok().and_then(|outcomes| outcomes.clone()).ok_or_else(|| {
                let error = "the first copy of this batch was given up";
                refusal(StatusCode::SERVICE_UNAVAILABLE, "given_up", error)
            });
        }
    };
    if batch.head.delivery == Delivery::Queued {
        let records = batch.records.len();
        let is_queued = bridge.queued.push(bridge, profile, &shared, &frame, records);
        // In the words of outcomes, so that the client hears which queue is full.
        let outcome = match is_queued {
            true => Outcome::Queued,
            false => Outcome::NotWritten(Reason::new(Code::QueueFull, QUEUE_FULL)),
        };
        let encoded = encode(&vec![outcome; records]);
        taken.answer(encoded.clone(), is_queued);
        return Ok(encoded);
    }
    let deadline = Instant::now() + Duration::from_millis(u64::from(budget_ms));
    let producer = bridge.clusters.producer(&shared);
    let enqueued = batches::enqueue(&producer, &batch.records, deadline).await;
    // From here on the records may be written, whether or not the filter waits: the outcomes must
    // be there when it asks again.
    let settling = Arc::clone(bridge);
    let settled = tokio::spawn(async move {
        let outcomes = enqueued.outcomes().await;
        settling.metrics.batch_settled(&outcomes);
        let encoded = encode(&outcomes);
        let kept = outcomes.iter().any(|outcome| !matches!(outcome, Outcome::NotWritten(_)));
        taken.answer(encoded.clone(), kept);
        encoded
    });
    settled
        .await
        .map_err(|error| refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()))
}

/// Encoding cannot fail; if it did, the filter would read an empty reply as "may be written".
fn encode(outcomes: &[Outcome]) -> Bytes {
    wire::encode_outcomes(outcomes).unwrap_or_default().into()
}

const QUEUE_FULL: &str = "the bridge queues as much as it may";
/// How long a body may take: it comes from this machine, and holds its room meanwhile.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of request bodies at a time; more are answered "not now".
const ROOM_BYTES: u32 = 256 * 1024 * 1024;
