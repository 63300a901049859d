//! Values from JSON and as JSON.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::cost::{Budget, EvaluationError};
use super::value::{Key, Map, RcCow, Repeats, Value};
use crate::limits::EXPRESSION_VALUES_MAX;

/// Reads the document of a variable; its depth is serde_json's, 128.
pub(super) fn read<'a>(name: &str, text: &'a [u8]) -> Result<Value<'a>, EvaluationError> {
    let left = Cell::new(EXPRESSION_VALUES_MAX);
    let mut document = serde_json::Deserializer::from_slice(text);
    let value = Seed(&left).deserialize(&mut document);
    value.map_err(|error| {
        // The place would be one in the message, which the client has not sent.
        let error = error.to_string();
        EvaluationError::new(format!(
            "`{name}`: {}",
            error.split(" at line ").next().unwrap_or_default()
        ))
    })
}

/// Reads one value, and counts it.
struct Seed<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| {
            D::Error::custom(format!("it has more than {EXPRESSION_VALUES_MAX} values"))
        })?;
        self.0.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(bool))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(int))
    }

    fn visit_u64<E>(self, uint: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(uint).map_or(Value::UInt(uint), Value::Int))
    }

    fn visit_f64<E>(self, double: f64) -> Result<Value<'de>, E> {
        Ok(Value::Double(double))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::String(RcCow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(Seed(self.0))? {
            items.push(item);
        }
        Ok(Value::list(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = object.next_key_seed(Seed(self.0))? {
            let key = Key::of(&name).ok_or_else(|| A::Error::custom("a name is not text"))?;
            entries.push((key, object.next_value_seed(Seed(self.0))?));
        }
        Ok(Value::Map(Rc::new(Map::new(entries, Repeats::LastWins).unwrap_or_default())))
    }
}

/// Writes a value; bytes become base64, and a number that JSON has not becomes its name.
pub(super) fn write(
    value: &Value<'_>,
    out: &mut Vec<u8>,
    budget: &mut Budget,
) -> Result<(), EvaluationError> {
    budget.pay(1)?;
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(bool) => out.extend_from_slice(bool.to_string().as_bytes()),
        Value::Int(int) => out.extend_from_slice(int.to_string().as_bytes()),
        Value::UInt(uint) => out.extend_from_slice(uint.to_string().as_bytes()),
        Value::Double(double) if double.is_finite() => put(double, out)?,
        Value::Double(double) if double.is_nan() => out.extend_from_slice(b"\"NaN\""),
        Value::Double(double) => {
            let name = if *double > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" };
            out.extend_from_slice(name.as_bytes());
        }
        Value::String(text) => {
            budget.pay_bytes(text.len() * ESCAPING)?;
            put(&**text, out)?;
        }
        Value::Bytes(bytes) => {
            budget.pay_bytes(bytes.len() * ESCAPING)?;
            put(&STANDARD.encode(&**bytes), out)?;
        }
        Value::List(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                write(item, out, budget)?;
            }
            out.push(b']');
        }
        Value::Map(map) => {
            out.push(b'{');
            for (at, (key, value)) in map.entries().iter().enumerate() {
                separate(at, out);
                write_key(key, out, budget)?;
                out.push(b':');
                write(value, out, budget)?;
            }
            out.push(b'}');
        }
        Value::Type(name) => put(name, out)?,
    }
    Ok(())
}

/// The names of JSON's objects are strings; other keys are written as such.
fn write_key(key: &Key<'_>, out: &mut Vec<u8>, budget: &mut Budget) -> Result<(), EvaluationError> {
    match key {
        Key::String(name) => {
            budget.pay_bytes(name.len() * ESCAPING)?;
            put(&**name, out)
        }
        Key::Bool(bool) => put(&bool.to_string(), out),
        Key::Int(int) => put(&int.to_string(), out),
        Key::UInt(uint) => put(&uint.to_string(), out),
    }
}

fn put<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EvaluationError> {
    serde_json::to_writer(out, value).map_err(|error| EvaluationError::new(error.to_string()))
}

fn separate(at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
}

/// Escaping a byte, or its base64, takes more than copying it.
const ESCAPING: usize = 2;
