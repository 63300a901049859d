//! One enum per border, with variants by what the caller can do.

pub(crate) mod codes;
pub(crate) mod policy;

use std::sync::Arc;

/// A short text for people, shared between the many records that failed for the same cause.
pub type Cause = Arc<str>;

/// Why a record was not written, or why it is not known whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No room in `buffer.memory`, or in the quarter of it that one partition may take. Slow down.
    #[error("the producer's memory is full")]
    BufferFull,
    /// The record's deadline passed first.
    #[error("the deadline passed")]
    DeadlineExceeded {
        /// What was in the way, if anything was.
        #[source]
        last: Option<Arc<Self>>,
    },
    /// The partition has no leader now.
    #[error("the partition has no leader")]
    NoLeader,
    /// There is no producer id, without which there is no idempotence.
    #[error("there is no producer id")]
    NoProducerId(#[source] Arc<Self>),
    /// No broker that could help answers.
    #[error("no broker could be reached: {0}")]
    Unreachable(Cause),
    /// A request was sent, and every attempt ended without an answer.
    #[error("the broker did not answer: {0}")]
    NoAnswer(Cause),
    /// The brokers have not known the topic for 5 s.
    #[error("the topic does not exist")]
    UnknownTopic,
    /// A name that no topic can have: 1–249 of letters, digits, `.`, `_` and `-`.
    #[error("this is not a valid topic name")]
    InvalidTopic,
    /// More topics are in use than the client keeps (10,000).
    #[error("too many topics are in use")]
    TooManyTopics,
    /// The caller chose a partition that the topic does not have.
    #[error("the topic has {count} partitions, {partition} is not one of them")]
    NoSuchPartition {
        /// The partition asked for.
        partition: i32,
        /// Partitions of the topic.
        count: usize,
    },
    /// Larger than `max.request.size`, `buffer.memory` or the broker's `message.max.bytes`.
    #[error("the record is too large")]
    TooLarge,
    /// The broker (or this client) does not take this record; its neighbours are not affected.
    #[error("the record is invalid: {0}")]
    InvalidRecord(Cause),
    /// The broker does not take the record's timestamp, which a wrong clock made. A later attempt may
    /// be taken.
    #[error(
        "this host's clock or the broker's is wrong: the broker does not take the record's \
         timestamp (INVALID_TIMESTAMP, 32){}", said(.0)
    )]
    InvalidTimestamp(Cause),
    /// A broker is too old for what is configured, as for `compression.type=zstd` before Kafka 2.1.
    #[error("the broker does not know what is configured: {0}")]
    Unsupported(Cause),
    /// The broker refused with this code.
    #[error("the broker refused with {name} ({code})")]
    Refused {
        /// Kafka's error code.
        code: i16,
        /// Its name.
        name: &'static str,
    },
    /// The credentials do not allow it.
    #[error("not authorized: {name} ({code})")]
    Unauthorized {
        /// Kafka's error code.
        code: i16,
        /// Its name.
        name: &'static str,
    },
    /// The client was closed first.
    #[error("the client is closed")]
    Closed,
}

impl Reason {
    /// Whether sending the same record again cannot help: it is refused for good. What an operator
    /// can mend for all records is not permanent: an unknown topic can be created, a permission
    /// given, a setting that the cluster does not take changed.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::InvalidTopic
            | Self::NoSuchPartition { .. }
            | Self::TooLarge
            | Self::InvalidRecord(_) => true,
            Self::Refused { code, .. } => policy::class(*code).refuses_for_good(),
            Self::BufferFull
            | Self::DeadlineExceeded { .. }
            | Self::NoLeader
            | Self::NoProducerId(_)
            | Self::Unreachable(_)
            | Self::NoAnswer(_)
            | Self::UnknownTopic
            | Self::TooManyTopics
            | Self::InvalidTimestamp(_)
            | Self::Unsupported(_)
            | Self::Unauthorized { .. }
            | Self::Closed => false,
        }
    }

    /// This reason and those behind it ([`std::error::Error::source`]), with colons between.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    }

    /// Why the broker names a record of a batch that it refused with this code (KIP-467).
    pub(crate) fn of_record(code: i16, said: &str) -> Self {
        let said = quotable(said).into();
        match code {
            32 => Self::InvalidTimestamp(said),
            _ => Self::InvalidRecord(said),
        }
    }

    /// The reason for a broker's error code.
    pub(crate) fn of_code(code: i16) -> Self {
        let name = codes::name(code);
        match code {
            3 => Self::UnknownTopic,
            5 => Self::NoLeader,
            10 | 18 => Self::TooLarge,
            32 => Self::InvalidTimestamp("".into()),
            17 => Self::InvalidTopic,
            29 | 30 | 31 | 58 => Self::Unauthorized { code, name },
            21 | 35 | 43 | 76 => Self::Unsupported(format!("{name} ({code})").into()),
            _ => Self::Refused { code, name },
        }
    }
}

/// What a broker says, made fit to be shown: bounded, and without control characters.
pub(crate) fn quotable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(QUOTED_CHARS).map(clean).collect()
}

/// Characters of a broker's message that are shown.
const QUOTED_CHARS: usize = 300;

fn said(what: &Cause) -> String {
    if what.is_empty() { String::new() } else { format!(": {what}") }
}

/// Why the cluster is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The question was answered by an error, or by nobody; the text names the last cause.
    #[error("the cluster does not answer: {0}")]
    Unreachable(Cause),
    /// The brokers answer, but give no producer id, without which there is no idempotence.
    #[error("no producer id: {0}")]
    NoProducerId(Cause),
    /// The time given was over before anything was known.
    #[error("no answer in time")]
    Timeout,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Bytes of a broker that are not what its API and version promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a malformed {api} v{version} answer: {what}")]
pub(crate) struct Malformed {
    pub(crate) api: &'static str,
    pub(crate) version: i16,
    pub(crate) what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_change_is_not_permanent() {
        assert!(!Reason::UnknownTopic.is_permanent());
        assert!(!Reason::of_code(19).is_permanent());
        assert!(!Reason::BufferFull.is_permanent());
        assert!(!Reason::of_code(29).is_permanent());
        assert!(!Reason::of_code(76).is_permanent());
        assert!(!Reason::of_code(32).is_permanent());
        assert!(Reason::of_code(10).is_permanent());
        assert!(Reason::of_code(44).is_permanent());
    }

    #[test]
    fn a_passed_deadline_names_what_was_in_the_way() {
        let last = Some(Reason::Unreachable("connection refused".into()).into());
        let text = "the deadline passed: no broker could be reached: connection refused";
        assert_eq!(Reason::DeadlineExceeded { last }.chain(), text);
    }
}
