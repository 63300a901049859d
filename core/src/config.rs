//! The plugin configuration, checked: only this form travels further.

mod check;
mod check_access;
mod check_parts;
mod document;
#[cfg(test)]
mod kong_examples;
mod messages;
mod parse;
mod plugin;
mod raw;
#[cfg(feature = "schema")]
pub mod schema;
mod sections;

use std::time::Duration;

pub use self::plugin::{Plugin, Rule};
use crate::expression::Expressions;
use crate::format::MessageFormat;
use crate::format::kong::Forward;
use crate::gateway::Gateway;
use crate::profile::Profile;
pub use crate::record_headers::Repeated;
use crate::record_headers::{RecordHeaders, Selection};
use crate::reply::Replies;
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
    /// What a 200 promises.
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

/// `host`: which host the filter must find itself in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Host {
    /// Whichever is detected.
    #[default]
    Auto,
    /// Envoy.
    Envoy,
    /// Kong Gateway, or nginx with `ngx_wasm_module`.
    Wasmx,
    /// Apache APISIX.
    Apisix,
}

impl Host {
    /// The gateway that is meant; none where it is detected.
    #[must_use]
    pub const fn gateway(self) -> Option<Gateway> {
        match self {
            Self::Auto => None,
            Self::Envoy => Some(Gateway::Envoy),
            Self::Wasmx => Some(Gateway::Wasmx),
            Self::Apisix => Some(Gateway::Apisix),
        }
    }
}

/// `mode`: what becomes of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Mode {
    /// The filter answers it.
    #[default]
    Terminate,
    /// It goes on: in `acked` delivery once its copy is written, in `memory` at once.
    Tap,
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
    /// Batches that succeed in a row until requests are taken again.
    pub recoveries: u32,
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConfigError {
    /// Path of the field, `.` for the document.
    pub path: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl Settings {
    /// Parses and checks a plugin configuration without regard to its `match`.
    ///
    /// # Errors
    /// The first fault: its path, and what would be right. Unknown fields are faults and name the
    /// nearest known field.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        check::settings(parse::parse(&document::Node::read(json)?)?)
    }

    /// Whether no request can choose another topic than `topic`.
    #[must_use]
    pub fn has_one_topic(&self) -> bool {
        self.targets.topics_arg.is_none() && self.expressions.topic.is_none()
    }

    /// Whether a request goes on when its copy could not be queued or written: a tap in memory mode
    /// gives its client no word about the copy.
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
                "delivery: disagrees with producer_async",
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
}
