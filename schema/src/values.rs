//! JSON text as values: no name twice in an object, and no more levels than the limit.
//!
//! A name that comes twice is refused, because what is checked here would not be what a consumer
//! reads that takes the other one.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::Invalid;
use crate::limits::DEPTH_MAX;
use crate::path::Path;

/// A document, and how deep it is.
pub(crate) struct Tree {
    pub(crate) value: Value,
    pub(crate) levels: usize,
}

/// Reads a whole JSON text.
pub(crate) fn read(json: &[u8]) -> Result<Tree, Invalid> {
    let reader = Reader::default();
    let mut input = serde_json::Deserializer::from_slice(json);
    let read = reader.at(&Path::Root, 0).deserialize(&mut input);
    let levels = reader.levels.get();
    match read.and_then(|value| input.end().map(|()| value)) {
        Ok(value) => Ok(Tree { value, levels }),
        Err(error) => Err(reader.fault.take().unwrap_or_else(|| not_json(json, &error))),
    }
}

/// The parser's reason, which names what it expected and quotes nothing, and the byte.
pub(crate) fn not_json(json: &[u8], error: &serde_json::Error) -> Invalid {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    let lines = error.line().saturating_sub(1);
    let before: usize = json.split(|&b| b == b'\n').take(lines).map(|line| line.len() + 1).sum();
    let byte = before + error.column().saturating_sub(1);
    Path::Root.invalid(format!("it is not JSON: {reason} at byte {byte}"))
}

#[derive(Default)]
struct Reader {
    levels: Cell<usize>,
    /// Why reading ended, if that was not the parser's fault.
    fault: RefCell<Option<Invalid>>,
}

impl Reader {
    fn at<'a>(&'a self, path: &'a Path<'a>, level: usize) -> Place<'a> {
        Place { reader: self, path, level }
    }
}

/// A value that is about to be read.
#[derive(Clone, Copy)]
struct Place<'a> {
    reader: &'a Reader,
    path: &'a Path<'a>,
    level: usize,
}

impl Place<'_> {
    fn stop<E: serde::de::Error>(&self, path: &Path<'_>, reason: String) -> E {
        *self.reader.fault.borrow_mut() = Some(path.invalid(reason));
        E::custom("")
    }

    /// The level of what is inside.
    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        let level = self.level + 1;
        self.reader.levels.set(self.reader.levels.get().max(level));
        if level > DEPTH_MAX {
            let reason = format!("it has more than {DEPTH_MAX} levels of objects and arrays");
            return Err(self.stop(self.path, reason));
        }
        Ok(level)
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let level = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) =
            items.next_element_seed(self.reader.at(&self.path.index(values.len()), level))?
        {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let level = self.deeper()?;
        let mut values = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let path = self.path.name(&name);
            if values.contains_key(&name) {
                return Err(self.stop(&path, "its name comes twice in the object".to_owned()));
            }
            let value = members.next_value_seed(self.reader.at(&path, level))?;
            values.insert(name, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        read(json.as_bytes()).map(|document| document.value).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_json_is_named_by_its_byte() {
        assert_eq!(refusal(""), "$: it is not JSON: EOF while parsing a value at byte 0");
        assert_eq!(refusal("{\"a\":\n x}"), "$: it is not JSON: expected value at byte 7");
        assert_eq!(refusal("[1,]"), "$: it is not JSON: trailing comma at byte 3");
        assert_eq!(refusal("{} {}"), "$: it is not JSON: trailing characters at byte 3");
        assert_eq!(refusal("[1e400]"), "$: it is not JSON: number out of range at byte 5");
        assert_eq!(refusal("secret"), "$: it is not JSON: expected value at byte 0");
        let invalid = read(b"\"\xff\"").map(|document| document.value).unwrap_err();
        assert_eq!(invalid.reason, "it is not JSON: invalid unicode code point at byte 1");
    }

    #[test]
    fn a_name_comes_once() {
        assert_eq!(
            refusal(r#"{"a":[{"b":1,"\u0062":2}]}"#),
            "$.a[0].b: its name comes twice in the object"
        );
    }

    #[test]
    fn levels_are_limited() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(read(nested(DEPTH_MAX).as_bytes()).unwrap().levels, DEPTH_MAX);
        for levels in [DEPTH_MAX + 1, 1_000_000] {
            let reason = "it has more than 64 levels of objects and arrays";
            let place = "[0]".repeat(DEPTH_MAX);
            assert_eq!(refusal(&nested(levels)), format!("${place}: {reason}"));
        }
    }

    #[test]
    fn integers_keep_their_digits() {
        let text = "[9007199254740993,18446744073709551615,-9223372036854775808,0.1]";
        assert_eq!(read(text.as_bytes()).unwrap().value.to_string(), text);
    }
}
