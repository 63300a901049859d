//! Every property with its default and what is allowed, for a reference that cannot differ from the
//! code.

use super::Config;
use super::names::NAMES;
use super::property::{BOOTSTRAP, PropertyError};

/// A property as a reference shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PropertyDoc {
    /// Kafka's name.
    pub name: &'static str,
    /// What holds without it; `–` where nothing does.
    pub default: &'static str,
    /// What may stand there, in the words of the error that says so.
    pub allowed: String,
}

/// Every property that [`Config::from_properties`] knows, by name.
#[must_use]
pub fn properties() -> Vec<PropertyDoc> {
    let doc = |name: &&'static str| {
        let default = DEFAULTS.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        let refused = Config::from_properties([(BOOTSTRAP, "h:1"), (name, "\0")]);
        let allowed = match refused {
            Err(PropertyError::Invalid { expected, .. }) => expected,
            _ => String::new(),
        };
        PropertyDoc { name, default: default.unwrap_or("–"), allowed }
    };
    NAMES.iter().map(doc).collect()
}

const DEFAULTS: [(&str, &str); 35] = [
    ("acks", "all"),
    ("batch.records", "10000"),
    ("batch.size", "1000000"),
    ("buffer.memory", "67108864"),
    ("client.id", "kafka-upstream"),
    ("compression.gzip.level", "6"),
    ("compression.lz4.level", "9"),
    ("compression.type", "none"),
    ("compression.zstd.level", "3"),
    ("connections.max.idle.ms", "540000"),
    ("delivery.timeout.ms", "120000"),
    ("enable.idempotence", "true"),
    ("enable.ssl.certificate.verification", "true"),
    ("fetch.max.bytes", "16777216"),
    ("fetch.max.wait.ms", "500"),
    ("fetch.min.bytes", "1"),
    ("isolation.level", "read_uncommitted"),
    ("linger.ms", "0"),
    ("max.in.flight.requests.per.connection", "5"),
    ("max.partition.fetch.bytes", "1048576"),
    ("max.request.size", "4194304"),
    ("metadata.max.age.ms", "300000"),
    ("partitioner", "murmur2_random"),
    ("policy.violation.retry", "false"),
    ("reconnect.backoff.max.ms", "1000"),
    ("reconnect.backoff.ms", "50"),
    ("request.timeout.ms", "30000"),
    ("retries", "2147483647"),
    ("retry.backoff.max.ms", "1000"),
    ("retry.backoff.ms", "100"),
    ("sasl.oauthbearer.token.endpoint.tls.verify", "true"),
    ("security.protocol", "PLAINTEXT"),
    ("socket.connection.setup.timeout.ms", "10000"),
    ("ssl.enabled.protocols", "TLSv1.2,TLSv1.3"),
    ("ssl.endpoint.identification.algorithm", "https"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_has_its_real_default_and_says_what_is_allowed() {
        let plain = Config::from_properties([(BOOTSTRAP, "h:1")]).unwrap();
        let all = properties();
        assert_eq!(all.len(), NAMES.len());
        for PropertyDoc { name, default, allowed } in all {
            assert!(!allowed.is_empty(), "{name}");
            if default == "–" {
                continue;
            }
            let with = Config::from_properties([(BOOTSTRAP, "h:1"), (name, default)]);
            if !name.starts_with("sasl.") {
                assert_eq!(with.as_ref(), Ok(&plain), "{name}");
            }
        }
    }
}
