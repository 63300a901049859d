//! A batch on its way: open, queued, or being sent.

use std::sync::Arc;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::regroup::Regrouped;
use super::sequence::Trouble;
use super::settle::Claim;
use super::verdict::Attempts;
use crate::error::Reason;
use crate::record_batch::{BatchBuilder, Stamp};

/// Bounds of the batches of every partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) request_bytes: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) linger: Duration,
    /// Batches of one partition in flight, with idempotence.
    pub(crate) idempotent_in_flight: Option<usize>,
}

/// Records that are sent and settled together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) content: Content,
    pub(crate) attempts: Attempts,
    /// Gone when its deadline passed while it was in flight: then only its place is taken.
    pub(crate) claim: Option<Claim>,
    /// The earliest deadline of its records: a batch is settled as a whole.
    pub(crate) deadline: Instant,
    /// When it was opened, or the end of the pause that its last failure demands.
    pub(crate) not_before: Instant,
}

/// The records of a batch.
#[derive(Debug)]
pub(crate) enum Content {
    Growing(BatchBuilder),
    /// Sent before: under the same stamp not a byte changes any more.
    Sealed(Bytes),
    /// In flight.
    Away,
}

impl Content {
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        match self {
            Self::Growing(builder) => builder.capacity(),
            Self::Sealed(_) | Self::Away => self.len(),
        }
    }

    /// Bytes of the batch, a growing one's as if it were not compressed.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Growing(builder) => builder.len(),
            Self::Sealed(bytes) => bytes.len(),
            Self::Away => 0,
        }
    }
}

/// The part of a batch that travels, while its claim stays with the partition.
#[derive(Debug)]
pub(crate) struct Shipment {
    pub(crate) id: u64,
    pub(crate) bytes: Bytes,
    pub(crate) records: usize,
    pub(crate) attempts: Attempts,
}

/// What a sender gets from a partition.
#[derive(Debug)]
pub(crate) enum NextBatch {
    /// To be sealed outside of the lock.
    Batch {
        id: u64,
        content: Content,
        records: usize,
        attempts: Attempts,
        stamp: Stamp,
    },
    /// Not into this request; the partition stays scheduled.
    NoRoom,
    Nothing,
}

/// How a shipment ended, for its partition.
#[derive(Debug)]
pub(crate) enum Ending {
    Written { base_offset: Option<i64>, log_append_ms: Option<i64> },
    GaveUp(Reason),
    Resend { at: Instant, cause: Arc<Reason>, why: Again },
    Regroup(Regrouped),
}

/// Why a shipment is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// An answer says so.
    Refused,
    /// There will be no answer; the connection was closed then.
    CutOff(Instant),
    /// An answer that means what the partition's state makes of it.
    Trouble(Trouble),
}
