//! Keys and values that are decoded by the schemas of a registry, which each of them names.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use kafka_client::StoredRecord;
use kafka_upstream_schema::PayloadEncoding;
use kafka_upstream_schema::wire::{self, Framed, KEY_HEADER, VALUE_HEADER};

use super::feeds::Feed;
use super::refusal::{Code, Refusal};
use super::selection::{DECODE_ERROR, Decoded, Deserializer, KEY_DECODE_ERROR};
use super::topic_log::bytes_of;
use crate::registry::{Failure, Key, Registry};

/// What decodes the records of a feed.
pub(crate) struct Decoder {
    registry: Arc<Registry>,
    keys: bool,
    values: bool,
    encoding: PayloadEncoding,
    /// Of a record, and of the JSON of a key or value.
    bytes_max: usize,
}

/// A schema that the registry has to be asked for.
pub(crate) struct Lookup {
    registry: Arc<Registry>,
    key: Key,
}

/// What becomes of a key or value.
enum Part {
    Own,
    Json(Vec<u8>),
    /// It is none of a schema that the registry has.
    Undecodable,
}

impl Decoder {
    /// None where the feed has none.
    pub(crate) fn new(feed: &Feed, registry: Option<Arc<Registry>>) -> Option<Self> {
        let is_decoded = |deserializer| deserializer == Deserializer::SchemaRegistry;
        let (keys, values) = (is_decoded(feed.key_deserializer), is_decoded(feed.deserializer));
        let registry = registry.filter(|_| keys || values)?;
        let (encoding, bytes_max) = (feed.payload_encoding, feed.record_bytes_max);
        Some(Self { registry, keys, values, encoding, bytes_max })
    }

    /// A record's key and value, as soon as their schemas are known; what asks for one goes on by itself.
    ///
    /// # Errors
    /// The schema that is to be waited for.
    pub(crate) fn decode(&self, record: &StoredRecord) -> Result<Decoded, Lookup> {
        if bytes_of(record) > self.bytes_max {
            // It is reported as too large.
            return Ok(Decoded::default());
        }
        let of = |is_decoded: bool, bytes: &Option<Bytes>, header| match bytes {
            Some(bytes) if is_decoded => self.part(record, bytes, header),
            _ => Ok(Part::Own),
        };
        let value = of(self.values, &record.value, VALUE_HEADER)?;
        let key = of(self.keys, &record.key, KEY_HEADER)?;
        let error = match (&value, &key) {
            (Part::Undecodable, _) => Some(DECODE_ERROR),
            (_, Part::Undecodable) => Some(KEY_DECODE_ERROR),
            _ => None,
        };
        Ok(Decoded { key: key.json(), value: value.json(), error })
    }

    fn part(&self, record: &StoredRecord, bytes: &[u8], header: &str) -> Result<Part, Lookup> {
        let undecodable = |reason: &str| {
            tracing::debug!(offset = record.offset, reason, "record_not_decoded");
            Ok(Part::Undecodable)
        };
        // The last of a name, as Kafka's clients have it.
        let header = record.headers.iter().filter(|(name, _)| **name == *header.as_bytes()).last();
        let header = header.map(|(_, value)| value.unwrap_or_default());
        let Framed { id, message_index, bytes } = match wire::split(header.as_deref(), bytes) {
            Ok(framed) => framed,
            Err(reason) => return undecodable(reason),
        };
        let key = Key::Id(id);
        let registered = match self.registry.get(&key).now_or_never() {
            Some(Ok(registered)) => registered,
            Some(Err(failure)) if failure.is_final() => return undecodable(&failure.to_string()),
            Some(Err(_)) | None => {
                return Err(Lookup { registry: Arc::clone(&self.registry), key });
            }
        };
        match registered.schema.decode(message_index, bytes, self.encoding) {
            Ok(json) if json.len() <= self.bytes_max => Ok(Part::Json(json)),
            Ok(_) => undecodable("its JSON is larger than record_bytes_max"),
            // Its path may have keys of the payload.
            Err(invalid) => undecodable(&invalid.reason),
        }
    }

    /// Why no schema is given, if the registry did not answer when it was last asked.
    pub(crate) fn fault(&self) -> Option<Refusal> {
        self.registry.health().fault.map(|_| self.late())
    }

    /// The same after a wait without an answer. The reason, which may have addresses, is for operators.
    pub(crate) fn late(&self) -> Refusal {
        let message = format!(
            "the schema registry `{}` does not give the schema of a record now",
            self.registry.name()
        );
        Code::RegistryUnavailable.because(message)
    }
}

impl Part {
    fn json(self) -> Option<Bytes> {
        match self {
            Self::Json(json) => Some(json.into()),
            Self::Own | Self::Undecodable => None,
        }
    }
}

impl Lookup {
    /// Waits for the answer: whether it is known now what the record is.
    pub(crate) async fn done(self) -> bool {
        self.registry.get(&self.key).await.map_or_else(|failure| failure.is_final(), |_| true)
    }
}

impl Failure {
    /// Whether it is the schema's, and no outage: waiting is of no use.
    fn is_final(&self) -> bool {
        match self {
            Self::Unknown(_) | Self::Unusable(_) => true,
            Self::Unavailable(_) | Self::Refused(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
