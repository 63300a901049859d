//! One partition's log: checked batches at their offsets (pure).

use bytes::Bytes;

use super::sequences::Producers;
use crate::record_batch::{self, BatchError, BatchHeader, StoredRecord};

/// The batches of a partition, and the producers' state that follows from them.
#[derive(Debug, Default)]
pub(super) struct Log {
    batches: Vec<Appended>,
    end: i64,
    pub(super) producers: Producers,
}

#[derive(Debug)]
struct Appended {
    base_offset: i64,
    header: BatchHeader,
    records: Vec<StoredRecord>,
}

/// A batch that may go into a log.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) header: BatchHeader,
    records: Vec<StoredRecord>,
}

pub(super) const CORRUPT_MESSAGE: i16 = 2;
pub(super) const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
pub(super) const INVALID_RECORD: i16 = 87;

/// Exactly one whole batch, of magic 2, with a fitting checksum and as many records as its offsets
/// say; or the code of the refusal.
pub(super) fn check(bytes: &Bytes) -> Result<Checked, i16> {
    let mut batches = record_batch::batches(bytes.clone());
    let (Some(Ok(batch)), None) = (batches.next(), batches.next()) else {
        return Err(INVALID_RECORD);
    };
    let (header, records) = record_batch::decode_all(&batch).map_err(|error| match error {
        BatchError::Checksum { .. } => CORRUPT_MESSAGE,
        BatchError::Codec(_) => UNSUPPORTED_COMPRESSION_TYPE,
        _ => INVALID_RECORD,
    })?;
    let in_step = records.iter().zip(header.base_offset..).all(|(record, at)| record.offset == at);
    let counts = header.records > 0 && header.last_offset_delta == header.records - 1;
    let whole = batch.len() == bytes.len() && header.base_offset == 0;
    if in_step && counts && whole { Ok(Checked { header, records }) } else { Err(INVALID_RECORD) }
}

impl Log {
    /// The offset of the next record.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Gives the batch its offset.
    pub(super) fn append(&mut self, batch: Checked) -> i64 {
        let Checked { header, records } = batch;
        let base_offset = self.end;
        self.end += i64::from(header.records);
        if header.producer_id >= 0 {
            self.producers.remember(&header, base_offset);
        }
        self.batches.push(Appended { base_offset, header, records });
        base_offset
    }

    /// Drops every batch that reaches beyond `end`, and what was remembered of it.
    pub(super) fn truncate(&mut self, end: i64) {
        self.batches.retain(|batch| batch.base_offset + i64::from(batch.header.records) <= end);
        let last = self.batches.last();
        self.end = last.map_or(0, |batch| batch.base_offset + i64::from(batch.header.records));
        self.producers.forget();
        for batch in self.batches.iter().filter(|batch| batch.header.producer_id >= 0) {
            self.producers.remember(&batch.header, batch.base_offset);
        }
    }

    /// All records at their offsets.
    pub(super) fn records(&self) -> Vec<StoredRecord> {
        let placed = |batch: &Appended| {
            let base = batch.base_offset;
            let place = move |record: &StoredRecord| StoredRecord {
                offset: base + record.offset,
                ..record.clone()
            };
            batch.records.iter().map(place).collect::<Vec<_>>()
        };
        self.batches.iter().flat_map(placed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{BatchBuilder, Record};

    fn batch(values: &[&str]) -> Bytes {
        let mut builder = BatchBuilder::with_capacity(64);
        for value in values {
            let value = Some(value.as_bytes());
            let record =
                Record { partition: None, key: None, value, headers: &[], timestamp_ms: 5 };
            assert!(builder.push_within(&record, 1000));
        }
        builder.finish(crate::record_batch::Stamp::NONE)
    }

    #[test]
    fn records_get_offsets_behind_those_before_them() {
        let mut log = Log::default();
        assert_eq!(log.append(check(&batch(&["a", "b"])).unwrap()), 0);
        assert_eq!(log.append(check(&batch(&["c"])).unwrap()), 2);
        let offsets: Vec<_> = log.records().iter().map(|record| record.offset).collect();
        assert_eq!((offsets, log.end()), (vec![0, 1, 2], 3));
        log.truncate(2);
        assert_eq!((log.records().len(), log.end()), (2, 2));
    }

    #[test]
    fn what_is_not_one_sound_batch_is_refused() {
        let refusal = |bytes: Vec<u8>| check(&Bytes::from(bytes)).unwrap_err();
        let sound = batch(&["a"]).to_vec();
        assert_eq!(refusal(Vec::new()), INVALID_RECORD);
        assert_eq!(refusal([sound.clone(), sound.clone()].concat()), INVALID_RECORD);
        let mut damaged = sound.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(refusal(damaged), CORRUPT_MESSAGE);
        let mut old = sound.clone();
        old[16] = 1;
        assert_eq!(refusal(old), INVALID_RECORD);
        assert_eq!(refusal(sound[..sound.len() - 1].to_vec()), INVALID_RECORD);
    }
}
