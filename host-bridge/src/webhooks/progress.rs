//! How far records are that are sent once more.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

/// Counts of a redelivery.
#[derive(Default)]
pub(super) struct Progress {
    delivered: AtomicU64,
    failed: AtomicU64,
    left: AtomicI64,
}

impl Progress {
    /// Of so many offsets.
    pub(super) fn new(left: i64) -> Self {
        Self { left: AtomicI64::new(left), ..Self::default() }
    }

    /// A request with a record has an end.
    pub(super) fn sent(&self, is_delivered: bool) {
        let count = if is_delivered { &self.delivered } else { &self.failed };
        count.fetch_add(1, Relaxed);
    }

    pub(super) fn pass(&self, offsets: i64) {
        self.left.fetch_sub(offsets, Relaxed);
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "delivered": self.delivered.load(Relaxed),
            "failed": self.failed.load(Relaxed),
            "left": self.left.load(Relaxed).max(0),
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.left.load(Relaxed) <= 0
    }
}
