//! Records as CloudEvents 1.0: those that are events already by the Kafka binding stay what they are, and
//! others become the data of one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kafka_client::StoredRecord;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a record without attributes gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) source: String,
    pub(super) r#type: String,
}

/// What a value is.
#[derive(Clone, Copy)]
pub(super) struct ValueType {
    pub(super) name: &'static str,
    /// Whether a schema made it that.
    pub(super) is_decoded: bool,
}

/// A record as an event.
pub(super) enum Event {
    /// The value is the data. Without an id the record was none.
    Binary { attributes: BTreeMap<String, String>, content_type: Option<String> },
    /// The value is the whole event.
    Structured { content_type: String },
}

impl Event {
    /// A record; `value_type` is the type of its value if it does not say so itself, or if that was
    /// decoded.
    pub(super) fn of(record: &StoredRecord, given: &Attributes, value_type: ValueType) -> Self {
        let mut attributes = BTreeMap::new();
        let mut own = None;
        for (name, value) in record.headers.iter() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
            let (Some(name), Some(value)) = (text(&name), value.as_deref().and_then(text)) else {
                continue;
            };
            match name.strip_prefix("ce_") {
                Some(attribute) if is_attribute(attribute) => {
                    attributes.insert(attribute.to_owned(), value);
                }
                _ if name.eq_ignore_ascii_case("content-type") => own = Some(value),
                _ => {}
            }
        }
        if let Some(content_type) = own.as_ref().filter(|own| own.starts_with(STRUCTURED)) {
            return Self::Structured { content_type: content_type.clone() };
        }
        let is_event = REQUIRED.iter().all(|required| attributes.contains_key(*required));
        if !is_event {
            attributes = BTreeMap::from([
                ("source".to_owned(), given.source.clone()),
                ("type".to_owned(), given.r#type.clone()),
            ]);
            attributes.insert("specversion".to_owned(), "1.0".to_owned());
            let nanos = i128::from(record.timestamp_ms) * 1_000_000;
            let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
            let time = time.and_then(|time| time.format(&Rfc3339).ok());
            attributes.extend(time.map(|time| ("time".to_owned(), time)));
        }
        let own = own.filter(|_| !value_type.is_decoded);
        let of_value = || record.value.as_ref().map(|_| value_type.name.to_owned());
        let content_type = own.or_else(of_value);
        Self::Binary { attributes, content_type }
    }

    /// What its attributes take in memory, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Structured { content_type } => content_type.len(),
            Self::Binary { attributes, content_type } => {
                let own = attributes.iter().map(|(name, value)| name.len() + value.len());
                own.sum::<usize>() + content_type.as_ref().map_or(0, String::len)
            }
        }
    }

    /// The headers of a request with this event alone, in binary mode unless it is a structured one; `id`
    /// is for one that has none.
    pub(super) fn headers(&self, id: &str) -> (Vec<(String, String)>, Option<String>) {
        match self {
            Self::Structured { content_type } => (Vec::new(), Some(content_type.clone())),
            Self::Binary { attributes, content_type } => {
                let own = attributes.iter().map(|(name, value)| (&**name, &**value));
                let made = (!attributes.contains_key("id")).then_some(("id", id));
                let header = |(name, value)| {
                    (format!("ce-{name}"), utf8_percent_encode(value, ENCODED).to_string())
                };
                (own.chain(made).map(header).collect(), content_type.clone())
            }
        }
    }

    /// The event as JSON, for one of a batch.
    ///
    /// # Errors
    /// None that a `Vec` gives rise to.
    pub(super) fn json(&self, id: &str, value: Option<&[u8]>) -> serde_json::Result<Bytes> {
        let (attributes, content_type) = match self {
            Self::Structured { .. } => {
                return Ok(Bytes::copy_from_slice(value.unwrap_or_default()));
            }
            Self::Binary { attributes, content_type } => (attributes, content_type),
        };
        let mut event = Map::new();
        event.insert("id".to_owned(), id.into());
        let own = attributes.iter().map(|(name, value)| (name.clone(), Value::from(&**value)));
        event.extend(own);
        event.extend(
            content_type.iter().map(|it| ("datacontenttype".to_owned(), Value::from(&**it))),
        );
        let mut json = serde_json::to_vec(&event)?;
        let (name, data) = match (value, value.map(std::str::from_utf8)) {
            (Some(_), Some(Ok(text))) => {
                let is_json = content_type.as_ref().is_some_and(|it| it.contains("json"));
                let own = serde_json::from_str::<&RawValue>(text).ok().filter(|_| is_json);
                let text = || serde_json::to_string(text);
                ("data", own.map_or_else(text, |own| Ok(own.get().to_owned()))?)
            }
            (Some(bytes), _) => {
                ("data_base64", serde_json::to_string(&BASE64_STANDARD.encode(bytes))?)
            }
            (None, _) => return Ok(json.into()),
        };
        json.pop();
        json.extend_from_slice(format!(",\"{name}\":{data}}}").as_bytes());
        Ok(json.into())
    }
}

/// Lower-case letters and digits, by the specification.
fn is_attribute(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(is_legal)
}

const STRUCTURED: &str = "application/cloudevents";
pub(super) const BATCH: &str = "application/cloudevents-batch+json";
const REQUIRED: [&str; 4] = ["id", "source", "specversion", "type"];
const NAME_BYTES: usize = 64;
/// What a header of the HTTP binding has percent-encoded, beside all that is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: ValueType = ValueType { name: "application/json", is_decoded: false };
    const BYTES: ValueType = ValueType { name: "application/octet-stream", is_decoded: false };
    use kafka_client::fake_broker::{FakeCluster, FakeSettings};
    use kafka_client::{ClusterConfig, Record};

    /// A record as it is in the log.
    async fn stored(value: Option<&[u8]>, headers: &[(&[u8], Option<&[u8]>)]) -> StoredRecord {
        let cluster = FakeCluster::new(FakeSettings::default());
        cluster.create_topic("a", &[1]);
        let client = cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into());
        let record = Record { value, headers, timestamp_ms: 1_000, ..Record::new(b"") };
        client.producer().send("a", record, std::time::Duration::from_secs(5)).await;
        cluster.log("a", 0).remove(0)
    }

    fn given() -> Attributes {
        Attributes { source: "/kafka/orders".to_owned(), r#type: "record".to_owned() }
    }

    fn told(event: &Event) -> (String, Option<String>) {
        let (mut headers, content_type) = event.headers("msg_1");
        headers.sort();
        let headers: Vec<_> = headers.iter().map(|(name, it)| format!("{name}: {it}")).collect();
        (headers.join(", "), content_type)
    }

    #[tokio::test]
    async fn a_record_that_is_no_event_becomes_the_data_of_one() {
        let record = stored(Some(b"{\"a\": 1}"), &[(b"tenant", Some(b"x"))]).await;
        let event = Event::of(&record, &given(), JSON);
        let headers = "ce-id: msg_1, ce-source: /kafka/orders, ce-specversion: 1.0, \
            ce-time: 1970-01-01T00:00:01Z, ce-type: record";
        assert_eq!(told(&event), (headers.to_owned(), Some("application/json".to_owned())));
        let json = event.json("msg_1", record.value.as_deref()).unwrap();
        let expected = r#"{"datacontenttype":"application/json","id":"msg_1","source":"/kafka/orders","specversion":"1.0","time":"1970-01-01T00:00:01Z","type":"record","data":{"a": 1}}"#;
        assert_eq!(std::str::from_utf8(&json).unwrap(), expected);
        let binary = Event::of(&record, &given(), BYTES);
        let json = |value: &[u8]| binary.json("m", Some(value)).unwrap();
        assert!(json(b"{}").ends_with(br#","data":"{}"}"#));
        assert!(json(b"\xff").ends_with(br#","data_base64":"/w=="}"#));
        let tombstone = stored(None, &[]).await;
        let event = Event::of(&tombstone, &given(), JSON);
        assert_eq!(told(&event).1, None);
        assert!(event.json("m", None).unwrap().ends_with(br#""type":"record"}"#));
    }

    #[tokio::test]
    async fn an_event_of_kafkas_binding_stays_what_it_is() {
        let headers: [(&[u8], Option<&[u8]>); 7] = [
            (b"ce_id", Some(b"7")),
            (b"ce_source", Some("/\u{fc} \"%".as_bytes())),
            (b"ce_type", Some(b"t")),
            (b"ce_specversion", Some(b"1.0")),
            (b"ce_tenant", Some(b"x")),
            (b"ce_NOT an attribute", Some(b"x")),
            (b"Content-Type", Some(b"text/plain")),
        ];
        let event = Event::of(&stored(Some(b"a"), &headers).await, &given(), JSON);
        let expected = "ce-id: 7, ce-source: /%C3%BC%20%22%25, ce-specversion: 1.0, \
            ce-tenant: x, ce-type: t";
        assert_eq!(told(&event), (expected.to_owned(), Some("text/plain".to_owned())));
        let json = event.json("msg_1", Some(b"a")).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["id"], &json["source"]), (&"7".into(), &"/\u{fc} \"%".into()));
        let whole = b"{\"specversion\":\"1.0\"}";
        let content_type: (&[u8], _) =
            (b"content-type", Some(&b"application/cloudevents+json"[..]));
        let record = stored(Some(whole), &[content_type]).await;
        let event = Event::of(&record, &given(), JSON);
        let structured = Some("application/cloudevents+json".to_owned());
        assert_eq!(told(&event), (String::new(), structured));
        assert_eq!(event.json("msg_1", record.value.as_deref()).unwrap(), &whole[..]);
    }
}
