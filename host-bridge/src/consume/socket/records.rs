//! Records as the frames of a socket.

use bytes::Bytes;

use super::asked::{Asked, Protocol};
use crate::consume::acks::Acks;
use crate::consume::envelope::{self, Envelope, Record};
use crate::consume::follow::Taken;
use crate::consume::reader::FeedReader;
use crate::limits::FEED_SHARED_BYTES;
use crate::websocket::{Kind, write_head};

/// What a client may owe acknowledgements of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Window {
    pub(super) fn new(records: usize) -> Self {
        Self { records, bytes: UNACKED_BYTES }
    }

    /// How many more records fit.
    pub(super) fn room(self, acks: &Acks) -> usize {
        match acks.bytes() < self.bytes {
            true => self.records.saturating_sub(acks.records()),
            false => 0,
        }
    }
}

/// Frames in the making.
pub(super) struct Records<'a> {
    reader: &'a FeedReader,
    asked: Asked,
    /// Ready to be sent, and whole frames behind them.
    parts: Vec<Bytes>,
    out: Vec<u8>,
    bytes: usize,
    /// The frame that is being written.
    text: Vec<u8>,
    /// Its records.
    batch: usize,
    /// The cursor behind the last, where the message that has it ends later.
    id: String,
    /// Moves of the reader behind the last.
    moves: Option<u64>,
    count: u64,
}

impl<'a> Records<'a> {
    pub(super) fn new(reader: &'a FeedReader, asked: Asked) -> Self {
        Self {
            reader,
            asked,
            parts: Vec::new(),
            out: Vec::new(),
            bytes: 0,
            text: Vec::new(),
            batch: 0,
            id: String::new(),
            moves: None,
            count: 0,
        }
    }

    /// Bytes of all frames so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.text.len()
    }

    /// Adds a record, and returns its bytes.
    pub(super) fn write(&mut self, taken: &Taken<'_>) -> usize {
        let Some(stored) = taken.segment.records.get(taken.index) else { return 0 };
        let headers: Vec<_> = stored.record.headers.iter().collect();
        let record = Record::of(taken.topic, taken.partition, &stored.record, &headers)
            .selected(&taken.selected);
        let before = self.bytes();
        self.moves = Some(taken.moves);
        match self.asked.protocol {
            Protocol::Json => self.write_json(taken.id, &record),
            Protocol::Raw => self.write_value(&record),
        }
        self.bytes() - before
    }

    fn write_json(&mut self, id: &str, record: &Record<'_>) {
        let feed = &*self.reader.feed;
        if self.asked.batch == 1 {
            self.text.extend_from_slice(MESSAGE);
        } else {
            self.text.extend_from_slice(if self.batch == 0 { MESSAGES } else { b"," });
        }
        let brace = self.text.len();
        Envelope::new(id, record, feed, self.asked.shape).write(&mut self.text);
        self.count += 1;
        self.batch += 1;
        if self.asked.batch == 1 {
            // The record goes on where the frame began.
            if let Some(brace) = self.text.get_mut(brace) {
                *brace = b',';
            }
            self.end_frame(Kind::Text);
        } else {
            id.clone_into(&mut self.id);
            if self.batch == self.asked.batch {
                self.end_batch();
            }
        }
    }

    /// What a bare value cannot say is left out: that there is another one.
    fn write_value(&mut self, record: &Record<'_>) {
        let feed = &*self.reader.feed;
        if envelope::faulty(record, feed).is_some() {
            return;
        }
        self.count += 1;
        let value = envelope::bare_value(record, feed);
        let is_text = value.as_ref().is_some_and(|value| std::str::from_utf8(value).is_ok());
        self.text.extend_from_slice(value.as_deref().unwrap_or_default());
        self.end_frame(if is_text { Kind::Text } else { Kind::Binary });
    }

    fn end_batch(&mut self) {
        if self.batch > 0 && self.asked.batch > 1 {
            self.text.push(b']');
            if self.reader.feed.delivery.has_cursors() {
                self.text.extend_from_slice(b",\"id\":\"");
                self.text.extend_from_slice(self.id.as_bytes());
                self.text.push(b'"');
            }
            self.text.push(b'}');
            self.end_frame(Kind::Text);
        }
    }

    fn end_frame(&mut self, kind: Kind) {
        let before = self.out.len();
        write_head(&mut self.out, kind, self.text.len());
        if self.text.len() > FEED_SHARED_BYTES {
            // It is not copied once more.
            self.bytes += self.out.len() - before + self.text.len();
            let text = std::mem::take(&mut self.text);
            self.end_part();
            let memory = &self.reader.hub.resources.memory;
            self.parts.push(memory.hold(text.len()).keep(text));
        } else {
            self.out.append(&mut self.text);
            self.bytes += self.out.len() - before;
        }
        self.batch = 0;
    }

    fn end_part(&mut self) {
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            let memory = &self.reader.hub.resources.memory;
            self.parts.push(memory.hold(out.len()).keep(out));
        }
    }

    /// The frames, how many records they have, and the moves of the reader behind them.
    pub(super) fn finish(mut self) -> (Vec<Bytes>, u64, Option<u64>) {
        self.end_batch();
        self.end_part();
        (self.parts, self.count, self.moves)
    }
}

const MESSAGE: &[u8] = b"{\"type\":\"message\"";
const MESSAGES: &[u8] = b"{\"type\":\"messages\",\"items\":[";
/// Bytes of records that are not acknowledged: a client that has so many is sent no more.
const UNACKED_BYTES: usize = 4 * 1024 * 1024;
