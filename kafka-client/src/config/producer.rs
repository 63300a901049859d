//! How a producer batches, and what it promises of its records.

use std::time::Duration;

use super::compression::{
    CODECS, COMPRESSION_TYPE, Codec, GZIP_LEVEL, LZ4_LEVEL, Levels, ZSTD_LEVEL,
};
use super::property::{BOOLEANS, DAY_MS, INT_MAX, MIB, Property, PropertyError};
use crate::limits::PRODUCE_IN_FLIGHT;
use crate::record_batch::Compression;

/// Checked settings of a producer. Equal ones share a producer of their [`crate::Client`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProducerConfig {
    pub(crate) acks: Acks,
    /// As given; otherwise it follows from `acks`.
    idempotence: Option<bool>,
    pub(crate) in_flight: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) request_bytes: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) retries: u32,
    pub(crate) partitioner: Partitioner,
    /// POLICY_VIOLATION means "not now", as at Azure Event Hubs (`policy.violation.retry`, ours).
    pub(crate) policy_throttles: bool,
    codec: Codec,
    levels: Levels,
}

/// How many replicas must have a batch before the broker answers (`acks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Acks {
    /// The broker does not answer, and no outcome has an offset.
    None,
    /// The leader alone.
    Leader,
    /// All that are in sync, of which the topic's `min.insync.replicas` must be there.
    All,
}

/// How keys become partitions (`partitioner`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Partitioner {
    /// By Murmur2, as Java does.
    Murmur2Random,
    /// By CRC-32, as librdkafka does by default.
    ConsistentRandom,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: None,
            in_flight: PRODUCE_IN_FLIGHT,
            delivery_timeout: Duration::from_secs(120),
            linger: Duration::ZERO,
            batch_bytes: 1_000_000,
            batch_records: 10_000,
            request_bytes: 4 * 1024 * 1024,
            buffer_bytes: 64 * 1024 * 1024,
            retries: i32::MAX.cast_unsigned(),
            partitioner: Partitioner::Murmur2Random,
            policy_throttles: false,
            codec: Codec::None,
            levels: Levels::default(),
        }
    }
}

impl ProducerConfig {
    /// `acks`; [`Acks::All`] unless set. Anything less is without idempotence.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        (self.acks, self.idempotence) = (acks, None);
        self
    }

    /// `linger.ms`: how long a batch waits for more records; 0 unless set, so that batches form while
    /// one is in flight.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// `delivery.timeout.ms`; 2 minutes unless set.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// `partitioner`; [`Partitioner::Murmur2Random`] unless set.
    #[must_use]
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.partitioner = partitioner;
        self
    }

    /// Whether batches carry an identity by which brokers recognise duplicates.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotence.unwrap_or(self.acks == Acks::All)
    }

    /// How batches are compressed.
    pub(crate) fn compression(&self) -> Compression {
        self.levels.of(self.codec)
    }

    /// Whether it is a producer's property, and set.
    pub(super) fn set(&mut self, property: Property<'_>) -> Result<bool, PropertyError> {
        match property.name {
            "acks" => self.acks = property.choice(ACKS)?,
            "enable.idempotence" => self.idempotence = Some(property.choice(BOOLEANS)?),
            "max.in.flight.requests.per.connection" => {
                self.in_flight = property.size(1, PRODUCE_IN_FLIGHT as u64)?;
            }
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
            "partitioner" => self.partitioner = property.choice(PARTITIONERS)?,
            "policy.violation.retry" => self.policy_throttles = property.choice(BOOLEANS)?,
            COMPRESSION_TYPE => self.codec = property.choice(CODECS)?,
            GZIP_LEVEL | LZ4_LEVEL | ZSTD_LEVEL => self.levels.set(property)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn check(self) -> Result<Self, PropertyError> {
        let conflict = |name, other| Err(PropertyError::Conflict { name, other });
        if self.batch_bytes > self.request_bytes {
            conflict("batch.size", "max.request.size")
        } else if self.request_bytes > self.buffer_bytes {
            conflict("max.request.size", "buffer.memory")
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

const ACKS: &[(&str, Acks)] =
    &[("0", Acks::None), ("1", Acks::Leader), ("-1", Acks::All), ("all", Acks::All)];

const PARTITIONERS: &[(&str, Partitioner)] = &[
    ("murmur2_random", Partitioner::Murmur2Random),
    ("consistent_random", Partitioner::ConsistentRandom),
];
