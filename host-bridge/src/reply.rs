//! Replies of the bridge: marked, never empty, and JSON unless they carry outcomes.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use kafka_upstream_core::reply::Reply;
use kafka_upstream_core::wire;

/// A JSON reply.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    reply(status, "application/json", body.to_string().into())
}

/// A refusal of the whole request: a fixed name and what is wrong.
pub(crate) fn refusal(status: StatusCode, code: &str, error: &str) -> Response<Body> {
    json(status, &serde_json::json!({ "code": code, "error": error }))
}

/// A reply with its marker. A gateway cannot read an empty reply on every host.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(wire::MARKER, HeaderValue::from_static(wire::VERSION));
    response
}

/// A reply of core's with the marker.
pub(crate) fn from_core(core: Reply) -> Response<Body> {
    let mut response = to_client(core);
    let marker = HeaderValue::from_static(wire::VERSION);
    response.headers_mut().insert(wire::MARKER, marker);
    response
}

/// A reply as the filter gives it.
pub(crate) fn to_client(core: Reply) -> Response<Body> {
    let status = StatusCode::from_u16(core.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Body::from(core.body));
    *response.status_mut() = status;
    for (name, value) in core.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
