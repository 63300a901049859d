//! The frames of JSON: what the bridge says, and what clients may say.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::consume::feeds::Feed;
use crate::consume::refusal::{Code, Refusal};
use crate::consume::selection;
use crate::consume::start::Gap;

/// What the bridge says beside records.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub(super) enum Frame<'a> {
    Welcome {
        /// As in all frames, where the feed's readers have cursors.
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<&'a str>,
        max_unacked: Option<usize>,
        max_unacked_bytes: Option<usize>,
        batch: usize,
    },
    Position {
        id: &'a str,
    },
    Gap {
        #[serde(flatten)]
        gap: &'a Gap,
        /// The cursor behind it and those before it.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    },
    Acked {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    Produced {
        r#ref: &'a RawValue,
        outcome: &'static str,
        status: u16,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        partition: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
        /// Why it is not written, or why that is unknown.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'static str>,
        /// Where it does not fit its schema. Any other reason may name brokers.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    Error {
        error: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Option<&'a RawValue>,
        /// Where the log begins and ends.
        #[serde(skip_serializing_if = "Option::is_none")]
        cursors: Option<Value>,
    },
    Goaway {
        reason: &'static str,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<&'a RawValue>,
    },
}

/// What a client says.
#[derive(Debug)]
pub(super) enum Command {
    /// All before a cursor.
    Ack(String),
    /// All of a partition up to a record.
    AckUpTo(Place),
    Nack(Place, String),
    Produce(Box<Produce>),
    Pause,
    Resume,
    Ping(Option<Box<RawValue>>),
}

/// A record that was sent.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// A record to be written.
#[derive(Debug, Default)]
pub(super) struct Produce {
    /// As the client has it: a string or a number. A bare value has none.
    pub(super) reference: Option<Box<RawValue>>,
    /// The feed's default without one.
    pub(super) topic: Option<String>,
    pub(super) partition: Option<i32>,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A frame that says nothing, and what it refers to.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) refusal: Refusal,
    pub(super) reference: Option<Box<RawValue>>,
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self { refusal: Code::InvalidParameter.because(message), reference: None }
    }
}

impl Command {
    /// # Errors
    /// [`Fault`].
    pub(super) fn parse(text: &str, feed: &Feed) -> Result<Self, Fault> {
        if !text.trim_start().starts_with('{') {
            return Err("a frame must be a JSON object".to_owned().into());
        }
        let Typed { kind, reference } = read(text, "a frame")?;
        match &*kind {
            "ack" => {
                let RawAck { id, topic, partition, offset, .. } = read(text, "ack")?;
                match (id, topic, partition, offset) {
                    (Some(id), None, None, None) => Ok(Self::Ack(id)),
                    (None, Some(topic), Some(partition), Some(offset)) => {
                        Ok(Self::AckUpTo(Place { topic, partition, offset }))
                    }
                    _ => Err("ack: give an id, or topic, partition and offset".to_owned().into()),
                }
            }
            "nack" => {
                let RawNack { topic, partition, offset, reason, .. } = read(text, "nack")?;
                let reason = reason.unwrap_or_default();
                if reason.len() > REASON_BYTES {
                    return Err(
                        format!("nack: the reason has more than {REASON_BYTES} bytes").into()
                    );
                }
                Ok(Self::Nack(Place { topic, partition, offset }, reason))
            }
            "produce" => {
                Produce::parse(text, reference, feed).map(|record| Self::Produce(Box::new(record)))
            }
            "pause" => Ok(Self::Pause),
            "resume" => Ok(Self::Resume),
            "ping" => read(text, "ping").map(|RawPing { state }| Self::Ping(state)),
            _ => Err("type: there are ack, nack, produce, pause, resume, ping".to_owned().into()),
        }
    }
}

impl Produce {
    fn parse(text: &str, reference: Option<&RawValue>, feed: &Feed) -> Result<Self, Fault> {
        let must_be = "produce: ref must be a string or a number of up to 256 bytes";
        if reference.is_some_and(|reference| !is_reference(reference)) {
            return Err(must_be.to_owned().into());
        }
        let reference = reference.map(ToOwned::to_owned);
        let of_it = |fault| Fault { reference: reference.clone(), ..fault };
        let raw: RawProduce<'_> = read(text, "produce").map_err(of_it)?;
        if reference.is_none() {
            return Err(must_be.to_owned().into());
        }
        let record =
            raw.record(feed).map_err(|message| of_it(format!("produce: {message}").into()));
        record.map(|record| Self { reference: reference.clone(), ..record })
    }
}

fn is_reference(json: &RawValue) -> bool {
    let is_first = |first: char| matches!(first, '"' | '-') || first.is_ascii_digit();
    json.get().starts_with(is_first) && json.get().len() <= REF_BYTES
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    /// An error about any other field of a record comes with it.
    #[serde(rename = "ref", borrow)]
    reference: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAck {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    id: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
    #[serde(default, deserialize_with = "offset")]
    offset: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNack {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    topic: String,
    partition: i32,
    #[serde(deserialize_with = "given_offset")]
    offset: i64,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct RawPing {
    state: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawProduce<'a> {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    #[serde(rename = "ref")]
    _reference: IgnoredAny,
    #[serde(borrow)]
    content: &'a RawValue,
    content_encoding: Option<Cow<'a, str>>,
    topic: Option<String>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    key_encoding: Option<Cow<'a, str>>,
    #[serde(default)]
    headers: Headers,
    partition: Option<i32>,
    #[serde(default, deserialize_with = "timestamp")]
    timestamp: Option<i64>,
}

impl RawProduce<'_> {
    fn record(self, feed: &Feed) -> Result<Produce, String> {
        if self.partition.is_some_and(|partition| partition < 0) {
            return Err("partition must be a number from 0 on".to_owned());
        }
        if self.timestamp.is_some_and(|ms| ms < 0) {
            return Err("timestamp must be milliseconds since 1970".to_owned());
        }
        let value = ("content", Some(self.content), self.content_encoding);
        let key = ("key", self.key, self.key_encoding);
        Ok(Produce {
            reference: None,
            topic: self.topic,
            partition: self.partition,
            timestamp_ms: self.timestamp,
            value: bytes(value, feed.deserializer)?,
            key: bytes(key, feed.key_deserializer)?,
            headers: self.headers.0,
        })
    }
}

/// What a client got as the content of a record, or as its key, it can write as that.
fn bytes(
    (name, content, encoding): (&str, Option<&RawValue>, Option<Cow<'_, str>>),
    deserializer: selection::Deserializer,
) -> Result<Option<Vec<u8>>, String> {
    let Some(json) = content.map(RawValue::get).filter(|json| *json != "null") else {
        return Ok(None);
    };
    let text = || serde_json::from_str::<String>(json).ok();
    match (encoding.as_deref(), deserializer) {
        (Some("base64"), _) => {
            let decoded = text().and_then(|text| STANDARD.decode(text).ok());
            decoded.map(Some).ok_or_else(|| format!("{name} is not base64"))
        }
        (Some(_), _) => Err(format!("{name}Encoding must be base64, or be left out")),
        (None, selection::Deserializer::Json | selection::Deserializer::SchemaRegistry) => {
            Ok(Some(json.as_bytes().to_vec()))
        }
        (None, selection::Deserializer::Noop) => {
            Ok(Some(text().map_or_else(|| json.as_bytes().to_vec(), String::into_bytes)))
        }
    }
}

/// In the order in which they stand, with repeated names.
#[derive(Default)]
struct Headers(Vec<(String, Option<Vec<u8>>)>);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a value in headers must be a string, null, {\"base64\":\"…\"}, or a list of these"
)]
enum HeaderValues {
    One(Option<HeaderValue>),
    Several(Vec<Option<HeaderValue>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HeaderValue {
    Text(String),
    Base64 { base64: String },
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Headers;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of headers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let (mut headers, mut bytes) = (Vec::new(), 0);
                while let Some((name, values)) = map.next_entry::<String, HeaderValues>()? {
                    let values = match values {
                        HeaderValues::One(value) => vec![value],
                        HeaderValues::Several(values) => values,
                    };
                    for value in values {
                        let value = value.map(HeaderValue::bytes).transpose();
                        let value = value.map_err(A::Error::custom)?;
                        // A name stands once in the frame, and in the record with each of its values.
                        bytes += name.len() + value.as_ref().map_or(0, Vec::len) + HEADER_OVERHEAD;
                        if bytes > HEADERS_BYTES {
                            return Err(A::Error::custom("headers take more than 1 MiB"));
                        }
                        headers.push((name.clone(), value));
                    }
                }
                Ok(Headers(headers))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl HeaderValue {
    fn bytes(self) -> Result<Vec<u8>, &'static str> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Base64 { base64 } => {
                STANDARD.decode(base64).map_err(|_| "a value in headers is not base64")
            }
        }
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| format!("{what}: {error}").into())
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    big(deserializer, "timestamp").map(Some)
}

fn offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    given_offset(deserializer).map(Some)
}

fn given_offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    big(deserializer, "offset")
}

/// A number, or a string of one: JavaScript loses digits above 2^53.
fn big<'de, D: Deserializer<'de>>(deserializer: D, name: &str) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Big {
        Number(i64),
        Text(String),
    }
    let number = match Big::deserialize(deserializer) {
        Ok(Big::Number(number)) => Some(number),
        Ok(Big::Text(text)) => text.parse().ok(),
        Err(_) => None,
    };
    number.ok_or_else(|| D::Error::custom(format!("{name} must be an integer")))
}

/// Bytes of what an answer refers to, which comes back with it.
const REF_BYTES: usize = 256;
/// Bytes of a record's headers, as many as a message has; and what each takes beside its name and value.
const HEADERS_BYTES: usize = 1024 * 1024;
const HEADER_OVERHEAD: usize = 64;
/// Bytes of the reason in a dead letter's header.
const REASON_BYTES: usize = 1024;

#[cfg(test)]
mod tests;
