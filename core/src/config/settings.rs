//! The settings of a filter: what is written, with defaults set and ranges checked.

use std::time::Duration;

use super::document::JsonValue;
use super::field::{ConfigError, fault, number, required, topic, visible};
use super::parse::parse;
use super::producer::{self, BATCH_BYTES, BATCH_RECORDS, BYTES, RECORDS};
use super::raw::{self, Mode, Raw};
use super::record;
use crate::expression::Expressions;
use crate::format::MessageFormat;
use crate::format::kong::Forward;
use crate::limits;
use crate::profile::Profile;
use crate::record_headers::{RecordHeaders, Selection};
use crate::reply::{Replies, Success};
use crate::secret::Secret;
use crate::targets::Targets;
use crate::wire::Delivery;

/// A filter's checked settings for the requests that they are meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether the filter answers, or the request goes on.
    pub mode: Mode,
    /// Where callouts go and how they name themselves.
    pub bridge: Bridge,
    /// The topic of every record that the client names no other for.
    pub topic: String,
    /// What of a record's place the client may choose.
    pub targets: Targets,
    /// Which headers a record has.
    pub record_headers: RecordHeaders,
    /// Which parts of the request are in the message.
    pub forward: Forward,
    /// What a request becomes.
    pub message_format: MessageFormat,
    /// Expressions that make parts of the record.
    pub expressions: Expressions,
    /// What a 200 means.
    pub delivery: Delivery,
    /// Whether what queues in one turn of the event loop shares a callout.
    pub group_commit: bool,
    /// Largest body in bytes; a larger one gets 413.
    pub max_body_bytes: u64,
    /// How long a record may take from its capture to its outcome.
    pub delivery_timeout: Duration,
    /// How clients are answered.
    pub replies: Replies,
    /// When a batch is full and when it is due.
    pub batch: BatchLimits,
    /// How much the filter queues.
    pub queue: QueueLimits,
    /// When requests are refused because deliveries fail; none where they never are.
    pub gating: Option<Gating>,
    /// What the bridge needs to make a producer.
    pub profile: Profile,
}

/// Where callouts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The target as the host names it; on Envoy a cluster.
    pub target: String,
    /// `:authority` of callouts.
    pub authority: String,
    /// Bearer token of callouts.
    pub token: Option<Secret>,
}

/// When a batch goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most records.
    pub records: usize,
    /// Bytes of encoded records after which nothing is added; one larger record goes alone.
    pub bytes: usize,
    /// Memory mode: the longest wait of a batch that is not full.
    pub flush_timeout: Duration,
}

/// How much may wait in a VM, in flight included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Records.
    pub records: usize,
    /// Bytes of encoded records.
    pub bytes: usize,
}

/// When memory mode answers 503 because deliveries fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gating {
    /// Batches that fail in a row until then.
    pub failures: u32,
    /// Time between attempts from then on.
    pub probe_interval: Duration,
    /// Batches that succeed in a row until requests are accepted again.
    pub recoveries: u32,
}

impl Settings {
    /// Parses and checks a plugin configuration without regard to its `match`.
    ///
    /// # Errors
    /// The first fault: its path, and what would be right. Unknown fields are faults and name the
    /// nearest known field.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        Self::check(parse(&JsonValue::read(json)?)?)
    }

    /// Checks what is written, and sets what is not.
    pub(super) fn check(raw: Raw) -> Result<Self, ConfigError> {
        let (mode, profile) = (raw.mode.unwrap_or_default(), producer::profile(&raw)?);
        let delivery = match delivery(&raw)? {
            // The bridge checks a record before it takes it, and only then its client has a 200. Who is
            // only tapped has none of ours.
            Delivery::Memory if profile.has_schemas() && mode == Mode::Terminate => {
                Delivery::Queued
            }
            other => other,
        };
        let stops_at_headers = raw.allow_on_headers_stop_iteration.unwrap_or(true);
        if mode == Mode::Tap && delivery != Delivery::Memory && !stops_at_headers {
            let reason = "`tap` with `delivery` `acked` lets no request go on before its record is \
                          written: it needs allow_on_headers_stop_iteration";
            return Err(fault("mode", reason));
        }
        Ok(Self {
            mode,
            bridge: bridge(&raw)?,
            forward: record::forward(&raw)?,
            expressions: record::expressions(&raw)?,
            message_format: record::format(&raw)?,
            delivery,
            group_commit: raw.group_commit.unwrap_or(true),
            max_body_bytes: number(
                "max_body_bytes",
                raw.max_body_bytes,
                (0, limits::BODY_BYTES_MAX),
                limits::BODY_BYTES_DEFAULT,
            )?,
            delivery_timeout: millis(
                "delivery_timeout",
                raw.delivery_timeout,
                (1, 3_600_000),
                10_000,
            )?,
            replies: replies(&raw)?,
            targets: record::targets(&raw)?,
            record_headers: record::record_headers(&raw)?,
            batch: batch(&raw)?,
            queue: queue(&raw)?,
            gating: gating(&raw)?,
            profile,
            topic: topic("topic", raw.topic)?.ok_or_else(|| required("topic"))?,
        })
    }

    /// Whether no request can choose another topic than `topic`.
    #[must_use]
    pub fn has_one_topic(&self) -> bool {
        self.targets.topics_arg.is_none() && self.expressions.topic.is_none()
    }

    /// Whether a request goes on when its copy could not be queued or written: a tap in memory mode
    /// reports nothing of the copy to its client.
    #[must_use]
    pub fn goes_on_without_copy(&self) -> bool {
        self.mode == Mode::Tap && self.delivery == Delivery::Memory
    }

    /// The headers of a request that these settings read; none where they may read any.
    #[must_use]
    pub fn header_names(&self) -> Option<Vec<&str>> {
        let Selection::Only(taken) = &self.record_headers.selection else { return None };
        let reads_any = self.forward.headers
            || self.message_format == MessageFormat::CloudEvents
            || self.expressions != Expressions::default();
        let own = ["content-length", "content-type", "transfer-encoding", "connection", "upgrade"];
        let others = taken.iter().map(String::as_str).filter(|name| !own.contains(name));
        (!reads_any).then(|| own.into_iter().chain(others).collect())
    }
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

fn delivery(raw: &Raw) -> Result<Delivery, ConfigError> {
    let by_async = raw.producer_async.map(|memory| match memory {
        true => raw::RawDelivery::Memory,
        false => raw::RawDelivery::Acked,
    });
    match (by_async, raw.delivery) {
        (Some(one), Some(other)) if one != other => {
            Err(fault("delivery", "contradicts producer_async"))
        }
        (one, other) => Ok(match other.or(one) {
            Some(raw::RawDelivery::Acked) => Delivery::Acked,
            Some(raw::RawDelivery::Memory) | None => Delivery::Memory,
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

fn replies(raw: &Raw) -> Result<Replies, ConfigError> {
    let reveal = raw.error_handling.as_ref().and_then(|handling| handling.return_error_message);
    let replies = Replies { success: Success::default(), reveal: reveal.unwrap_or(false) };
    let Some(written) = &raw.success_response else { return Ok(replies) };
    let status = number("success_response.status", written.status, (200, 299), 200)?;
    let empty = matches!(status, 204 | 205);
    let body = match &written.body {
        Some(body) if empty && !body.is_empty() => {
            let reason = format!("must be empty with status {status}");
            return Err(fault("success_response.body", &reason));
        }
        Some(body) if body.len() > limits::SUCCESS_BYTES_MAX => {
            let reason = format!("must have at most {} bytes", limits::SUCCESS_BYTES_MAX);
            return Err(fault("success_response.body", &reason));
        }
        Some(body) => body.clone(),
        None if empty => String::new(),
        None => replies.success.body,
    };
    let content_type = match &written.content_type {
        Some(kind) if kind.is_empty() || kind.chars().any(|c| !(' '..='~').contains(&c)) => {
            return Err(fault("success_response.content_type", "must be printable ASCII"));
        }
        Some(kind) => Some(kind.clone()),
        None => replies.success.content_type,
    };
    let content_type = content_type.filter(|_| !empty);
    Ok(Replies { success: Success { status, content_type, body }, ..replies })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::PROPERTIES;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn parse(fields: Value) -> Result<Settings, String> {
        let mut config = json!({ "bridge": "host_bridge", "topic": "orders" });
        for (name, value) in fields.as_object().unwrap() {
            config[name] = value.clone();
        }
        Settings::parse(config.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_kongs() {
        let settings = parse(json!({})).unwrap();
        assert_eq!(settings.delivery, Delivery::Memory);
        let forward = Forward { method: false, uri: false, headers: false, body: true };
        assert_eq!(settings.forward, forward);
        assert_eq!((settings.batch.records, settings.batch.bytes), (200, 1_048_576));
        assert_eq!(settings.batch.flush_timeout, Duration::from_secs(1));
        assert_eq!((settings.queue.records, settings.queue.bytes), (50_000, 64 << 20));
        assert_eq!(settings.profile.properties, BTreeMap::new());
        assert_eq!(settings.max_body_bytes, 1_048_576);
        assert_eq!(settings, parse(json!({ "forward_uri": null, "cluster": null })).unwrap());
    }

    #[test]
    fn each_kind_of_fault_names_its_field() {
        let faults = [
            (json!({"topicc": "x"}), "topicc: unknown field, did you mean `topic`?"),
            (json!({"zzzzzzzzzzzz": 1}), "zzzzzzzzzzzz: unknown field"),
            (json!({"topic": 1}), "topic: expected a string, not a number"),
            (json!({"topic": ""}), "topic: must be 1 to 249 characters of a-z A-Z 0-9 . _ -"),
            (json!({"topic": "a b"}), "topic: must be 1 to 249 characters of a-z A-Z 0-9 . _ -"),
            (json!({"topic": null}), "topic: is required"),
            (json!({"topic": ".."}), "topic: must be neither . nor .."),
            (json!({"bridge": ""}), "bridge: must not be empty"),
            (json!({"bridge_token": "a\nb"}), "bridge_token: must be visible ASCII"),
            (json!({"producer_request_acks": 2}), "producer_request_acks: must be -1 to 1, is 2"),
            (
                json!({"max_body_bytes": 9000000}),
                "max_body_bytes: must be 0 to 8388608, is 9000000",
            ),
            (json!({"forward_body": false}), "forward_body: at least one forward_* must be true"),
            (
                json!({"producer_async": true, "delivery": "acked"}),
                "delivery: contradicts producer_async",
            ),
            (
                json!({"delivery": "durable"}),
                "delivery: expected `memory` or `acked`, not `durable`",
            ),
            (
                json!({"cluster": "a", "bootstrap_servers": [{"host": "h", "port": 1}]}),
                "cluster: excludes bootstrap_servers",
            ),
            (
                json!({"bootstrap_servers": [{"host": "h", "port": 9092}, {"host": "h", "prt": 1}]}),
                "bootstrap_servers[1].prt: unknown field, did you mean `port`?",
            ),
            (
                json!({"bootstrap_servers": [{"host": "h"}]}),
                "bootstrap_servers[0].port: is required",
            ),
            (
                json!({"bootstrap_servers": [{"host": "h", "port": 0}]}),
                "bootstrap_servers[0].port: must be 1 to 65535, is 0",
            ),
            (
                json!({"error_handling": {"return_error_mesage": true}}),
                "error_handling.return_error_mesage: unknown field, \
                 did you mean `return_error_message`?",
            ),
            (
                json!({"compression_type": "brotli"}),
                "compression_type: expected one of `none`, `gzip`, `snappy`, `lz4`, `zstd`, \
                 not `brotli`",
            ),
            (
                json!({"host": "nginx"}),
                "host: expected one of `auto`, `envoy`, `wasmx`, `apisix`, not `nginx`",
            ),
            (json!({"cluster": "a/b"}), "cluster: must be 1 to 64 characters of a-z A-Z 0-9 . _ -"),
        ];
        for (fields, message) in faults {
            assert_eq!(parse(fields.clone()).unwrap_err(), message, "{fields}");
        }
    }

    #[test]
    fn every_codec_has_the_name_it_is_written_with() {
        for name in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let settings = parse(json!({ "compression_type": name })).unwrap();
            assert_eq!(settings.profile.properties["compression.type"], name);
        }
    }

    #[test]
    fn what_is_written_of_the_producer_becomes_kafkas_properties() {
        let settings = parse(json!({
            "producer_request_acks": -1,
            "producer_request_timeout": 3000,
            "producer_request_limits_messages_per_request": 100,
            "producer_request_limits_bytes_per_request": 500_000,
            "producer_request_retries_max_attempts": 3,
            "producer_request_retries_backoff_timeout": 50,
            "compression_type": "zstd",
            "partitioner": "consistent_random",
            "linger": 5,
            "timeout": 4000,
            "keepalive": 60_000,
            "keepalive_enabled": true,
        }));
        let properties = settings.unwrap().profile.properties;
        assert!(properties.keys().eq(PROPERTIES.iter()), "{properties:?}");
        let values = [
            "-1",
            "100",
            "500000",
            "zstd",
            "60000",
            "5",
            "consistent_random",
            "3000",
            "3",
            "50",
            "4000",
        ];
        assert!(properties.values().eq(values.iter()), "{properties:?}");
        let unused = parse(json!({ "keepalive": 5000 })).unwrap();
        assert_eq!(unused, parse(json!({ "keepalive_enabled": false })).unwrap());
    }

    #[test]
    fn a_document_that_is_not_an_object_is_refused() {
        for bad in [&b""[..], b"{", b"[]", b"\xff", b"{} x"] {
            assert_eq!(Settings::parse(bad).unwrap_err().path, ".", "{bad:?}");
        }
        let twice = br#"{"bridge":"b","topic":"a","topic":"b"}"#;
        assert!(Settings::parse(twice).unwrap_err().to_string().contains("topic: is there twice"));
    }

    #[test]
    fn a_success_is_checked() {
        for (response, error) in [
            (json!({"status": 301}), "status: must be 200 to 299, is 301"),
            (json!({"status": 204, "body": "x"}), "body: must be empty with status 204"),
            (json!({"content_type": "a\nb"}), "content_type: must be printable ASCII"),
        ] {
            let refused = parse(json!({ "success_response": response })).unwrap_err();
            assert_eq!(refused, format!("success_response.{error}"));
        }
    }

    #[test]
    fn a_success_without_content_has_no_content_type() {
        let success = |response: Value| {
            parse(json!({ "success_response": response })).unwrap().replies.success
        };
        let empty = Success { status: 204, content_type: None, body: String::new() };
        assert_eq!(success(json!({ "status": 204 })), empty);
        let body = success(json!({ "body": "ok", "content_type": "text/plain" }));
        assert_eq!((body.status, body.content_type.as_deref()), (200, Some("text/plain")));
    }
}
