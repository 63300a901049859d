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
    match (code(cause), cause) {
        (Code::DeadlineExceeded, _) => Reason::new(Code::DeadlineExceeded, cause.chain()),
        // What was in the way, not the clock.
        (code, Cause::DeadlineExceeded { last: Some(last) }) => Reason::new(code, last.chain()),
        (code, _) => Reason::new(code, cause.chain()),
    }
}

/// Of a record of which nothing is known.
pub(crate) fn no_outcome() -> Outcome {
    Outcome::Unknown(Reason::new(Code::BadReply, "no outcome"))
}

fn code(cause: &Cause) -> Code {
    match cause {
        Cause::DeadlineExceeded { last: Some(last) } => match code(last) {
            // A later attempt would have told whether that is so for good.
            code if code.is_permanent() || code == Code::UnknownTopic => Code::DeadlineExceeded,
            code => code,
        },
        Cause::DeadlineExceeded { last: None } => Code::DeadlineExceeded,
        Cause::NoProducerId(why) => code(why),
        Cause::NoLeader => Code::NoLeader,
        Cause::BufferFull | Cause::TooManyTopics => Code::QueueFull,
        Cause::Unreachable(_) | Cause::NoAnswer(_) | Cause::Closed => Code::KafkaUnreachable,
        Cause::UnknownTopic => Code::UnknownTopic,
        Cause::TooLarge => Code::RecordTooLarge,
        Cause::Unauthorized { .. } => Code::Unauthorized,
        Cause::Unsupported(_) => Code::Unsupported,
        Cause::InvalidTimestamp(_) => Code::ClockSkew,
        Cause::InvalidTopic | Cause::NoSuchPartition { .. } | Cause::InvalidRecord(_) => {
            Code::Rejected
        }
        Cause::Refused { .. } if cause.is_permanent() => Code::Rejected,
        // Also a reason of a later client: a refusal that another attempt may not meet.
        _ => Code::KafkaRefused,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kafka_client::Config;
    use kafka_client::fake_broker::{FakeCluster, FakeSettings, Fault, PRODUCE, Trace, When};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timestamp_that_is_refused_names_the_clock_and_is_kept() {
        let kafka = FakeCluster::new(FakeSettings::default());
        kafka.create_topic("orders", &[1]);
        let properties = [("bootstrap.servers", &*kafka.bootstrap())];
        let client = kafka.client(Config::from_properties(properties).unwrap());
        let record = || kafka_client::Record {
            partition: None,
            key: None,
            value: Some(b"ahead"),
            headers: &[],
            timestamp_ms: 5,
        };
        let deadline = || Instant::now() + Duration::from_secs(10);
        kafka.arm(PRODUCE, When::Nth(1), Fault::Refuse { code: 32, trace: Trace::Nothing });
        let refused = client.producer().send("orders", record(), deadline()).await;
        let Outcome::NotWritten(reason) = translate(refused) else { panic!("it was refused") };
        assert_eq!((reason.code, reason.code.is_permanent()), (Code::ClockSkew, false));
        assert!(reason.detail.starts_with("this host's clock or the broker's is wrong"));
        let again = client.producer().send("orders", record(), deadline()).await;
        assert!(matches!(translate(again), Outcome::Written { .. }), "the clock is right again");
    }

    #[test]
    fn client_and_filter_agree_on_what_is_refused_for_good() {
        let why = || "why".into();
        let refused = |code| Cause::Refused { code, name: "A_NAME" };
        let unauthorized = Cause::Unauthorized { code: 29, name: "TOPIC_AUTHORIZATION_FAILED" };
        let fixed = [
            Cause::BufferFull,
            Cause::DeadlineExceeded { last: None },
            Cause::DeadlineExceeded { last: Some(Cause::TooLarge.into()) },
            Cause::NoLeader,
            Cause::NoProducerId(Cause::NoLeader.into()),
            Cause::Unreachable(why()),
            Cause::NoAnswer(why()),
            Cause::UnknownTopic,
            Cause::InvalidTopic,
            Cause::TooManyTopics,
            Cause::NoSuchPartition { partition: 3, count: 2 },
            Cause::TooLarge,
            Cause::InvalidRecord(why()),
            Cause::InvalidTimestamp(why()),
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
