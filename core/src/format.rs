//! A request becomes the key and value of a record, in the configured message format.

pub mod args;
pub mod charset;
pub mod cloudevents;
pub mod kong;
pub mod media;
pub mod multipart;

use std::borrow::Cow;

use crate::config::Settings;
use crate::expression::{ExpressionError, Input};
use crate::request::{DifferentValues, Request};

/// `message_format`: what a request becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MessageFormat {
    /// Kong's JSON object.
    Kong,
    /// The raw body.
    Body,
    /// A CloudEvent.
    CloudEvents,
    /// The result of `message_expression`.
    Expression,
}

/// A record header: a name that may repeat, and a value that may be null.
pub type MessageHeader<'a> = (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>);

/// What is in a record, and where an expression wants it to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// The topic of `topic_expression`.
    pub topic: Option<Cow<'a, str>>,
    /// The partition of `partition_expression`.
    pub partition: Option<i32>,
    /// The record's key.
    pub key: Option<Cow<'a, [u8]>>,
    /// The record's value.
    pub value: Option<Cow<'a, [u8]>>,
    /// Record headers in order.
    pub headers: Vec<MessageHeader<'a>>,
}

/// Kong's message, where the settings need it: as the value, or as `message` in an expression.
///
/// # Errors
/// As `kong::encode`.
pub fn kong_message(
    settings: &Settings,
    request: &Request,
) -> Result<Option<Vec<u8>>, FormatError> {
    let needed =
        settings.message_format == MessageFormat::Kong || settings.expressions.use_message();
    needed.then(|| kong::encode(request, settings.forward)).transpose()
}

/// What a request becomes. `kong_message` is what the function of that name gave.
///
/// # Errors
/// Why the request cannot become a message.
pub fn encode<'a>(
    settings: &'a Settings,
    request: &'a Request,
    kong_message: Option<&'a [u8]>,
    timestamp_ms: i64,
) -> Result<Message<'a>, FormatError> {
    let mut message = match settings.message_format {
        MessageFormat::Kong => {
            Message { value: kong_message.map(Cow::Borrowed), ..Message::default() }
        }
        MessageFormat::Body => raw_body(request),
        MessageFormat::CloudEvents => cloudevents::encode(request)?,
        MessageFormat::Expression => Message::default(),
    };
    let input = Input::new(request, kong_message, timestamp_ms);
    settings.expressions.apply(&input, &mut message)?;
    Ok(message)
}

/// The text of a JSON body: UTF-8 (RFC 8259, 8.1), without a byte order mark.
fn json_text(body: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(body)
        .map_err(|error| format!("it is not UTF-8 at byte {}", error.valid_up_to()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The body as it came; its type goes into a record header, or nobody could tell it any more.
fn raw_body(request: &Request) -> Message<'_> {
    let content_type = request.value(b"content-type");
    let header = |value| (Cow::Borrowed(&b"content-type"[..]), Some(Cow::Borrowed(value)));
    Message {
        value: Some(Cow::Borrowed(&request.body)),
        headers: content_type.map(header).into_iter().collect(),
        ..Message::default()
    }
}

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
