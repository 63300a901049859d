//! Structured content mode: the whole event is one JSON object, and stays it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::attribute::{self, Attribute, EventError};
use crate::format::message::{Message, content_type, json_text};
use crate::request::Request;

pub(super) fn encode(request: &Request) -> Result<Message<'_>, EventError> {
    // The data is not looked into: however deep it nests, it costs no stack.
    let event = json_text(&request.body).map_err(EventError::Json)?;
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(event).map_err(|error| EventError::Json(error.to_string()))?;
    let is_there = |name: &str| members.get(name).is_some_and(|value| value.get() != "null");
    let mut key = None;
    for (name, value) in &members {
        match name.as_str() {
            "data" => {}
            "data_base64" => check_base64(value)?,
            _ => {
                attribute::check_name(name)?;
                let value = text(name, value)?;
                if let (Some(value), "partitionkey") = (&value, name.as_str()) {
                    key = Some(value.0.clone().into_bytes());
                }
            }
        }
    }
    attribute::require(is_there)?;
    if is_there("data") && is_there("data_base64") {
        return Err(attribute::fault("data_base64", "is not allowed together with `data`"));
    }
    Ok(Message {
        key: key.map(Cow::Owned),
        value: Some(Cow::Borrowed(&request.body)),
        headers: content_type(request).into_iter().collect(),
        ..Message::default()
    })
}

/// An attribute's value as text; none where it is null, which is as if it were not there.
fn text(name: &str, value: &RawValue) -> Result<Option<Attribute>, EventError> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => {
            let text: String = serde_json::from_str(json)
                .map_err(|_| attribute::fault(name, "is not valid Unicode"))?;
            Attribute::check(name, text).map(Some)
        }
        Some(b't' | b'f') if !is_specified(name) => Ok(Some(Attribute(json.to_owned()))),
        Some(b'-' | b'0'..=b'9') if !is_specified(name) && json.parse::<i32>().is_ok() => {
            Ok(Some(Attribute(json.to_owned())))
        }
        Some(_) if is_specified(name) => Err(attribute::fault(name, "is not a string")),
        _ => Err(attribute::fault(name, "is not a string, a bool or an integer of 32 bits")),
    }
}

/// Whether the specification itself defines the attribute; all of these are strings.
fn is_specified(name: &str) -> bool {
    const NAMES: [&str; 8] =
        ["id", "source", "specversion", "type", "datacontenttype", "dataschema", "subject", "time"];
    NAMES.contains(&name)
}

fn check_base64(value: &RawValue) -> Result<(), EventError> {
    let text: Option<String> = serde_json::from_str(value.get())
        .map_err(|_| attribute::fault("data_base64", "is not a string"))?;
    match text.map(|text| STANDARD.decode(text)) {
        Some(Err(_)) => Err(attribute::fault("data_base64", "is not base64")),
        _ => Ok(()),
    }
}
