//! Where a reader is in a partition, with what tells that the log is still the same.

/// Where to read in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
    /// The first offset that is wanted.
    pub offset: i64,
    /// The leader epoch of what is before the offset, if it is known: with it brokers from 2.3 on tell
    /// that the log was truncated ([`ReadError::Truncated`](crate::ReadError::Truncated), KIP-320).
    pub epoch: Option<i32>,
    /// The id of the topic that the offset is of, if it is known: with it a topic that was deleted and
    /// created again is told ([`ReadError::Recreated`](crate::ReadError::Recreated)).
    pub topic_id: Option<u128>,
}

impl<'a> Position<'a> {
    /// An offset, of which nothing more is known.
    #[must_use]
    pub fn new(topic: &'a str, partition: i32, offset: i64) -> Self {
        Self { topic, partition, offset, epoch: None, topic_id: None }
    }

    /// With [`Fetched::epoch`](crate::Fetched::epoch), or one of
    /// [`Consumer::offsets_with_epochs`](crate::Consumer::offsets_with_epochs).
    #[must_use]
    pub fn epoch(self, epoch: Option<i32>) -> Self {
        Self { epoch, ..self }
    }

    /// With [`Fetched::topic_id`](crate::Fetched::topic_id), or that of
    /// [`TopicPartitions`](crate::TopicPartitions).
    #[must_use]
    pub fn topic_id(self, topic_id: Option<u128>) -> Self {
        Self { topic_id, ..self }
    }
}
