//! What a fetch gives of each partition: records and where to go on, or what is in the way.

use crate::error::Reason;
use crate::record_batch::{BatchError, StoredRecord};

/// What was read from one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// Records at or after the offset that was asked for, in order. Their parts are slices: each keeps
    /// its whole batch in memory, and without compression the whole answer that the batch was in.
    pub records: Vec<StoredRecord>,
    /// Where to go on: behind the records, and behind what is not for readers (control batches,
    /// records of aborted transactions, offsets that compaction has emptied).
    pub next_offset: i64,
    /// The leader epoch of what is before `next_offset`, for [`Position::epoch`](crate::Position::epoch);
    /// `None` if it is not known.
    pub epoch: Option<i32>,
    /// The first offset that is still there; `None` if the broker does not say so (before Fetch 5).
    pub log_start: Option<i64>,
    /// The log end, as by [`At::Latest`](crate::At::Latest).
    pub log_end: i64,
    /// The id of the topic that this was read from. Offsets mean nothing in a topic of another id.
    pub topic_id: Option<u128>,
}

/// Why nothing was read from a partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The offset is not in the log: its records have expired, or it was never reached. A policy must
    /// decide where to go on.
    #[error("the offset is out of range: the log has {log_start} to {log_end}")]
    OutOfRange {
        /// The first offset that is still there.
        log_start: i64,
        /// The log end, as by [`At::Latest`](crate::At::Latest).
        log_end: i64,
    },
    /// The log has lost records that were before the offset, and may have got others in their place:
    /// an out-of-sync replica has become leader (an unclean election).
    #[error("the log was truncated to offset {to}")]
    Truncated {
        /// Where reading can go on: up to here nothing is known to be lost. It is not behind the offset.
        to: i64,
        /// The leader epoch of what is before `to`, for [`Position::epoch`](crate::Position::epoch).
        epoch: Option<i32>,
    },
    /// The topic was deleted and created again: offsets of the former mean nothing.
    #[error("the topic was deleted and created again")]
    Recreated,
    /// The records of a batch are more than 64 MiB once they are decompressed. They can be stepped
    /// over.
    #[error("the batch at offset {offset} is more than {limit} bytes when it is decompressed")]
    TooLarge {
        /// The first offset that was not read.
        offset: i64,
        /// The first offset behind the batch.
        next_offset: i64,
        /// Bytes allowed.
        limit: usize,
    },
    /// A batch is damaged, or of a format that is not read (before Kafka 0.11).
    #[error("the batch at offset {offset} cannot be read")]
    Unreadable {
        /// The first offset that was not read.
        offset: i64,
        /// The first offset behind the batch; `None` if it is too damaged to tell.
        next_offset: Option<i64>,
        /// What is wrong with it.
        #[source]
        error: BatchError,
    },
    /// The brokers refuse: the topic or partition does not exist, or we may not read it.
    #[error("the partition cannot be read")]
    Refused(#[source] Reason),
    /// No broker could give records in time. Ask again from the same offset.
    #[error("the partition cannot be read now")]
    Unavailable(#[source] Reason),
}
