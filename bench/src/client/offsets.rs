//! How many records a topic has: the sum of its partitions' end offsets.

use harness::reader;

pub(super) struct Offsets {
    bootstrap: String,
    topic: String,
    partitions: i32,
}

impl Offsets {
    pub(super) fn of(bootstrap: &str, topic: &str, partitions: i32) -> Self {
        Self { bootstrap: bootstrap.to_owned(), topic: topic.to_owned(), partitions }
    }

    /// The sum of the end offsets: no record of these topics is ever removed.
    pub(super) async fn records(&self) -> anyhow::Result<u64> {
        let ends = reader::end_offsets(&self.bootstrap, &self.topic, self.partitions).await?;
        Ok(ends.into_iter().filter_map(|end| u64::try_from(end).ok()).sum())
    }
}
