//! Arguments of a query string or form: names and values, decoded and grouped by name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use serde::{Serialize, Serializer};

use super::FormatError;

/// Arguments by name; the values of a name are in order of arrival.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Args<'a>(BTreeMap<Cow<'a, str>, Values<'a>>);

/// The values of one name: written as an array once there are several.
#[derive(Debug, Default, PartialEq, Eq)]
struct Values<'a>(Vec<Value<'a>>);

/// An argument without `=` is `true`, as in Kong.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Flag,
    Text(Cow<'a, str>),
}

impl<'a> Args<'a> {
    /// Adds a value under a name.
    pub fn insert(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        self.0.entry(name).or_default().0.push(Value::Text(value));
    }

    /// Names in order, each with its values in order of arrival; an argument without `=` is none.
    pub fn into_groups(self) -> impl Iterator<Item = (Cow<'a, str>, Vec<Option<Cow<'a, str>>>)> {
        let text = |value| match value {
            Value::Flag => None,
            Value::Text(text) => Some(text),
        };
        let groups = self.0.into_iter();
        groups.map(move |(name, values)| (name, values.0.into_iter().map(text).collect()))
    }

    /// Parses `application/x-www-form-urlencoded` bytes (WHATWG URL, 5.1). `what` names them in
    /// the error.
    ///
    /// # Errors
    /// Names the first argument that is not UTF-8 when it is decoded.
    pub fn parse(bytes: &'a [u8], what: &'static str) -> Result<Self, FormatError> {
        let mut args = Self::default();
        for (index, piece) in bytes.split(|byte| *byte == b'&').enumerate() {
            for (name, value) in form_urlencoded::parse(piece) {
                if [&name, &value].iter().any(|text| text.contains('\u{fffd}')) {
                    percent_decode(piece)
                        .decode_utf8()
                        .map_err(|_| FormatError::ArgumentNotUtf8 { what, index: index + 1 })?;
                }
                let value = if piece.contains(&b'=') { Value::Text(value) } else { Value::Flag };
                args.0.entry(name).or_default().0.push(value);
            }
        }
        Ok(args)
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flag => serializer.serialize_bool(true),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(query: &str) -> String {
        serde_json::to_string(&Args::parse(query.as_bytes(), "query").unwrap()).unwrap()
    }

    #[test]
    fn repeated_names_become_arrays_and_a_bare_name_is_true() {
        assert_eq!(json(""), "{}");
        assert_eq!(json("b=2&a=1&b=&b"), r#"{"a":"1","b":["2","",true]}"#);
        assert_eq!(json("a+b=%C3%BC%26&&=x"), r#"{"":"x","a b":"ü&"}"#);
        assert_eq!(json("cut=%4&a=b=c"), r#"{"a":"b=c","cut":"%4"}"#);
    }

    #[test]
    fn an_argument_that_is_not_utf8_is_named() {
        let error = Args::parse(b"a=1&b=%ff", "query").unwrap_err();
        assert_eq!(error.to_string(), "query: argument 2 is not valid UTF-8 when it is decoded");
        assert!(Args::parse("a=%EF%BF%BD".as_bytes(), "query").is_ok());
    }

    proptest! {
        #[test]
        fn what_a_form_encoder_writes_is_read_back(
            pairs in prop::collection::vec((".{0,8}", ".{0,8}"), 0..8)
        ) {
            let encoded = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&pairs)
                .finish();
            let mut expected = Args::default();
            for (name, value) in &pairs {
                expected.insert(name.into(), value.into());
            }
            prop_assert_eq!(Args::parse(encoded.as_bytes(), "query").unwrap(), expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Args::parse(&bytes, "query");
        }
    }
}
