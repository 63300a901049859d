//! CloudEvents 1.0: the HTTP protocol binding in, the Kafka protocol binding out.

mod attribute;
mod structured;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter;

use super::{Message, MessageHeader};
use crate::request::{Request, header_text, joined};
use attribute::{Attribute, PREFIX};

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

/// Makes a message of an event. The content mode stays what it is.
///
/// # Errors
/// Names the attribute, or what else is not as the specification has it.
pub fn encode(request: &Request) -> Result<Message<'_>, EventError> {
    let content_type = request.value(b"content-type").map(header_text).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.strip_prefix("application/cloudevents") {
        None => binary(request),
        Some("+json") => structured::encode(request),
        Some(rest) if rest.starts_with("-batch") => Err(EventError::Batched),
        Some(_) => Err(EventError::Format(essence)),
    }
}

/// Binary content mode: attributes are headers, the body is the data.
fn binary(request: &Request) -> Result<Message<'_>, EventError> {
    let mut attributes = BTreeMap::new();
    for (name, value) in &request.headers {
        let Some(name) = name.strip_prefix(b"ce-") else { continue };
        let name = header_text(name);
        if name == "datacontenttype" {
            return Err(attribute::fault(&name, "is the header content-type in binary mode"));
        }
        let mut values = joined(value, attribute::separator(&name));
        for value in iter::once(values.next().unwrap_or_default()).chain(values) {
            let attribute = Attribute::decode(&name, value)?;
            let first = attributes.entry(name.clone()).or_insert_with(|| attribute.clone());
            if *first != attribute {
                return Err(attribute::fault(&name, "has different values"));
            }
        }
    }
    attribute::require(|name| attributes.contains_key(name))?;
    let key = attributes.get("partitionkey").map(|key| key.0.clone().into_bytes());
    let mut headers = Vec::with_capacity(attributes.len() + 1);
    for (name, Attribute(value)) in attributes {
        let name = [PREFIX, name.as_bytes()].concat();
        headers.push((Cow::Owned(name), Some(Cow::Owned(value.into_bytes()))));
    }
    headers.extend(content_type(request));
    // An event without data is a record without a value (Kafka binding, 3.2.2).
    let value = (!request.body.is_empty()).then_some(Cow::Borrowed(&*request.body));
    Ok(Message { key: key.map(Cow::Owned), value, headers, ..Message::default() })
}

/// The content type as a record header.
fn content_type(request: &Request) -> Option<MessageHeader<'_>> {
    let value = request.value(b"content-type")?;
    Some((Cow::Borrowed(b"content-type"), Some(Cow::Borrowed(value))))
}

#[cfg(test)]
mod tests;
