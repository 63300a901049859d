//! Keys and values by their schemas: what is produced in their place, or why they are refused.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_core::record::Record;
use kafka_upstream_core::registry::{self, SchemaIdPlace, Subject};
use kafka_upstream_schema::wire::{self, SchemaId};
use kafka_upstream_schema::{Invalid, PayloadEncoding};
use tokio::time::{Instant, timeout_at};

use crate::registry::registries::Registries;
use crate::registry::{Failure, Key, Registered, Registry, Rule};

/// Encodes the records of a pipeline by the first rule that names their topic.
pub(crate) struct Encoder(Vec<OfTopics>);

struct OfTopics {
    topics: Option<Vec<String>>,
    registry: Arc<Registry>,
    key: Option<OfPart>,
    value: Option<OfPart>,
    place: SchemaIdPlace,
}

/// The schema of keys, or of values.
struct OfPart {
    key: Key,
    encoding: PayloadEncoding,
    part: Part,
    /// Its name in error messages: `orders-value`.
    subject: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Value,
}

/// The records of a batch, at their positions: what is produced in their place.
pub(crate) struct Encoded(Vec<Result<Changed, Reason>>);

/// What a record gets: nothing where none of it has a schema.
#[derive(Default)]
struct Changed {
    key: Option<Framed>,
    value: Option<Framed>,
}

/// A key or value that fits its schema.
struct Framed {
    bytes: Vec<u8>,
    /// The header that names the schema, where nothing stands in front of the bytes.
    header: Option<Vec<u8>>,
}

impl Encoder {
    /// None where there is nothing to encode.
    pub(crate) fn new(rules: &[Rule], registries: &Registries) -> Option<Self> {
        let of_topics = |rule: &Rule| OfTopics {
            topics: rule.topics.clone(),
            registry: registries.of(&rule.connection),
            key: rule.key.as_ref().map(|subject| OfPart::new(subject, Part::Key)),
            value: rule.value.as_ref().map(|subject| OfPart::new(subject, Part::Value)),
            place: rule.place,
        };
        (!rules.is_empty()).then(|| Self(rules.iter().map(of_topics).collect()))
    }

    /// Encodes a batch, once its schemas are there. Each record is judged by itself.
    pub(crate) async fn encode(&self, records: &[Record<'_>], until: Instant) -> Encoded {
        let rule_of = |record: &Record<'_>| self.0.iter().position(|rule| rule.has(record.topic));
        let rules: Vec<_> = records.iter().map(rule_of).collect();
        let mut asked: Vec<_> = rules.iter().flatten().copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let schemas =
            asked.into_iter().filter_map(|position| Some((position, self.0.get(position)?)));
        let schemas = schemas.map(async |(position, rule)| (position, rule.schemas(until).await));
        let schemas: HashMap<_, _> = join_all(schemas).await.into_iter().collect();
        let (mut encoded, mut since_pause) = (Vec::with_capacity(records.len()), 0);
        for (record, rule) in records.iter().zip(rules) {
            let schemas = rule.and_then(|rule| schemas.get(&rule));
            encoded.push(schemas.map_or_else(|| Ok(Changed::default()), |it| it.change(record)));
            since_pause += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            if since_pause > PAUSE_BYTES {
                since_pause = 0;
                tokio::task::yield_now().await;
            }
        }
        Encoded(encoded)
    }
}

impl OfTopics {
    fn has(&self, topic: &str) -> bool {
        self.topics.as_ref().is_none_or(|topics| topics.iter().any(|own| own == topic))
    }

    async fn schemas(&self, until: Instant) -> Schemas<'_> {
        let of = async |part: &Option<OfPart>| match part {
            None => None,
            Some(part) => Some(match timeout_at(until, self.registry.get(&part.key)).await {
                Ok(found) => found,
                Err(_) => Err(Failure::Unavailable("it did not answer in time".into())),
            }),
        };
        let (key, value) = tokio::join!(of(&self.key), of(&self.value));
        Schemas { rule: self, key, value }
    }
}

/// The schemas of a rule, as far as they are there.
struct Schemas<'a> {
    rule: &'a OfTopics,
    key: Option<Result<Arc<Registered>, Failure>>,
    value: Option<Result<Arc<Registered>, Failure>>,
}

impl Schemas<'_> {
    fn change(&self, record: &Record<'_>) -> Result<Changed, Reason> {
        let framed = |part: &Option<OfPart>, schema: &Option<_>, bytes: Option<&[u8]>| {
            match (part, schema, bytes) {
                // Without a value there is nothing to check: a tombstone is one in every schema.
                (Some(part), Some(schema), Some(bytes)) => {
                    part.frame(schema, bytes, self.rule.place).map(Some)
                }
                _ => Ok(None),
            }
        };
        Ok(Changed {
            key: framed(&self.rule.key, &self.key, record.key)?,
            value: framed(&self.rule.value, &self.value, record.value)?,
        })
    }
}

impl OfPart {
    fn new(subject: &Subject, part: Part) -> Self {
        let name = subject.subject_name.as_deref().unwrap_or_default();
        let encoding = match subject.payload_encoding {
            Some(registry::PayloadEncoding::SimpleJson) => PayloadEncoding::SimpleJson,
            Some(registry::PayloadEncoding::AvroJson) | None => PayloadEncoding::AvroJson,
        };
        let key = Key::of_subject(name, subject.schema_version.as_ref());
        Self { key, encoding, part, subject: name.chars().take(SUBJECT_CHARS).collect() }
    }

    fn frame(
        &self,
        schema: &Result<Arc<Registered>, Failure>,
        json: &[u8],
        place: SchemaIdPlace,
    ) -> Result<Framed, Reason> {
        let registered = schema.as_ref().map_err(|failure| self.missing(failure))?;
        let encode = |json: &[u8]| registered.schema.encode(json, self.encoding);
        let payload = match (self.part, encode(json)) {
            // A client names a key in an argument or a header, where nobody writes JSON's quotes.
            (Part::Key, Err(invalid)) => {
                as_text(json).and_then(|text| encode(&text).ok()).ok_or(invalid)
            }
            (_, payload) => payload,
        };
        let payload = payload.map_err(|invalid| self.mismatch(registered.version, &invalid))?;
        let id = registered.id.unwrap_or_default();
        Ok(match place {
            SchemaIdPlace::Prefix => {
                let bytes = wire::prefixed(id, &payload.message_index, &payload.bytes);
                Framed { bytes, header: None }
            }
            SchemaIdPlace::Header => {
                let id = registered.guid.map_or(SchemaId::Number(id), SchemaId::Guid);
                let header = wire::header(id, &payload.message_index);
                Framed { bytes: payload.bytes, header: Some(header) }
            }
        })
    }

    fn missing(&self, failure: &Failure) -> Reason {
        let code = match failure {
            Failure::Unavailable(_) => Code::RegistryUnavailable,
            Failure::Unknown(_) | Failure::Refused(_) | Failure::Unusable(_) => {
                Code::RegistryRefused
            }
        };
        Reason::new(code, format!("{}: {failure}", self.subject))
    }

    /// Where the document does not fit, in a bounded text: the path may hold its keys.
    fn mismatch(&self, version: Option<u32>, invalid: &Invalid) -> Reason {
        let part = match self.part {
            Part::Key => "the key",
            Part::Value => "the value",
        };
        let version = version.map(|version| format!(" version {version}")).unwrap_or_default();
        let path = match invalid.path.char_indices().nth(PATH_CHARS) {
            Some((end, _)) => format!("{}…", invalid.path.get(..end).unwrap_or_default()),
            None => invalid.path.clone(),
        };
        let Self { subject, .. } = self;
        let detail = format!("{part} does not fit {subject}{version}: {path}: {}", invalid.reason);
        Reason::new(Code::SchemaMismatch, detail)
    }
}

impl Encoded {
    /// The records that are produced, in order.
    pub(crate) fn records<'a>(&'a self, records: &[Record<'a>]) -> Vec<Record<'a>> {
        let fit = records.iter().zip(&self.0);
        fit.filter_map(|(record, changed)| Some(changed.as_ref().ok()?.of(record))).collect()
    }

    /// The outcomes of all records from those of the ones that are produced.
    pub(crate) fn outcomes(self, produced: Vec<Outcome>) -> Vec<Outcome> {
        let mut produced = produced.into_iter();
        let outcome = |changed: Result<Changed, Reason>| match changed {
            Ok(_) => produced.next().unwrap_or_else(crate::outcomes::no_outcome),
            Err(reason) => Outcome::NotWritten(reason),
        };
        self.0.into_iter().map(outcome).collect()
    }

    /// Without its bytes, which nothing needs any more: what [`Self::outcomes`] needs.
    pub(crate) fn verdicts(self) -> Self {
        let verdict = |changed: Result<Changed, _>| changed.map(|_| Changed::default());
        Self(self.0.into_iter().map(verdict).collect())
    }
}

impl Changed {
    fn of<'a>(&'a self, record: &Record<'a>) -> Record<'a> {
        let mut headers = record.headers.clone();
        let named = [(wire::KEY_HEADER, &self.key), (wire::VALUE_HEADER, &self.value)];
        for (name, framed) in named {
            let Some(Framed { header, .. }) = framed else { continue };
            // A client's own would be read in its place.
            headers.retain(|(own, _)| *own != name.as_bytes());
            headers.extend(header.as_ref().map(|header| (name.as_bytes(), Some(&**header))));
        }
        let bytes = |framed: &'a Option<Framed>| framed.as_ref().map(|framed| &*framed.bytes);
        Record {
            key: bytes(&self.key).or(record.key),
            value: bytes(&self.value).or(record.value),
            headers,
            ..*record
        }
    }
}

/// A text as JSON.
fn as_text(bytes: &[u8]) -> Option<Vec<u8>> {
    serde_json::to_vec(std::str::from_utf8(bytes).ok()?).ok()
}

/// Characters of a subject and of a path in an error message: a reason has 256 bytes.
const SUBJECT_CHARS: usize = 64;
const PATH_CHARS: usize = 64;
/// Bytes of keys and values that are encoded before others get their turn: a few ms.
const PAUSE_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests;
