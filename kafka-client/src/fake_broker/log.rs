//! One partition's log: checked record batches at their offsets (pure).

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::sequences::Producers;
use super::transactions::Transactions;
use crate::record_batch::{self, BatchError, BatchHeader, HEADER_BYTES, StoredRecord};

/// The batches of a partition, and the producers' state that follows from them.
#[derive(Debug, Default)]
pub(super) struct Log {
    batches: VecDeque<Appended>,
    /// Offset of the first record that is still there (the log start offset).
    start: i64,
    end: i64,
    /// Bytes of all batches.
    bytes: usize,
    pub(super) producers: Producers,
    pub(super) transactions: Transactions,
}

/// A batch with its base offset and leader epoch in it, in memory of its own: a slice of the
/// request would keep the whole request.
#[derive(Debug)]
struct Appended {
    header: BatchHeader,
    bytes: Bytes,
}

/// A batch that may go into a log.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) header: BatchHeader,
    bytes: Bytes,
}

/// What a reader gets of a log.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Whole batches, in order. The first one may begin before the offset that was asked for.
    pub(super) batches: Vec<Bytes>,
    /// Bytes of these batches.
    pub(super) bytes: usize,
    /// Whether more batches follow, for which the limit left no room.
    pub(super) is_cut: bool,
    /// The epoch and the offset up to which the log may be what the reader has read.
    pub(super) diverging: Option<(i32, i64)>,
}

/// A record that was found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) leader_epoch: i32,
}

pub(super) const CORRUPT_MESSAGE: i16 = 2;
pub(super) const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
pub(super) const INVALID_RECORD: i16 = 87;

/// Bytes of the length between base offset and leader epoch.
const LENGTH_BYTES: usize = 4;

/// Exactly one whole batch, of magic 2, with a fitting checksum and as many records as its offsets
/// say; or the code of the refusal.
pub(super) fn check(bytes: &Bytes) -> Result<Checked, i16> {
    let mut batches = record_batch::batches(bytes.clone());
    let (Some(Ok(batch)), None) = (batches.next(), batches.next()) else {
        return Err(INVALID_RECORD);
    };
    let (header, records) = record_batch::decode(&batch).map_err(|error| match error {
        BatchError::Checksum { .. } => CORRUPT_MESSAGE,
        BatchError::Codec(_) => UNSUPPORTED_COMPRESSION_TYPE,
        _ => INVALID_RECORD,
    })?;
    let in_step = records
        .zip(header.base_offset..)
        .all(|(record, at)| record.is_ok_and(|record| record.offset == at));
    let counts = header.records > 0 && header.last_offset_delta == header.records - 1;
    let whole = batch.len() == bytes.len() && header.base_offset == 0;
    if in_step && counts && whole {
        Ok(Checked { header, bytes: batch })
    } else {
        Err(INVALID_RECORD)
    }
}

impl Checked {
    /// A batch of any content that has a header: compacted, damaged, or a marker.
    pub(super) fn unchecked(bytes: Bytes) -> Option<Self> {
        Some(Self { header: BatchHeader::parse(&bytes).ok()?, bytes })
    }
}

impl Log {
    /// The offset of the first record that is still there, or of the next one if there is none.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// The offset of the next record; without replicas that is the high watermark, too.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Gives the batch its offset, in a leader epoch.
    pub(super) fn append(&mut self, batch: &Checked, leader_epoch: i32) -> i64 {
        let base_offset = self.end;
        let header = BatchHeader { base_offset, leader_epoch, ..batch.header };
        self.end += i64::from(header.last_offset_delta) + 1;
        if header.producer_id >= 0 {
            self.producers.remember(&header, base_offset);
        }
        let bytes = placed(&header, &batch.bytes);
        self.bytes += bytes.len();
        self.transactions.on_batch(&header, &bytes);
        self.batches.push_back(Appended { header, bytes });
        base_offset
    }

    /// The offset behind the last record whose transaction has ended, if it was in one.
    pub(super) fn last_stable(&self) -> i64 {
        self.transactions.last_stable(self.end)
    }

    /// Removes the oldest batches until the others have at most so many bytes. The newest one
    /// stays, whatever its size.
    pub(super) fn retain(&mut self, most_bytes: usize) {
        while self.bytes > most_bytes && self.batches.len() > 1 {
            let Some(oldest) = self.batches.pop_front() else { return };
            self.bytes -= oldest.bytes.len();
            self.start = oldest.end();
        }
    }

    /// Moves the start up to this offset. A batch that reaches beyond it stays whole.
    pub(super) fn expire(&mut self, start: i64) {
        self.start = start.clamp(self.start, self.end);
        self.batches.retain(|batch| batch.end() > start);
        self.bytes = self.batches.iter().map(|batch| batch.bytes.len()).sum();
    }

    /// Drops every batch that reaches beyond `end`, and what was remembered of it.
    pub(super) fn truncate(&mut self, end: i64) {
        self.batches.retain(|batch| batch.end() <= end);
        self.bytes = self.batches.iter().map(|batch| batch.bytes.len()).sum();
        self.end = self.batches.back().map_or(self.start, Appended::end);
        self.producers.forget();
        self.transactions.forget();
        for batch in &self.batches {
            self.transactions.on_batch(&batch.header, &batch.bytes);
        }
        for batch in self.batches.iter().filter(|batch| batch.header.producer_id >= 0) {
            self.producers.remember(&batch.header, batch.header.base_offset);
        }
    }

    /// The whole batches from that of `offset` on that have at most so many bytes together, but
    /// the first one whatever its size if `takes_one` (KIP-74). `None` if the offset is out of
    /// range; the end is not. Nothing is read from the batch at `until` on.
    pub(super) fn read(
        &self,
        offset: i64,
        until: i64,
        most_bytes: usize,
        takes_one: bool,
    ) -> Option<Read> {
        if !(self.start..=self.end).contains(&offset) {
            return None;
        }
        let mut read = Read::default();
        let first = self.batches.partition_point(|batch| batch.end() <= offset);
        let readable = self.batches.range(first..);
        for batch in readable.take_while(|batch| batch.header.base_offset < until) {
            let is_first = read.batches.is_empty() && takes_one;
            if read.bytes + batch.bytes.len() > most_bytes && !is_first {
                read.is_cut = true;
                break;
            }
            read.bytes += batch.bytes.len();
            read.batches.push(batch.bytes.clone());
        }
        Some(read)
    }

    /// The first record of this time or later.
    pub(super) fn since(&self, timestamp_ms: i64) -> Option<Found> {
        let may_have = |batch: &&Appended| batch.header.max_timestamp >= timestamp_ms;
        let mut found = self.batches.iter().filter(may_have).flat_map(Appended::found);
        found.find(|found| found.timestamp_ms >= timestamp_ms)
    }

    /// The first of the records with the largest timestamp.
    pub(super) fn newest(&self) -> Option<Found> {
        let largest = self.batches.iter().map(|batch| batch.header.max_timestamp).max()?;
        self.since(largest)
    }

    /// The leader epoch of the first batch.
    pub(super) fn first_epoch(&self) -> Option<i32> {
        self.batches.front().map(|batch| batch.header.leader_epoch)
    }

    /// The largest epoch of a batch that is not above `epoch`, and where the next one begins; `None`
    /// if `epoch` is above that of the leader, `now`.
    pub(super) fn epoch_end(&self, epoch: i32, now: i32) -> Option<(i32, i64)> {
        if epoch >= now {
            return (epoch == now).then_some((now, self.end));
        }
        let above = self.batches.iter().find(|batch| batch.header.leader_epoch > epoch);
        let end = above.map_or(self.end, |batch| batch.header.base_offset);
        let below = self.batches.iter().rev().find(|batch| batch.header.leader_epoch <= epoch);
        Some((below.map_or(epoch, |batch| batch.header.leader_epoch), end))
    }

    /// All batches at their offsets.
    pub(super) fn batches(&self) -> Vec<Bytes> {
        self.batches.iter().map(|batch| batch.bytes.clone()).collect()
    }

    /// All records at their offsets.
    pub(super) fn records(&self) -> Vec<StoredRecord> {
        self.batches.iter().flat_map(Appended::records).collect()
    }
}

impl Appended {
    /// The offset behind it.
    fn end(&self) -> i64 {
        self.header.base_offset + i64::from(self.header.last_offset_delta) + 1
    }

    /// Its records, which were read once before it was appended.
    fn records(&self) -> impl Iterator<Item = StoredRecord> + use<> {
        record_batch::decode(&self.bytes).into_iter().flat_map(|(_, records)| records.flatten())
    }

    fn found(&self) -> impl Iterator<Item = Found> + use<> {
        let leader_epoch = self.header.leader_epoch;
        self.records().map(move |record| Found {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            leader_epoch,
        })
    }
}

/// A copy of the batch with offset and epoch as in `header`; its checksum covers neither.
fn placed(header: &BatchHeader, batch: &Bytes) -> Bytes {
    let mut bytes = BytesMut::with_capacity(batch.len().max(HEADER_BYTES));
    bytes.put_slice(batch);
    if let Some((mut offset, rest)) = bytes.split_at_mut_checked(size_of::<i64>()) {
        offset.put_i64(header.base_offset);
        if let Some(mut epoch) = rest.get_mut(LENGTH_BYTES..) {
            epoch.put_i32(header.leader_epoch);
        }
    }
    bytes.freeze()
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

    fn append(log: &mut Log, values: &[&str]) -> i64 {
        log.append(&check(&batch(values)).unwrap(), 0)
    }

    #[test]
    fn records_get_offsets_behind_those_before_them() {
        let mut log = Log::default();
        assert_eq!(append(&mut log, &["a", "b"]), 0);
        assert_eq!(append(&mut log, &["c"]), 2);
        let offsets: Vec<_> = log.records().iter().map(|record| record.offset).collect();
        assert_eq!((offsets, log.end()), (vec![0, 1, 2], 3));
        log.truncate(2);
        assert_eq!((log.records().len(), log.end()), (2, 2));
    }

    #[test]
    fn a_reader_gets_the_batch_of_its_offset_and_those_behind_it() {
        let mut log = Log::default();
        for values in [&["a", "b"][..], &["c"], &["d"]] {
            log.append(&check(&batch(values)).unwrap(), 7);
        }
        let first = |offset| {
            let read = log.read(offset, log.end(), 1000, false)?;
            Some(read.batches.first().map(|batch| BatchHeader::parse(batch).unwrap().base_offset))
        };
        let found: Vec<_> = (-1..=5).map(first).collect();
        let (at, none) = (|offset| Some(Some(offset)), Some(None));
        assert_eq!(found, [None, at(0), at(0), at(2), at(3), none, None]);
        let whole = log.read(0, log.end(), 1000, false).unwrap();
        let headers = whole.batches.iter().map(|batch| record_batch::decode(batch).unwrap().0);
        let placed: Vec<_> = headers.map(|it| (it.base_offset, it.leader_epoch)).collect();
        assert_eq!(placed, [(0, 7), (2, 7), (3, 7)], "the checksums still fit");
        assert!(!whole.is_cut);
    }

    #[test]
    fn limits_leave_batches_whole() {
        let mut log = Log::default();
        append(&mut log, &["a"]);
        append(&mut log, &["b"]);
        let size = log.bytes / 2;
        let read = |bytes, takes_one| {
            let read = log.read(0, log.end(), bytes, takes_one).unwrap();
            (read.batches.len(), read.is_cut)
        };
        assert_eq!(read(2 * size, false), (2, false));
        assert_eq!(read(2 * size - 1, false), (1, true));
        assert_eq!((read(size - 1, false), read(size - 1, true)), ((0, true), (1, true)));
        assert_eq!((read(0, false), read(0, true)), ((0, true), (1, true)));
    }

    #[test]
    fn the_oldest_batches_go_and_the_newest_stays() {
        let mut log = Log::default();
        for values in [&["a", "b"][..], &["c"], &["d"]] {
            append(&mut log, values);
        }
        let bytes = log.bytes;
        log.retain(bytes);
        assert_eq!(log.start(), 0);
        log.retain(bytes - 1);
        assert_eq!((log.start(), log.end(), log.records().len()), (2, 4, 2));
        log.retain(0);
        assert_eq!((log.start(), log.end(), log.records().len()), (3, 4, 1));
        assert_eq!(log.bytes, log.read(3, log.end(), 0, true).unwrap().bytes);
        log.truncate(0);
        assert_eq!(
            (log.start(), log.end(), log.bytes),
            (3, 3, 0),
            "the end is not before the start"
        );
        assert_eq!(append(&mut log, &["e"]), 3);
    }

    #[test]
    fn records_are_found_by_their_time() {
        let mut log = Log::default();
        assert_eq!((log.since(0), log.newest()), (None, None));
        append(&mut log, &["a", "b"]);
        let found = Found { offset: 0, timestamp_ms: 5, leader_epoch: 0 };
        assert_eq!((log.since(5), log.since(6), log.newest()), (Some(found), None, Some(found)));
        log.retain(0);
        append(&mut log, &["c"]);
        log.retain(0);
        assert_eq!(log.since(0).map(|found| found.offset), Some(2));
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
