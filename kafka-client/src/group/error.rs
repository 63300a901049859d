//! Why a group did not do what was asked of it.

use crate::error::Reason;

/// Why a group did not take or give an offset, or a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The group has members, so it takes no offsets of who is none (UNKNOWN_MEMBER_ID, 25).
    #[error("the group has members: only they may commit its offsets")]
    InUse,
    /// The partition is not, or no longer, assigned to the member.
    #[error("the partition is not assigned to this member")]
    NotAssigned,
    /// Another member with the same `group.instance.id` has taken the place of this one
    /// (FENCED_INSTANCE_ID, 82).
    #[error("another member has the same group.instance.id")]
    Fenced,
    /// Anything else; [`Reason::Unauthorized`] when the group is not allowed
    /// (GROUP_AUTHORIZATION_FAILED, 30), [`Reason::DeadlineExceeded`] with what was in the way.
    #[error(transparent)]
    Failed(#[from] Reason),
}
