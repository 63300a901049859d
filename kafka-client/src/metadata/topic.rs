//! What is known of one topic, and what an answer changes about it (pure).

use tokio::time::Instant;

use crate::calls::metadata::{PartitionAnswer, TopicAnswer};
use crate::error::Reason;
use crate::error::policy::{Class, class};
use crate::limits::NEGATIVE_ENTRY;

#[derive(Debug)]
pub(super) enum State {
    /// Asked for, and not answered yet or not known by the broker that answered.
    Open {
        since: Instant,
    },
    Refused {
        /// An unknown topic is refused until then without a question.
        until: Instant,
        reason: Reason,
    },
    Known {
        id: u128,
        partitions: Vec<Partition>,
    },
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Partition {
    pub(super) leader: Option<i32>,
    pub(super) epoch: Option<i32>,
}

impl State {
    pub(super) fn apply(&mut self, answer: TopicAnswer, now: Instant) {
        match (answer.code, class(answer.code)) {
            // A topic that is being created has no partitions yet.
            (0, _) if answer.partitions.is_empty() => {
                if let Self::Refused { .. } = self {
                    *self = Self::Open { since: now };
                }
            }
            (0, _) => self.update(answer),
            (code, Class::TopicRefused) => {
                let reason = Reason::of_code(code);
                *self = Self::Refused { until: now + NEGATIVE_ENTRY, reason };
            }
            (_, Class::UnknownTopic) => match self {
                Self::Refused { until, reason: Reason::UnknownTopic } => {
                    *until = now + NEGATIVE_ENTRY;
                }
                Self::Refused { .. } => *self = Self::Open { since: now },
                // The broker may be behind: what we know stays, and the leader decides when we
                // write to it.
                Self::Open { .. } | Self::Known { .. } => {}
            },
            _ => {}
        }
    }

    /// Nobody has wanted it for long: whoever does now has all the time that a topic may be unknown.
    pub(super) fn wanted_again(&mut self, now: Instant) {
        if matches!(self, Self::Open { .. } | Self::Refused { .. }) {
            *self = Self::Open { since: now };
        }
    }

    fn update(&mut self, answer: TopicAnswer) {
        match self {
            Self::Known { id, partitions } if *id == answer.id => {
                merge(partitions, &answer.partitions);
            }
            // New, or created again under its old name: nothing of the old one is valid.
            _ => {
                let mut partitions = Vec::new();
                merge(&mut partitions, &answer.partitions);
                *self = Self::Known { id: answer.id, partitions };
            }
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        match self {
            Self::Open { .. } => false,
            Self::Refused { .. } => true,
            Self::Known { partitions, .. } => partitions.iter().all(|p| p.leader.is_some()),
        }
    }
}

/// A partition that is missing in one answer stays; an answer of an older leader epoch is ignored
/// (KIP-320). `calls::metadata` has bounded the indexes.
fn merge(partitions: &mut Vec<Partition>, answers: &[PartitionAnswer]) {
    let width = answers.iter().map(|answer| answer.index + 1).max().unwrap_or(0);
    if partitions.len() < width {
        partitions.resize_with(width, Partition::default);
    }
    for answer in answers {
        let epoch = Some(answer.epoch).filter(|epoch| *epoch >= 0);
        match partitions.get_mut(answer.index) {
            Some(known) if epoch.is_none() || epoch >= known.epoch => {
                *known = Partition { leader: answer.leader, epoch: epoch.or(known.epoch) };
            }
            _ => {}
        }
    }
}
