//! Server-Sent Events: a record, a notice and a heartbeat as the text that `EventSource` reads.
//!
//! A record cannot forge an event: text goes out line by line, and what has a carriage return or is
//! not UTF-8 goes out as base64.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::envelope::{ENVELOPE_ID, Envelope, Record, Shape, TimestampType, bare_value, faulty};
use super::feeds::{Data, Feed};

/// The end of a record's event that does not depend on who reads it, and where a reader's cursor is
/// to be put into it.
#[derive(Debug, Clone)]
pub(crate) struct Rendered<T> {
    pub(crate) text: T,
    /// In an envelope the cursor stands once more: behind so many bytes.
    pub(crate) id_at: Option<usize>,
}

/// What an event says beside records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Notice {
    Gap,
    Failure,
    Goaway,
}

/// What follows the line `id: …`.
pub(crate) fn render(record: &Record<'_>, feed: &Feed, shape: Shape) -> Rendered<Vec<u8>> {
    let mut out = Vec::new();
    // What a bare value cannot say an envelope says.
    let is_faulty = faulty(record, feed).is_some();
    if is_faulty || feed.sse.data == Data::Envelope {
        let event: &[u8] = if feed.sse.data == Data::Raw { b"error-item" } else { b"message" };
        let shape = if is_faulty { Shape { metadata: true, ..shape } } else { shape };
        out.extend_from_slice(&[b"event: ", event, b"\ndata: "].concat());
        let id_at = feed.delivery.has_cursors().then_some(out.len() + ENVELOPE_ID.len());
        Envelope::new("", record, feed, shape).write(&mut out);
        out.extend_from_slice(b"\n");
        comments(&mut out, record, feed);
        out.push(b'\n');
        return Rendered { text: out, id_at };
    }
    let value = bare_value(record, feed);
    let text = value.as_deref().map(|value| std::str::from_utf8(value).ok());
    match (text, &value) {
        (Some(Some(text)), _) if !text.contains('\r') => {
            out.extend_from_slice(b"event: message\n");
            for line in text.split('\n') {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(line.as_bytes());
                out.push(b'\n');
            }
        }
        (_, Some(value)) => {
            out.extend_from_slice(b"event: binary\ndata: ");
            out.extend_from_slice(STANDARD.encode(value).as_bytes());
            out.push(b'\n');
        }
        (_, None) => out.extend_from_slice(b"event: tombstone\ndata:\n"),
    }
    comments(&mut out, record, feed);
    out.push(b'\n');
    Rendered { text: out, id_at: None }
}

/// The beginning of a stream: when to come again. The spread keeps readers of a bridge that ended from
/// coming back all at once.
pub(crate) fn retry(random: u64) -> String {
    format!("retry: {}\n\n", RETRY_MS / 2 + random % (RETRY_MS + 1))
}

/// What will not be better soon is not worth coming back for soon.
pub(crate) fn retry_late() -> String {
    format!("retry: {RETRY_LATE_MS}\n\n")
}

/// Where the reader is, without an event.
pub(crate) fn position(id: &str) -> String {
    format!("id: {id}\n\n")
}

/// A sign of life; with the position if it has moved without an event.
pub(crate) fn heartbeat(id: Option<&str>) -> String {
    let mut text = ":\n".to_owned();
    if let Some(id) = id {
        let _infallible = writeln!(text, "id: {id}");
    }
    text.push('\n');
    text
}

/// An event of the bridge's own.
pub(crate) fn notice(notice: Notice, data: &serde_json::Value, id: Option<&str>) -> String {
    let event = match notice {
        Notice::Gap => "gap",
        Notice::Failure => "failure",
        Notice::Goaway => "goaway",
    };
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {event}\ndata: {data}\n\n")
}

/// Lines `:name: value`: those of the metadata first, always all of them, then the record's headers.
fn comments(out: &mut Vec<u8>, record: &Record<'_>, feed: &Feed) {
    if feed.sse.metadata_as_comment {
        comment(out, b"topic", record.topic.as_bytes());
        comment(out, b"partition", record.partition.to_string().as_bytes());
        comment(out, b"offset", record.offset.to_string().as_bytes());
        comment(out, b"timestamp", record.timestamp_ms.to_string().as_bytes());
        let kind: &[u8] = match record.timestamp_type {
            TimestampType::CreateTime => b"CreateTime",
            TimestampType::LogAppendTime => b"LogAppendTime",
        };
        comment(out, b"timestampType", kind);
        comment(out, b"key", record.key.unwrap_or_default());
    }
    if feed.sse.headers_as_comment {
        for (name, value) in record.headers {
            comment(out, name, value.as_deref().unwrap_or_default());
        }
    }
}

/// A name or value cannot end its line: that and whatever is not text is percent-encoded.
fn comment(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(b':');
    percent_encode(out, name);
    out.extend_from_slice(b": ");
    percent_encode(out, value);
    out.push(b'\n');
}

fn percent_encode(out: &mut Vec<u8>, bytes: &[u8]) {
    let percent = |out: &mut Vec<u8>, byte: u8| {
        let hex = |digit: u8| char::from_digit(digit.into(), 16).unwrap_or('0') as u8;
        out.extend([
            b'%',
            hex(byte >> 4).to_ascii_uppercase(),
            hex(byte & 15).to_ascii_uppercase(),
        ]);
    };
    for chunk in bytes.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'\r' | b'\n' | b'\0' | b'%' => percent(out, byte),
                byte => out.push(byte),
            }
        }
        chunk.invalid().iter().for_each(|byte| percent(out, *byte));
    }
}

/// How long a client waits before it connects again, ms; from half of it to one and a half.
const RETRY_MS: u64 = 3000;
const RETRY_LATE_MS: u64 = 60_000;

#[cfg(test)]
mod tests;
