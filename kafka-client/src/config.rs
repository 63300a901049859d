//! Kafka's property names become checked settings.

mod compression;
mod jaas;
mod names;
mod property;
mod reference;
mod sasl;
mod security;
mod tls;

use std::time::Duration;

pub use property::PropertyError;
pub use reference::{PropertyDoc, properties};

use crate::backoff::Backoff;
use crate::limits::PRODUCE_IN_FLIGHT;
use crate::record_batch::Compression;
use crate::resolve::Endpoint;
use crate::sasl::{Identity, Sasl, Source};
use crate::tls::{HttpsTrust, TlsFileError};
use compression::{CODECS, COMPRESSION_TYPE, Codec, GZIP_LEVEL, LZ4_LEVEL, Levels, ZSTD_LEVEL};
use names::NAMES;
use property::{Property, nearest};
use sasl::SaslProperties;
use security::SECURITY_PROTOCOL;
pub(crate) use security::SecurityProtocol;
pub(crate) use tls::{
    CHAIN, Checks, HTTPS_CA, HTTPS_CA_PEM, KEY, KEY_PASSWORD, KEYSTORE, KEYSTORE_PASSWORD, TRUSTED,
    TRUSTSTORE, TRUSTSTORE_PASSWORD, TlsSettings, TlsVersions,
};

/// Checked settings of one client. Equal settings compare equal, so that callers can share a
/// client between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    pub(crate) bootstrap: Vec<Endpoint>,
    pub(crate) client_id: String,
    /// The only cluster id that is taken, if one is pinned.
    pub(crate) cluster_id: Option<String>,
    pub(crate) acks: Acks,
    /// As given; without a word it follows from `acks`.
    idempotence: Option<bool>,
    pub(crate) in_flight: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) request_bytes: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) retries: u32,
    pub(crate) retry: Backoff,
    pub(crate) idle: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) reconnect: Backoff,
    pub(crate) metadata_age: Duration,
    pub(crate) partitioner: Partitioner,
    /// POLICY_VIOLATION means "not now", as at Azure Event Hubs (`policy.violation.retry`, ours).
    pub(crate) policy_throttles: bool,
    pub(crate) sasl: Option<Sasl>,
    codec: Codec,
    levels: Levels,
    pub(crate) security: SecurityProtocol,
    pub(crate) tls: TlsSettings,
    /// What `https.ca.*` says.
    https: HttpsTrust,
}

/// How many replicas must have a batch before the broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Acks {
    None,
    Leader,
    All,
}

/// How keys become partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Partitioner {
    Murmur2Random,
    ConsistentRandom,
}

const BOOTSTRAP: &str = "bootstrap.servers";
const CLUSTER_ID: &str = "cluster.id.pin";
/// Kafka's durations are Java ints.
const INT_MAX: u64 = 2_147_483_647;
const DAY_MS: u64 = 86_400_000;
const MIB: u64 = 1024 * 1024;

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
    /// `batch.size` 1,000,000, `max.request.size` 4 MiB, `buffer.memory` 64 MiB.
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
        let (read, faults) = Read::all(properties);
        faults.into_iter().next().map_or_else(|| read.check(), Err)
    }

    /// Every fault of these properties: each that is wrong by itself, else the first contradiction.
    pub fn faults<'a>(
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<PropertyError> {
        let (read, faults) = Read::all(properties);
        if faults.is_empty() { read.check().err().into_iter().collect() } else { faults }
    }

    /// Reads the files that `ssl.*` names, if TLS is on, and the one of `https.ca.location`; a client
    /// reads them when it first needs them. Blocks.
    ///
    /// # Errors
    /// [`TlsFileError`] names the property, the file and what is wrong.
    pub fn check_files(&self) -> Result<(), TlsFileError> {
        self.https.check()?;
        if self.security.has_tls() { crate::tls::check(&self.tls) } else { Ok(()) }
    }

    /// How long a record may take from `send` to its outcome unless the caller says otherwise
    /// (`delivery.timeout.ms`).
    pub fn delivery_timeout(&self) -> Duration {
        self.delivery_timeout
    }

    /// Where the credential comes from, if it is not in the properties: whoever makes a client must
    /// give it something that asks there.
    pub fn credential_source(&self) -> Option<Source> {
        match &self.sasl.as_ref()?.identity {
            Identity::Password { .. } | Identity::Kerberos(_) => None,
            Identity::OAuth(client) => Some(Source::OAuth(client.clone())),
            Identity::Aws(client) => Some(Source::Aws(client.clone())),
        }
    }

    /// How batches are compressed.
    pub(crate) fn compression(&self) -> Compression {
        self.levels.of(self.codec)
    }

    /// Whether batches carry an identity by which brokers recognise duplicates.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotence.unwrap_or(self.acks == Acks::All)
    }

    fn defaults() -> Self {
        Self {
            bootstrap: Vec::new(),
            client_id: "kafka-upstream".to_owned(),
            cluster_id: None,
            acks: Acks::All,
            idempotence: None,
            in_flight: PRODUCE_IN_FLIGHT,
            request_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
            linger: Duration::ZERO,
            batch_bytes: 1_000_000,
            batch_records: 10_000,
            request_bytes: 4 * 1024 * 1024,
            buffer_bytes: 64 * 1024 * 1024,
            retries: i32::MAX.cast_unsigned(),
            retry: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) },
            idle: Duration::from_secs(540),
            connect_timeout: Duration::from_secs(10),
            reconnect: Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) },
            metadata_age: Duration::from_secs(300),
            partitioner: Partitioner::Murmur2Random,
            policy_throttles: false,
            sasl: None,
            codec: Codec::None,
            levels: Levels::default(),
            security: SecurityProtocol::default(),
            tls: TlsSettings::default(),
            https: HttpsTrust::default(),
        }
    }

    fn set(&mut self, property: Property<'_>) -> Result<(), PropertyError> {
        match property.name {
            BOOTSTRAP => self.bootstrap = endpoints(property)?,
            "client.id" => self.client_id = client_id(property)?,
            CLUSTER_ID => self.cluster_id = Some(cluster_id(property)?),
            "acks" => self.acks = property.choice(ACKS)?,
            "enable.idempotence" => self.idempotence = Some(property.choice(BOOLEANS)?),
            "max.in.flight.requests.per.connection" => {
                self.in_flight = property.size(1, PRODUCE_IN_FLIGHT as u64)?;
            }
            "request.timeout.ms" => self.request_timeout = property.millis(1, INT_MAX)?,
            "delivery.timeout.ms" => self.delivery_timeout = property.millis(1, INT_MAX)?,
            "linger.ms" => self.linger = property.millis(0, DAY_MS)?,
            "batch.size" => self.batch_bytes = property.size(0, 64 * MIB)?,
            "batch.records" => self.batch_records = property.size(1, 1_000_000)?,
            "max.request.size" => self.request_bytes = property.size(1024, 64 * MIB)?,
            // Permits are counted in 32 bits.
            "buffer.memory" => self.buffer_bytes = property.size(64 * 1024, 4096 * MIB - 1)?,
            "retries" => {
                self.retries = u32::try_from(property.number(0, INT_MAX)?).unwrap_or(u32::MAX);
            }
            "retry.backoff.ms" => self.retry.base = property.millis(0, DAY_MS)?,
            "retry.backoff.max.ms" => self.retry.max = property.millis(0, DAY_MS)?,
            "connections.max.idle.ms" => self.idle = property.millis(1000, DAY_MS)?,
            "socket.connection.setup.timeout.ms" => {
                self.connect_timeout = property.millis(1, DAY_MS)?;
            }
            "reconnect.backoff.ms" => self.reconnect.base = property.millis(0, DAY_MS)?,
            "reconnect.backoff.max.ms" => self.reconnect.max = property.millis(0, DAY_MS)?,
            "metadata.max.age.ms" => self.metadata_age = property.millis(1000, DAY_MS)?,
            "partitioner" => self.partitioner = property.choice(PARTITIONERS)?,
            "policy.violation.retry" => self.policy_throttles = property.choice(BOOLEANS)?,
            COMPRESSION_TYPE => self.codec = property.choice(CODECS)?,
            GZIP_LEVEL | LZ4_LEVEL | ZSTD_LEVEL => self.levels.set(property)?,
            SECURITY_PROTOCOL => self.security = SecurityProtocol::parse(property)?,
            HTTPS_CA => self.https = HttpsTrust::Authorities(tls::file(property)?),
            HTTPS_CA_PEM => self.https = HttpsTrust::Authorities(tls::pem(property)?),
            _ => self.tls.set(property)?,
        }
        Ok(())
    }

    fn check(self) -> Result<Self, PropertyError> {
        self.tls.check()?;
        let conflict = |name, other| Err(PropertyError::Conflict { name, other });
        if self.bootstrap.is_empty() {
            Err(PropertyError::Missing(BOOTSTRAP))
        } else if self.batch_bytes > self.request_bytes {
            conflict("batch.size", "max.request.size")
        } else if self.request_bytes > self.buffer_bytes {
            conflict("max.request.size", "buffer.memory")
        } else if self.retry.base > self.retry.max {
            conflict("retry.backoff.ms", "retry.backoff.max.ms")
        } else if self.reconnect.base > self.reconnect.max {
            conflict("reconnect.backoff.ms", "reconnect.backoff.max.ms")
        } else if self.idempotence == Some(true) && self.acks != Acks::All {
            Err(PropertyError::Unsupported {
                name: "enable.idempotence",
                value: "true".to_owned(),
                why: "it needs acks=all",
            })
        } else {
            Ok(Self { idempotence: Some(self.is_idempotent()), ..self })
        }
    }
}

/// Properties that are read one by one, before it is known whether they make sense together.
struct Read {
    config: Config,
    sasl: SaslProperties,
}

impl Read {
    fn all<'a>(
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Vec<PropertyError>) {
        let mut read = Self { config: Config::defaults(), sasl: SaslProperties::default() };
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
        if name.starts_with("sasl.") { self.sasl.set(property) } else { self.config.set(property) }
    }

    fn check(mut self) -> Result<Config, PropertyError> {
        let trust = self.config.https.clone();
        self.config.sasl = self.sasl.check(self.config.security.has_sasl(), trust)?;
        self.config.check()
    }
}

impl Acks {
    /// As in a Produce request.
    pub(crate) fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

const BOOLEANS: &[(&str, bool)] = &[("true", true), ("false", false)];

const ACKS: &[(&str, Acks)] =
    &[("0", Acks::None), ("1", Acks::Leader), ("-1", Acks::All), ("all", Acks::All)];

const PARTITIONERS: &[(&str, Partitioner)] = &[
    ("murmur2_random", Partitioner::Murmur2Random),
    ("consistent_random", Partitioner::ConsistentRandom),
];

fn endpoints(property: Property<'_>) -> Result<Vec<Endpoint>, PropertyError> {
    let parsed: Option<Vec<_>> = property
        .value
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(Endpoint::parse)
        .collect();
    parsed
        .filter(|list| (1..=256).contains(&list.len()))
        .ok_or_else(|| property.invalid("1 to 256 times `host:port`, with commas between".into()))
}

fn client_id(property: Property<'_>) -> Result<String, PropertyError> {
    let len = property.value.len();
    let printable = property.value.chars().all(|c| !c.is_control());
    if printable && len <= 249 {
        Ok(property.value.to_owned())
    } else {
        Err(property.invalid("at most 249 bytes without control characters".into()))
    }
}

fn cluster_id(property: Property<'_>) -> Result<String, PropertyError> {
    let id = property.value;
    if (1..=249).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic()) {
        Ok(id.to_owned())
    } else {
        Err(property.invalid("the id of a Kafka cluster, 1 to 249 visible characters".into()))
    }
}

#[cfg(test)]
mod tests {
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
        assert!(with("acks", "all").unwrap().is_idempotent());
        assert!(!with("acks", "1").unwrap().is_idempotent());
        assert!(!with("enable.idempotence", "false").unwrap().is_idempotent());
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
