//! A position in one partition: what is given to its reader, and what comes next (pure).

use bytes::Bytes;

use super::fetched::ReadError;
use super::isolation::{Isolation, Marker};
use crate::limits::{HEADER_OVERHEAD_BYTES, INFLATED_BATCH_BYTES, RECORD_OVERHEAD_BYTES};
use crate::record_batch::{self, BatchError, BatchHeader, Records, StoredRecord};

/// What was made of an answer's batches.
#[derive(Debug, Default)]
pub(super) struct Yield {
    pub(super) records: Vec<StoredRecord>,
    /// Where to go on.
    pub(super) next_offset: i64,
    /// The leader epoch of what is before it, once the position has moved.
    pub(super) epoch: Option<i32>,
    /// Why it went no further.
    pub(super) error: Option<ReadError>,
}

/// Bytes that an answer's records may still take. It may go below what is left by one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadBudget(pub(super) usize);

/// Reads `batches` from `offset` on, until the budget is spent. A last batch that is cut short is left
/// for the next fetch. `limit` is how many bytes one of them may be decompressed to.
pub(super) fn read(
    batches: Bytes,
    offset: i64,
    mut isolation: Option<Isolation>,
    budget: &mut ReadBudget,
    limit: usize,
) -> Yield {
    let mut cursor = Yield { next_offset: offset, ..Yield::default() };
    for batch in record_batch::batches(batches) {
        if budget.0 == 0 {
            break;
        }
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                cursor.error = Some(unreadable(cursor.next_offset, None, error));
                break;
            }
        };
        if let Err(error) = cursor.take(&batch, isolation.as_mut(), budget, limit) {
            cursor.error = Some(error);
            break;
        }
    }
    cursor
}

impl Yield {
    fn take(
        &mut self,
        batch: &Bytes,
        isolation: Option<&mut Isolation>,
        budget: &mut ReadBudget,
        limit: usize,
    ) -> Result<(), ReadError> {
        let at = self.next_offset;
        // The checksum comes first: by a damaged header a position could move anywhere.
        let header = match record_batch::check(batch) {
            Err(BatchError::UnsupportedMagic { next_offset, .. }) if next_offset <= at => {
                return Ok(());
            }
            Err(error @ BatchError::UnsupportedMagic { next_offset, .. }) => {
                return Err(unreadable(at, Some(next_offset), error));
            }
            checked => checked.map_err(|error| unreadable(at, None, error))?,
        };
        let behind = header.next_offset().map_err(|error| unreadable(at, None, error))?;
        if behind <= header.base_offset {
            return Err(unreadable(at, None, BatchError::Overflow));
        }
        let marker = header.is_control().then(|| Marker::of(batch));
        let is_admitted = isolation.is_none_or(|isolation| isolation.admits(&header, marker));
        if marker.is_none() && is_admitted && behind > at {
            // What is not compressed is in memory already.
            let limit = if header.codec() == 0 { INFLATED_BATCH_BYTES } else { limit };
            let records = record_batch::records(&header, batch, limit);
            let records = records.map_err(|error| match error {
                BatchError::Inflated { limit } => {
                    ReadError::TooLarge { offset: at, next_offset: behind, limit }
                }
                error => unreadable(at, Some(behind), error),
            })?;
            if !self.give(&header, records, budget)? {
                return Ok(());
            }
        }
        // Not the last record decides: compaction may have removed it, and all others.
        if behind > at {
            self.move_to(behind, &header);
        }
        Ok(())
    }

    /// The position is behind something of this batch.
    fn move_to(&mut self, next_offset: i64, header: &BatchHeader) {
        self.next_offset = next_offset;
        // Batches of before Kafka 0.11 have none.
        self.epoch = Some(header.leader_epoch).filter(|epoch| *epoch >= 0);
    }

    /// Gives the records at or behind the position; says whether that was all of them. Few of many
    /// are copied, else they would keep the whole batch in memory.
    fn give(
        &mut self,
        header: &BatchHeader,
        records: Records,
        budget: &mut ReadBudget,
    ) -> Result<bool, ReadError> {
        let (first, bytes) = (self.records.len(), records.bytes());
        let given = self.push(header, records, budget);
        let new = self.records.get_mut(first..).unwrap_or_default();
        if new.iter().map(size).sum::<usize>() < bytes / 2 {
            new.clone_from_slice(&StoredRecord::detached(new));
        }
        given
    }

    fn push(
        &mut self,
        header: &BatchHeader,
        records: Records,
        budget: &mut ReadBudget,
    ) -> Result<bool, ReadError> {
        let behind = header.next_offset().ok();
        for record in records {
            let fault = |error| unreadable(self.next_offset, behind, error);
            let record = record.map_err(fault)?;
            if record.offset < self.next_offset {
                // A fetch into the middle of a batch gets all of it.
                continue;
            }
            if behind.is_none_or(|behind| record.offset >= behind) {
                return Err(fault(BatchError::Overflow));
            }
            if budget.0 == 0 {
                return Ok(false);
            }
            budget.0 = budget.0.saturating_sub(size(&record));
            self.move_to(record.offset.saturating_add(1), header);
            self.records.push(record);
        }
        Ok(true)
    }
}

/// Bytes of a record, with what is around it.
fn size(record: &StoredRecord) -> usize {
    let size = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
    let header =
        |(key, value): (Bytes, Option<Bytes>)| key.len() + size(&value) + HEADER_OVERHEAD_BYTES;
    let headers = record.headers.iter().map(header).sum::<usize>();
    RECORD_OVERHEAD_BYTES + size(&record.key) + size(&record.value) + headers
}

fn unreadable(offset: i64, next_offset: Option<i64>, error: BatchError) -> ReadError {
    ReadError::Unreadable { offset, next_offset, error }
}
