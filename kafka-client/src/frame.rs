//! Length-prefixed frames, with a limit that is checked before memory is taken.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::READ_STEP_BYTES;

const LENGTH_BYTES: usize = 4;
/// Room of a frame that stays with its connection for the next one: that of the answers that most readers
/// ask for.
const KEPT_BYTES: usize = 2 * 1024 * 1024;
/// A spare room below this is not worth a read call.
const LEAST_SPARE_BYTES: usize = 4096;

/// Why the bytes of a peer are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame cannot have a length of {0}")]
    Negative(i32),
    #[error("a frame of {0} bytes has no room for a correlation id")]
    TooShort(i32),
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong { length: i32, limit: usize },
    #[error("this listener speaks TLS; set security.protocol to SSL or SASL_SSL")]
    Tls,
    #[error("this is an HTTP server, not a Kafka broker")]
    Http,
}

/// Cuts a stream into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    limit: usize,
    first: bool,
    /// Bytes of the largest frame that has come.
    largest: usize,
}

impl Decoder {
    /// A decoder for a fresh stream, with frames of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit, first: true, largest: 0 }
    }

    pub(crate) fn raise_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Where to read into. It grows with the bytes that arrive, not with the declared length, unless a
    /// frame as large has come before.
    pub(crate) fn spare(&mut self) -> &mut BytesMut {
        let (len, missing) = (self.buffer.len(), self.missing());
        let known = len.max(self.largest).max(READ_STEP_BYTES);
        let wanted = missing.map_or(READ_STEP_BYTES, |bytes| bytes.min(known));
        if self.buffer.capacity() - len < wanted.min(LEAST_SPARE_BYTES) {
            self.buffer.reserve(wanted);
        }
        &mut self.buffer
    }

    /// Bytes to come of the frame that has begun, by its own account.
    fn missing(&self) -> Option<usize> {
        let mut prefix = self.buffer.get(..LENGTH_BYTES)?;
        let size = usize::try_from(prefix.get_i32()).ok()?;
        (size + LENGTH_BYTES).checked_sub(self.buffer.len()).filter(|missing| *missing > 0)
    }

    /// The next whole frame without its length; at least 4 bytes.
    pub(crate) fn poll_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(mut prefix) = self.buffer.get(..LENGTH_BYTES) else { return Ok(None) };
        let length = prefix.get_i32();
        if self.first {
            recognise(length)?;
        }
        let size = match usize::try_from(length) {
            Err(_) => return Err(FrameError::Negative(length)),
            Ok(size) if size < 4 => return Err(FrameError::TooShort(length)),
            Ok(size) if size > self.limit => {
                return Err(FrameError::TooLong { length, limit: self.limit });
            }
            Ok(size) => size,
        };
        if self.buffer.len() < LENGTH_BYTES + size {
            return Ok(None);
        }
        self.first = false;
        self.largest = self.largest.max(size);
        self.buffer.advance(LENGTH_BYTES);
        let frame = self.buffer.split_to(size).freeze();
        if self.buffer.is_empty() && size > KEPT_BYTES {
            // Else the connection would keep the room of the frame for as long as it waits.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }
}

/// What a listener of another protocol says first, read as a length.
fn recognise(length: i32) -> Result<(), FrameError> {
    match length.to_be_bytes() {
        [0x15, 0x03, _, _] => Err(FrameError::Tls),
        [b'H', b'T', b'T', b'P'] => Err(FrameError::Http),
        _ => Ok(()),
    }
}

/// A request ready for the socket: pieces in order, so that batches are never copied.
#[derive(Debug)]
pub(crate) struct Frame {
    pieces: VecDeque<Bytes>,
}

impl Frame {
    /// Fills `slices` from the front on; says how many.
    pub(crate) fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        slices
            .iter_mut()
            .zip(&self.pieces)
            .map(|(slice, piece)| *slice = IoSlice::new(piece))
            .count()
    }

    /// Drops up to `written` bytes from the front; what is left of `written` belongs to the next
    /// frame.
    pub(crate) fn advance(&mut self, mut written: usize) -> usize {
        while let Some(piece) = self.pieces.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                return 0;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
        written
    }

    pub(crate) fn is_written(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Collects the pieces of a frame.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
}

impl FrameWriter {
    /// Where to write what is not worth a piece of its own.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends `bytes` without copying them.
    pub(crate) fn splice(&mut self, bytes: Bytes) {
        self.flush();
        self.push(bytes);
    }

    /// Puts the length in front.
    pub(crate) fn finish(mut self) -> Result<Frame, FrameError> {
        self.flush();
        let size: usize = self.pieces.iter().map(Bytes::len).sum();
        let length = i32::try_from(size)
            .map_err(|_| FrameError::TooLong { length: i32::MAX, limit: i32::MAX as usize })?;
        self.pieces.push_front(Bytes::copy_from_slice(&length.to_be_bytes()));
        Ok(Frame { pieces: self.pieces })
    }

    fn flush(&mut self) {
        let tail = self.tail.split().freeze();
        self.push(tail);
    }

    /// Empty pieces would be empty slices, and a write of nothing looks like a closed socket.
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pieces.push_back(bytes);
        }
    }
}

/// Writes an unsigned varint of up to 5 bytes, as flexible messages use for lengths (KIP-482).
pub(crate) fn put_unsigned(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoder(bytes: &[u8]) -> Decoder {
        let mut decoder = Decoder::new(1000);
        decoder.spare().extend_from_slice(bytes);
        decoder
    }

    #[test]
    fn impossible_lengths_are_named() {
        let frame = |bytes: &[u8]| decoder(bytes).poll_frame().unwrap_err();
        assert_eq!(frame(&[0xff, 0xff, 0xff, 0xff]), FrameError::Negative(-1));
        assert_eq!(frame(&[0, 0, 0, 0]), FrameError::TooShort(0));
        assert_eq!(frame(&[0, 0, 4, 0]), FrameError::TooLong { length: 1024, limit: 1000 });
        assert_eq!(frame(b"HTTP/1.1 400"), FrameError::Http);
        assert_eq!(frame(&[0x15, 3, 3, 0, 2, 2, 80]), FrameError::Tls);
    }

    #[test]
    fn a_promised_length_takes_no_memory() {
        let mut decoder = Decoder::new(usize::MAX);
        decoder.spare().extend_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.poll_frame(), Ok(None));
        assert!(decoder.spare().capacity() <= 2 * READ_STEP_BYTES);
    }

    #[test]
    fn a_connection_keeps_no_room_of_a_large_frame() {
        for (size, is_kept) in [(KEPT_BYTES, true), (KEPT_BYTES + 1, false)] {
            let mut decoder = Decoder::new(usize::MAX);
            let length = i32::try_from(size).unwrap().to_be_bytes();
            decoder.spare().extend_from_slice(&[&length[..], &vec![0; size]].concat());
            assert_eq!(decoder.poll_frame().unwrap().map(|frame| frame.len()), Some(size));
            // The frame is gone: its room could be used again.
            decoder.buffer.reserve(1);
            assert_eq!(decoder.buffer.capacity() >= size, is_kept, "{size}");
        }
    }

    #[test]
    fn written_bytes_are_taken_off_piece_by_piece() {
        let mut writer = FrameWriter::default();
        writer.tail().put_slice(b"head");
        writer.splice(Bytes::from_static(b"batch"));
        let mut frame = writer.finish().unwrap();
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(frame.fill(&mut slices), 3);
        assert_eq!(frame.advance(10), 0);
        assert!(!frame.is_written());
        assert_eq!(frame.advance(5), 2);
        assert!(frame.is_written());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            sizes in proptest::collection::vec(4usize..90, 1..9), cut in 1usize..30,
        ) {
            let mut stream = BytesMut::new();
            for size in &sizes {
                stream.put_i32(*size as i32);
                stream.put_bytes(7, *size);
            }
            let mut decoder = Decoder::new(1000);
            let mut got = Vec::new();
            for part in stream.chunks(cut) {
                decoder.spare().extend_from_slice(part);
                while let Some(frame) = decoder.poll_frame().unwrap() {
                    got.push(frame.len());
                }
            }
            prop_assert_eq!(got, sizes);
        }
    }
}
