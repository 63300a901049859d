//! A refused batch taken apart: some records refused, the others in new batches (pure).

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::batch::{Batch, Content};
use super::settle::{Cell, Claim, Slot};
use super::verdict::Attempts;
use crate::error::Reason;
use crate::record_batch::{self, BatchBuilder, Record, StoredRecord};

/// A batch's records arranged anew: some refused, the others in groups.
#[derive(Debug)]
pub(crate) struct Regrouped {
    refused: Vec<(usize, Reason)>,
    groups: Vec<(BatchBuilder, Vec<usize>)>,
    records: usize,
}

impl Regrouped {
    /// Two halves. `None` if our own bytes cannot be read back, which would be a fault of ours.
    pub(crate) fn halves(bytes: &Bytes) -> Option<Self> {
        let (_, records) = record_batch::decode_all(bytes).ok()?;
        let middle = records.len().div_ceil(2);
        let group = |range: std::ops::Range<usize>| {
            let members = records.get(range.clone()).unwrap_or_default();
            (rebuild(members.iter()), range.collect())
        };
        let groups = vec![group(0..middle), group(middle..records.len())];
        Some(Self { refused: Vec::new(), groups, records: records.len() })
    }

    /// Without the records at `faults`; at least one of them must be in the batch.
    pub(crate) fn without(bytes: &Bytes, faults: &[(i32, Reason)]) -> Option<Self> {
        let (_, records) = record_batch::decode_all(bytes).ok()?;
        let fault = |index: usize| {
            faults.iter().find(|(at, _)| usize::try_from(*at).is_ok_and(|at| at == index))
        };
        let mut refused = Vec::new();
        let mut kept = Vec::new();
        for index in 0..records.len() {
            match fault(index) {
                Some((_, reason)) => refused.push((index, reason.clone())),
                None => kept.push(index),
            }
        }
        if refused.is_empty() {
            return None;
        }
        let builder = rebuild(kept.iter().filter_map(|index| records.get(*index)));
        let groups = if kept.is_empty() { Vec::new() } else { vec![(builder, kept)] };
        Some(Self { refused, groups, records: records.len() })
    }

    /// Turns the groups into batches that share the old batch's memory, and tells its tickets
    /// where their records are now.
    pub(crate) fn into_batches(
        self,
        old: Claim,
        (deadline, not_before): (Instant, Instant),
        last_id: &mut u64,
    ) -> Vec<Batch> {
        let lost = Slot::Refused(Reason::InvalidRecord("lost in regrouping".into()));
        let mut slots = vec![lost; self.records];
        for (index, reason) in self.refused {
            if let Some(slot) = slots.get_mut(index) {
                *slot = Slot::Refused(reason);
            }
        }
        let mut batches = Vec::with_capacity(self.groups.len());
        let mut handed_on = 0;
        for (builder, members) in self.groups {
            let cell = Cell::new(old.cell.partition());
            let mut claim = Claim::new(cell.clone(), old.ledger());
            claim.records = members.len();
            claim.reserved = share(old.reserved, members.len(), self.records);
            handed_on += claim.reserved;
            point(&mut slots, &cell, &members);
            let content = Content::Growing(builder);
            let attempts = Attempts::default();
            *last_id += 1;
            let (id, claim) = (*last_id, Some(claim));
            batches.push(Batch { id, content, attempts, claim, deadline, not_before });
        }
        old.moved(slots, handed_on);
        batches
    }
}

fn point(slots: &mut [Slot], cell: &Arc<Cell>, members: &[usize]) {
    for (index, member) in (0..).zip(members) {
        if let Some(slot) = slots.get_mut(*member) {
            *slot = Slot::In { cell: cell.clone(), index };
        }
    }
}

/// The part of `bytes` that belongs to `members` of `all` records, rounded down.
fn share(bytes: usize, members: usize, all: usize) -> usize {
    (bytes / all.max(1)) * members
}

fn rebuild<'a>(records: impl Iterator<Item = &'a StoredRecord>) -> BatchBuilder {
    let mut builder = BatchBuilder::with_capacity(0);
    for stored in records {
        let owned: Vec<_> = stored.headers.iter().collect();
        let headers: Vec<_> = owned.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
        let record = Record {
            partition: None,
            key: stored.key.as_deref(),
            value: stored.value.as_deref(),
            headers: &headers,
            timestamp_ms: stored.timestamp_ms,
        };
        builder.push_within(&record, usize::MAX);
    }
    builder
}
