//! What a partition remembers of its producers, and which sequences it takes (pure).

use std::collections::{HashMap, VecDeque};

use crate::record_batch::BatchHeader;

/// What brokers say to a first batch of a producer they have no state for, unless it starts at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WithoutState {
    /// It is taken, as by most brokers (KAFKA-14359).
    #[default]
    AnyFirst,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER (45), as by the newer, stricter ones.
    OutOfOrder,
    /// UNKNOWN_PRODUCER_ID (59), as by the oldest.
    UnknownProducer,
}

/// What to do with a batch that carries a producer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SequenceCheck {
    Append,
    /// It is in the log at this offset.
    Duplicate(i64),
    Refuse(i16),
}

/// The producers that a partition has state for.
#[derive(Debug, Default)]
pub(super) struct Producers(HashMap<i64, Remembered>);

#[derive(Debug)]
struct Remembered {
    epoch: i16,
    /// The last ones, oldest first.
    spans: VecDeque<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    first: i32,
    last: i32,
    offset: i64,
}

/// Batches that a broker remembers of one producer.
const REMEMBERED: usize = 5;
/// Producers that a partition remembers. Brokers forget by time; a number bounds the memory too.
const PRODUCERS: usize = 1000;

const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER_ID: i16 = 59;

impl Producers {
    pub(super) fn judge(&self, batch: &BatchHeader, without_state: WithoutState) -> SequenceCheck {
        let (first, last) = (batch.base_sequence, last_sequence(batch));
        let Some(known) = self.0.get(&batch.producer_id) else {
            return match without_state {
                _ if first == 0 => SequenceCheck::Append,
                WithoutState::AnyFirst => SequenceCheck::Append,
                WithoutState::OutOfOrder => SequenceCheck::Refuse(OUT_OF_ORDER_SEQUENCE_NUMBER),
                WithoutState::UnknownProducer => SequenceCheck::Refuse(UNKNOWN_PRODUCER_ID),
            };
        };
        if batch.producer_epoch < known.epoch {
            return SequenceCheck::Refuse(INVALID_PRODUCER_EPOCH);
        }
        let expected = if batch.producer_epoch > known.epoch {
            0
        } else {
            let is_same = |span: &&Span| span.first == first && span.last == last;
            if let Some(span) = known.spans.iter().find(is_same) {
                return SequenceCheck::Duplicate(span.offset);
            }
            known.spans.back().map_or(first, |span| wrap(i64::from(span.last) + 1))
        };
        if first == expected {
            SequenceCheck::Append
        } else {
            SequenceCheck::Refuse(OUT_OF_ORDER_SEQUENCE_NUMBER)
        }
    }

    /// A batch went into the log at `offset`.
    pub(super) fn remember(&mut self, batch: &BatchHeader, offset: i64) {
        let span = Span { first: batch.base_sequence, last: last_sequence(batch), offset };
        let epoch = batch.producer_epoch;
        let fresh = || Remembered { epoch, spans: VecDeque::new() };
        if self.0.len() >= PRODUCERS && !self.0.contains_key(&batch.producer_id) {
            self.forget_oldest();
        }
        let known = self.0.entry(batch.producer_id).or_insert_with(fresh);
        if known.epoch != epoch {
            *known = fresh();
        }
        known.spans.push_back(span);
        if known.spans.len() > REMEMBERED {
            known.spans.pop_front();
        }
    }

    /// Forgets the producer that has written nothing for the longest time.
    fn forget_oldest(&mut self) {
        let last = |known: &Remembered| known.spans.back().map_or(-1, |span| span.offset);
        let oldest = self.0.iter().min_by_key(|(_, known)| last(known)).map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.0.remove(&oldest);
        }
    }

    /// The state of all producers expires.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

fn last_sequence(batch: &BatchHeader) -> i32 {
    wrap(i64::from(batch.base_sequence) + i64::from(batch.last_offset_delta))
}

/// After 2³¹ − 1 comes 0.
fn wrap(sequence: i64) -> i32 {
    i32::try_from(sequence & i64::from(i32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::BatchBuilder;

    fn batch(epoch: i16, first: i32, records: i32) -> BatchHeader {
        let empty = BatchBuilder::with_capacity(0).finish(crate::record_batch::Stamp::NONE);
        BatchHeader {
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: first,
            last_offset_delta: records - 1,
            records,
            ..BatchHeader::parse(&empty).unwrap()
        }
    }

    fn judge(producers: &Producers, batch: &BatchHeader) -> SequenceCheck {
        producers.judge(batch, WithoutState::AnyFirst)
    }

    fn after(batches: &[BatchHeader]) -> Producers {
        let mut producers = Producers::default();
        for (place, batch) in batches.iter().enumerate() {
            producers.remember(batch, 100 + place as i64);
        }
        producers
    }

    #[test]
    fn one_behind_the_last_is_taken_and_a_gap_is_not() {
        let producers = after(&[batch(0, 0, 3)]);
        assert_eq!(judge(&producers, &batch(0, 3, 2)), SequenceCheck::Append);
        assert_eq!(judge(&producers, &batch(0, 4, 2)), SequenceCheck::Refuse(45));
        assert_eq!(
            judge(&producers, &batch(0, 0, 2)),
            SequenceCheck::Refuse(45),
            "not the same pair"
        );
    }

    #[test]
    fn five_batches_are_remembered() {
        let sent: Vec<_> = (0..6).map(|n| batch(0, n, 1)).collect();
        let producers = after(&sent);
        assert_eq!(judge(&producers, &sent[0]), SequenceCheck::Refuse(45));
        assert_eq!(judge(&producers, &sent[1]), SequenceCheck::Duplicate(101));
        assert_eq!(judge(&producers, &sent[5]), SequenceCheck::Duplicate(105));
    }

    #[test]
    fn the_producer_that_was_silent_for_the_longest_time_is_forgotten_first() {
        let mut producers = Producers::default();
        let of = |id: i64| BatchHeader { producer_id: id, ..batch(0, 0, 1) };
        for id in 0..PRODUCERS as i64 {
            producers.remember(&of(id), id);
        }
        producers.remember(&BatchHeader { base_sequence: 1, ..of(0) }, 5000);
        producers.remember(&of(9999), 5001);
        assert_eq!(producers.0.len(), PRODUCERS);
        assert_eq!(judge(&producers, &of(0)), SequenceCheck::Duplicate(0));
        assert_eq!(judge(&producers, &of(1)), SequenceCheck::Append, "nothing is known of it");
        assert_eq!(judge(&producers, &of(9999)), SequenceCheck::Duplicate(5001));
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_0() {
        let producers = after(&[batch(2, 0, 3)]);
        assert_eq!(judge(&producers, &batch(1, 3, 1)), SequenceCheck::Refuse(47));
        assert_eq!(judge(&producers, &batch(3, 3, 1)), SequenceCheck::Refuse(45));
        assert_eq!(judge(&producers, &batch(3, 0, 3)), SequenceCheck::Append);
        let moved_on = after(&[batch(2, 0, 3), batch(3, 0, 3)]);
        assert_eq!(judge(&moved_on, &batch(3, 0, 3)), SequenceCheck::Duplicate(101));
    }

    #[test]
    fn without_state_the_switch_decides() {
        let (mut producers, later) = (after(&[batch(0, 0, 3)]), batch(0, 3, 1));
        producers.forget();
        let judge = |switch| producers.judge(&later, switch);
        assert_eq!(judge(WithoutState::AnyFirst), SequenceCheck::Append);
        assert_eq!(judge(WithoutState::OutOfOrder), SequenceCheck::Refuse(45));
        assert_eq!(judge(WithoutState::UnknownProducer), SequenceCheck::Refuse(59));
        let first = producers.judge(&batch(0, 0, 1), WithoutState::OutOfOrder);
        assert_eq!(first, SequenceCheck::Append);
    }

    #[test]
    fn sequences_wrap_inside_and_behind_a_batch() {
        let producers = after(&[batch(0, i32::MAX - 1, 4)]);
        assert_eq!(judge(&producers, &batch(0, 2, 1)), SequenceCheck::Append);
        assert_eq!(judge(&producers, &batch(0, i32::MAX - 1, 4)), SequenceCheck::Duplicate(100));
        let producers = after(&[batch(0, i32::MAX, 1)]);
        assert_eq!(judge(&producers, &batch(0, 0, 1)), SequenceCheck::Append);
    }
}
