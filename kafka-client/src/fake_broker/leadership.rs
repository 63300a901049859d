//! Who leads a partition, and which broker has heard of it (pure).

use std::collections::BTreeMap;

use tokio::time::Instant;

/// The leader of a partition, in an epoch that grows with each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Its broker; `None` while there is none.
    pub id: Option<i32>,
    /// The leader epoch.
    pub epoch: i32,
}

/// All leaders so far. Brokers hear of a change one by one.
#[derive(Debug)]
pub(super) struct Leadership {
    now: Leader,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    leader: Leader,
    heard_at: BTreeMap<i32, Instant>,
}

impl Leadership {
    /// The first leader is known to all.
    pub(super) fn new(id: Option<i32>) -> Self {
        let now = Leader { id, epoch: 0 };
        Self { now, changes: vec![Change { leader: now, heard_at: BTreeMap::new() }] }
    }

    /// A change, and when each broker hears of it.
    pub(super) fn change(&mut self, id: Option<i32>, heard_at: BTreeMap<i32, Instant>) {
        self.now = Leader { id, epoch: self.now.epoch + 1 };
        self.changes.push(Change { leader: self.now, heard_at });
    }

    /// The truth.
    pub(super) fn now(&self) -> Leader {
        self.now
    }

    /// What a broker believes.
    pub(super) fn heard_by(&self, broker: i32, now: Instant) -> Leader {
        let has_heard = |change: &&Change| change.heard_at.get(&broker).is_none_or(|at| *at <= now);
        self.changes.iter().rev().find(has_heard).map_or(self.now, |change| change.leader)
    }

    /// Whether the broker leads and knows it.
    pub(super) fn is_led_by(&self, broker: i32, now: Instant) -> bool {
        self.now.id == Some(broker) && self.heard_by(broker, now) == self.now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_is_heard_late_and_the_old_leader_leads_no_more() {
        let now = Instant::now();
        let later = now + Duration::from_millis(50);
        let mut leadership = Leadership::new(Some(1));
        leadership.change(Some(2), BTreeMap::from([(1, now), (2, later), (3, later)]));
        assert_eq!(leadership.heard_by(3, now), Leader { id: Some(1), epoch: 0 });
        assert_eq!(leadership.heard_by(3, later), Leader { id: Some(2), epoch: 1 });
        assert!(!leadership.is_led_by(1, now));
        assert!(!leadership.is_led_by(2, now), "it has not heard of it");
        assert!(leadership.is_led_by(2, later));
    }
}
