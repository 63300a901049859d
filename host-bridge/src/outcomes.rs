//! What the Kafka client says of a record, in the words of filter and client.

use kafka_client::Reason as Cause;
use kafka_upstream_core::outcome::{Code, Outcome, Reason};

/// Translates an outcome.
pub(crate) fn translate(outcome: kafka_client::Outcome) -> Outcome {
    match outcome {
        kafka_client::Outcome::Written { partition, offset, .. } => {
            Outcome::Written { partition, offset }
        }
        kafka_client::Outcome::NotWritten(cause) => Outcome::NotWritten(reason(&cause)),
        kafka_client::Outcome::Unknown(cause) => Outcome::Unknown(reason(&cause)),
    }
}

/// Translates a reason.
pub(crate) fn reason(cause: &Cause) -> Reason {
    let code = match cause {
        Cause::BufferFull | Cause::TooManyTopics => Code::QueueFull,
        Cause::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        Cause::Unreachable(_) | Cause::NoAnswer(_) | Cause::Closed => Code::KafkaUnreachable,
        Cause::UnknownTopic => Code::UnknownTopic,
        Cause::TooLarge => Code::RecordTooLarge,
        Cause::Unauthorized { .. } => Code::Unauthorized,
        _ if cause.is_permanent() => Code::Rejected,
        _ => Code::KafkaRefused,
    };
    Reason::new(code, cause.to_string())
}
