//! A request becomes the key and value of a record, in the configured message format.

pub mod args;
pub mod kong;
pub mod media;
pub mod multipart;

/// Why a request cannot become a message: the client's fault, answered with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The query string or a form body is not text once it is decoded.
    #[error("{what}: argument {index} is not valid UTF-8 when it is decoded")]
    ArgumentNotUtf8 {
        /// Which arguments.
        what: &'static str,
        /// Position of the argument, from 1.
        index: usize,
    },
    /// The request target is not text.
    #[error("the request target is not valid UTF-8 at byte {0}")]
    TargetNotUtf8(usize),
    /// The body is not JSON.
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    /// The body is not multipart/form-data.
    #[error("the body is not valid multipart/form-data: {0}")]
    Multipart(#[from] multipart::MultipartError),
    /// The message itself could not be encoded.
    #[error("the message could not be encoded: {0}")]
    Encode(String),
}
