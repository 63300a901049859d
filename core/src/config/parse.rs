//! Takes a configuration out of a document, and reports its first fault by its path, in the terms
//! of JSON, without showing a secret.

use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::document::JsonValue;
use super::field::ConfigError;
use crate::limits::CONFIG_DEPTH_MAX;

/// Reads a document.
pub(super) fn parse<'a, T: Deserialize<'a>>(document: &'a JsonValue) -> Result<T, ConfigError> {
    T::deserialize(ValueDeserializer { node: document, depth: 0 })
        .map_err(ParseError::into_config_error)
}

/// Reads a section of another document, as JSON; `section` is its path there.
///
/// # Errors
/// The first field that is unknown or has another type.
pub fn parse_section<T: DeserializeOwned>(section: &str, json: &[u8]) -> Result<T, ConfigError> {
    parse(&JsonValue::read(json)?).map_err(|ConfigError { path, reason }| {
        let inside = if path == "." { String::new() } else { format!(".{path}") };
        ConfigError { path: format!("{section}{inside}"), reason }
    })
}

/// What is wrong, and where: the path grows from its end.
#[derive(Debug)]
struct ParseError {
    path: String,
    reason: String,
    /// The wrong value, which is not shown where it may be a secret.
    value: Option<String>,
}

impl ParseError {
    fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into(), value: None }
    }

    fn under(mut self, parent: &str) -> Self {
        self.path.insert_str(0, parent);
        self
    }

    fn into_config_error(self) -> ConfigError {
        let path = match self.path.strip_prefix('.') {
            Some(path) => path.to_owned(),
            None => ".".to_owned(),
        };
        if self.reason == VAULT && path.contains(REGISTRY) {
            return ConfigError { path, reason: VAULT_OF_REGISTRY.to_owned() };
        }
        let hidden = SECRET.iter().any(|section| path.contains(section));
        let reason = match self.value.filter(|_| !hidden) {
            Some(value) => format!("{}, not `{value}`", self.reason),
            None => self.reason,
        };
        ConfigError { path, reason }
    }
}

/// Where secrets are, and so may be written into the field beside the right one.
const SECRET: [&str; 3] = ["authentication", "bridge_token", "schema_registry"];

/// The name that was meant, if one is near.
#[must_use]
pub fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&'a str| (strsim::damerau_levenshtein(unknown, known), *known);
    let nearest = known.iter().map(distance).min();
    nearest.filter(|(far, known)| *far <= known.len().div_ceil(3)).map(|(_, known)| known)
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for ParseError {}

impl de::Error for ParseError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::new(reason.to_string())
    }

    fn unknown_field(unknown: &str, known: &'static [&'static str]) -> Self {
        let reason = match nearest(unknown, known) {
            Some(known) => format!("unknown field, did you mean `{known}`?"),
            None => "unknown field".to_owned(),
        };
        Self::new(reason).under(&format!(".{unknown}"))
    }

    fn unknown_variant(value: &str, known: &'static [&'static str]) -> Self {
        let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let reason = match &names[..] {
            [first, second] => format!("expected {first} or {second}"),
            [only] => format!("expected {only}"),
            _ => format!("expected one of {}", names.join(", ")),
        };
        Self { value: Some(value.to_owned()), ..Self::new(reason) }
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::new("is there twice").under(&format!(".{name}"))
    }
}

/// A value of the document, so many lists and objects below its root.
#[derive(Clone, Copy)]
struct ValueDeserializer<'de> {
    node: &'de JsonValue,
    depth: usize,
}

impl<'de> ValueDeserializer<'de> {
    fn expected(self, what: &str) -> ParseError {
        ParseError::new(format!("expected {what}, not {}", self.node.kind()))
    }

    fn inside(self, node: &'de JsonValue) -> Result<Self, ParseError> {
        match node {
            JsonValue::Text(text) if text.starts_with("{vault://") => Err(ParseError::new(VAULT)),
            _ if self.depth == CONFIG_DEPTH_MAX => {
                Err(ParseError::new(format!("is nested deeper than {CONFIG_DEPTH_MAX} levels")))
            }
            _ => Ok(Self { node, depth: self.depth + 1 }),
        }
    }

    fn text(self) -> Result<&'de str, ParseError> {
        match self.node {
            JsonValue::Text(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }
}

/// Kong would resolve it before the plugin sees it.
const VAULT: &str = "is a reference to one of Kong's vaults, and nothing resolves it here: leave \
    the field out, name a `cluster` instead, and give the secret to host-bridge, in its \
    configuration or its environment (`HOST_BRIDGE_CLUSTERS__…`)";

const VAULT_OF_REGISTRY: &str = "is a reference to one of Kong's vaults, and nothing resolves it \
    here: give the secret itself, or leave `schema_registry` out in a capture of host-bridge, whose \
    [registries.NAME] and [schemas.NAME] it has then";
const REGISTRY: &str = "schema_registry";

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = ParseError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        match self.node {
            JsonValue::Null => visitor.visit_unit(),
            JsonValue::Bool(value) => visitor.visit_bool(*value),
            JsonValue::Number(number) => number.deserialize_any(visitor).map_err(de::Error::custom),
            JsonValue::Text(_) => visitor.visit_borrowed_str(self.text()?),
            JsonValue::List(_) => self.deserialize_seq(visitor),
            JsonValue::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        match self.node {
            JsonValue::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        match self.node {
            JsonValue::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        let number = match self.node {
            JsonValue::Number(number) => number.as_i64(),
            _ => None,
        };
        visitor.visit_i64(number.ok_or_else(|| self.expected("a whole number"))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParseError> {
        let name: StrDeserializer<'_, ParseError> = self.text()?.into_deserializer();
        visitor.visit_enum(name)
    }

    /// An empty object is an empty list too: JSON that is written in Lua cannot distinguish them.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        match self.node {
            JsonValue::List(items) => visitor.visit_seq(Items { place: self, items, next: 0 }),
            JsonValue::Object(members) if members.is_empty() => {
                visitor.visit_seq(Items { place: self, items: &[], next: 0 })
            }
            _ => Err(self.expected("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParseError> {
        match self.node {
            JsonValue::Object(members) => {
                visitor.visit_map(Members { place: self, members, next: 0 })
            }
            _ => Err(self.expected("an object")),
        }
    }

    /// serde's own would take a list of the fields' values, too.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParseError> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'de> {
    place: ValueDeserializer<'de>,
    items: &'de [JsonValue],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = ParseError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ParseError> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        let taken = self.place.inside(item).and_then(|place| seed.deserialize(place));
        taken.map(Some).map_err(|fault| fault.under(&format!("[{index}]")))
    }
}

struct Members<'de> {
    place: ValueDeserializer<'de>,
    members: &'de [(String, JsonValue)],
    next: usize,
}

impl<'de> de::MapAccess<'de> for Members<'de> {
    type Error = ParseError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ParseError> {
        let Some((name, _)) = self.members.get(self.next) else { return Ok(None) };
        let name: StrDeserializer<'_, ParseError> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ParseError> {
        let Some((name, value)) = self.members.get(self.next) else {
            return Err(ParseError::new("a member has no value"));
        };
        self.next += 1;
        let taken = self.place.inside(value).and_then(|place| seed.deserialize(place));
        taken.map_err(|fault| fault.under(&format!(".{name}")))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Plugin;

    fn refusal(fields: &str) -> String {
        let config = format!("{{\"bridge\":\"b\",\"topic\":\"t\",{fields}}}");
        match Plugin::parse(config.as_bytes()) {
            Ok(_) => "right".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_not_json_is_told_by_its_line_and_column() {
        for (json, error) in [
            (
                "{\n  \"topic\": \"t\",\n  \"linger\": 5 \"mode\"",
                "line 3, column 15: expected `,` or `}`",
            ),
            ("{\n\n\"a\": tru}", "line 3, column 9: expected ident"),
            ("{\"a\": 1,}", "line 1, column 9: trailing comma"),
            ("{} x", "line 1, column 4: trailing characters"),
            ("", "line 1, column 0: EOF while parsing a value"),
        ] {
            let refusal = Plugin::parse(json.as_bytes()).unwrap_err().to_string();
            assert_eq!(refusal, format!(".: {error}"), "{json}");
        }
        let deep = format!("{{\"match\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let refusal = Plugin::parse(deep.as_bytes()).unwrap_err().to_string();
        assert_eq!(refusal, ".: line 1, column 136: recursion limit exceeded");
    }

    #[test]
    fn a_wrong_type_is_told_in_the_words_of_json() {
        for (fields, error) in [
            ("\"linger\":\"5\"", "linger: expected a whole number, not a string"),
            ("\"linger\":1.5", "linger: expected a whole number, not a number with a fraction"),
            (
                "\"linger\":18446744073709551615",
                "linger: expected a whole number, not a number of more than 63 bits",
            ),
            ("\"forward_uri\":1", "forward_uri: expected true or false, not a number"),
            ("\"key_query_arg\":false", "key_query_arg: expected a string, not a boolean"),
            ("\"allowed_topics\":\"a\"", "allowed_topics: expected a list, not a string"),
            ("\"allowed_topics\":{\"a\":1}", "allowed_topics: expected a list, not an object"),
            ("\"allowed_topics\":[\"a\",null]", "allowed_topics[1]: expected a string, not null"),
            ("\"headers\":7", "headers: expected an object, not a number"),
            ("\"mode\":1", "mode: expected a string, not a number"),
            ("\"mode\":\"Tap\"", "mode: expected `terminate` or `tap`, not `Tap`"),
            ("\"linger\":1,\"linger\":2", "linger: is there twice"),
        ] {
            assert_eq!(refusal(fields), error);
        }
        assert_eq!(
            Plugin::parse(b"7").unwrap_err().to_string(),
            ".: expected an object, not a number"
        );
    }

    #[test]
    fn what_may_be_a_secret_is_never_shown() {
        for (fields, error) in [
            ("\"bridge_token\":12345", "bridge_token: expected a string"),
            (
                "\"authentication\":{\"strategy\":\"hunter2\"}",
                "authentication.strategy: expected `sasl`",
            ),
            ("\"authentication\":\"hunter2\"", "authentication: expected an object, not a string"),
            (
                "\"authentication\":{\"oauthbearer\":{\"scopes\":\"hunter2\"}}",
                "authentication.oauthbearer.scopes: expected a list, not a string",
            ),
            (
                "\"schema_registry\":{\"confluent\":{\"authentication\":{\"mode\":\"hunter2\"}}}",
                "schema_registry.confluent.authentication.mode: \
                 expected one of `none`, `basic`, `oauth2`",
            ),
        ] {
            assert_eq!(refusal(fields), error);
        }
        let vault = refusal("\"authentication\":{\"password\":\"{vault://env/kafka/pw}\"}");
        assert!(vault.starts_with("authentication.password: is a reference to one of"), "{vault}");
        assert!(!vault.contains("env/kafka"), "{vault}");
        let vault = refusal(
            "\"schema_registry\":{\"confluent\":{\"authentication\":{\"basic\":{\"password\":\"{vault://env/pw}\"}}}}",
        );
        let of_registry = "schema_registry.confluent.authentication.basic.password: is a reference";
        assert!(vault.starts_with(of_registry) && vault.contains("[registries.NAME]"), "{vault}");
    }

    #[test]
    fn a_list_is_no_object_and_an_empty_object_is_an_empty_list() {
        for (fields, path) in [
            ("\"bootstrap_servers\":[[\"h\",9092]]", "bootstrap_servers[0]"),
            ("\"headers\":[true]", "headers"),
            ("\"error_handling\":[]", "error_handling"),
            ("\"match\":[{},{\"config\":[]}]", "match[1].config"),
            ("\"headers\":{\"name_mappings\":[]}", "headers.name_mappings"),
        ] {
            assert_eq!(refusal(fields), format!("{path}: expected an object, not a list"));
        }
        let lists = "\"allowed_topics\":{},\"message_by_lua_functions\":{},\
            \"headers\":{\"include_headers\":{},\"exclude_headers\":{},\"name_mappings\":{}}";
        assert_eq!(refusal(lists), "right");
        assert_eq!(refusal(&format!("\"match\":[{{\"config\":{{{lists}}}}}]")), "right");
        assert_eq!(refusal("\"bootstrap_servers\":{}"), "bootstrap_servers: must not be empty");
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_before_it_is_looked_at() {
        let nest = |levels: usize| {
            let open = "\"match\":[{\"config\":{".repeat(levels);
            refusal(&format!("{open}{}", "}}]".repeat(levels)))
        };
        assert_eq!(nest(2), "match[0].config.match: is the same for all rules");
        let deep = nest(6);
        assert!(deep.ends_with(".match[0]: is nested deeper than 16 levels"), "{deep}");
        assert!(nest(60).contains("recursion limit exceeded"), "{}", nest(60));
    }
}
