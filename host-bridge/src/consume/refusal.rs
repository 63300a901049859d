//! Why a reader is refused: a code with its status, and a sentence.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// The code of a request that has no proof of a gateway.
pub(crate) const GATEWAY_UNAUTHENTICATED: &str = "gateway_unauthenticated";

/// A refused request; nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// What a client's program goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    CursorMalformed,
    CursorDuplicate,
    /// Metadata may be older than the partition: it is worth one refresh.
    CursorUnknownPartition,
    CursorIncomplete,
    PositionRequired,
    /// The feed's readers have no cursors.
    CursorNotSupported,
    InvalidParameter,
    FilterInvalid,
    /// A gateway's headers, and no proof that they are a gateway's.
    GatewayUnauthenticated,
    /// The gateway does not say who reads.
    IdentityRequired,
    AuthExpired,
    /// No rule allows it.
    Forbidden,
    TopicNotAllowed,
    /// The feed is for readers alone.
    ProduceDisabled,
    TopicNotFound,
    TopicDeleted,
    /// Members have the group's position, or another request is moving it.
    GroupInUse,
    NotAcceptable,
    /// A WebSocket begins with another request.
    UpgradeRequired,
    /// A client owes acknowledgements, and sends none.
    AckTimeout,
    /// The body names where the log begins and ends.
    OffsetOutOfRange,
    FeedTooWide,
    FeedNotFound,
    MethodNotAllowed,
    /// A record cannot be decoded, and the feed says that its readers end at it.
    DecodeError,
    /// Kafka refuses for good: an unsupported version, a missing permission on the cluster.
    KafkaRefused,
    KafkaUnavailable,
    /// The registry that has the schemas of records.
    RegistryUnavailable,
    /// The bridge reads as much at a time as it may.
    Overloaded,
    /// The client has as many readers as one may have.
    TooManyConnections,
    Internal,
}

impl Refusal {
    /// The body of the error response.
    pub(crate) fn body(&self) -> Value {
        json!({ "message": self.message, "error": self.code.name() })
    }

    /// The same words whether the topic exists or not, and whoever else may read it.
    pub(crate) fn foreign_topic(topic: &str) -> Self {
        Code::TopicNotAllowed
            .because(format!("the topic `{topic}` is not in this feed, or not for you"))
    }
}

impl Code {
    /// The name in the body.
    pub(crate) fn name(self) -> &'static str {
        self.row().0
    }

    pub(crate) fn status(self) -> StatusCode {
        self.row().1
    }

    /// With which a WebSocket is closed.
    pub(crate) fn close(self) -> u16 {
        close_code(self.status().as_u16())
    }

    /// Whether it is about what the client or the bridge has at the moment: it passes by waiting.
    pub(crate) fn is_overload(self) -> bool {
        [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&self.status())
    }

    /// Whether asking again soon is of no use.
    pub(crate) fn is_lasting(self) -> bool {
        let is_refused = matches!(self, Self::DecodeError | Self::KafkaRefused);
        is_refused || !(self.status().is_server_error() || self.is_overload())
    }

    fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::CursorMalformed => ("cursor_malformed", StatusCode::BAD_REQUEST),
            Self::CursorDuplicate => ("cursor_duplicate", StatusCode::BAD_REQUEST),
            Self::CursorUnknownPartition => ("cursor_unknown_partition", StatusCode::BAD_REQUEST),
            Self::CursorIncomplete => ("cursor_incomplete", StatusCode::BAD_REQUEST),
            Self::PositionRequired => ("position_required", StatusCode::BAD_REQUEST),
            Self::CursorNotSupported => ("cursor_not_supported", StatusCode::BAD_REQUEST),
            Self::InvalidParameter => ("invalid_parameter", StatusCode::BAD_REQUEST),
            Self::GatewayUnauthenticated => (GATEWAY_UNAUTHENTICATED, StatusCode::UNAUTHORIZED),
            Self::IdentityRequired => ("identity_required", StatusCode::UNAUTHORIZED),
            Self::AuthExpired => ("auth_expired", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN),
            Self::FilterInvalid => ("filter_invalid", StatusCode::BAD_REQUEST),
            Self::TopicNotAllowed => ("topic_not_allowed", StatusCode::FORBIDDEN),
            Self::ProduceDisabled => ("produce_disabled", StatusCode::FORBIDDEN),
            Self::UpgradeRequired => ("upgrade_required", StatusCode::UPGRADE_REQUIRED),
            Self::AckTimeout => ("ack_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::TopicNotFound => ("topic_not_found", StatusCode::NOT_FOUND),
            Self::TopicDeleted => ("topic_deleted", StatusCode::NOT_FOUND),
            Self::GroupInUse => ("group_in_use", StatusCode::CONFLICT),
            Self::NotAcceptable => ("not_acceptable", StatusCode::NOT_ACCEPTABLE),
            Self::OffsetOutOfRange => ("offset_out_of_range", StatusCode::GONE),
            Self::FeedTooWide => ("feed_too_wide", StatusCode::UNPROCESSABLE_ENTITY),
            Self::FeedNotFound => ("feed_not_found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::DecodeError => ("decode_error", StatusCode::BAD_GATEWAY),
            Self::KafkaRefused => ("kafka_refused", StatusCode::BAD_GATEWAY),
            Self::KafkaUnavailable => ("kafka_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::RegistryUnavailable => ("registry_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE),
            Self::TooManyConnections => ("too_many_connections", StatusCode::TOO_MANY_REQUESTS),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// A refusal with this code.
    pub(crate) fn because(self, message: impl Into<String>) -> Refusal {
        Refusal { code: self, message: message.into() }
    }
}

/// The code with which a WebSocket is closed, for the status that a request would have.
pub(super) fn close_code(status: u16) -> u16 {
    match status {
        500 => 1011,
        503 => 1013,
        status => 4000 + status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_not_asked_for_again_soon() {
        for code in [
            Code::DecodeError,
            Code::KafkaRefused,
            Code::OffsetOutOfRange,
            Code::TopicNotFound,
            Code::FeedTooWide,
        ] {
            assert!(code.is_lasting() && !code.is_overload(), "{code:?}");
        }
        for code in [
            Code::KafkaUnavailable,
            Code::RegistryUnavailable,
            Code::Overloaded,
            Code::TooManyConnections,
        ] {
            assert!(code.is_overload() && !code.is_lasting(), "{code:?}");
        }
        assert!(!Code::Internal.is_lasting());
    }
}
