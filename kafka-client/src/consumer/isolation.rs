//! Which batches belong to aborted transactions (pure; KIP-98).

use std::collections::HashSet;

use bytes::Bytes;

use crate::calls::fetch::Aborted;
use crate::record_batch::{self, BatchHeader};

/// The transactions of one answer, while its batches are read in order.
#[derive(Debug, Clone)]
pub(super) struct Isolation {
    /// Those that have not begun yet, the next one last.
    ahead: Vec<Aborted>,
    /// Producers whose transaction at this place is aborted.
    aborting: HashSet<i64>,
}

impl Isolation {
    pub(super) fn new(mut aborted: Vec<Aborted>) -> Self {
        aborted.sort_unstable_by_key(|it| std::cmp::Reverse(it.first_offset));
        Self { ahead: aborted, aborting: HashSet::new() }
    }

    /// The next batch, and what it marks if it is a control batch; whether readers get its records.
    pub(super) fn admits(&mut self, header: &BatchHeader, marker: Option<Marker>) -> bool {
        let last = header.base_offset.saturating_add(header.last_offset_delta.into());
        while let Some(next) = self.ahead.pop_if(|next| next.first_offset <= last) {
            self.aborting.insert(next.producer_id);
        }
        if marker == Some(Marker::Abort) {
            self.aborting.remove(&header.producer_id);
        }
        !(header.is_transactional() && self.aborting.contains(&header.producer_id))
    }
}

/// What a control batch marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Abort,
    Other,
}

impl Marker {
    /// The key of the first record says it: a version and a type, of which 0 is an abort and 1 a commit.
    /// Compaction may have emptied the batch.
    pub(super) fn of(batch: &Bytes) -> Self {
        let decoded = record_batch::decode_within(batch, MARKER_BYTES).ok();
        let first = decoded.and_then(|(_, mut records)| records.next());
        let key = first.and_then(Result::ok).and_then(|record| record.key);
        match key.as_deref() {
            Some([_, _, 0, 0, ..]) => Self::Abort,
            _ => Self::Other,
        }
    }
}

/// Bytes of a control batch's records: a marker has some 20, and brokers compress none.
const MARKER_BYTES: usize = 4096;
