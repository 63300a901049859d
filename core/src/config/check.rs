//! Turns the written configuration into settings: defaults, ranges, fields that exclude another.

use std::collections::BTreeMap;
use std::time::Duration;

use super::raw::{self, Raw};
use super::{BatchLimits, Bridge, ConfigError, Gating, QueueLimits, Settings};
use super::{check_access, check_parts, messages, sections};
use crate::format::kong::Forward;
use crate::limits;
use crate::profile::{Compression, Partitioner, Profile};
use crate::wire::Delivery;

pub(super) fn settings(raw: Raw) -> Result<Settings, ConfigError> {
    Ok(Settings {
        mode: raw.mode.unwrap_or_default(),
        bridge: bridge(&raw)?,
        forward: forward(&raw)?,
        expressions: messages::expressions(&raw)?,
        message_format: messages::format(&raw)?,
        delivery: delivery(&raw)?,
        group_commit: raw.group_commit.unwrap_or(true),
        max_body_bytes: number(
            "max_body_bytes",
            raw.max_body_bytes,
            (0, limits::BODY_BYTES_MAX),
            limits::BODY_BYTES_DEFAULT,
        )?,
        delivery_timeout: millis("delivery_timeout", raw.delivery_timeout, (1, 3_600_000), 10_000)?,
        replies: check_parts::replies(&raw)?,
        targets: check_parts::targets(&raw)?,
        record_headers: check_parts::record_headers(&raw)?,
        batch: batch(&raw)?,
        queue: queue(&raw)?,
        gating: gating(&raw)?,
        profile: profile(&raw)?,
        topic: topic("topic", raw.topic)?.ok_or_else(|| required("topic"))?,
    })
}

fn bridge(raw: &Raw) -> Result<Bridge, ConfigError> {
    let target = raw.bridge.clone().ok_or_else(|| required("bridge"))?;
    let authority = raw.bridge_authority.clone().unwrap_or_else(|| "host-bridge".to_owned());
    for (field, value) in [("bridge", &target), ("bridge_authority", &authority)] {
        if value.is_empty() {
            return Err(fault(field, "must not be empty"));
        }
        visible(field, value)?;
    }
    if let Some(token) = &raw.bridge_token {
        visible("bridge_token", token.expose())?;
    }
    Ok(Bridge { target, authority, token: raw.bridge_token.clone() })
}

fn forward(raw: &Raw) -> Result<Forward, ConfigError> {
    let forward = Forward {
        method: raw.forward_method.unwrap_or(false),
        uri: raw.forward_uri.unwrap_or(false),
        headers: raw.forward_headers.unwrap_or(false),
        body: raw.forward_body.unwrap_or(true),
    };
    if forward.method || forward.uri || forward.headers || forward.body {
        Ok(forward)
    } else {
        Err(fault("forward_body", "at least one forward_* must be true"))
    }
}

fn delivery(raw: &Raw) -> Result<Delivery, ConfigError> {
    let by_async = raw.producer_async.map(|memory| match memory {
        true => raw::Delivery::Memory,
        false => raw::Delivery::Acked,
    });
    match (by_async, raw.delivery) {
        (Some(one), Some(other)) if one != other => {
            Err(fault("delivery", "disagrees with producer_async"))
        }
        (one, other) => Ok(match other.or(one) {
            Some(raw::Delivery::Acked) => Delivery::Acked,
            Some(raw::Delivery::Memory) | None => Delivery::Memory,
        }),
    }
}

fn batch(raw: &Raw) -> Result<BatchLimits, ConfigError> {
    Ok(BatchLimits {
        records: size(
            BATCH_RECORDS,
            raw.producer_request_limits_messages_per_request,
            RECORDS,
            200,
        )?,
        bytes: size(BATCH_BYTES, raw.producer_request_limits_bytes_per_request, BYTES, 1_048_576)?,
        flush_timeout: millis(
            "producer_async_flush_timeout",
            raw.producer_async_flush_timeout,
            (1, 3_600_000),
            1000,
        )?,
    })
}

fn queue(raw: &Raw) -> Result<QueueLimits, ConfigError> {
    Ok(QueueLimits {
        records: number(
            "producer_async_buffering_limits_messages_in_memory",
            raw.producer_async_buffering_limits_messages_in_memory,
            (1, 10_000_000),
            50_000,
        )?,
        bytes: number(
            "producer_async_buffering_limits_bytes_in_memory",
            raw.producer_async_buffering_limits_bytes_in_memory,
            (1, 1 << 30),
            64 << 20,
        )?,
    })
}

/// None where the filter does not gate; the ranges hold all the same.
fn gating(raw: &Raw) -> Result<Option<Gating>, ConfigError> {
    let gating = Gating {
        failures: number(
            "producer_async_health_failure_threshold",
            raw.producer_async_health_failure_threshold,
            (1, 100),
            3,
        )?,
        probe_interval: millis(
            "producer_async_health_probe_interval",
            raw.producer_async_health_probe_interval,
            (100, 600_000),
            5000,
        )?,
        recoveries: number(
            "producer_async_health_recovery_threshold",
            raw.producer_async_health_recovery_threshold,
            (1, 100),
            1,
        )?,
    };
    Ok(raw.producer_async_health_gating.unwrap_or(false).then_some(gating))
}

fn profile(raw: &Raw) -> Result<Profile, ConfigError> {
    let excluded = [
        ("bootstrap_servers", raw.bootstrap_servers.is_some()),
        ("authentication", raw.authentication.is_some()),
        ("security", raw.security.is_some()),
    ];
    if let (true, Some((field, _))) = (raw.cluster.is_some(), excluded.iter().find(|(_, is)| *is)) {
        return Err(fault("cluster", &format!("excludes {field}")));
    }
    let mut bootstrap_servers = Vec::new();
    for (index, server) in raw.bootstrap_servers.iter().flatten().enumerate() {
        bootstrap_servers.push(address(index, server)?);
    }
    if raw.bootstrap_servers.is_some() && bootstrap_servers.is_empty() {
        return Err(fault("bootstrap_servers", "must not be empty"));
    }
    Ok(Profile {
        cluster: name("cluster", raw.cluster.clone(), 64)?,
        cluster_name: check_access::cluster_name(raw)?,
        bootstrap_servers,
        properties: properties(raw)?,
        authentication: check_access::authentication(raw)?,
        security: check_access::security(raw)?,
        schema_registry: check_access::schema_registry(raw)?,
    })
}

/// The producer's properties that are written down, by Kafka's names.
fn properties(raw: &Raw) -> Result<BTreeMap<String, String>, ConfigError> {
    let keepalive = match raw.keepalive_enabled {
        Some(true) => Some(raw.keepalive.unwrap_or(60_000)),
        _ => None,
    };
    number("keepalive", raw.keepalive, (1000, DAY_MS), 0)?;
    let numbers = [
        ("acks", "producer_request_acks", raw.producer_request_acks, (-1, 1)),
        ("connections.max.idle.ms", "keepalive", keepalive, (1000, DAY_MS)),
        ("socket.connection.setup.timeout.ms", "timeout", raw.timeout, (1, DAY_MS)),
        ("batch.records", BATCH_RECORDS, raw.producer_request_limits_messages_per_request, RECORDS),
        ("batch.size", BATCH_BYTES, raw.producer_request_limits_bytes_per_request, BYTES),
        ("linger.ms", "linger", raw.linger, (0, HOUR_MS)),
        (
            "request.timeout.ms",
            "producer_request_timeout",
            raw.producer_request_timeout,
            (1, HOUR_MS),
        ),
        (
            "retries",
            "producer_request_retries_max_attempts",
            raw.producer_request_retries_max_attempts,
            (0, 1_000_000),
        ),
        (
            "retry.backoff.ms",
            "producer_request_retries_backoff_timeout",
            raw.producer_request_retries_backoff_timeout,
            (1, HOUR_MS),
        ),
    ];
    let mut properties = BTreeMap::new();
    for (property, path, value, range) in numbers {
        if value.is_some() {
            let number: i64 = number(path, value, range, 0)?;
            properties.insert(property.to_owned(), number.to_string());
        }
    }
    let names = [
        ("compression.type", raw.compression_type.map(Compression::name)),
        ("partitioner", raw.partitioner.map(Partitioner::name)),
    ];
    for (property, name) in names {
        properties.extend(name.map(|name| (property.to_owned(), name.to_owned())));
    }
    Ok(properties)
}

fn address(index: usize, server: &sections::Server) -> Result<String, ConfigError> {
    let path = |field| format!("bootstrap_servers[{index}].{field}");
    let host = server.host.as_deref().ok_or_else(|| required(&path("host")))?;
    let port = server.port.ok_or_else(|| required(&path("port")))?;
    if host.is_empty() || host.contains(['/', ',', ' ']) {
        return Err(fault(&path("host"), "must be a host name or an IP address"));
    }
    visible(&path("host"), host)?;
    let port: u16 = number(&path("port"), Some(port), (1, u16::MAX), 0)?;
    let bracketed = host.contains(':') && !host.starts_with('[');
    Ok(if bracketed { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn size(
    path: &str,
    value: Option<i64>,
    range: (i64, i64),
    default: i64,
) -> Result<usize, ConfigError> {
    let size = number(path, value, range, default)?;
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}

fn millis(
    path: &str,
    value: Option<i64>,
    range: (u64, u64),
    default: u64,
) -> Result<Duration, ConfigError> {
    number(path, value, range, default).map(Duration::from_millis)
}

pub(super) fn number<T>(
    path: &str,
    value: Option<i64>,
    range: (T, T),
    default: T,
) -> Result<T, ConfigError>
where
    T: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
{
    let Some(value) = value else { return Ok(default) };
    let (low, high) = range;
    T::try_from(value)
        .ok()
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| fault(path, &format!("must be {low} to {high}, is {value}")))
}

/// A topic's name.
pub(super) fn topic(path: &str, value: Option<String>) -> Result<Option<String>, ConfigError> {
    match value.as_deref() {
        Some("." | "..") => Err(fault(path, "must be neither . nor ..")),
        _ => name(path, value, limits::TOPIC_BYTES_MAX),
    }
}

/// A topic's or cluster's name, in the characters that Kafka allows for topics.
fn name(path: &str, value: Option<String>, most: usize) -> Result<Option<String>, ConfigError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match value {
        Some(name) if !(1..=most).contains(&name.len()) || !name.chars().all(allowed) => {
            let reason = format!("must be 1 to {most} characters of a-z A-Z 0-9 . _ -");
            Err(fault(path, &reason))
        }
        value => Ok(value),
    }
}

/// What goes into a header of a callout: a control character would fail the whole call.
pub(super) fn visible(path: &str, value: &str) -> Result<(), ConfigError> {
    match value.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(fault(path, "must be visible ASCII")),
    }
}

pub(super) fn required(path: &str) -> ConfigError {
    fault(path, "is required")
}

const BATCH_RECORDS: &str = "producer_request_limits_messages_per_request";
const BATCH_BYTES: &str = "producer_request_limits_bytes_per_request";
/// What a frame holds.
const RECORDS: (i64, i64) = (1, limits::FRAME_RECORDS_MAX as i64);
/// Half of a frame, so that a batch which is almost full takes one more record.
const BYTES: (i64, i64) = (1, limits::FRAME_BYTES_MAX as i64 / 2);
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

pub(super) fn fault(path: &str, reason: &str) -> ConfigError {
    ConfigError { path: path.to_owned(), reason: reason.to_owned() }
}
