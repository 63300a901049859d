//! A partition's log with the sequence rules of a real broker (`ProducerStateManager`).

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::record_batch::{self, Stamp, StoredRecord, sequence_after};

/// Batches of a producer that a broker remembers.
const REMEMBERED: usize = 5;

#[derive(Debug, Default)]
pub(in crate::producer) struct Rules {
    pub(in crate::producer) log: Vec<String>,
    producers: HashMap<i64, Producer>,
    /// Every record that ever came, by identity and sequence.
    seen: HashMap<(i64, i16, i32), String>,
    /// The stamps of all batches that came, in order.
    pub(in crate::producer) stamps: Vec<Stamp>,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// First and last sequence, and first offset.
    batches: VecDeque<(i32, i32, i64)>,
}

impl Rules {
    /// Appends a batch: its base offset, or the code of the refusal.
    pub(in crate::producer) fn append(&mut self, batch: &Bytes) -> Result<i64, i16> {
        let records = self.see(batch);
        let stamp = record_batch::BatchHeader::parse(batch).unwrap().stamp();
        let base = i64::try_from(self.log.len()).unwrap();
        if stamp != Stamp::NONE {
            let first = stamp.base_sequence;
            let last = sequence_after(first, records.len() - 1);
            if let Some(offset) = self.check(stamp, first, last)? {
                return Ok(offset);
            }
            let producer = self.producers.entry(stamp.producer_id).or_insert_with(|| Producer {
                epoch: stamp.producer_epoch,
                batches: VecDeque::new(),
            });
            if producer.epoch != stamp.producer_epoch {
                producer.epoch = stamp.producer_epoch;
                producer.batches.clear();
            }
            producer.batches.push_back((first, last, base));
            if producer.batches.len() > REMEMBERED {
                producer.batches.pop_front();
            }
        }
        self.log.extend(records.iter().map(value));
        Ok(base)
    }

    /// A batch has arrived, to be appended or refused: no sequence may mean two things.
    pub(in crate::producer) fn see(&mut self, batch: &Bytes) -> Vec<StoredRecord> {
        let (header, records) = record_batch::decode_all(batch).unwrap();
        let stamp = header.stamp();
        self.stamps.push(stamp);
        for (place, record) in records.iter().enumerate().filter(|_| stamp != Stamp::NONE) {
            let sequence = sequence_after(stamp.base_sequence, place);
            let key = (stamp.producer_id, stamp.producer_epoch, sequence);
            let known = self.seen.entry(key).or_insert_with(|| value(record));
            assert_eq!(*known, value(record), "{key:?} has two contents");
        }
        records
    }

    fn check(&self, stamp: Stamp, first: i32, last: i32) -> Result<Option<i64>, i16> {
        let Some(producer) = self.producers.get(&stamp.producer_id) else { return Ok(None) };
        if stamp.producer_epoch < producer.epoch {
            return Err(47);
        }
        if stamp.producer_epoch > producer.epoch {
            return if first == 0 { Ok(None) } else { Err(45) };
        }
        let duplicate = producer.batches.iter().find(|(f, l, _)| (*f, *l) == (first, last));
        if let Some((_, _, offset)) = duplicate {
            return Ok(Some(*offset));
        }
        let expected = producer.batches.back().map(|(_, last, _)| sequence_after(*last, 1));
        if expected.is_none_or(|expected| expected == first) { Ok(None) } else { Err(45) }
    }

    /// A restart from a snapshot: of each producer the last batch is remembered.
    pub(in crate::producer) fn restart(&mut self) {
        for producer in self.producers.values_mut() {
            let forgotten = producer.batches.len().saturating_sub(1);
            producer.batches.drain(..forgotten);
        }
    }

    /// An unclean election: the last batch of a producer is gone, if its records are at the end.
    pub(in crate::producer) fn lose_last(&mut self) {
        for producer in self.producers.values_mut().filter(|p| p.batches.len() > 1) {
            let Some((first, last, offset)) = producer.batches.back().copied() else { continue };
            let end = offset + i64::from(last.wrapping_sub(first)) + 1;
            if end == i64::try_from(self.log.len()).unwrap() {
                self.log.truncate(usize::try_from(offset).unwrap());
                producer.batches.pop_back();
                return;
            }
        }
    }
}

fn value(record: &StoredRecord) -> String {
    String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()
}
