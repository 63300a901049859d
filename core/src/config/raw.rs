//! The plugin configuration as it is written: every field may be absent or null. The schema and the
//! reference of the configuration are made of these types and their comments.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::access::{Authentication, Security};
use crate::gateway::Gateway;
use crate::record_headers::Repeated;
use crate::registry::SchemaRegistry;
use crate::secret::Secret;

/// Settings of the filter; names, units and defaults are Kong's where Kong has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Raw {
    /// Where callouts go: on Envoy the name of a cluster. Required.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) bridge: Option<String>,
    /// `:authority` of the filter's calls to the bridge.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "host-bridge", "x-new" = true)))]
    pub(super) bridge_authority: Option<String>,
    /// Bearer token of these calls.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) bridge_token: Option<Secret>,
    /// The gateway that the filter must run in.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "auto", "x-new" = true)))]
    pub(super) host: Option<Host>,
    /// Whether Envoy's own `allow_on_headers_stop_iteration` is true beside this configuration.
    /// False where it cannot be set, as by Envoy Gateway's `EnvoyExtensionPolicy` and Istio's
    /// `WasmPlugin`: then the headers of a request with a body go on before the body.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true, "x-new" = true)))]
    pub(super) allow_on_headers_stop_iteration: Option<bool>,
    /// Which requests are captured, and how; the first rule that matches a request applies, and one
    /// that matches none is not captured. Without it every request is captured.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) r#match: Option<Vec<RawRule>>,
    /// `terminate` answers the client; `tap` produces a copy and lets the request go on.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "terminate", "x-new" = true)))]
    pub(super) mode: Option<Mode>,
    /// A cluster of the bridge's configuration; excludes `bootstrap_servers`, `authentication` and
    /// `security`. With neither it nor `bootstrap_servers`: `default`.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) cluster: Option<String>,
    /// Producers are shared by filters with equal names and connection settings; without a name, by
    /// those with equal settings.
    pub(super) cluster_name: Option<String>,
    /// Brokers to begin with; loopback, or allowed by the bridge's `inline_bootstrap_servers`.
    pub(super) bootstrap_servers: Option<Vec<Server>>,
    /// `socket.connection.setup.timeout.ms`: longest time to connect to a broker, in ms; without it
    /// the cluster's.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 86_400_000)))]
    pub(super) timeout: Option<i64>,
    /// `connections.max.idle.ms`: idle time after which a connection to a broker closes, in ms;
    /// only with `keepalive_enabled`.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1000, max = 86_400_000), extend("default" = 60_000))
    )]
    pub(super) keepalive: Option<i64>,
    /// Whether `keepalive` counts; else the cluster's `connections.max.idle.ms` does.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub(super) keepalive_enabled: Option<bool>,
    /// SASL to the brokers; replaces the cluster's own, except for `GSSAPI`, which a cluster of the
    /// bridge's must have. host-bridge asks a token endpoint only on loopback or in its
    /// `inline_token_endpoints`.
    pub(super) authentication: Option<Authentication>,
    /// TLS to brokers that are named here by their addresses; a cluster of the bridge's
    /// configuration says itself whether it has TLS and what is verified.
    pub(super) security: Option<Security>,
    /// Topic of every record that names no other. Required.
    pub(super) topic: Option<String>,
    /// The query argument with a list of topics, commas between: each gets the record.
    pub(super) topics_query_arg: Option<String>,
    /// Topics that `topics_query_arg` and `topic_expression` may name, besides `topic`; one that is
    /// not allowed fails the whole request with 502. Without both of them it is accepted, as in
    /// Kong, and changes nothing.
    pub(super) allowed_topics: Option<Vec<String>>,
    /// The query argument with the record's key; a request without it has no key.
    pub(super) key_query_arg: Option<String>,
    /// Whether the message has `method`; one of `forward_*` must be true.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub(super) forward_method: Option<bool>,
    /// Whether the message has `uri` and `uri_args`.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub(super) forward_uri: Option<bool>,
    /// Whether the message has `headers`.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub(super) forward_headers: Option<bool>,
    /// Whether the message has `body`, `body_args` and `body_base64`.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub(super) forward_body: Option<bool>,
    /// Which of the request's headers become headers of the record.
    pub(super) headers: Option<Headers>,
    /// `acks`: 0, 1, or -1 for all in-sync replicas. Like the other settings of the producer:
    /// without it the cluster's, and only then the default.
    #[cfg_attr(feature = "schema", schemars(range(min = -1, max = 1), extend("default" = 1)))]
    pub(super) producer_request_acks: Option<i64>,
    /// `request.timeout.ms`.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1, max = 3_600_000), extend("default" = 2000))
    )]
    pub(super) producer_request_timeout: Option<i64>,
    /// A batch of the filter goes out with so many records; where it is set, `batch.records` of the
    /// producer too.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 10_000), extend("default" = 200)))]
    pub(super) producer_request_limits_messages_per_request: Option<i64>,
    /// A batch of the filter goes out at this size; where it is set, `batch.size` of the producer
    /// too.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1, max = 8_388_608), extend("default" = 1_048_576))
    )]
    pub(super) producer_request_limits_bytes_per_request: Option<i64>,
    /// `retries`.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 0, max = 1_000_000), extend("default" = 10))
    )]
    pub(super) producer_request_retries_max_attempts: Option<i64>,
    /// `retry.backoff.ms`.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1, max = 3_600_000), extend("default" = 100))
    )]
    pub(super) producer_request_retries_backoff_timeout: Option<i64>,
    /// True: `delivery` is `memory`; false: `acked`.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub(super) producer_async: Option<bool>,
    /// `memory`: longest wait of a record for its batch, in ms.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1, max = 3_600_000), extend("default" = 1000))
    )]
    pub(super) producer_async_flush_timeout: Option<i64>,
    /// Records that one worker holds; one more is answered 503.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1, max = 10_000_000), extend("default" = 50_000))
    )]
    pub(super) producer_async_buffering_limits_messages_in_memory: Option<i64>,
    /// Bytes of records that one worker holds.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1, max = 1_073_741_824), extend("default" = 67_108_864, "x-new" = true))
    )]
    pub(super) producer_async_buffering_limits_bytes_in_memory: Option<i64>,
    /// `memory`: answer 503 while deliveries fail, instead of queueing.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub(super) producer_async_health_gating: Option<bool>,
    /// So many batches in a row must fail before requests are answered 503.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100), extend("default" = 3)))]
    pub(super) producer_async_health_failure_threshold: Option<i64>,
    /// Until deliveries succeed, queued records are tried again after this time, in ms.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 100, max = 600_000), extend("default" = 5000))
    )]
    pub(super) producer_async_health_probe_interval: Option<i64>,
    /// So many batches in a row must succeed before requests are accepted again.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100), extend("default" = 1)))]
    pub(super) producer_async_health_recovery_threshold: Option<i64>,
    /// Accepted for compatibility with Kong: the bridge has one producer, which batches under load.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    #[expect(dead_code, reason = "the bridge's producer is of this kind already")]
    pub(super) new_kafka_async_producer: Option<bool>,
    /// What a 200 means: `memory`, the record is queued; `acked`, Kafka has acknowledged it.
    /// `producer_async` by name.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) delivery: Option<RawDelivery>,
    /// `acked` on Envoy: what queues in one turn of the event loop, or while many records are in
    /// flight, shares a callout; false makes one each, as it is on the other gateways.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true, "x-new" = true)))]
    pub(super) group_commit: Option<bool>,
    /// How batches are compressed; a batch that does not shrink goes without.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "none")))]
    pub(super) compression_type: Option<crate::profile::Compression>,
    /// How a key becomes a partition: as Java's clients do, or as librdkafka and Kong do.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "murmur2_random", "x-new" = true)))]
    pub(super) partitioner: Option<crate::profile::Partitioner>,
    /// `linger.ms`: records that arrive while a batch is in flight share the next one anyway.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 0, max = 3_600_000), extend("default" = 0, "x-new" = true))
    )]
    pub(super) linger: Option<i64>,
    /// A schema registry: keys and values must fit its schemas, and are encoded by them.
    pub(super) schema_registry: Option<SchemaRegistry>,
    /// How much of a failure's cause a reply shows.
    pub(super) error_handling: Option<ErrorHandling>,
    /// What the record's value is: Kong's message, the raw body, a CloudEvent, or the result of
    /// `message_expression`, which it follows from.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "kong", "x-new" = true)))]
    pub(super) message_format: Option<crate::format::MessageFormat>,
    /// CEL that gives the value.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) message_expression: Option<String>,
    /// CEL that gives the topic, which must be `topic` or one of `allowed_topics`; takes precedence
    /// over `topics_query_arg`.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) topic_expression: Option<String>,
    /// CEL that gives the key; takes precedence over `key_query_arg`.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) key_expression: Option<String>,
    /// CEL that gives the partition.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) partition_expression: Option<String>,
    /// CEL that gives headers of the record, besides `headers`.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) record_headers_expression: Option<String>,
    /// Refused: Lua is not supported; `message_expression` makes messages.
    pub(super) message_by_lua_functions: Option<Vec<String>>,
    /// The reply to a request whose record is accepted under the delivery mode.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) success_response: Option<SuccessResponse>,
    /// A larger body is answered 413.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 0, max = 8_388_608), extend("default" = 1_048_576, "x-new" = true))
    )]
    pub(super) max_body_bytes: Option<i64>,
    /// `acked`: time from capture to outcome, in ms.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 1, max = 3_600_000), extend("default" = 10_000, "x-new" = true))
    )]
    pub(super) delivery_timeout: Option<i64>,
}

/// `delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum RawDelivery {
    Memory,
    Acked,
}

/// `host`: which gateway the filter must run in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
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
    /// The gateway that is named; none where it is detected.
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Mode {
    /// The filter answers it.
    #[default]
    Terminate,
    /// It goes on: in `acked` delivery once its copy is written, in `memory` at once.
    Tap,
}

/// An entry of `bootstrap_servers`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Server {
    /// Host name or IP address; required.
    pub(super) host: Option<String>,
    /// TCP port; required.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 65_535)))]
    pub(super) port: Option<i64>,
}

/// An entry of `match`: all that it names must match; a rule that names nothing matches every
/// request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RawRule {
    /// The whole path, without the query string.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) path: Option<String>,
    /// How the path begins.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) path_prefix: Option<String>,
    /// A regular expression that matches the whole path; its time is linear in the path's length.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) path_regex: Option<String>,
    /// Methods, one of which must be the request's.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) methods: Option<Vec<String>>,
    /// Host names without a port, one of which must be the request's; `*.example.com` stands for
    /// every name below `example.com`.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) hosts: Option<Vec<String>>,
    /// What differs for these requests: any field but `host` and `match`. What is an object
    /// replaces the whole object.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) config: Option<Box<Raw>>,
}

/// `headers`; names of HTTP headers are compared in lower case.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Headers {
    /// Whether records have headers at all.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub(super) forward_http_headers_as_record_headers: Option<bool>,
    /// True: every header but `exclude_headers`; false: `include_headers` alone.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub(super) forward_all_by_default: Option<bool>,
    /// The headers to take when not all are taken.
    #[cfg_attr(feature = "schema", schemars(extend("default" = [])))]
    pub(super) include_headers: Option<Vec<String>>,
    /// The headers to leave out when all are taken, and of those that `trace_context` takes.
    #[cfg_attr(feature = "schema", schemars(extend("default" = [])))]
    pub(super) exclude_headers: Option<Vec<String>>,
    /// Names of record headers by the names of HTTP headers; else they are equal, in lower case.
    #[cfg_attr(feature = "schema", schemars(extend("default" = serde_json::json!({}))))]
    pub(super) name_mappings: Option<BTreeMap<String, String>>,
    /// What a repeated header becomes.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "retain_duplicates")))]
    pub(super) repeated_headers_behavior: Option<Repeated>,
    /// Also take `traceparent`, `tracestate` and `x-request-id`, so that a trace goes on through
    /// Kafka.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false, "x-new" = true)))]
    pub(super) trace_context: Option<bool>,
}

/// `error_handling`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct ErrorHandling {
    /// Whether a reply shows the real reason of a failure, and with several topics the outcome of
    /// each.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub(super) return_error_message: Option<bool>,
}

/// `success_response`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct SuccessResponse {
    /// HTTP status.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 200, max = 299), extend("default" = 200, "x-new" = true))
    )]
    pub(super) status: Option<i64>,
    /// `content-type` of the body.
    #[cfg_attr(
        feature = "schema",
        schemars(extend("default" = "application/json", "x-new" = true))
    )]
    pub(super) content_type: Option<String>,
    /// The body; empty with status 204.
    #[cfg_attr(
        feature = "schema",
        schemars(extend("default" = "{\"message\":\"message sent\"}", "x-new" = true))
    )]
    pub(super) body: Option<String>,
}
