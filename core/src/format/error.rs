//! Why a request cannot become a message.

use super::{cloudevents, multipart};
use crate::expression::ExpressionError;
use crate::request::DifferentValues;

/// Why a request cannot become a message: the client's fault, answered with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A header that decides something is repeated with another value.
    #[error(transparent)]
    DifferentValues(#[from] DifferentValues),
    /// The body is not JSON.
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    /// The body is not multipart/form-data.
    #[error("the body is not valid multipart/form-data: {0}")]
    Multipart(#[from] multipart::MultipartError),
    /// The request is not a CloudEvent.
    #[error("the request is not a valid CloudEvent: {0}")]
    CloudEvent(#[from] cloudevents::EventError),
    /// An expression has no result for the request.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// The message itself could not be encoded.
    #[error("the message could not be encoded: {0}")]
    Encode(String),
}
