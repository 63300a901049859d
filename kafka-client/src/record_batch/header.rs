//! The 61 bytes in front of a batch, readable without its records.

use bytes::{Buf, BufMut};

use super::{BatchError, Stamp};

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
