//! What readers were told, compared with what the logs have in the end (pure).

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;
use kafka_client::record_batch::{BatchHeader, decode_all};

use crate::checker::Place;
use crate::run::id_of;

/// What a reader was told of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Start { topic_id: Option<u128>, offset: i64 },
    Given { topic_id: Option<u128>, records: Vec<(i64, u64)>, next_offset: i64 },
    Truncated { to: i64 },
    Recreated,
    OutOfRange { from: i64, log_start: i64, log_end: i64 },
    Unexpected(String),
}

/// One reader's life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) is_committed: bool,
    pub(crate) events: Vec<(Place, Event)>,
    /// Topic ids and positions in the end.
    pub(crate) ends: BTreeMap<Place, (Option<u128>, i64)>,
    /// Whether it came to the end of every log.
    pub(crate) is_done: bool,
}

/// A log when all is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FinalLog {
    pub(crate) topic_id: Option<u128>,
    pub(crate) start: i64,
    pub(crate) batches: Vec<Bytes>,
    /// Its end when the cluster was well again: what a broker had read before may come later.
    pub(crate) end: i64,
    pub(crate) was_truncated: bool,
}

/// All readers, and what was true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) readings: Vec<Reading>,
    pub(crate) logs: BTreeMap<Place, FinalLog>,
    /// Where logs were cut off.
    pub(crate) truncations: Vec<(u128, Place, i64)>,
}

/// A promise to a reader that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadFault {
    place: Place,
    what: String,
}

impl fmt::Display for ReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a reader of {}-{}: {}", self.place.0, self.place.1, self.what)
    }
}

/// What a reader has of one partition, if it believes what it was told.
#[derive(Default)]
struct View {
    topic_id: Option<u128>,
    next: i64,
    records: BTreeMap<i64, u64>,
}

pub(crate) fn check(ledger: &Ledger) -> Vec<ReadFault> {
    ledger.readings.iter().flat_map(|reading| check_one(reading, ledger)).collect()
}

fn check_one(reading: &Reading, ledger: &Ledger) -> Vec<ReadFault> {
    let mut faults = Vec::new();
    let mut views = HashMap::<&Place, View>::new();
    for (place, event) in &reading.events {
        let view = views.entry(place).or_default();
        if let Err(what) = view.take(place, event, ledger) {
            faults.push(ReadFault { place: place.clone(), what });
        }
    }
    for (place, log) in &ledger.logs {
        let fault = |what: String| ReadFault { place: place.clone(), what };
        let Some(view) = views.get(place) else {
            faults.push(fault("never read".to_owned()));
            continue;
        };
        if !reading.is_done {
            faults.push(fault(format!("it stays at {}, {} is the end", view.next, log.end)));
            continue;
        }
        faults.extend(view.compare(log, reading.is_committed).map(fault));
    }
    faults
}

impl View {
    fn take(&mut self, place: &Place, event: &Event, ledger: &Ledger) -> Result<(), String> {
        match event {
            Event::Start { topic_id, offset } => {
                if self.topic_id != *topic_id {
                    self.records.clear();
                }
                (self.topic_id, self.next) = (*topic_id, *offset);
                self.may_begin_at(*offset, place, ledger)
            }
            Event::Given { topic_id, records, next_offset } => {
                self.give(*topic_id, records, *next_offset)
            }
            Event::Truncated { to } => {
                // Where a log was cut off may have expired since.
                let is_known = ledger.truncations.iter().any(|(id, cut, end)| {
                    self.topic_id.is_none_or(|known| known == *id) && cut == place && end <= to
                });
                let is_true = is_known && *to <= self.next;
                drop(self.records.split_off(to));
                self.next = *to;
                if is_true { Ok(()) } else { Err(format!("no truncation to {to}")) }
            }
            Event::Recreated => {
                *self = Self::default();
                Ok(())
            }
            Event::OutOfRange { from, log_start, log_end } => {
                if from != &self.next || from >= log_start {
                    return Err(format!("{from} is in {log_start}..{log_end}"));
                }
                self.may_begin_at(*log_start, place, ledger)
            }
            Event::Unexpected(what) => Err(what.clone()),
        }
    }

    /// Records before the offset have expired, if there were any.
    fn may_begin_at(&self, offset: i64, place: &Place, ledger: &Ledger) -> Result<(), String> {
        let log = ledger.logs.get(place).filter(|log| log.topic_id == self.topic_id);
        match log {
            Some(log) if offset > log.start => Err(format!("it begins at {offset}")),
            _ => Ok(()),
        }
    }

    fn give(
        &mut self,
        topic_id: Option<u128>,
        records: &[(i64, u64)],
        next_offset: i64,
    ) -> Result<(), String> {
        if topic_id.is_some() && self.topic_id.is_some() && topic_id != self.topic_id {
            return Err("records of another topic".to_owned());
        }
        for (offset, id) in records {
            if *offset < self.next || *offset >= next_offset {
                return Err(format!("{offset} is not in {}..{next_offset}", self.next));
            }
            self.records.insert(*offset, *id);
            self.next = offset + 1;
        }
        if next_offset < self.next {
            return Err(format!("goes back from {} to {next_offset}", self.next));
        }
        self.next = next_offset;
        Ok(())
    }

    /// The first difference to what it must have in the end.
    fn compare(&self, log: &FinalLog, is_committed: bool) -> Option<String> {
        if self.topic_id.is_some() && self.topic_id != log.topic_id {
            return Some("it reads a topic that is gone".to_owned());
        }
        let mut expected = given(&log.batches, is_committed);
        if self.next < log.end {
            return Some(format!("it ends at {} before {}", self.next, log.end));
        }
        expected.retain(|offset, _| (log.start..self.next).contains(offset));
        let kept = self.records.range(log.start..);
        // Where the marker of a commit was cut off, another one may have aborted what was given.
        let all = given(&log.batches, is_committed && !log.was_truncated);
        let extra = kept.filter(|(offset, id)| all.get(offset) != Some(id));
        if let Some((offset, id)) = extra.into_iter().next() {
            return Some(format!("{id:x} at {offset} is not in the log"));
        }
        let mut missing = expected.iter().filter(|(offset, _)| !self.records.contains_key(offset));
        missing.next().map(|(offset, id)| format!("{id:x} at {offset} was never given"))
    }
}

/// The records that readers get of a log in which no transaction is open.
fn given(batches: &[Bytes], is_committed: bool) -> BTreeMap<i64, u64> {
    let mut records = BTreeMap::new();
    let mut open = HashMap::<i64, Vec<i64>>::new();
    for batch in batches {
        let header = BatchHeader::parse(batch).unwrap();
        let (_, all) = decode_all(batch).unwrap();
        if header.is_control() {
            let of_transaction = open.remove(&header.producer_id).unwrap_or_default();
            let is_abort = all.first().unwrap().key.as_deref() == Some(&[0; 4]);
            if is_abort && is_committed {
                records.retain(|offset, _| !of_transaction.contains(offset));
            }
            continue;
        }
        for record in all {
            records.insert(record.offset, id_of(record.value.as_deref()));
            if header.is_transactional() {
                open.entry(header.producer_id).or_default().push(record.offset);
            }
        }
    }
    records
}

#[cfg(test)]
mod tests;
