//! What is in a record, before it is encoded.

use std::borrow::Cow;

use crate::request::Request;

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

/// The request's content type as a record header.
pub(super) fn content_type(request: &Request) -> Option<MessageHeader<'_>> {
    let value = request.value(b"content-type")?;
    Some((Cow::Borrowed(b"content-type"), Some(Cow::Borrowed(value))))
}

/// The text of a JSON body: UTF-8 (RFC 8259, 8.1), without a byte order mark.
pub(super) fn json_text(body: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(body)
        .map_err(|error| format!("it is not UTF-8 at byte {}", error.valid_up_to()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
