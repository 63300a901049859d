//! The routes, and what is so short that it needs no file of its own.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Request, Response, StatusCode};
use axum::routing::{get, post, put};
use axum::{Router, extract::DefaultBodyLimit};
use kafka_upstream_core::limits::PROFILE_BYTES_MAX;
use kafka_upstream_core::profile::{self, Profile};
use serde_json::json;

use crate::auth::is_bypassed;
use crate::bridge::Bridge;
use crate::capture::is_captured;
use crate::config::without_value;
use crate::limits::REFUSAL_BYTES;
use crate::reply::{self, refusal};
use crate::{capture, intake, readiness, rest, status, webhooks};

/// Every route of the bridge.
pub(crate) fn router(bridge: Arc<Bridge>) -> Router {
    Router::new()
        .route("/v1/produce", post(intake::produce))
        .route("/v1/profiles/{sha256}", put(register))
        .route("/v1/clusters/{cluster}/topics/{topic}", post(rest::produce))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readiness::readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status::status))
        .merge(webhooks::routes::router(Arc::clone(&bridge.webhooks)))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        // Bodies are bounded where they are read, by their own limits.
        .layer(DefaultBodyLimit::disable())
        .with_state(bridge)
}

/// Registers a filter's producer profile under the SHA-256 of its document.
async fn register(
    State(bridge): State<Arc<Bridge>>,
    path: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response<Body> {
    let sha256 = match path {
        Ok(Path(sha256)) => sha256,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "bad_path", &error.body_text()),
    };
    let (parts, body) = request.into_parts();
    let document = match bridge.bodies.read(&parts, body, PROFILE_BYTES_MAX).await {
        Ok((document, _held)) => document,
        Err(unread) => return unread.into(),
    };
    let id = profile::id(&document);
    let unprocessable = |error: &str| {
        let error = error.get(..error.floor_char_boundary(REFUSAL_BYTES)).unwrap_or_default();
        tracing::warn!(profile = sha256, error, "profile_refused");
        bridge.profiles.refuse(id, error);
        refusal(StatusCode::UNPROCESSABLE_ENTITY, "profile_refused", error)
    };
    if profile::hex(&id) != sha256 {
        let error = "the path is not the SHA-256 of the body";
        return refusal(StatusCode::UNPROCESSABLE_ENTITY, "profile_refused", error);
    }
    let profile: Profile = match serde_json::from_slice(&document) {
        Ok(profile) => profile,
        Err(error) => return unprocessable(&without_value(&error.to_string())),
    };
    match bridge.clusters.for_profile(&profile) {
        Err(refused) => unprocessable(&bridge.clusters.told(&refused)),
        Ok(pipeline) => {
            bridge.profiles.put(id, &pipeline);
            tracing::info!(profile = sha256, cluster = pipeline.cluster(), "profile_registered");
            reply::json(StatusCode::OK, &json!({ "profile": sha256 }))
        }
    }
}

async fn healthz() -> Response<Body> {
    reply::json(StatusCode::OK, &json!({ "alive": true }))
}

async fn metrics(State(bridge): State<Arc<Bridge>>) -> Response<Body> {
    match bridge.metrics.text(&bridge.clusters, bridge.queued.depth()) {
        Ok(text) => reply::reply(StatusCode::OK, METRICS_TYPE, text.into()),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
    }
}

/// Gateways put what they have of the client's path behind that of the upstream, so `bypassed` and
/// `capture` are every path that begins so.
async fn unknown(State(bridge): State<Arc<Bridge>>, request: Request<Body>) -> Response<Body> {
    if is_bypassed(request.uri().path()) {
        return bridge.bypassed.answer(&bridge.metrics, request).await;
    }
    if is_captured(request.uri().path()) {
        return capture::answer(&bridge, request).await;
    }
    refusal(StatusCode::NOT_FOUND, "unknown_route", "the bridge has no such route")
}

async fn wrong_method() -> Response<Body> {
    let error = "the route has no such method";
    refusal(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", error)
}

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
