//! Kafka's property names become checked settings.

mod cluster;
mod compression;
mod consumer;
mod group;
mod jaas;
mod names;
mod producer;
mod property;
pub(crate) mod reference;
mod sasl;
mod tls;

use std::time::Duration;

pub use cluster::ClusterConfig;
pub use consumer::{ConsumerConfig, IsolationLevel};
pub use group::{Assignor, GroupConfig, GroupProtocol};
pub use producer::{Acks, Partitioner, ProducerConfig};
pub use property::PropertyError;
pub use sasl::SaslLogin;

use names::NAMES;
use property::{Property, nearest};
use sasl::SaslProperties;
use tls::TlsProperties;

/// Checked settings of a client, of the producer that it makes unless told otherwise, and of consumers.
/// Equal settings compare equal: callers share a client by [`Config::cluster`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// Which cluster, and how to connect to it.
    pub cluster: ClusterConfig,
    /// How records are produced.
    pub producer: ProducerConfig,
    /// How partitions are read.
    pub consumer: ConsumerConfig,
}

impl Config {
    /// Reads properties by their Kafka names; of a repeated one the last counts.
    ///
    /// Beyond Kafka's: `partitioner` is `murmur2_random` (default; Java's) or `consistent_random`
    /// (librdkafka's), `batch.records` bounds the records of a batch (1–1,000,000, default 10,000).
    /// `enable.idempotence` is true with `acks=all` unless set to false, and refused with other
    /// acks. `max.in.flight.requests.per.connection` (1–5, default 5) bounds requests per broker,
    /// and with idempotence batches per partition; without it a partition has one in flight, so
    /// that a retry reorders nothing. A broker that restarts forgets producers whose records are
    /// older than its `producer.id.expiration.ms` (a day) by their own timestamps: retries of such
    /// records across a restart may duplicate, as with every Kafka client.
    /// Defaults that differ from Java's: `linger.ms` 0 (batches form while one is in flight),
    /// `batch.size` 1,000,000, `max.request.size` 4 MiB, `buffer.memory` 64 MiB, `fetch.max.bytes`
    /// 16 MiB.
    ///
    /// With `cluster.id.pin` brokers of any other cluster are refused; without it, another cluster
    /// behind the same addresses takes the place of the former one.
    ///
    /// A password, key or certificate that is written as `NAME.file` is read from that file, and
    /// read again when the file changes. `ssl.*` counts only with `security.protocol` `SSL` or
    /// `SASL_SSL`; without a truststore the system's roots are trusted. Librdkafka's
    /// `enable.ssl.certificate.verification=false` turns off every check of a broker's certificate.
    /// `https.ca.location` (librdkafka's too), a PEM file, or `https.ca.pem` says whose certificates
    /// token endpoints and AWS's services may have, instead of the system's roots.
    ///
    /// # Errors
    /// [`PropertyError`] names the property and what is allowed.
    pub fn from_properties<'a>(
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Config, PropertyError> {
        let (read, faults) = Properties::all(properties);
        faults.into_iter().next().map_or_else(|| read.check(), Err)
    }

    /// How long a record may take from `send` to its outcome unless the caller says otherwise
    /// (`delivery.timeout.ms`).
    pub fn delivery_timeout(&self) -> Duration {
        self.producer.delivery_timeout
    }

    /// Every fault of these properties: each that is wrong by itself, else the first contradiction.
    pub fn faults<'a>(
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<PropertyError> {
        let (read, faults) = Properties::all(properties);
        if faults.is_empty() { read.check().err().into_iter().collect() } else { faults }
    }
}

impl From<ClusterConfig> for Config {
    /// With a producer and consumers of default settings.
    fn from(cluster: ClusterConfig) -> Self {
        let (producer, consumer) = (ProducerConfig::default(), ConsumerConfig::default());
        Self { cluster, producer, consumer }
    }
}

/// Properties that are read one by one, before it is known whether they make sense together.
struct Properties {
    cluster: ClusterConfig,
    producer: ProducerConfig,
    consumer: ConsumerConfig,
    sasl: SaslProperties,
    tls: TlsProperties,
}

impl Properties {
    fn all<'a>(
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Vec<PropertyError>) {
        let mut read = Self {
            cluster: ClusterConfig::unnamed(),
            producer: ProducerConfig::default(),
            consumer: ConsumerConfig::default(),
            sasl: SaslProperties::default(),
            tls: TlsProperties::default(),
        };
        let mut faults = Vec::new();
        for (name, value) in properties {
            faults.extend(read.set(name, value).err());
        }
        (read, faults)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), PropertyError> {
        let Some(name) = NAMES.iter().copied().find(|known| *known == name) else {
            let nearest = nearest(name, NAMES);
            return Err(PropertyError::Unknown { name: name.to_owned(), nearest });
        };
        // Spaces may be part of a password.
        let value = if name.ends_with("password") { value } else { value.trim() };
        let property = Property { name, value };
        if name.starts_with("sasl.") {
            self.sasl.set(property)
        } else if self.producer.set(property)?
            || self.consumer.set(property)?
            || self.cluster.set(property)?
        {
            Ok(())
        } else {
            self.tls.set(property)
        }
    }

    fn check(self) -> Result<Config, PropertyError> {
        let Self { mut cluster, producer, consumer, sasl, tls } = self;
        cluster.sasl = sasl.check(cluster.security.has_sasl(), cluster.https.clone())?;
        cluster.tls = tls.check()?;
        cluster.check()?;
        Ok(Config { cluster, producer: producer.check()?, consumer })
    }
}

#[cfg(test)]
mod tests {
    use super::cluster::SECURITY_PROTOCOL;
    use super::compression::LZ4_LEVEL;
    use super::property::BOOTSTRAP;
    use super::*;

    fn with(name: &str, value: &str) -> Result<Config, PropertyError> {
        Config::from_properties([(BOOTSTRAP, "a:1"), (name, value)])
    }

    #[test]
    fn equal_settings_compare_equal_whatever_their_order() {
        let one = [(BOOTSTRAP, "a:1, b:2"), ("acks", "all")];
        let two = [("acks", "-1"), (BOOTSTRAP, "a:1,b:2,")];
        assert_eq!(Config::from_properties(one), Config::from_properties(two));
        assert_ne!(with("acks", "1"), with("acks", "0"));
    }

    #[test]
    fn every_known_name_is_set_somewhere() {
        for name in NAMES {
            let error = with(name, "\0").unwrap_err();
            assert!(matches!(error, PropertyError::Invalid { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn an_unknown_property_names_the_nearest_known_one() {
        let error = with("linger.millis", "5").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown property `linger.millis`, did you mean `linger.ms`?"
        );
        assert_eq!(with("zzz", "5").unwrap_err().to_string(), "unknown property `zzz`");
    }

    #[test]
    fn a_bound_names_the_property_and_what_is_allowed() {
        let error = with("batch.records", "0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`batch.records` must be a whole number in 1..=1000000, not `0`"
        );
        assert!(with("acks", "2").unwrap_err().to_string().contains("one of 0, 1, -1, all"));
        assert!(with("retries", "-1").is_err());
    }

    #[test]
    fn idempotence_follows_from_acks_unless_it_is_set() {
        assert!(with("acks", "all").unwrap().producer.is_idempotent());
        assert!(!with("acks", "1").unwrap().producer.is_idempotent());
        assert!(!with("enable.idempotence", "false").unwrap().producer.is_idempotent());
        assert_eq!(with("enable.idempotence", "true"), with("acks", "all"));
        for acks in ["0", "1"] {
            let both = [(BOOTSTRAP, "a:1"), ("enable.idempotence", "true"), ("acks", acks)];
            let error = Config::from_properties(both).unwrap_err().to_string();
            assert_eq!(error, "`enable.idempotence=true` is not supported: it needs acks=all");
        }
        assert!(with("max.in.flight.requests.per.connection", "6").is_err());
    }

    #[test]
    fn the_cluster_must_be_named() {
        assert_eq!(Config::from_properties([]), Err(PropertyError::Missing(BOOTSTRAP)));
        assert!(Config::from_properties([(BOOTSTRAP, " , ")]).is_err());
        assert!(Config::from_properties([(BOOTSTRAP, "nohost")]).is_err());
    }

    #[test]
    fn what_kafka_knows_and_we_do_not_says_so() {
        let error = with(LZ4_LEVEL, "12").unwrap_err();
        assert!(matches!(error, PropertyError::Unsupported { .. }), "{error}");
        assert_eq!(with(SECURITY_PROTOCOL, "PLAINTEXT"), with("acks", "all"));
        assert_ne!(with(SECURITY_PROTOCOL, "SSL"), with("acks", "all"));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(matches!(with("batch.size", "5000000"), Err(PropertyError::Conflict { .. })));
        assert!(matches!(with("buffer.memory", "65536"), Err(PropertyError::Conflict { .. })));
    }
}
