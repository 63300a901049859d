//! What a fake cluster knows of groups.

use std::collections::BTreeMap;

use super::classic_groups::ClassicGroup;
use super::modern_groups::ModernGroup;

/// All groups. They are of the cluster: whoever coordinates one knows all of it.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) by_id: BTreeMap<String, FakeGroup>,
    /// Coordinators that a test has chosen.
    pub(super) chosen: BTreeMap<String, i32>,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct FakeGroup {
    pub(super) offsets: BTreeMap<(String, i32), FakeOffset>,
    pub(super) classic: ClassicGroup,
    pub(super) modern: ModernGroup,
    /// Members so far, for the ids of new ones.
    pub(super) members: u64,
}

/// An offset as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeOffset {
    /// The next record to read.
    pub offset: i64,
    /// −1 without.
    pub epoch: i32,
    /// Whatever came with it.
    pub metadata: String,
}
