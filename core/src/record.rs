//! A record ready for Kafka, borrowed from whatever holds its bytes.

use serde::{Deserialize, Serialize, Serializer};

/// A record header as Kafka has it: a key that may repeat, and a value that may be null.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// A record and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// An explicit partition; else the bridge's partitioner chooses.
    pub partition: Option<i32>,
    /// When the request was captured, in ms since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The record's key.
    #[serde(borrow, serialize_with = "serde_bytes::serialize")]
    pub key: Option<&'a [u8]>,
    /// The record's value.
    #[serde(borrow, serialize_with = "serde_bytes::serialize")]
    pub value: Option<&'a [u8]>,
    /// Record headers in order.
    #[serde(borrow, serialize_with = "headers")]
    pub headers: Vec<Header<'a>>,
}

fn headers<S: Serializer>(headers: &[Header<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    use serde_bytes::Bytes;
    serializer
        .collect_seq(headers.iter().map(|(key, value)| (Bytes::new(key), value.map(Bytes::new))))
}
