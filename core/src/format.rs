//! A request becomes the key and value of a record, in the configured message format.

pub mod args;
pub mod charset;
pub mod cloudevents;
mod error;
pub mod kong;
pub mod media;
pub(crate) mod message;
pub mod multipart;

use std::borrow::Cow;

pub use self::error::FormatError;
pub use self::message::{Message, MessageHeader};
use crate::expression::{Expressions, Input};
use crate::request::Request;

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

/// What a request becomes. `kong_message` is Kong's, for the format of that name and for
/// expressions that name `message`.
///
/// # Errors
/// Why the request cannot become a message.
pub fn encode<'a>(
    format: MessageFormat,
    expressions: &'a Expressions,
    request: &'a Request,
    kong_message: Option<&'a [u8]>,
    timestamp_ms: i64,
) -> Result<Message<'a>, FormatError> {
    let mut message = match format {
        MessageFormat::Kong => {
            Message { value: kong_message.map(Cow::Borrowed), ..Message::default() }
        }
        MessageFormat::Body => raw_body(request),
        MessageFormat::CloudEvents => cloudevents::encode(request)?,
        MessageFormat::Expression => Message::default(),
    };
    let input = Input::new(request, kong_message, timestamp_ms);
    expressions.apply(&input, &mut message)?;
    Ok(message)
}

/// The body as it came; its type goes into a record header, since nothing else in the record says
/// it.
fn raw_body(request: &Request) -> Message<'_> {
    Message {
        value: Some(Cow::Borrowed(&request.body)),
        headers: message::content_type(request).into_iter().collect(),
        ..Message::default()
    }
}
