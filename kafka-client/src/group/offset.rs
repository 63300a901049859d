//! Offsets of a group, as its callers give and get them.

use std::borrow::Cow;

/// An offset to commit: that of the next record to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOffset<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The next record to read, 0 or more.
    pub offset: i64,
    /// The leader epoch of the record before it, if it is known (KIP-320).
    pub epoch: Option<i32>,
    /// Whatever is to be found with the offset; brokers take up to 4,096 bytes unless configured
    /// otherwise (`offset.metadata.max.bytes`).
    pub metadata: Cow<'a, str>,
}

impl<'a> GroupOffset<'a> {
    /// Without a leader epoch or metadata.
    #[must_use]
    pub fn new(topic: &'a str, partition: i32, offset: i64) -> Self {
        Self { topic, partition, offset, epoch: None, metadata: Cow::default() }
    }

    /// With the leader epoch of the record before it.
    #[must_use]
    pub fn epoch(self, epoch: Option<i32>) -> Self {
        Self { epoch, ..self }
    }

    /// With metadata.
    #[must_use]
    pub fn metadata(self, metadata: impl Into<Cow<'a, str>>) -> Self {
        Self { metadata: metadata.into(), ..self }
    }
}

/// What a group has committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The next record to read.
    pub offset: i64,
    /// The leader epoch that was committed with it.
    pub epoch: Option<i32>,
    /// The metadata that was committed with it.
    pub metadata: String,
}
