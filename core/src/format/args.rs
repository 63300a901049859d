//! Arguments of a query string or form: names and values, decoded and grouped by name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::charset::Charset;
use super::multipart::Part;
use crate::query;

/// Arguments by name; the values of a name are in order of arrival.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Args<'a>(BTreeMap<Cow<'a, str>, Values<'a>>);

/// The values of one name: written as an array once there are several.
#[derive(Debug, Default, PartialEq, Eq)]
struct Values<'a>(Vec<ArgValue<'a>>);

/// An argument without `=` is `true`, as in Kong. Two bytes of a form make one: it must be small.
#[derive(Debug, PartialEq, Eq)]
enum ArgValue<'a> {
    Flag,
    Text(Cow<'a, str>),
    Bytes(Box<Bytes>),
}

/// What stands for a part of a form that is not text.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Bytes {
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    bytes: usize,
}

impl<'a> Args<'a> {
    /// Adds a value under a name.
    pub fn insert(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        self.push(name, ArgValue::Text(value));
    }

    /// Adds a part of a form: its text, or what is known of it where its content is none.
    pub fn insert_part(&mut self, part: Part<'a>) {
        let value = match std::str::from_utf8(part.content) {
            Ok(text) => ArgValue::Text(Cow::Borrowed(text)),
            Err(_) => ArgValue::Bytes(Box::new(Bytes {
                filename: part.filename,
                content_type: part.content_type,
                bytes: part.content.len(),
            })),
        };
        self.push(Cow::Owned(part.name), value);
    }

    fn push(&mut self, name: Cow<'a, str>, value: ArgValue<'a>) {
        self.0.entry(name).or_default().0.push(value);
    }

    /// Names in order, each with its values in order of arrival; an argument without `=` is none.
    pub fn into_groups(self) -> impl Iterator<Item = (Cow<'a, str>, Vec<Option<Cow<'a, str>>>)> {
        let text = |value| match value {
            ArgValue::Flag | ArgValue::Bytes(_) => None,
            ArgValue::Text(text) => Some(text),
        };
        let groups = self.0.into_iter();
        groups.map(move |(name, values)| (name, values.0.into_iter().map(text).collect()))
    }

    /// Parses `application/x-www-form-urlencoded` bytes (WHATWG URL, 5.1); what is not UTF-8 when
    /// it is decoded is read by `charset`.
    #[must_use]
    pub fn parse(bytes: &'a [u8], charset: Charset) -> Self {
        let mut args = Self::default();
        for piece in bytes.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()) {
            let mut parts = piece.splitn(2, |byte| *byte == b'=');
            let mut next = || parts.next().map(|part| charset.text(query::decoded(part)));
            let (name, value) =
                (next().unwrap_or_default(), next().map_or(ArgValue::Flag, ArgValue::Text));
            args.push(name, value);
        }
        args
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

impl Serialize for ArgValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flag => serializer.serialize_bool(true),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => bytes.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(query: &str) -> String {
        serde_json::to_string(&Args::parse(query.as_bytes(), Charset::Latin1)).unwrap()
    }

    #[test]
    fn an_argument_takes_little_memory() {
        assert!(size_of::<ArgValue>() <= 24);
    }

    #[test]
    fn repeated_names_become_arrays_and_a_bare_name_is_true() {
        assert_eq!(json(""), "{}");
        assert_eq!(json("b=2&a=1&b=&b"), r#"{"a":"1","b":["2","",true]}"#);
        assert_eq!(json("a+b=%C3%BC%26&&=x"), r#"{"":"x","a b":"ü&"}"#);
        assert_eq!(json("cut=%4&a=b=c"), r#"{"a":"b=c","cut":"%4"}"#);
    }

    #[test]
    fn an_argument_that_is_not_utf8_is_read_by_its_charset() {
        assert_eq!(
            json("a=%c3%a9&b=%E9&%E9=%EF%BF%BD"),
            r#"{"a":"é","b":"é","é":"\u{fffd}"}"#.replace("\\u{fffd}", "\u{fffd}")
        );
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
            prop_assert_eq!(Args::parse(encoded.as_bytes(), Charset::Latin1), expected);
        }

        #[test]
        fn every_byte_of_an_argument_is_in_the_text(
            bytes in prop::collection::vec(any::<u8>(), 1..64)
        ) {
            prop_assume!(std::str::from_utf8(&bytes).is_err());
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            let args = Args::parse(encoded.as_bytes(), Charset::Latin1);
            let name = args.into_groups().next().unwrap().0;
            let read: Vec<u8> = name.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
            prop_assert_eq!(read, bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            for charset in [Charset::Latin1, Charset::Windows1252] {
                let _ = Args::parse(&bytes, charset);
            }
        }
    }
}
