//! What each error code of a Produce answer means for its batch, as data.

/// Codes of one class are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Appended; settle.
    Done,
    /// Appended by an earlier attempt, at an offset the answer does not tell.
    Duplicate,
    /// The leader is elsewhere: refresh, resend unchanged.
    Moved,
    /// As `Moved`, for a bounded time: the topic may really be gone.
    UnknownTopic,
    /// Not now: back off, resend unchanged.
    Wait,
    /// Appended but not confirmed by enough replicas: resend, in doubt.
    Unconfirmed,
    /// One record is refused, more are halved.
    TooLarge,
    /// One record of the batch is at fault.
    BadRecord,
    /// Perhaps damaged on the way: resend once, then refused.
    Corrupt,
    /// Refused for good.
    BadBatch,
    /// Refused for good, for what the topic is or who we are: other batches are tried all the same,
    /// since an operator may have mended it.
    TopicRefused,
    /// A policy of the broker's is against the batch; with some vendors the word for throttling.
    Policy,
    /// The whole cluster refuses us: slow retries until the deadline.
    ClusterRefused,
    /// A gap before the batch, in the broker's view.
    OutOfOrder,
    /// The broker has forgotten the producer.
    Forgotten,
    /// The broker does not take this producer id in this epoch.
    WrongIdentity,
    /// A code that tells us nothing: resend a few times, in doubt.
    Unexplained,
}

/// Every code with a meaning of its own; all others are unexplained.
const PRODUCE: &[(Class, &[i16])] = &[
    (Class::Done, &[0]),
    (Class::Duplicate, &[46]),
    (Class::Moved, &[6, 5, 74, 75, 9, 56, 100, 103]),
    (Class::UnknownTopic, &[3]),
    (Class::Wait, &[19, 89]),
    (Class::Unconfirmed, &[7, 20]),
    (Class::TooLarge, &[10, 18]),
    (Class::BadRecord, &[87, 32]),
    (Class::Corrupt, &[2]),
    (Class::BadBatch, &[76, 43, 21, 42, 35]),
    (Class::TopicRefused, &[29, 17]),
    (Class::Policy, &[44]),
    (Class::ClusterRefused, &[31, 58]),
    (Class::OutOfOrder, &[45]),
    (Class::Forgotten, &[59]),
    (Class::WrongIdentity, &[47, 49, 90]),
];

/// Codes of InitProducerId that pass by themselves: the coordinator is loading, away or elsewhere,
/// or busy with this id.
const IDENTITY_RETRIED: &[i16] = &[14, 15, 16, 51];

/// The class of an error code in a Produce answer.
pub(crate) fn class(code: i16) -> Class {
    PRODUCE
        .iter()
        .find(|(_, codes)| codes.contains(&code))
        .map_or(Class::Unexplained, |(class, _)| *class)
}

/// Whether a refused InitProducerId is asked again soon. Any other refusal is asked again slowly.
pub(crate) fn is_identity_retried(code: i16) -> bool {
    IDENTITY_RETRIED.contains(&code)
}

impl Class {
    /// Whether the same record would be refused again, whatever an operator does.
    pub(crate) const fn refuses_for_good(self) -> bool {
        matches!(self, Self::TooLarge | Self::BadRecord | Self::BadBatch | Self::Policy)
    }

    /// Whether the answer leaves open whether the batch was appended. A base offset in an error
    /// answer means that it was, before the leader lost its partition.
    pub(crate) fn leaves_doubt(self, base_offset: i64) -> bool {
        match self {
            Self::Done | Self::Duplicate => false,
            Self::Unconfirmed | Self::Unexplained => true,
            _ => base_offset >= 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_class_only() {
        for code in -1..=133 {
            let rows = PRODUCE.iter().filter(|(_, codes)| codes.contains(&code)).count();
            assert!(rows <= 1, "{code} is in {rows} rows");
            assert_eq!(rows == 0, class(code) == Class::Unexplained, "{code}");
        }
        assert_eq!(class(-1), Class::Unexplained);
        assert_eq!(class(9999), Class::Unexplained);
    }

    #[test]
    fn only_a_refusal_before_the_append_is_a_proof() {
        for (code, without_offset, with_offset) in [
            (0, false, false),
            (46, false, false),
            (6, false, true),
            (3, false, true),
            (56, false, true),
            (7, true, true),
            (20, true, true),
            (-1, true, true),
            (19, false, true),
            (29, false, true),
            (45, false, true),
            (59, false, true),
            (47, false, true),
        ] {
            assert_eq!(class(code).leaves_doubt(-1), without_offset, "{code} without an offset");
            assert_eq!(class(code).leaves_doubt(0), with_offset, "{code} with an offset");
        }
    }
}
