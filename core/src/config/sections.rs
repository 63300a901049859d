//! The objects within the plugin configuration as they are written.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::raw::Raw;

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

/// An entry of `match`: what it names must fit, all of it; a rule that names nothing fits every request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Rule {
    /// The whole path, without the query string.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) path: Option<String>,
    /// How the path begins.
    #[cfg_attr(feature = "schema", schemars(extend("x-new" = true)))]
    pub(super) path_prefix: Option<String>,
    /// A regular expression that fits the whole path; its time is linear in the path's length.
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
    /// What becomes of a header that is there several times.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "retain_duplicates")))]
    pub(super) repeated_headers_behavior: Option<super::Repeated>,
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
    /// Whether a reply tells the real reason of a failure, and with several topics what became of
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
    /// The body; empty with the status 204.
    #[cfg_attr(
        feature = "schema",
        schemars(extend("default" = "{\"message\":\"message sent\"}", "x-new" = true))
    )]
    pub(super) body: Option<String>,
}
