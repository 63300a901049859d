//! The plugin configuration as it is written: every field may be absent or null.

use serde::Deserialize;

use super::ConfigError;

/// The fields; names, units and defaults are Kong's where Kong has them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) bridge: Option<String>,
    pub(super) bridge_authority: Option<String>,
    pub(super) bridge_token: Option<String>,
    pub(super) host: Option<super::Host>,
    pub(super) cluster: Option<String>,
    pub(super) bootstrap_servers: Option<Vec<Server>>,
    pub(super) topic: Option<String>,
    pub(super) forward_method: Option<bool>,
    pub(super) forward_uri: Option<bool>,
    pub(super) forward_headers: Option<bool>,
    pub(super) forward_body: Option<bool>,
    pub(super) producer_request_acks: Option<i64>,
    pub(super) producer_request_timeout: Option<i64>,
    pub(super) producer_request_limits_messages_per_request: Option<i64>,
    pub(super) producer_request_limits_bytes_per_request: Option<i64>,
    pub(super) producer_request_retries_max_attempts: Option<i64>,
    pub(super) producer_request_retries_backoff_timeout: Option<i64>,
    pub(super) producer_async: Option<bool>,
    pub(super) producer_async_flush_timeout: Option<i64>,
    pub(super) producer_async_buffering_limits_messages_in_memory: Option<i64>,
    pub(super) producer_async_buffering_limits_bytes_in_memory: Option<i64>,
    pub(super) delivery: Option<Delivery>,
    pub(super) group_commit: Option<bool>,
    pub(super) partitioner: Option<crate::profile::Partitioner>,
    pub(super) compression_type: Option<crate::profile::Compression>,
    pub(super) linger: Option<i64>,
    pub(super) max_body_bytes: Option<i64>,
    pub(super) delivery_timeout: Option<i64>,
    pub(super) error_handling: Option<ErrorHandling>,
    pub(super) message_format: Option<crate::format::MessageFormat>,
    pub(super) message_expression: Option<String>,
    pub(super) topic_expression: Option<String>,
    pub(super) key_expression: Option<String>,
    pub(super) partition_expression: Option<String>,
    pub(super) record_headers_expression: Option<String>,
    pub(super) message_by_lua_functions: Option<Vec<String>>,
}

/// `delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Delivery {
    Memory,
    Acked,
}

/// An entry of `bootstrap_servers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) host: Option<String>,
    pub(super) port: Option<i64>,
}

/// `error_handling`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrorHandling {
    pub(super) return_error_message: Option<bool>,
}

/// Reads the document; the first fault is told with its path.
pub(super) fn parse(json: &[u8]) -> Result<Raw, ConfigError> {
    let mut document = serde_json::Deserializer::from_slice(json);
    let raw = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        // A document that ends too early has no path.
        let path = error.path().to_string().replace('?', ".");
        fault(&path, &error.into_inner().to_string())
    })?;
    document.end().map_err(|error| fault(".", &error.to_string()))?;
    Ok(raw)
}

/// serde lists the known names in its message: the nearest of them is what was meant.
fn fault(path: &str, message: &str) -> ConfigError {
    let message = message.split(" at line ").next().unwrap_or(message);
    let mut names = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return ConfigError { path: path.to_owned(), reason: message.to_owned() };
    }
    let unknown = names.next().unwrap_or_default();
    let nearest = names
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3));
    let reason = match nearest {
        Some((_, known)) => format!("unknown field, did you mean `{known}`?"),
        None => "unknown field".to_owned(),
    };
    let parent = path.strip_suffix(unknown).unwrap_or(path).trim_end_matches('.');
    let path = if parent.is_empty() { unknown.to_owned() } else { format!("{parent}.{unknown}") };
    ConfigError { path, reason }
}
