//! The text of a cursor that moves in one partition at a time: what does not change is kept.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cursor::{Cursor, PLAIN_BYTES};

/// The same text as [`Cursor::encode`] writes, for cursors that are sent with every record.
#[derive(Debug, Clone)]
pub(crate) struct CursorText {
    plain: String,
    /// Where each partition's position is in it, in the order of the cursor.
    positions: Vec<Range<usize>>,
    /// The base64 of it, where that is wanted.
    encoded: Option<String>,
    digits: String,
    /// Whether a header line has room for them. Without one a position is as good as a reader's was.
    has_epochs: bool,
}

/// Epochs above it are not written: no partition has had so many leaders.
const LARGEST_EPOCH: i32 = 999_999;
/// Bytes of the longest, with the point before it.
const EPOCH_BYTES: usize = 7;

impl CursorText {
    pub(crate) fn new(cursor: &Cursor, encode_message_id: bool) -> Self {
        let plain = cursor.encode(false);
        let begins = plain.match_indices('#').map(|(at, _)| at + 1);
        let position = |start| {
            let rest = plain.get(start..).unwrap_or_default();
            start..start + rest.find([',', ';']).unwrap_or(rest.len())
        };
        let positions: Vec<_> = begins.map(position).collect();
        let has_epochs = plain.len() + positions.len() * EPOCH_BYTES <= PLAIN_BYTES;
        let encoded = encode_message_id.then(|| STANDARD.encode(&plain));
        Self { plain, positions, encoded, digits: String::new(), has_epochs }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.encoded.as_ref().unwrap_or(&self.plain)
    }

    /// Becomes the same as another one, in the memory that it has.
    pub(crate) fn copy(&mut self, other: &Self) {
        self.plain.clone_from(&other.plain);
        self.positions.clone_from(&other.positions);
        self.encoded.clone_from(&other.encoded);
        self.has_epochs = other.has_epochs;
    }

    /// Moves the cursor's `place`th partition to an offset behind something of this leader epoch.
    pub(crate) fn move_to(&mut self, place: usize, next: i64, epoch: Option<i32>) {
        let Some(position) = self.positions.get(place).cloned() else { return };
        self.digits.clear();
        let mut digits = itoa::Buffer::new();
        self.digits.push_str(digits.format(next));
        if let Some(epoch) = epoch.filter(|epoch| self.has_epochs && *epoch <= LARGEST_EPOCH) {
            self.digits.push('.');
            self.digits.push_str(digits.format(epoch));
        }
        self.plain.replace_range(position.clone(), &self.digits);
        if self.digits.len() == position.len() {
            return self.encode_again(position);
        }
        let end = position.start + self.digits.len();
        let moved = |at: usize| (at + end) - position.end;
        for (index, other) in self.positions.iter_mut().enumerate().skip(place) {
            let start = if index == place { other.start } else { moved(other.start) };
            *other = start..moved(other.end);
        }
        if let Some(encoded) = &mut self.encoded {
            encoded.clear();
            STANDARD.encode_string(&self.plain, encoded);
        }
    }

    /// Three bytes become four characters: only those that have changed are encoded.
    fn encode_again(&mut self, changed: Range<usize>) {
        let Some(encoded) = &mut self.encoded else { return };
        let (first, last) = (changed.start / 3, changed.end.div_ceil(3));
        let bytes = self.plain.as_bytes();
        let Some(bytes) = bytes.get(first * 3..bytes.len().min(last * 3)) else { return };
        self.digits.clear();
        STANDARD.encode_string(bytes, &mut self.digits);
        encoded.replace_range(first * 4..first * 4 + self.digits.len(), &self.digits);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::consume::cursor::Position;

    proptest! {
        #[test]
        fn the_text_is_that_of_the_whole_cursor(
            names in proptest::collection::btree_set("[a-c]{1,3}", 1..4),
            partitions in 0..5,
            moves in proptest::collection::vec((0..20_usize, 0..i64::MAX, 0..4_u32), 0..30),
            is_encoded: bool,
        ) {
            let name = |name: &String| {
                let pairs: Vec<_> = (0..partitions).map(|it| format!("{it}#{}", it * 7)).collect();
                format!("{name}:00000abc@{}", pairs.join(","))
            };
            let parts: Vec<_> = names.iter().map(name).collect();
            let mut cursor = Cursor::parse(&format!("{};", parts.join(";"))).unwrap();
            let mut text = CursorText::new(&cursor, is_encoded);
            prop_assert_eq!(text.as_str(), cursor.encode(is_encoded));
            let places = names.len() * usize::try_from(partitions).unwrap();
            for (place, next, small) in moves {
                if places == 0 {
                    break;
                }
                // Large ones, and steps that keep the number of digits.
                let next = if small > 0 { next % 1000 } else { next };
                let mut all = cursor.topics.values_mut().flat_map(|it| it.partitions.values_mut());
                let epoch = (small == 1).then_some(next as i32 & 0xffff);
                *all.nth(place % places).unwrap() = Position::Offset { next, epoch };
                text.move_to(place % places, next, epoch);
                prop_assert_eq!(text.as_str(), cursor.encode(is_encoded));
            }
        }
    }

    #[test]
    fn a_position_with_an_epoch_or_a_time_becomes_an_offset() {
        let cursor = Cursor::parse("a@0#15.3,1#t1700000000000;b@0#1").unwrap();
        let mut text = CursorText::new(&cursor, false);
        text.move_to(1, 8, Some(4));
        text.move_to(0, 16, None);
        text.move_to(2, 100, Some(LARGEST_EPOCH + 1));
        text.move_to(3, 5, None);
        assert_eq!(text.as_str(), "a@0#16,1#8.4;b@0#100");
    }

    #[test]
    fn a_cursor_with_no_room_for_epochs_has_none() {
        for (partitions, expected) in [(380, "a@0#1.7,1#1,"), (500, "a@0#1,1#1,")] {
            let pairs: Vec<_> = (0..partitions).map(|it| format!("{it}#1")).collect();
            let cursor = Cursor::parse(&format!("a@{}", pairs.join(","))).unwrap();
            let mut text = CursorText::new(&cursor, false);
            text.move_to(0, 1, Some(7));
            assert!(text.as_str().starts_with(expected), "{partitions}");
        }
    }
}
