//! What the result of each expression becomes in the record.

use std::borrow::Cow;
use std::rc::Rc;

use super::cost::{Budget, EvaluationError};
use super::json;
use super::value::{Key, RcCow, Value};
use crate::format::message::MessageHeader;

type Bytes<'a> = Cow<'a, [u8]>;

/// Strings and bytes as they are, null as a record without a value, anything else as JSON.
pub(super) fn value<'a>(
    value: Value<'a>,
    budget: &mut Budget,
) -> Result<Option<Bytes<'a>>, EvaluationError> {
    match value {
        Value::Null => Ok(None),
        Value::String(_) | Value::Bytes(_) => bytes(value, "a string").map(Some),
        other => {
            let mut out = Vec::new();
            json::write(&other, &mut out, budget)?;
            Ok(Some(Cow::Owned(out)))
        }
    }
}

pub(super) fn truth(value: Value<'_>, _: &mut Budget) -> Result<bool, EvaluationError> {
    match value {
        Value::Bool(holds) => Ok(holds),
        other => Err(expected("true or false", &other)),
    }
}

pub(super) fn topic<'a>(value: Value<'a>, _: &mut Budget) -> Result<Cow<'a, str>, EvaluationError> {
    match value {
        Value::String(text) => Ok(cow(text)),
        other => Err(expected("a string", &other)),
    }
}

pub(super) fn key<'a>(
    value: Value<'a>,
    _: &mut Budget,
) -> Result<Option<Bytes<'a>>, EvaluationError> {
    match value {
        Value::Null => Ok(None),
        Value::Int(int) => Ok(Some(Cow::Owned(int.to_string().into_bytes()))),
        Value::UInt(uint) => Ok(Some(Cow::Owned(uint.to_string().into_bytes()))),
        other => bytes(other, "a string, bytes, an int or null").map(Some),
    }
}

pub(super) fn partition(value: Value<'_>, _: &mut Budget) -> Result<Option<i32>, EvaluationError> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::Int(int) => i32::try_from(int).ok(),
        Value::UInt(uint) => i32::try_from(uint).ok(),
        other => return Err(expected("an int or null", &other)),
    };
    let number = number.filter(|number| *number >= 0);
    number.map(Some).ok_or_else(|| EvaluationError::new(format!("must be 0 to {}", i32::MAX)))
}

/// A map of names to a value, to a list of them, or to null.
pub(super) fn headers<'a>(
    value: Value<'a>,
    budget: &mut Budget,
) -> Result<Vec<MessageHeader<'a>>, EvaluationError> {
    let map = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Map(map) => map,
        other => return Err(expected("a map or null", &other)),
    };
    let wanted = "a string, bytes, a list of them or null";
    let mut headers = Vec::with_capacity(map.entries().len());
    for (name, value) in map.entries() {
        let Key::String(name) = name else {
            return Err(EvaluationError::new("a header's name must be a string"));
        };
        let values = match value {
            Value::List(values) => values,
            other => std::slice::from_ref(other),
        };
        for content in values {
            // One value can be there many times, and is copied each time.
            budget.pay(1)?;
            budget.pay_bytes(name.len() + length(content))?;
            let content = match (content, value) {
                (Value::Null, Value::Null) => None,
                _ => Some(bytes(content.clone(), wanted)?),
            };
            headers.push((bytes(Value::String(name.clone()), "a string")?, content));
        }
    }
    Ok(headers)
}

fn bytes<'a>(value: Value<'a>, wanted: &str) -> Result<Bytes<'a>, EvaluationError> {
    match value {
        Value::String(RcCow::Borrowed(text)) => Ok(Cow::Borrowed(text.as_bytes())),
        Value::String(RcCow::Owned(text)) => Ok(Cow::Owned(Rc::unwrap_or_clone(text).into_bytes())),
        Value::Bytes(bytes) => Ok(cow(bytes)),
        other => Err(expected(wanted, &other)),
    }
}

fn length(value: &Value<'_>) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

fn cow<T: ToOwned<Owned: Clone> + ?Sized>(shared: RcCow<'_, T>) -> Cow<'_, T> {
    match shared {
        RcCow::Borrowed(content) => Cow::Borrowed(content),
        RcCow::Owned(content) => Cow::Owned(Rc::unwrap_or_clone(content)),
    }
}

fn expected(wanted: &str, value: &Value<'_>) -> EvaluationError {
    EvaluationError::new(format!("must be {wanted}, is {}", value.type_name()))
}
