//! The 61 bytes in front of a batch, readable without its records, and the stamp in them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::BatchError;

/// Bytes of a batch before its first record.
pub const HEADER_BYTES: usize = 61;

/// Bytes of base offset and length, which the length field does not count.
const PREFIX_BYTES: usize = 12;
/// Where the checksummed part starts: behind leader epoch, magic and the checksum itself.
const CHECKED_FROM: usize = 21;
const MAGIC: i8 = 2;

/// The header of a batch of magic 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes behind the length field.
    pub length: i32,
    /// Leader epoch the batch was appended in; −1 from a producer.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub checksum: u32,
    /// Codec, timestamp type, transactional, control and delete-horizon bits.
    pub attributes: i16,
    /// Offset of the last record minus the base offset; kept by compaction.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas add to, ms.
    pub base_timestamp: i64,
    /// Largest timestamp, ms; the append time of all records if the broker sets timestamps.
    pub max_timestamp: i64,
    /// Producer id, −1 without idempotence.
    pub producer_id: i64,
    /// Producer epoch, −1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence of the first record, −1 without idempotence.
    pub base_sequence: i32,
    /// Number of records; 0 in a batch that compaction emptied.
    pub records: i32,
}

impl BatchHeader {
    /// Reads the header of the whole batch at the front of `bytes`.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::Length`] or [`BatchError::UnsupportedMagic`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let need = batch_bytes(bytes)?.unwrap_or(HEADER_BYTES);
        if bytes.len() < need {
            return Err(BatchError::Truncated { need, have: bytes.len() });
        }
        let mut rest = bytes;
        let (base_offset, length, leader_epoch) = (rest.get_i64(), rest.get_i32(), rest.get_i32());
        let magic = rest.get_i8();
        if magic != MAGIC {
            let next_offset = base_offset.saturating_add(1);
            return Err(BatchError::UnsupportedMagic { magic, offset: base_offset, next_offset });
        }
        Ok(Self {
            base_offset,
            length,
            leader_epoch,
            checksum: rest.get_u32(),
            attributes: rest.get_i16(),
            last_offset_delta: rest.get_i32(),
            base_timestamp: rest.get_i64(),
            max_timestamp: rest.get_i64(),
            producer_id: rest.get_i64(),
            producer_epoch: rest.get_i16(),
            base_sequence: rest.get_i32(),
            records: rest.get_i32(),
        })
    }

    /// The first offset behind the batch, records missing at its end included.
    ///
    /// # Errors
    /// [`BatchError::Overflow`] if that is not an offset.
    pub fn next_offset(&self) -> Result<i64, BatchError> {
        let beyond = i64::from(self.last_offset_delta) + 1;
        self.base_offset.checked_add(beyond).ok_or(BatchError::Overflow)
    }

    /// Whose batch it is.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
        }
    }

    /// 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn codec(&self) -> i16 {
        self.attributes & 0b111
    }

    /// Whether the broker set the timestamps (`LogAppendTime`).
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & 0b1000 != 0
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0b1_0000 != 0
    }

    /// Whether it is a control batch, such as the marker of a transaction's end: not for readers.
    pub fn is_control(&self) -> bool {
        self.attributes & 0b10_0000 != 0
    }

    pub(super) fn total_bytes(&self) -> usize {
        usize::try_from(self.length).unwrap_or(0) + PREFIX_BYTES
    }

    pub(super) fn verify(&self, batch: &[u8]) -> Result<(), BatchError> {
        let checked = batch.get(CHECKED_FROM..self.total_bytes()).unwrap_or_default();
        let computed = crc32c::crc32c(checked);
        if computed == self.checksum {
            Ok(())
        } else {
            Err(BatchError::Checksum { stored: self.checksum, computed })
        }
    }

    /// Writes length, checksum and the rest into the first bytes of `batch`, whose records are
    /// complete.
    pub(super) fn seal(mut self, batch: &mut [u8]) {
        self.length = i32::try_from(batch.len() - PREFIX_BYTES).unwrap_or(i32::MAX);
        let Some((head, records)) = batch.split_at_mut_checked(HEADER_BYTES) else { return };
        self.put(head, 0);
        let checked = head.get(CHECKED_FROM..).unwrap_or_default();
        self.checksum = crc32c::crc32c_append(crc32c::crc32c(checked), records);
        self.put(head, self.checksum);
    }

    fn put(&self, mut out: &mut [u8], checksum: u32) {
        out.put_i64(self.base_offset);
        out.put_i32(self.length);
        out.put_i32(self.leader_epoch);
        out.put_i8(MAGIC);
        out.put_u32(checksum);
        out.put_i16(self.attributes);
        out.put_i32(self.last_offset_delta);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.records);
    }
}

/// Bytes of the batch at the front of `bytes`, by its own account; `None` if not even its length
/// is there. Valid for every magic.
pub(super) fn batch_bytes(bytes: &[u8]) -> Result<Option<usize>, BatchError> {
    let Some(mut prefix) = bytes.get(8..PREFIX_BYTES) else { return Ok(None) };
    let length = prefix.get_i32();
    // A message of magic 0 is shorter than our header, so the magic decides before the length does.
    let least = match bytes.get(16) {
        Some(0 | 1) => 14,
        _ => HEADER_BYTES - PREFIX_BYTES,
    };
    match usize::try_from(length) {
        Ok(len) if len >= least => Ok(Some(len + PREFIX_BYTES)),
        _ => Err(BatchError::Length(length)),
    }
}

/// What a broker recognises a batch by: producer id, epoch and first sequence (KIP-98). It is part of the checksummed bytes.
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
