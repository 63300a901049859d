//! CloudEvents 1.0: the HTTP protocol binding in, the Kafka protocol binding out.

mod attribute;
mod structured;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter;

use super::message::{Message, content_type};
use crate::request::{Request, header_text, joined};
pub use attribute::EventError;
use attribute::{Attribute, PREFIX};

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

#[cfg(test)]
mod tests;
