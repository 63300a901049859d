//! Whose batch it is and where in their order: producer id, epoch and first sequence (KIP-98).

use bytes::{Bytes, BytesMut};

use super::{BatchError, BatchHeader};

/// What a broker recognises a batch by. It is part of the checksummed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Producer id, −1 without idempotence.
    pub producer_id: i64,
    /// Producer epoch, −1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence of the first record, −1 without idempotence; those of the others follow by
    /// [`sequence_after`].
    pub base_sequence: i32,
}

impl Stamp {
    /// The stamp of a producer without an id.
    pub const NONE: Stamp = Stamp { producer_id: -1, producer_epoch: -1, base_sequence: -1 };

    /// The batch at the front of `bytes` under this stamp: the very same bytes if that is what
    /// it has.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`].
    pub fn put(self, bytes: Bytes) -> Result<Bytes, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.stamp() == self {
            return Ok(bytes);
        }
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let Stamp { producer_id, producer_epoch, base_sequence } = self;
        BatchHeader { producer_id, producer_epoch, base_sequence, ..header }.seal(&mut bytes);
        Ok(bytes.freeze())
    }
}

/// The sequence `records` after `sequence`; after 2³¹ − 1 comes 0.
pub fn sequence_after(sequence: i32, records: usize) -> i32 {
    let round = u64::from(i32::MAX.cast_unsigned()) + 1;
    let sum = u64::from(sequence.cast_unsigned()) + records as u64 % round;
    i32::try_from(sum % round).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record_batch::{BatchBuilder, Record, decode_all};

    fn batch(stamp: Stamp) -> Bytes {
        let mut builder = BatchBuilder::with_capacity(0);
        for value in [&b"a"[..], b"b"] {
            let value = Some(value);
            let record =
                Record { partition: None, key: None, value, headers: &[], timestamp_ms: 5 };
            builder.push_within(&record, 1000);
        }
        builder.finish(stamp)
    }

    const STAMP: Stamp = Stamp { producer_id: 7, producer_epoch: 3, base_sequence: 41 };

    #[test]
    fn the_same_stamp_leaves_the_same_bytes() {
        let bytes = batch(STAMP);
        assert_eq!(STAMP.put(bytes.clone()).unwrap().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn another_stamp_makes_the_batch_that_it_would_have_been() {
        for (from, to) in [(Stamp::NONE, STAMP), (STAMP, Stamp { producer_epoch: 4, ..STAMP })] {
            let kept = batch(from);
            let stamped = to.put(kept.clone()).unwrap();
            assert_eq!(stamped, batch(to));
            assert_eq!(kept, batch(from), "a copy that is still being sent does not change");
            assert_eq!(decode_all(&stamped).unwrap().0.stamp(), to);
        }
    }

    #[test]
    fn no_batch_is_no_place_for_a_stamp() {
        assert!(STAMP.put(Bytes::from_static(b"short")).is_err());
    }

    #[test]
    fn after_2_31_minus_1_comes_0() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(sequence_after(i32::MAX - 4, 10), 5);
    }

    proptest! {
        /// Around the wrap every step is by one, and 0 follows 2³¹ − 1.
        #[test]
        fn sequences_count_through_the_wrap(
            start in prop_oneof![0..3000, i32::MAX - 3000..=i32::MAX], records in 0usize..6000,
        ) {
            let mut one_by_one: i32 = start;
            for _ in 0..records {
                one_by_one = one_by_one.checked_add(1).unwrap_or(0);
            }
            prop_assert_eq!(sequence_after(start, records), one_by_one);
        }

        #[test]
        fn steps_add_up(start in 0..=i32::MAX, one in 0usize..1 << 40, two in 0usize..1 << 40) {
            let stepped = sequence_after(sequence_after(start, one), two);
            prop_assert_eq!(stepped, sequence_after(start, one + two));
            prop_assert!(stepped >= 0);
        }
    }
}
