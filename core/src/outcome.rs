//! What became of a record, and the fixed names of all that can go wrong.

use serde::{Deserialize, Serialize};

use crate::limits::REASON_BYTES_MAX;

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
    /// The bridge has it in its bounded memory, and sends it until Kafka has it.
    Queued,
}

impl Outcome {
    /// Whether it is accepted under the delivery mode.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        matches!(self, Self::Written { .. } | Self::Queued)
    }

    /// Why not, or why that is not known.
    #[must_use]
    pub const fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Written { .. } | Self::Queued => None,
            Self::NotWritten(reason) | Self::Unknown(reason) => Some(reason),
        }
    }
}

/// Why a record was not written, or why it is unknown.
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

    /// The detail, but where it may have names out of a client's document: nothing of a payload is
    /// logged.
    #[must_use]
    pub fn logged(&self) -> &str {
        if self.code == Code::SchemaMismatch { "" } else { &self.detail }
    }
}

/// How far a failure reaches: what fails with the record, as long as the cause lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The record, or its request, alone.
    Record,
    /// Whatever goes to the record's topic; other topics are not affected.
    Topic,
    /// Whatever goes to the Kafka cluster with the same settings.
    Cluster,
    /// Whatever goes through the bridge, or through the filter.
    Bridge,
}

/// Whether an attempt that ended for a reason may have been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It was not. The record may still be in Kafka if an earlier attempt left a doubt.
    Never,
    /// The outcome says which: `NotWritten` or `Unknown`.
    Possible,
    /// It is unknown.
    Always,
}

/// Whether the same record can ever be written.
#[derive(PartialEq)]
enum Lasting {
    Permanent,
    Transient,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident =
        $name:literal, $status:literal, $lasting:ident, $scope:ident, $doubt:ident;)*) => {
        /// The fixed names of everything that can go wrong, as in the header `kafka-error`.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
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

            /// Whether sending the same record again can never help, or only after something was
            /// changed for this record alone: memory mode drops it. A missing
            /// topic, a missing permission, a wrong clock or a setting that the cluster does not
            /// take are not of this kind: an operator can mend them for all records, and until then
            /// the queue keeps them.
            #[must_use]
            pub const fn is_permanent(self) -> bool {
                matches!(
                    match self { $(Self::$variant => Lasting::$lasting,)* },
                    Lasting::Permanent
                )
            }

            /// What fails with the record.
            #[must_use]
            pub const fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$scope,)* }
            }

            /// Whether an attempt that ended so may have been written.
            #[must_use]
            pub const fn doubt(self) -> Doubt {
                match self { $(Self::$variant => Doubt::$doubt,)* }
            }
        }
    };
}

// The one table of what each code means; nothing derives one column from another. 400, 413 and 422 are
// about the request, 502 is Kafka's refusal, 500 is for an operator alone; only 503 says "not
// written, send it again". On the wire a code is its position: new ones go to the end.
codes! {
    /// `content-length` is not one number.
    BadContentLength = "bad_content_length", 400, Permanent, Record, Never;
    /// The body's length is not the announced one.
    ContentLengthMismatch = "content_length_mismatch", 400, Permanent, Record, Never;
    /// The body or the query string does not parse as its type.
    BadRequest = "bad_request", 400, Permanent, Record, Never;
    /// The body is above `max_body_bytes`.
    BodyTooLarge = "body_too_large", 413, Permanent, Record, Never;
    /// The host has the body but does not pass it to the filter.
    BodyNotReadable = "body_not_readable", 413, Permanent, Record, Never;
    /// The host passed another length to the filter than it announced.
    HostBodyMismatch = "host_body_mismatch", 503, Transient, Record, Never;
    /// The record is larger than the topic, the producer or a frame allows.
    RecordTooLarge = "record_too_large", 413, Permanent, Record, Never;
    /// The filter's queue is full, the bridge's, or the memory that one partition may take.
    QueueFull = "queue_full", 503, Transient, Topic, Never;
    /// The deadline passed before the record was written.
    DeadlineExceeded = "deadline_exceeded", 503, Transient, Topic, Possible;
    /// The bridge cannot be reached.
    BridgeUnreachable = "bridge_unreachable", 503, Transient, Bridge, Never;
    /// The bridge refused the whole callout.
    BridgeRefused = "bridge_refused", 503, Transient, Bridge, Never;
    /// The bridge refused the filter's producer profile.
    ProfileRefused = "profile_refused", 500, Transient, Bridge, Never;
    /// The bridge's reply did not come, or cannot be understood.
    BadReply = "bad_reply", 504, Transient, Bridge, Always;
    /// Kafka cannot be reached.
    KafkaUnreachable = "kafka_unreachable", 503, Transient, Cluster, Possible;
    /// Kafka refused for now.
    KafkaRefused = "kafka_refused", 503, Transient, Topic, Possible;
    /// Kafka refused for good.
    Rejected = "rejected", 502, Permanent, Record, Never;
    /// Kafka does not know the topic.
    UnknownTopic = "unknown_topic", 502, Transient, Topic, Possible;
    /// Kafka does not let us write to the topic.
    Unauthorized = "unauthorized", 502, Transient, Topic, Never;
    /// The filter and its host do not fit together.
    HostMismatch = "host_mismatch", 500, Transient, Bridge, Never;
    /// A topic that the client named is not in `allowed_topics`.
    TopicNotAllowed = "topic_not_allowed", 502, Permanent, Record, Never;
    /// Deliveries fail, and `producer_async_health_gating` refuses to queue more.
    DeliveryFailing = "delivery_failing", 503, Transient, Bridge, Never;
    /// The body did not begin within `delivery_timeout`.
    BodyTimeout = "body_timeout", 408, Permanent, Record, Never;
    /// Kafka does not take the record's timestamp: a clock is wrong, here or there.
    ClockSkew = "clock_skew", 503, Transient, Topic, Never;
    /// The cluster does not take what the producer is set to, as a compression it does not know.
    Unsupported = "unsupported", 502, Transient, Cluster, Never;
    /// The bridge does not accept the filter's token.
    BridgeUnauthorized = "bridge_unauthorized", 500, Transient, Bridge, Never;
    /// The filter's configuration is refused, on a gateway where a refusal would stop every worker.
    NotConfigured = "not_configured", 500, Transient, Bridge, Never;
    /// The request has more headers than the host passes to the filter, and the record needs them
    /// all.
    TooManyHeaders = "too_many_headers", 431, Permanent, Record, Never;
    /// A gRPC request, whose client expects an answer that only its service can give.
    GrpcUnsupported = "grpc_unsupported", 415, Permanent, Record, Never;
    /// The partition has no leader now.
    NoLeader = "no_leader", 503, Transient, Topic, Possible;
    /// The key or the value does not fit its schema.
    SchemaMismatch = "schema_mismatch", 422, Permanent, Record, Never;
    /// The schema registry does not answer, and its schema is not known yet.
    RegistryUnavailable = "registry_unavailable", 503, Transient, Cluster, Never;
    /// The schema registry has no such schema, or one that cannot be used, or lets nobody in.
    RegistryRefused = "registry_refused", 500, Transient, Cluster, Never;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = Reason::new(Code::Rejected, "ü".repeat(1000));
        assert_eq!(reason.detail.len(), 256);
    }

    #[test]
    fn what_an_operator_can_mend_for_all_records_is_kept_until_then() {
        for kept in [
            Code::UnknownTopic,
            Code::Unauthorized,
            Code::ClockSkew,
            Code::Unsupported,
            Code::ProfileRefused,
            Code::BridgeUnauthorized,
        ] {
            assert!(!kept.is_permanent(), "{kept:?}");
        }
        for dropped in [Code::Rejected, Code::RecordTooLarge, Code::TopicNotAllowed] {
            assert!(dropped.is_permanent(), "{dropped:?}");
        }
    }

    #[test]
    fn the_columns_of_the_table_do_not_contradict_each_other() {
        for code in Code::ALL {
            if code.is_permanent() {
                assert_eq!(code.scope(), Scope::Record, "{code:?} would drop its neighbours");
                assert_eq!(code.doubt(), Doubt::Never, "{code:?} may be written");
                assert_ne!(code.status(), 503, "{code:?} would be sent again for nothing");
            }
            assert_eq!(code.status() == 504, code.doubt() == Doubt::Always, "{code:?}");
        }
    }
}
