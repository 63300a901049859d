//! `/v1/capture/{name}/…`: the bridge captures a request itself, for gateways that run no filter.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use kafka_upstream_core::body::too_large;
use kafka_upstream_core::capture::{Captured, admit, capture};
use kafka_upstream_core::config::{Gating, Settings};
use kafka_upstream_core::limits::FRAME_BYTES_MAX;
use kafka_upstream_core::outcome::Code;
use kafka_upstream_core::reply::Reply;
use kafka_upstream_core::request;
use kafka_upstream_core::wire::{self, Delivery, Head};
use tokio::time::Instant;

use crate::auth::GATEWAY_TOKEN;
use crate::batches;
use crate::body::{Held, Unread};
use crate::bridge::Bridge;
use crate::captures::{Destination, Route};
use crate::clock::now_ms;
use crate::config::captures::{CaptureConfig, ProxyHeaders};
use crate::intake;
use crate::limits::CAPTURE_BODY_TIMEOUT;
use crate::reply::{refusal, to_client};

/// Whether a path is that of a capture route.
pub(crate) fn is_captured(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Captures a request, and answers as the filter does.
pub(crate) async fn answer(bridge: &Bridge, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
    let (name, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let Some((name, route)) = bridge.captures.routes.get_key_value(name) else {
        let shown: String = name.chars().take(NAME_CHARS_SHOWN).collect();
        let error = format!("the bridge's configuration has no section [captures.{shown}]");
        return unknown("unknown_capture", &error);
    };
    let query = request.uri().query().map(|query| format!("?{query}"));
    let rest = if rest.is_empty() { "/" } else { rest };
    let target = format!("{rest}{}", query.unwrap_or_default());
    let response = match take(route, bridge, target, request).await {
        Ok(response) => response,
        Err(reply) => to_client(reply),
    };
    bridge.metrics.captured(name, response.status());
    response
}

async fn take(
    route: &Route,
    bridge: &Bridge,
    target: String,
    request: Request<Body>,
) -> Result<Response<Body>, Reply> {
    let CaptureConfig { plugin, proxy } = &route.config;
    let (parts, body) = request.into_parts();
    let mut request = of_parts(&parts, target, proxy, bridge.captures.have_tokens)?;
    let authority = request.value(b"host").unwrap_or_default();
    let found = plugin.settings_for(&request.method, &request.target, authority);
    let found = found.and_then(|at| plugin.settings.get(at).zip(route.destinations.get(at)));
    let Some((settings, destination)) = found else {
        let error = "no rule of `match` fits this request";
        return Ok(unknown("no_rule", error));
    };
    let announced = admit(settings, &request)?;
    let limit = usize::try_from(settings.max_body_bytes).unwrap_or(usize::MAX);
    let read = bridge.captured_bodies.read_any(&parts, body, limit, CAPTURE_BODY_TIMEOUT).await;
    let (body, mut held) = read.map_err(unread)?;
    let (size, most) = (body.len() as u64, settings.max_body_bytes);
    request.body = announced.take(size, most, |_| Some(body.into()))?;
    let captured = capture(settings, &request, now_ms())?;
    drop(request);
    send(bridge, destination, settings, captured, &mut held).await.map(to_client)
}

async fn send(
    bridge: &Bridge,
    Destination { pipeline, profile }: &Destination,
    settings: &Settings,
    captured: Captured,
    held: &mut Held<'_>,
) -> Result<Reply, Reply> {
    let budget = settings.delivery_timeout;
    let deadline = Instant::now() + budget;
    let head = Head {
        profile: *profile,
        vm: [0; 16],
        sequence: 0,
        delivery: settings.delivery,
        budget_ms: u32::try_from(budget.as_millis()).unwrap_or(u32::MAX),
        settled_below: 0,
    };
    let records: Vec<_> = std::iter::once(captured.first).chain(captured.more).collect();
    let unfit =
        |error: &dyn std::fmt::Display| Reply::refused(Code::RecordTooLarge, &error.to_string());
    let frame = wire::encode_frame(&head, records.iter().map(Vec::as_slice));
    let frame = frame.map_err(|error| unfit(&error))?;
    drop(records);
    if frame.len() > FRAME_BYTES_MAX {
        return Err(unfit(&"the message is larger than a frame"));
    }
    if !held.take(frame.len()) {
        return Err(unread(Unread::NoMemory));
    }
    let batch = wire::decode_frame(&frame).map_err(|error| unfit(&error))?;
    let outcomes = match settings.delivery {
        Delivery::Acked => {
            batches::write(&bridge.metrics, pipeline, &batch.records, deadline).await
        }
        Delivery::Memory | Delivery::Queued => {
            let is_failing = |gating: Gating| {
                let failing = |topic| bridge.queued.is_failing(*profile, topic, gating.failures);
                pipeline.is_away() || batch.records.iter().any(|record| failing(record.topic))
            };
            if settings.gating.is_some_and(is_failing) {
                return Err(Reply::refused(Code::DeliveryFailing, FAILING));
            }
            intake::queue(bridge, pipeline, &frame, &batch, deadline).await
        }
    };
    let topics = batch.records.iter().map(|record| record.topic);
    let outcomes: Vec<_> = topics.zip(outcomes).collect();
    Ok(match &outcomes[..] {
        [(topic, outcome)] => settings.replies.of(outcome, topic),
        several => settings.replies.of_several(several),
    })
}

/// The request that the proxy's client sent, without its body.
fn of_parts(
    parts: &Parts,
    target: String,
    proxy: &ProxyHeaders,
    have_tokens: bool,
) -> Result<request::Request, Reply> {
    let lines = |name: &HeaderName| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
    // A proxy may add its line behind those of its client.
    let said = |name: &Option<HeaderName>| {
        name.as_ref().and_then(|name| lines(name).next_back()).map(<[u8]>::to_vec)
    };
    let target = said(&proxy.path).unwrap_or_else(|| target.into());
    if !target.starts_with(b"/") {
        let error = format!(
            "the header `{}` must begin with /",
            proxy.path.as_ref().map_or("", HeaderName::as_str)
        );
        return Err(Reply::refused(Code::BadRequest, &error));
    }
    let scheme = said(&proxy.scheme);
    let scheme = scheme.or_else(|| parts.uri.scheme_str().map(|scheme| scheme.into()));
    let authority = parts.uri.authority().map(|it| it.as_str().as_bytes());
    // Of a request's target it counts more than its header, as in Envoy (RFC 9112, 3.2.2).
    let hosts = lines(&header::HOST).filter(|_| authority.is_none()).chain(authority);
    let mut pairs = vec![
        (b":method".to_vec(), parts.method.as_str().into()),
        (b":path".to_vec(), target),
        (b":scheme".to_vec(), scheme.unwrap_or_default()),
    ];
    // A token of the bridge's is nobody else's to read.
    let has_own_token = parts.headers.contains_key(GATEWAY_TOKEN);
    let hidden = |name: &HeaderName| {
        *name == GATEWAY_TOKEN
            || *name == header::HOST
            || (*name == header::AUTHORIZATION && have_tokens && !has_own_token)
    };
    let headers = parts.headers.iter().filter(|(name, _)| !hidden(name));
    pairs.extend(headers.map(|(name, value)| (name.as_str().into(), value.as_bytes().into())));
    pairs.extend(hosts.map(|host| (b"host".to_vec(), host.to_vec())));
    let mut request = request::Request::from_host(pairs);
    // Quotes before it are the client's, and mean nothing.
    let addresses = said(&proxy.client_address).unwrap_or_default();
    let last = addresses.rsplit(|byte| *byte == b',').next();
    request.source_address = last.unwrap_or_default().trim_ascii().to_vec();
    Ok(request)
}

/// A request that no capture is for. Its client hears that the bridge says so, and no proxy.
fn unknown(code: &'static str, error: &str) -> Response<Body> {
    let mut response = refusal(StatusCode::NOT_FOUND, code, error);
    response.headers_mut().insert("kafka-error", HeaderValue::from_static(code));
    response
}

fn unread(unread: Unread) -> Reply {
    let code = match unread {
        Unread::TooLarge(most) => return too_large(most as u64),
        Unread::NoMemory => Code::QueueFull,
        Unread::TimedOut => Code::BodyTimeout,
        Unread::NoLength | Unread::BrokeOff(_) => Code::BadRequest,
    };
    Reply::refused(code, &unread.to_string())
}

const PREFIX: &str = "/v1/capture/";
/// As many as a name may have.
const NAME_CHARS_SHOWN: usize = 64;
const FAILING: &str = "deliveries fail, and producer_async_health_gating refuses to queue more";

#[cfg(test)]
mod tests;
