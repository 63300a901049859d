//! A record as readers get it: the JSON envelope, a block of text, or the bare value with headers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kafka_client::StoredRecord;
use serde_json::value::RawValue;

use super::feeds::Feed;
use super::json_text;
use super::selection::{
    ChangedValue, DECODE_ERROR, Deserializer, KEY_DECODE_ERROR, RECORD_TOO_LARGE, Selected,
};

/// A record of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// In order, repeated names included.
    pub(crate) headers: &'a [(Bytes, Option<Bytes>)],
    /// What readers get of it.
    pub(crate) selected: &'a Selected,
    /// Whether that was looked at: then there is no fault that it does not tell.
    pub(crate) is_checked: bool,
}

/// Who set a record's timestamp, by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What a request asks of each item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) headers: bool,
    pub(crate) metadata: bool,
    /// Whether offsets and timestamps are strings: JavaScript loses digits above 2^53.
    pub(crate) big_as_string: bool,
}

/// The JSON envelope.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    /// The cursor after this record, which has nothing to be escaped; if the feed's readers have any.
    id: Option<&'a str>,
    content: Content<'a>,
    metadata: Option<Metadata<'a>>,
    headers: Option<Headers<'a>>,
    is_tombstone: bool,
    /// Why the content is not what the feed says it is.
    error: Option<&'static str>,
}

/// A value without an envelope.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    /// `kafka-*`, all of visible ASCII and spaces: a record cannot forge a header.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: &'a [u8],
}

#[derive(Debug)]
struct Metadata<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    timestamp_type: TimestampType,
    key: Content<'a>,
    big_as_string: bool,
}

#[derive(Debug)]
enum Content<'a> {
    Null,
    Text(&'a str),
    /// As it is in the record, byte for byte.
    Json(Cow<'a, RawValue>),
    Base64(String),
}

/// Values by name, those of a repeated name in order.
#[derive(Debug)]
struct Headers<'a>(BTreeMap<Cow<'a, str>, Vec<HeaderValue<'a>>>);

#[derive(Debug)]
enum HeaderValue<'a> {
    Null,
    Text(&'a str),
    Base64(String),
}

impl<'a> Record<'a> {
    /// With its headers, as they were read from the record.
    pub(crate) fn of(
        topic: &'a str,
        partition: i32,
        record: &'a StoredRecord,
        headers: &'a [(Bytes, Option<Bytes>)],
    ) -> Self {
        Self {
            topic,
            partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            timestamp_type: match record.is_log_append_time {
                true => TimestampType::LogAppendTime,
                false => TimestampType::CreateTime,
            },
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers,
            selected: &Selected::Whole,
            is_checked: false,
        }
    }

    /// As readers of a feed get it.
    pub(crate) fn selected(self, selected: &'a Selected) -> Self {
        Self { selected, is_checked: true, ..self }
    }

    fn deserializer(&self, feed: &Feed) -> Deserializer {
        self.changed_value().map_or(feed.deserializer, |value| value.deserializer)
    }

    fn is_tombstone(&self) -> bool {
        self.changed_value().map_or(self.value.is_none(), |value| value.bytes.is_none())
    }

    fn changed_value(&self) -> Option<&'a ChangedValue> {
        match self.selected {
            Selected::Changed { value, .. } => value.as_ref(),
            _ => None,
        }
    }

    /// The key, and what it is.
    fn key_of(&self, feed: &Feed) -> (Option<&'a [u8]>, Deserializer) {
        match self.selected {
            Selected::Changed { key: Some(key), .. } => (Some(key), Deserializer::Json),
            _ => (self.key, feed.key_deserializer),
        }
    }
}

impl<'a> Envelope<'a> {
    /// Whatever the record holds, it becomes an item: none blocks a reader for ever.
    pub(crate) fn new(id: &'a str, record: &Record<'a>, feed: &Feed, shape: Shape) -> Self {
        let error = faulty(record, feed);
        let is_large = error == Some(RECORD_TOO_LARGE);
        let (key, key_deserializer) = record.key_of(feed);
        let (value, key) = if is_large { (None, None) } else { (value(record, feed), key) };
        let content = Content::new(value, record.deserializer(feed));
        let headers = (shape.headers && !is_large).then(|| Headers::of(record));
        let metadata = shape.metadata.then(|| Metadata {
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            timestamp_type: record.timestamp_type,
            key: Content::new(key, key_deserializer),
            big_as_string: shape.big_as_string,
        });
        let id = feed.delivery.has_cursors().then_some(id);
        Self { id, content, metadata, headers, is_tombstone: record.is_tombstone(), error }
    }

    /// The JSON. By hand: through serde it would cost several times as much.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self.id {
            Some(id) => {
                out.extend_from_slice(ENVELOPE_ID);
                out.extend_from_slice(id.as_bytes());
                out.extend_from_slice(b"\",");
            }
            None => out.push(b'{'),
        }
        out.extend_from_slice(b"\"content\":");
        self.content.write(out);
        if let Some(encoding) = self.content.encoding() {
            text_field(out, ",\"contentEncoding\":\"", encoding);
        }
        if let Some(metadata) = &self.metadata {
            out.extend_from_slice(b",\"metadata\":");
            metadata.write(out);
        }
        if let Some(headers) = &self.headers {
            out.extend_from_slice(b",\"headers\":");
            headers.write(out);
        }
        if self.is_tombstone {
            out.extend_from_slice(b",\"tombstone\":true");
        }
        if let Some(error) = self.error {
            text_field(out, ",\"error\":\"", error);
        }
        out.push(b'}');
    }

    /// A line of NDJSON.
    pub(crate) fn write_line(&self, out: &mut Vec<u8>) {
        self.write(out);
        out.push(b'\n');
    }

    /// A block of `text/plain`, with the empty line behind it.
    pub(crate) fn write_text(&self, out: &mut Vec<u8>) {
        line(out, "item", "");
        if let Some(id) = self.id {
            line(out, "id: ", id);
        }
        match &self.content {
            Content::Null => line(out, "content:", ""),
            Content::Text(text) => line(out, "content: ", &continued(text)),
            Content::Json(json) => line(out, "content: ", json.get()),
            Content::Base64(base64) => line(out, "content: ", base64),
        }
        if let Some(encoding) = self.content.encoding() {
            line(out, "contentEncoding: ", encoding);
        }
        if self.is_tombstone {
            line(out, "tombstone: ", "true");
        }
        if let Some(error) = self.error {
            line(out, "error: ", error);
        }
        if let Some(headers) = &self.headers {
            out.extend_from_slice(b"headers: ");
            headers.write(out);
            line(out, "", "");
        }
        if let Some(metadata) = &self.metadata {
            out.extend_from_slice(b"metadata: ");
            metadata.write(out);
            line(out, "", "");
        }
        line(out, "", "");
    }
}

impl<'a> Raw<'a> {
    /// The reply of `application/octet-stream`.
    pub(crate) fn new(record: &Record<'a>, feed: &Feed, shape: Shape) -> Self {
        let error = faulty(record, feed);
        let is_large = error == Some(RECORD_TOO_LARGE);
        let body = value(record, feed).filter(|_| !is_large).unwrap_or_default();
        let mut fields = Vec::new();
        if record.is_tombstone() {
            fields.push(("kafka-tombstone", "true".to_owned()));
        }
        fields.extend(error.map(|error| ("kafka-error", error.to_owned())));
        if shape.metadata {
            fields.extend([
                ("kafka-topic", record.topic.to_owned()),
                ("kafka-partition", record.partition.to_string()),
                ("kafka-offset", record.offset.to_string()),
                ("kafka-timestamp", record.timestamp_ms.to_string()),
            ]);
        }
        if let (Some(key), true) = (record.key_of(feed).0, shape.metadata && !is_large) {
            // What a header's value cannot hold, or would lose: spaces at its ends.
            let is_plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic());
            match std::str::from_utf8(key).ok().filter(is_plain) {
                _ if key.len() > HEADER_BYTES => fields.push(("kafka-omitted", "key".to_owned())),
                Some(text) => fields.push(("kafka-key", text.to_owned())),
                None => fields.extend([
                    ("kafka-key", STANDARD.encode(key)),
                    ("kafka-key-encoding", BASE64.to_owned()),
                ]),
            }
        }
        if shape.headers && !is_large {
            let mut json = Vec::new();
            Headers::of(record).write(&mut json);
            let json = ascii(&String::from_utf8_lossy(&json));
            match json.len() > HEADER_BYTES {
                true => fields.push(("kafka-omitted", "headers".to_owned())),
                false => fields.push(("kafka-headers", json)),
            }
        }
        Self { headers: fields, body }
    }
}

impl<'a> Content<'a> {
    /// Base64 where the bytes are not what they should be.
    fn new(bytes: Option<&'a [u8]>, deserializer: Deserializer) -> Self {
        let Some(bytes) = bytes else { return Self::Null };
        let content = match deserializer {
            Deserializer::Noop => std::str::from_utf8(bytes).ok().map(Self::Text),
            Deserializer::Json => json(bytes).map(Self::Json),
            // What was decoded is JSON.
            Deserializer::SchemaRegistry => None,
        };
        content.unwrap_or_else(|| Self::Base64(STANDARD.encode(bytes)))
    }

    fn encoding(&self) -> Option<&'static str> {
        matches!(self, Self::Base64(_)).then_some(BASE64)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Text(text) => json_text::write(out, text),
            Self::Json(json) => out.extend_from_slice(json.get().as_bytes()),
            Self::Base64(base64) => text_field(out, "\"", base64),
        }
    }
}

impl Metadata<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"topic\":");
        json_text::write(out, self.topic);
        out.extend_from_slice(b",\"partition\":");
        json_text::write_number(out, self.partition.into());
        let quote: &[u8] = if self.big_as_string { b"\"" } else { b"" };
        for (name, number) in [("offset", self.offset), ("timestamp", self.timestamp_ms)] {
            text_field(out, ",\"", name);
            out.push(b':');
            out.extend_from_slice(quote);
            json_text::write_number(out, number);
            out.extend_from_slice(quote);
        }
        text_field(out, ",\"timestampType\":\"", self.timestamp_type.name());
        out.extend_from_slice(b",\"key\":");
        self.key.write(out);
        if let Some(encoding) = self.key.encoding() {
            text_field(out, ",\"keyEncoding\":\"", encoding);
        }
        out.push(b'}');
    }
}

impl<'a> Headers<'a> {
    fn of(record: &Record<'a>) -> Self {
        let mut headers = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in record.headers {
            let text = value.as_ref().map(|value| (value, std::str::from_utf8(value)));
            let value = match text {
                None => HeaderValue::Null,
                Some((_, Ok(text))) => HeaderValue::Text(text),
                Some((value, Err(_))) => HeaderValue::Base64(STANDARD.encode(value)),
            };
            headers.entry(String::from_utf8_lossy(name)).or_default().push(value);
        }
        Self(headers)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (name, values)) in self.0.iter().enumerate() {
            separate(out, index);
            json_text::write(out, name);
            out.extend_from_slice(b":[");
            for (index, value) in values.iter().enumerate() {
                separate(out, index);
                match value {
                    HeaderValue::Null => out.extend_from_slice(b"null"),
                    HeaderValue::Text(text) => json_text::write(out, text),
                    HeaderValue::Base64(base64) => {
                        text_field(out, "{\"base64\":\"", base64);
                        out.push(b'}');
                    }
                }
            }
            out.push(b']');
        }
        out.push(b'}');
    }
}

impl TimestampType {
    fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

/// Why a record is not delivered as the feed says.
pub(super) fn faulty(record: &Record<'_>, feed: &Feed) -> Option<&'static str> {
    if is_too_large(record, feed) {
        return Some(RECORD_TOO_LARGE);
    }
    if record.is_checked {
        return record.selected.error();
    }
    let is_wrong = |bytes: Option<&[u8]>, deserializer| {
        deserializer == Deserializer::Json && bytes.is_some_and(|bytes| json(bytes).is_none())
    };
    if is_wrong(value(record, feed), record.deserializer(feed)) {
        return Some(DECODE_ERROR);
    }
    is_wrong(record.key, feed.key_deserializer).then_some(KEY_DECODE_ERROR)
}

/// Whether a record has more bytes than the feed delivers.
pub(super) fn is_too_large(record: &Record<'_>, feed: &Feed) -> bool {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = record.headers.iter().map(|(name, value)| name.len() + length(value.as_deref()));
    length(record.key) + length(record.value) + headers.sum::<usize>() > feed.record_bytes_max
}

/// The value, without a schema registry's header if the feed says so.
pub(super) fn value<'a>(record: &Record<'a>, feed: &Feed) -> Option<&'a [u8]> {
    // A schema named by a record header leaves the value without one.
    let is_named = || record.headers.iter().any(|(name, _)| &**name == VALUE_SCHEMA_ID);
    if let Some(changed) = record.changed_value() {
        return changed.bytes.as_deref();
    }
    // The record's own may have what the expression leaves out.
    if matches!(record.selected, Selected::Error(_)) && feed.selection.value_expression.is_some() {
        return None;
    }
    let value = record.value?;
    match value.split_at_checked(CONFLUENT_HEADER_BYTES) {
        Some(([0, ..], rest)) if feed.remove_confluent_header && !is_named() => Some(rest),
        _ => Some(value),
    }
}

/// The value as a bare text has it: JSON on one line, if the feed says that it is JSON.
pub(super) fn bare_value<'a>(record: &Record<'a>, feed: &Feed) -> Option<Cow<'a, [u8]>> {
    let value = value(record, feed)?;
    let json = if record.deserializer(feed) == Deserializer::Json { json(value) } else { None };
    Some(match json {
        Some(Cow::Borrowed(json)) => Cow::Borrowed(json.get().as_bytes()),
        Some(Cow::Owned(json)) => Cow::Owned(json.get().as_bytes().to_vec()),
        None => Cow::Borrowed(value),
    })
}

/// The value itself if it is JSON, on one line: a line break can stand between tokens only.
fn json(bytes: &[u8]) -> Option<Cow<'_, RawValue>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let value: &RawValue = serde_json::from_str(text).ok()?;
    if !value.get().contains(LINE_BREAKS) {
        return Some(Cow::Borrowed(value));
    }
    RawValue::from_string(value.get().replace(LINE_BREAKS, " ")).ok().map(Cow::Owned)
}

/// What has nothing to be escaped, behind its beginning with a quote, and the quote behind it.
fn text_field(out: &mut Vec<u8>, begin: &str, text: &str) {
    out.extend_from_slice(begin.as_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

fn line(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

/// One space follows each line break: a record cannot forge a line, and nothing of it is lost.
fn continued(text: &str) -> Cow<'_, str> {
    if !text.contains(LINE_BREAKS) {
        return Cow::Borrowed(text);
    }
    let mut continued = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        continued.push(char);
        let is_break = char == '\n' || char == '\r' && chars.peek() != Some(&'\n');
        continued.push_str(if is_break { " " } else { "" });
    }
    Cow::Owned(continued)
}

/// JSON with everything but visible ASCII and spaces escaped; controls are escaped already.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_ascii() && char != '\x7f' {
            text.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text
}

/// What the JSON of an envelope begins with: its id follows.
pub(super) const ENVELOPE_ID: &[u8] = b"{\"id\":\"";
const BASE64: &str = "base64";
/// Bytes of a key, and of all headers, that become a header line. Gateways refuse replies with more
/// than some 8 KiB, and then the record would block its reader for ever.
const HEADER_BYTES: usize = 2048;
const LINE_BREAKS: [char; 2] = ['\r', '\n'];
/// A zero and the schema's id.
const CONFLUENT_HEADER_BYTES: usize = 5;
/// Confluent's header with the schema of a value that has none before it.
const VALUE_SCHEMA_ID: &[u8] = b"__value_schema_id";

#[cfg(test)]
mod tests;
