//! What became of a record.

use crate::Reason;

/// Each record ends as exactly one of these, no later than its deadline plus 100 ms.
///
/// `NotWritten` is a promise: every attempt was provably refused or never left this process.
/// Whatever cannot be proven is `Unknown`, and resending such a record may duplicate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it, as far as `acks` goes. With `acks=0` nobody answers: it means that the
    /// operating system took the bytes.
    Written {
        /// The partition it is in.
        partition: i32,
        /// Its offset; `None` with `acks=0`, and for a duplicate whose offset the broker forgot.
        offset: Option<i64>,
        /// Its time, ms since the Unix epoch: the broker's if the topic uses `LogAppendTime`.
        timestamp_ms: i64,
    },
    /// It is not in the log and will not be.
    NotWritten(Reason),
    /// It may be in the log, once or (without idempotence) more often, or not at all.
    Unknown(Reason),
}
