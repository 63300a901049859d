//! What became of a record, and the one HTTP reply that says so.

use serde::{Deserialize, Serialize};

use crate::limits::{REASON_BYTES_MAX, RETRY_AFTER_SECONDS};

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
    /// The request asks for a topic that it may not write to.
    TopicNotAllowed = "topic_not_allowed", 502;
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

/// A complete HTTP reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<(&'static str, String)>,
    /// A JSON document.
    pub body: Vec<u8>,
}

impl Reply {
    /// The promise of the delivery mode holds; nothing is known of the place in Kafka.
    #[must_use]
    pub fn sent() -> Self {
        let headers = vec![("content-type", JSON.to_owned())];
        Self { status: 200, headers, body: br#"{"message":"message sent"}"#.to_vec() }
    }

    /// A request that was refused before a record was made of it. `error` speaks of the request
    /// alone, so it is always told.
    #[must_use]
    pub fn refused(code: Code, error: &str) -> Self {
        Self::failure(code.status(), code, Some(error))
    }

    /// The reply for what became of a record of `topic`; `reveal` puts the real reason into it.
    #[must_use]
    pub fn of(outcome: &Outcome, topic: &str, reveal: bool) -> Self {
        match outcome {
            Outcome::Written { partition, offset } => {
                let mut reply = Self::sent();
                reply.headers.push(("kafka-topic", topic.to_owned()));
                reply.headers.push(("kafka-partition", partition.to_string()));
                if let Some(offset) = offset {
                    reply.headers.push(("kafka-offset", offset.to_string()));
                }
                reply
            }
            Outcome::NotWritten(reason) => {
                Self::failure(reason.code.status(), reason.code, shown(reason, reveal))
            }
            Outcome::Unknown(reason) => Self::failure(504, reason.code, shown(reason, reveal)),
        }
    }

    fn failure(status: u16, code: Code, error: Option<&str>) -> Self {
        let message = match status {
            400 => "Bad Request",
            413 => "Payload Too Large",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "Gateway Timeout",
        };
        let error = error.or(match status {
            502 => Some("could not send message to topic"),
            503 => Some("the message was not written and can be sent again"),
            504 => Some("the message may have been written"),
            _ => None,
        });
        let mut headers =
            vec![("content-type", JSON.to_owned()), ("kafka-error", code.name().to_owned())];
        if status == 503 {
            headers.push(("retry-after", RETRY_AFTER_SECONDS.to_string()));
        }
        let body = Failure { message, error: error.unwrap_or(code.name()) };
        Self { status, headers, body: serde_json::to_vec(&body).unwrap_or_default() }
    }
}

/// The body of a reply that is not a success, in Kong's order.
#[derive(Serialize)]
struct Failure<'a> {
    message: &'static str,
    error: &'a str,
}

fn shown(reason: &Reason, reveal: bool) -> Option<&str> {
    (reveal && !reason.detail.is_empty()).then_some(&reason.detail)
}

const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn only_a_written_record_is_a_200() {
        let written = Outcome::Written { partition: 3, offset: Some(42) };
        let reply = Reply::of(&written, "orders", false);
        assert_eq!((reply.status, &reply.body[..]), (200, &br#"{"message":"message sent"}"#[..]));
        assert_eq!(header(&reply, "kafka-offset"), Some("42"));
        for code in Code::ALL {
            let reason = Reason::new(*code, "why");
            let not = Reply::of(&Outcome::NotWritten(reason.clone()), "orders", false);
            assert!(matches!(not.status, 400 | 413 | 502 | 503), "{code:?}");
            assert_eq!(header(&not, "retry-after").is_some(), not.status == 503);
            assert_eq!(Reply::of(&Outcome::Unknown(reason), "orders", false).status, 504);
            assert_eq!(header(&not, "kafka-error"), Some(code.name()));
        }
    }

    #[test]
    fn the_reason_is_told_only_when_asked_for() {
        let reason = Reason::new(Code::Rejected, "broker 10.0.0.1 said no");
        let hidden = Reply::of(&Outcome::NotWritten(reason.clone()), "orders", false);
        assert_eq!(
            String::from_utf8(hidden.body).unwrap(),
            r#"{"message":"Bad Gateway","error":"could not send message to topic"}"#
        );
        let told = Reply::of(&Outcome::NotWritten(reason), "orders", true);
        assert!(String::from_utf8(told.body).unwrap().contains("10.0.0.1"));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = Reason::new(Code::Rejected, "ü".repeat(1000));
        assert_eq!(reason.detail.len(), 256);
    }
}
