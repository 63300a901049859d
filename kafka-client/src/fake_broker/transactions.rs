//! Which transactions of a log are open, and which were aborted (pure).
//!
//! There is no coordinator: markers come into a log as batches, by
//! [`put`](super::FakeCluster::put).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::record_batch::{self, BatchHeader};

/// The transactions of one log.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// First offsets of those that are open, by producer id.
    open: BTreeMap<i64, i64>,
    aborted: Vec<AbortedRange>,
}

/// An aborted transaction, from its first record to its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AbortedRange {
    pub(super) producer_id: i64,
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Transactions {
    /// A batch was appended, at its offset.
    pub(super) fn on_batch(&mut self, header: &BatchHeader, batch: &Bytes) {
        let id = header.producer_id;
        if !header.is_control() {
            if header.is_transactional() {
                self.open.entry(id).or_insert(header.base_offset);
            }
            return;
        }
        let Some(first) = self.open.remove(&id) else { return };
        let records = record_batch::decode_all(batch).map(|(_, records)| records);
        let key = records.ok().and_then(|records| records.first()?.key.clone());
        if matches!(key.as_deref(), Some([_, _, 0, 0])) {
            self.aborted.push(AbortedRange { producer_id: id, first, last: header.base_offset });
        }
    }

    /// The last stable offset of a log with this end.
    pub(super) fn last_stable(&self, end: i64) -> i64 {
        self.open.values().copied().min().unwrap_or(end)
    }

    /// Aborted transactions that have something in `from..until`.
    pub(super) fn aborted(&self, from: i64, until: i64) -> Vec<AbortedRange> {
        let touches = |it: &&AbortedRange| it.first < until && it.last >= from;
        self.aborted.iter().filter(touches).copied().collect()
    }

    /// Everything is gone.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
