//! JSON text as the validator takes it.

use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::json::{self, Json, Kind};
use crate::limits::DEPTH_MAX;

/// A document, and how deep it is.
pub(super) struct Tree {
    pub(super) value: Value,
    pub(super) levels: usize,
}

/// Reads a whole JSON text.
pub(super) fn read(json: &[u8]) -> Result<Tree, Fault> {
    let json = Json::parse_bytes(json, DEPTH_MAX)?;
    let mut levels = 0;
    Ok(Tree { value: value(json.root(), 0, &mut levels)?, levels })
}

/// The value inside `level` others; `deepest` becomes the most of them.
fn value(json: json::Value<'_>, level: usize, deepest: &mut usize) -> Result<Value, Fault> {
    Ok(match json.kind() {
        Kind::Null => Value::Null,
        Kind::False => Value::Bool(false),
        Kind::True => Value::Bool(true),
        Kind::String | Kind::Escaped => json.text().into(),
        Kind::Integer | Kind::Number => {
            let number = json.text().parse();
            Value::Number(number.map_err(|_| Fault::new("it is beyond a double's range"))?)
        }
        Kind::Array => {
            *deepest = (*deepest).max(level + 1);
            let items = json.items().enumerate().map(|(index, item)| {
                value(item, level + 1, deepest).map_err(|fault| fault.of_item(index))
            });
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Kind::Object => {
            *deepest = (*deepest).max(level + 1);
            let mut members = Map::new();
            for (name, member) in json.members() {
                let member = value(member, level + 1, deepest);
                let member = member.map_err(|fault| fault.of_member(name))?;
                if members.insert(name.to_owned(), member).is_some() {
                    return Err(json::repeated(name));
                }
            }
            Value::Object(members)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Invalid;

    fn refusal(json: &str) -> String {
        Invalid::from(read(json.as_bytes()).map(|tree| tree.value).unwrap_err()).to_string()
    }

    #[test]
    fn a_name_comes_once() {
        assert_eq!(refusal(r#"{"a":[{"b":1,"\u0062":2}]}"#), "$.a[0].b: it comes twice");
    }

    #[test]
    fn levels_are_counted_and_limited() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(read(nested(DEPTH_MAX).as_bytes()).unwrap().levels, DEPTH_MAX);
        assert_eq!(read(br#"[0,{"a":[[]]},1]"#).unwrap().levels, 4);
        for levels in [DEPTH_MAX + 1, 1_000_000] {
            assert_eq!(refusal(&nested(levels)), "$: the document has too many levels");
        }
    }

    #[test]
    fn integers_keep_their_digits() {
        let text = "[9007199254740993,18446744073709551615,-9223372036854775808,0.1]";
        assert_eq!(read(text.as_bytes()).unwrap().value.to_string(), text);
        assert_eq!(refusal("[1e400]"), "$[0]: it is beyond a double's range");
    }
}
