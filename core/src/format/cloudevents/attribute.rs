//! A context attribute: its name, its value, and what the specification asks of both.

use percent_encoding::percent_decode;

use crate::request::header_text;
use crate::time::is_rfc3339;

/// Why a request is not a CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// An attribute that each event has is missing.
    #[error("the attribute `{0}` is missing")]
    Missing(&'static str),
    /// An attribute has a value that it cannot have.
    #[error("the attribute `{name}` {reason}")]
    Value {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A name is no attribute's.
    #[error("`{0}` is not the name of an attribute, which has only a-z and 0-9")]
    Name(String),
    /// The content type announces several events.
    #[error("batched content mode is not supported: send each event in a request of its own")]
    Batched,
    /// The content type announces an event format other than JSON.
    #[error("the event format of `{0}` is not supported, `application/cloudevents+json` is")]
    Format(String),
    /// The event is not the JSON object that the content type announces.
    #[error("the body is not a JSON event: {0}")]
    Json(String),
}

/// The value of an attribute, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute(pub(super) String);

/// What stands before an attribute's name in a record header.
pub(super) const PREFIX: &[u8] = b"ce_";

/// Attributes that each event has.
const REQUIRED: [&str; 4] = ["id", "source", "specversion", "type"];

/// Checks that the required attributes are there.
pub(super) fn require(has: impl Fn(&str) -> bool) -> Result<(), EventError> {
    match REQUIRED.iter().find(|name| !has(name)) {
        Some(name) => Err(EventError::Missing(name)),
        None => Ok(()),
    }
}

pub(super) fn fault(name: &str, reason: &'static str) -> EventError {
    EventError::Value { name: shown(name), reason }
}

/// As much of a name as a reply tells.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// A name in lower-case letters and digits (CloudEvents 1.0, 3: naming conventions).
pub(super) fn check_name(name: &str) -> Result<(), EventError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !name.is_empty() && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(EventError::Name(shown(name)))
    }
}

/// What stands between values where a gateway has joined repeated lines. A comma alone may be part
/// of most values; a space may not, it is percent-encoded (HTTP binding, 3.1.3.2).
pub(super) fn separator(name: &str) -> &'static [u8] {
    match name {
        "specversion" | "time" => b",",
        _ => b", ",
    }
}

impl Attribute {
    /// An attribute from an HTTP header: quotes are taken off, then percent-encoding is decoded
    /// once (HTTP binding, 3.1.3.2).
    pub(super) fn decode(name: &str, value: &[u8]) -> Result<Self, EventError> {
        check_name(name)?;
        let value = header_text(value);
        let value = match value.strip_prefix('"') {
            Some(quoted) => {
                &*unquote(quoted).ok_or_else(|| fault(name, "has an unterminated quoted string"))?
            }
            None => &*value,
        };
        if value.split('%').skip(1).any(|after| !starts_with_two_digits(after)) {
            return Err(fault(name, "has a `%` without two hexadecimal digits"));
        }
        let text = percent_decode(value.as_bytes()).decode_utf8();
        let text = text.map_err(|_| fault(name, "is not valid UTF-8 when it is decoded"))?;
        Self::check(name, text.into_owned())
    }

    /// An attribute with a value that it may have.
    pub(super) fn check(name: &str, value: String) -> Result<Self, EventError> {
        if value.chars().any(is_forbidden) {
            return Err(fault(name, "has a control character or a noncharacter"));
        }
        let is_uri = || !value.contains([' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}']);
        match name {
            "specversion" if value != "1.0" => Err(fault(name, "is not 1.0")),
            "id" | "source" | "type" | "subject" | "dataschema" | "datacontenttype"
            | "partitionkey"
                if value.is_empty() =>
            {
                Err(fault(name, "is empty"))
            }
            "source" | "dataschema" if !is_uri() => Err(fault(name, "is not a URI")),
            "time" if !is_rfc3339(&value) => Err(fault(name, "is not a timestamp of RFC 3339")),
            _ => Ok(Self(value)),
        }
    }
}

fn starts_with_two_digits(text: &str) -> bool {
    text.as_bytes().first_chunk::<2>().is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
}

/// What is in quotes (RFC 7230, 3.2.6); none when it does not end with one.
fn unquote(quoted: &str) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(text),
            '\\' => text.push(chars.next()?),
            other => text.push(other),
        }
    }
}

/// Characters that no attribute of type String has (CloudEvents 1.0, 3: type system).
fn is_forbidden(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}
