//! Where a reader goes on whose position cannot be read.

use kafka_client::ReadError;

use super::feeds::Reset;
use super::reader::refused;
use super::refusal::{Code, Refusal};
use super::start::GapReason;

/// The next offset, the leader epoch before it if it is known, and what is reported to the reader.
pub(crate) type Onward = (i64, Option<i32>, GapReason);

/// Where to go on in this partition, from an offset that cannot be read.
///
/// # Errors
/// The reader ends.
pub(crate) fn onward(
    (topic, partition, from): (&str, i32, i64),
    error: &ReadError,
    reset: Reset,
) -> Result<Onward, Refusal> {
    match (error, reset) {
        (ReadError::OutOfRange { .. } | ReadError::Truncated { .. }, Reset::None) => {
            let message = format!("{topic}-{partition}: {error}");
            Err(Code::OffsetOutOfRange.because(message))
        }
        (ReadError::OutOfRange { log_start, log_end }, reset) => {
            let reason = if from < *log_start { GapReason::Expired } else { GapReason::BeyondEnd };
            let to = if reset == Reset::Earliest { *log_start } else { *log_end };
            Ok((to, None, reason))
        }
        (ReadError::Truncated { to, epoch }, _) => Ok((*to, *epoch, GapReason::Truncated)),
        (ReadError::TooLarge { next_offset, .. }, _) => {
            Ok((*next_offset, None, GapReason::TooLarge))
        }
        (ReadError::Unreadable { next_offset: Some(next), .. }, _) => {
            Ok((*next, None, GapReason::Unreadable))
        }
        (ReadError::Refused(reason), _) => Err(refused(topic, reason)),
        _ => Err(Code::Internal.because(format!("{topic}-{partition}: {error}"))),
    }
}
