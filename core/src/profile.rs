//! The producer profile: what the bridge needs to make the producer that a filter asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::access::{Authentication, Security};
use crate::registry::SchemaRegistry;

/// Settings of a producer. Filters with equal profiles share one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// A cluster of the bridge's configuration; none means inline servers, or `default`.
    pub cluster: Option<String>,
    /// Filters share a producer when this name is equal too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Inline `host:port` addresses, which the bridge's policy must allow.
    pub bootstrap_servers: Vec<String>,
    /// What the plugin's configuration says of the producer, by Kafka's property names, each one
    /// of [`PROPERTIES`]. What it does not say is the cluster's, else [`DEFAULTS`].
    pub properties: BTreeMap<String, String>,
    /// SASL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Where schemas are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry: Option<SchemaRegistry>,
}

/// Every property that a profile may set.
pub const PROPERTIES: [&str; 11] = [
    "acks",
    "batch.records",
    "batch.size",
    "compression.type",
    "connections.max.idle.ms",
    "linger.ms",
    "partitioner",
    "request.timeout.ms",
    "retries",
    "retry.backoff.ms",
    "socket.connection.setup.timeout.ms",
];

/// Kong's defaults where they differ from Kafka's: they hold where neither the plugin's
/// configuration nor the cluster's says otherwise.
pub const DEFAULTS: [(&str, &str); 3] =
    [("acks", "1"), ("request.timeout.ms", "2000"), ("retries", "10")];

/// How a key becomes a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Partitioner {
    /// As Java's: murmur2 of the key.
    #[default]
    Murmur2Random,
    /// As librdkafka's and Kong's: CRC-32 of the key.
    ConsistentRandom,
}

impl Partitioner {
    /// The name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Murmur2Random => "murmur2_random",
            Self::ConsistentRandom => "consistent_random",
        }
    }
}

/// How batches are compressed on their way to Kafka.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// zstd, which Kong's plugin does not have.
    Zstd,
}

impl Compression {
    /// The name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl Profile {
    /// Whether keys or values must fit a schema.
    #[must_use]
    pub fn has_schemas(&self) -> bool {
        let confluent = self.schema_registry.as_ref().and_then(|it| it.confluent.as_ref());
        confluent.is_some_and(|it| it.key_subject().or(it.value_subject()).is_some())
    }

    /// The document that is registered: JSON with its fields in this type's order.
    ///
    /// # Errors
    /// None that a profile can cause; the encoder's error is passed on rather than hidden.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// The id of a profile: SHA-256 of its document.
#[must_use]
pub fn id(document: &[u8]) -> [u8; 32] {
    Sha256::digest(document).into()
}

/// An id in lower-case hexadecimal, as it stands in the path of `PUT /v1/profiles/{sha256}`.
#[must_use]
pub fn hex(id: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    id.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_sha_256_of_the_document() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&id(b"")), empty);
    }
}
