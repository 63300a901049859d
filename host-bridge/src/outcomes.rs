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
        Cause::Unsupported(_) => Code::Unsupported,
        Cause::InvalidTopic | Cause::NoSuchPartition { .. } | Cause::InvalidRecord(_) => {
            Code::Rejected
        }
        Cause::Refused { .. } if cause.is_permanent() => Code::Rejected,
        Cause::Refused { .. } => Code::KafkaRefused,
    };
    Reason::new(code, cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_and_filter_agree_on_what_is_refused_for_good() {
        let why = || "why".into();
        let refused = |code| Cause::Refused { code, name: "A_NAME" };
        let unauthorized = Cause::Unauthorized { code: 29, name: "TOPIC_AUTHORIZATION_FAILED" };
        let fixed = [
            Cause::BufferFull,
            Cause::DeadlineExceeded { last: None },
            Cause::Unreachable(why()),
            Cause::NoAnswer(why()),
            Cause::UnknownTopic,
            Cause::InvalidTopic,
            Cause::TooManyTopics,
            Cause::NoSuchPartition { partition: 3, count: 2 },
            Cause::TooLarge,
            Cause::InvalidRecord(why()),
            Cause::Unsupported(why()),
            unauthorized,
            Cause::Closed,
        ];
        for cause in fixed.into_iter().chain((-1..=133).map(refused)) {
            let code = reason(&cause).code;
            assert_eq!(code.is_permanent(), cause.is_permanent(), "{cause:?} is {code:?}");
        }
    }
}
