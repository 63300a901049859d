//! A record as a reader of Kafka sees it.

use anyhow::Context;

/// A record as Kafka has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
    /// The timestamp in milliseconds since 1970, or -1.
    pub timestamp_ms: i64,
    /// The key; none differs from an empty one.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl ReadRecord {
    /// The value as JSON.
    ///
    /// # Errors
    /// When there is none, or it is not JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        let value = self.value.as_deref().context("the record has no value")?;
        serde_json::from_slice(value).context("the record's value is not JSON")
    }

    /// The first header of a name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
    }
}
