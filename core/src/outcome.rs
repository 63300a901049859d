//! What became of a record, and the fixed names of all that can go wrong.

use serde::{Deserialize, Serialize};

use crate::limits::REASON_BYTES_MAX;
pub use crate::reply::Reply;

/// What became of a record. Each record ends as exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Kafka acknowledged it as `acks` asks; with acks 0 there is no offset.
    Written {
        /// Partition that holds the record.
        partition: i32,
        /// Offset in it.
        offset: Option<i64>,
    },
    /// It is not in Kafka and will not come there: safe to send again.
    NotWritten(Reason),
    /// It may be in Kafka.
    Unknown(Reason),
    /// The bridge has it in its bounded memory, and goes on until Kafka has it.
    Queued,
}

impl Outcome {
    /// Whether what the delivery mode promises holds.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        matches!(self, Self::Written { .. } | Self::Queued)
    }
}

/// Why a record was not, or perhaps not, written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The short fixed name, sent as `kafka-error`.
    pub code: Code,
    /// For the operator's log, and for a client only where the configuration allows it.
    pub detail: String,
}

impl Reason {
    /// A reason whose detail is cut at a character boundary within `REASON_BYTES_MAX`.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        let end = (0..=REASON_BYTES_MAX).rev().find(|end| detail.is_char_boundary(*end));
        detail.truncate(end.unwrap_or(0));
        Self { code, detail }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// The fixed names of everything that can go wrong, as in the header `kafka-error`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that `kafka-error` carries.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status of a record that was not written for this reason.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
        }
    };
}

// On the wire a code is its position: new ones go to the end.
codes! {
    /// `content-length` is not one number.
    BadContentLength = "bad_content_length", 400;
    /// The body's length is not the announced one.
    ContentLengthMismatch = "content_length_mismatch", 400;
    /// The body or the query string does not parse as its type.
    BadRequest = "bad_request", 400;
    /// The body is above `max_body_bytes`.
    BodyTooLarge = "body_too_large", 413;
    /// The host has the body but does not hand it over.
    BodyNotReadable = "body_not_readable", 413;
    /// The host handed over another length than it told.
    HostBodyMismatch = "host_body_mismatch", 503;
    /// The record is larger than the topic, the producer or a frame allows.
    RecordTooLarge = "record_too_large", 413;
    /// The filter's or the bridge's queue is full.
    QueueFull = "queue_full", 503;
    /// The deadline passed before the record was written.
    DeadlineExceeded = "deadline_exceeded", 503;
    /// The bridge cannot be reached.
    BridgeUnreachable = "bridge_unreachable", 503;
    /// The bridge refused the whole callout.
    BridgeRefused = "bridge_refused", 503;
    /// The bridge refused the filter's producer profile.
    ProfileRefused = "profile_refused", 503;
    /// The bridge's reply did not come, or cannot be understood.
    BadReply = "bad_reply", 503;
    /// Kafka cannot be reached.
    KafkaUnreachable = "kafka_unreachable", 503;
    /// Kafka refused for now.
    KafkaRefused = "kafka_refused", 503;
    /// Kafka refused for good.
    Rejected = "rejected", 502;
    /// Kafka does not know the topic.
    UnknownTopic = "unknown_topic", 502;
    /// Kafka does not let us write to the topic.
    Unauthorized = "unauthorized", 502;
    /// The filter and its host do not fit together.
    HostMismatch = "host_mismatch", 503;
    /// A topic that the client named is not in `allowed_topics`.
    TopicNotAllowed = "topic_not_allowed", 502;
    /// Deliveries fail, and `producer_async_health_gating` refuses to queue more.
    DeliveryFailing = "delivery_failing", 503;
    /// The body did not begin within `delivery_timeout`.
    BodyTimeout = "body_timeout", 408;
}

impl Code {
    /// Whether sending the same record again can never help. A missing topic or permission is not
    /// of this kind: an operator can mend it, and until then the queue keeps the record.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        !matches!(self.status(), 502 | 503)
            || matches!(self, Self::Rejected | Self::TopicNotAllowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = Reason::new(Code::Rejected, "ü".repeat(1000));
        assert_eq!(reason.detail.len(), 256);
    }
}
