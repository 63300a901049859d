//! What a member may commit now: known to whoever commits, set by the one task of the membership.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::subscription::Partitions;
use crate::calls::Identity;
use crate::lock::Lock;

/// The partitions, and who commits.
#[derive(Debug, Default)]
pub(super) struct Standing(Lock<Held>);

#[derive(Debug, Default)]
struct Held {
    identity: Option<Identity>,
    /// Each partition with the number of the assignment that it came with.
    partitions: BTreeMap<(Arc<str>, i32), u64>,
    assignments: u64,
}

impl Standing {
    pub(super) fn partitions(&self) -> Vec<(Arc<str>, i32)> {
        self.0.lock().partitions.keys().cloned().collect()
    }

    /// With which assignment a member has a partition.
    pub(super) fn assignment_of(&self, topic: &Arc<str>, partition: i32) -> Option<u64> {
        self.0.lock().partitions.get(&(topic.clone(), partition)).copied()
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.0.lock().identity.clone()
    }

    pub(super) fn set(&self, identity: Option<Identity>, owned: &Partitions) {
        let mut held = self.0.lock();
        held.identity = identity;
        held.partitions.retain(|partition, _| owned.contains(partition));
        held.assignments += 1;
        let number = held.assignments;
        for partition in owned {
            held.partitions.entry(partition.clone()).or_insert(number);
        }
    }
}
