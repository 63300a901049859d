//! What operators ask of webhooks: how far they are, and to pause and resume them.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use serde_json::json;

use super::running::{NotRedelivered, Webhooks};
use crate::reply::{self, refusal};

/// `/v1/webhooks` and below.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(webhooks: Arc<Webhooks>) -> Router<S> {
    let set_paused = |is_paused| {
        move |State(webhooks): State<Arc<Webhooks>>, Path(name): Path<String>| async move {
            halted(webhooks.set_paused(&name, is_paused).await)
        }
    };
    Router::new()
        .route("/v1/webhooks", get(all))
        .route("/v1/webhooks/{name}/pause", post(set_paused(true)))
        .route("/v1/webhooks/{name}/resume", post(set_paused(false)))
        .route("/v1/webhooks/{name}/redeliver", post(redeliver))
        .with_state(webhooks)
}

async fn all(State(webhooks): State<Arc<Webhooks>>) -> Response<Body> {
    reply::json(StatusCode::OK, &json!({ "webhooks": webhooks.json() }))
}

async fn redeliver(
    State(webhooks): State<Arc<Webhooks>>,
    Path(name): Path<String>,
    body: Body,
) -> Response<Body> {
    let invalid = |why: &str| refusal(StatusCode::BAD_REQUEST, "invalid_range", why);
    let Ok(body) = to_bytes(body, WISH_BYTES).await else {
        return invalid("the body is too large");
    };
    let wish = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(error) => return invalid(&error.to_string()),
    };
    match webhooks.redeliver(&name, wish) {
        Some(Ok(partitions)) => {
            reply::json(StatusCode::ACCEPTED, &json!({ "partitions": partitions }))
        }
        Some(Err(NotRedelivered::Invalid(why))) => invalid(&why),
        Some(Err(NotRedelivered::Busy)) => {
            let error = "another range is being sent again";
            refusal(StatusCode::CONFLICT, "redelivery_under_way", error)
        }
        None => halted(None),
    }
}

fn halted(partitions: Option<Vec<serde_json::Value>>) -> Response<Body> {
    match partitions {
        Some(partitions) => reply::json(StatusCode::OK, &json!({ "partitions": partitions })),
        None => refusal(StatusCode::NOT_FOUND, "unknown_webhook", "there is no such webhook"),
    }
}

/// Bytes of two cursors, and more.
const WISH_BYTES: usize = 64 * 1024;
