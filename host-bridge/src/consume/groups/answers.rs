//! What Kafka says of a group's positions, and why it says or takes nothing.

use std::time::Duration;

use kafka_client::{Group, GroupError, Reason};

use super::committed::Committed;
use crate::consume::refusal::{Code, Refusal};

/// What a group has of these partitions.
///
/// # Errors
/// Kafka does not say.
pub(super) async fn committed_of(
    group: &Group,
    partitions: Vec<(&str, i32)>,
    within: Duration,
) -> Result<Committed, Refusal> {
    let found = group.committed(&partitions, within).await;
    let mut committed = Committed::default();
    for ((topic, partition), found) in partitions.into_iter().zip(found) {
        if let Some(kept) = found.map_err(|error| refused(&error))? {
            committed.read((topic, partition), (kept.offset, kept.epoch), &kept.metadata);
        }
    }
    Ok(committed)
}

/// The refusal for a group's reason.
pub(super) fn refused(error: &GroupError) -> Refusal {
    match error {
        GroupError::InUse => {
            Code::GroupInUse.because("the group has members: they have its position")
        }
        GroupError::Fenced => Code::GroupInUse.because("another bridge has the same `instance_id`"),
        GroupError::Failed(Reason::Unauthorized { .. }) => {
            Code::Forbidden.because("the bridge may not use this group")
        }
        GroupError::Failed(reason @ (Reason::Unsupported(_) | Reason::Refused { .. })) => {
            Code::KafkaRefused.because(reason.chain())
        }
        GroupError::Failed(reason) => Code::KafkaUnavailable.because(reason.chain()),
        _ => Code::Internal.because(error.to_string()),
    }
}
