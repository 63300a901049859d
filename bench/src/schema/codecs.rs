//! What a message costs in each language of schemas, beside the libraries called directly on it.

use std::fs;
use std::hint::black_box;

use anyhow::{Context as _, ensure};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as AvroValue;
use apache_avro::writer::datum::GenericDatumWriter;
use jsonschema::Draft;
use kafka_upstream_schema::{Document, PayloadEncoding, Schema, SchemaType};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::documents::{AVRO, JSON_SCHEMA, PROTOBUF, order};
use crate::report::{Bound, Report};

/// Lines of an order: of 0.3, and of 1.6 KB.
const LINES: [u32; 2] = [1, 20];

/// Messages of ours, and then as many of the library's, and so on.
const TURN: u32 = 100;
const TURNS: u32 = 100;

/// A language as this project, and as a library, encodes and decodes it.
struct Language {
    name: &'static str,
    schema: Schema,
    encoding: PayloadEncoding,
    peer: Peer,
}

enum Peer {
    Avro(apache_avro::Schema),
    JsonSchema(jsonschema::Validator),
    Protobuf(MessageDescriptor),
}

/// Measures each once.
pub(super) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for language in languages()? {
        for lines in LINES {
            let is_tagged = language.encoding == PayloadEncoding::AvroJson;
            language.measure(&order(lines, is_tagged), &order(lines, false), report)?;
        }
    }
    Ok(())
}

fn languages() -> anyhow::Result<[Language; 4]> {
    let avro = || apache_avro::Schema::parse_str(AVRO).map(Peer::Avro);
    let validator = jsonschema::options().with_draft(Draft::Draft7);
    let validator = validator.build(&serde_json::from_str(JSON_SCHEMA)?);
    let validator = validator.map_err(|error| error.to_owned())?;
    Ok([
        Language::new("Avro, avro_json", SchemaType::Avro, AVRO, avro()?)?
            .encoding(PayloadEncoding::AvroJson),
        Language::new("Avro, simple_json", SchemaType::Avro, AVRO, avro()?)?,
        Language::new("JSON Schema", SchemaType::Json, JSON_SCHEMA, Peer::JsonSchema(validator))?,
        Language::new("Protobuf", SchemaType::Protobuf, PROTOBUF, Peer::Protobuf(descriptor()?))?,
    ])
}

fn descriptor() -> anyhow::Result<MessageDescriptor> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("order.proto"), PROTOBUF)?;
    let files = protox::compile(["order.proto"], [folder.path()])?;
    let pool = DescriptorPool::from_file_descriptor_set(files)?;
    pool.get_message_by_name("com.acme.Order").context("the schema has no Order")
}

impl Language {
    fn new(
        name: &'static str,
        schema_type: SchemaType,
        text: &str,
        peer: Peer,
    ) -> anyhow::Result<Self> {
        let document = Document { schema_type, text: text.to_owned(), references: Vec::new() };
        let schema = Schema::parse(&document)?;
        Ok(Self { name, schema, encoding: PayloadEncoding::SimpleJson, peer })
    }

    fn encoding(self, encoding: PayloadEncoding) -> Self {
        Self { encoding, ..self }
    }

    fn encode(&self, json: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(self.schema.encode(json, self.encoding)?.bytes)
    }

    /// `plain` is the same document without tags, which no library knows.
    fn measure(&self, json: &[u8], plain: &[u8], report: &mut Report) -> anyhow::Result<()> {
        let payload = self.encode(json)?;
        ensure!(payload == self.peer.encode(plain)?, "{}: not the library's payload", self.name);
        // In front of a Protobuf payload: it is of the first message.
        let index = (self.schema.encode(json, self.encoding)?).message_index;
        let decode = || self.schema.decode(Some(&index), &payload, self.encoding);
        let again = self.schema.encode(&decode()?, self.encoding)?.bytes;
        ensure!(again == payload, "{}: decoded, it is another message", self.name);
        let [encode, peer] = beside(|| self.encode(json), || self.peer.encode(plain))?;
        self.add("encode", json.len(), encode, peer, report);
        let [decode, peer] = beside(|| Ok(decode()?), || self.peer.decode(&payload))?;
        self.add("decode", json.len(), decode, peer, report);
        Ok(())
    }

    fn add(&self, what: &str, bytes: usize, ours: f64, peer: f64, report: &mut Report) {
        let name = format!("{}, {what} {bytes} bytes", self.name);
        report.add(name.clone(), "µs", ours);
        report.add(format!("{name}, {}", self.peer.name()), "µs", peer);
        report.judge(format!("{name}, ratio"), "times", ours / peer, Bound::Most(2.0));
    }
}

impl Peer {
    fn name(&self) -> &'static str {
        match self {
            Self::Avro(_) => "apache-avro",
            Self::JsonSchema(_) => "jsonschema",
            Self::Protobuf(_) => "prost-reflect",
        }
    }

    fn encode(&self, json: &[u8]) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Avro(schema) => {
                let value = avro_value(serde_json::from_slice(json)?);
                let writer = GenericDatumWriter::builder(schema).build()?;
                Ok(writer.write_value_to_vec(value.resolve(schema)?)?)
            }
            Self::JsonSchema(validator) => {
                ensure!(validator.is_valid(&serde_json::from_slice(json)?), "it does not fit");
                Ok(json.to_vec())
            }
            Self::Protobuf(descriptor) => {
                let mut json = serde_json::Deserializer::from_slice(json);
                let message = DynamicMessage::deserialize(descriptor.clone(), &mut json)?;
                json.end()?;
                Ok(message.encode_to_vec())
            }
        }
    }

    fn decode(&self, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Avro(schema) => {
                let reader = GenericDatumReader::builder(schema).build()?;
                let value = reader.read_value(&mut &*payload)?;
                Ok(serde_json::to_vec(&Value::try_from(value)?)?)
            }
            Self::JsonSchema(_) => {
                serde_json::from_slice::<serde::de::IgnoredAny>(payload)?;
                Ok(payload.to_vec())
            }
            Self::Protobuf(descriptor) => {
                let message = DynamicMessage::decode(descriptor.clone(), payload)?;
                let options = SerializeOptions::new().skip_default_fields(false);
                let mut json = serde_json::Serializer::new(Vec::new());
                message.serialize_with_options(&mut json, &options)?;
                Ok(json.into_inner())
            }
        }
    }
}

/// As the library itself has no conversion: its own keeps unsigned numbers apart.
fn avro_value(json: Value) -> AvroValue {
    match json {
        Value::Null => AvroValue::Null,
        Value::Bool(value) => AvroValue::Boolean(value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => AvroValue::Long(whole),
            None => AvroValue::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => AvroValue::String(text),
        Value::Array(items) => AvroValue::Array(items.into_iter().map(avro_value).collect()),
        Value::Object(members) => AvroValue::Map(
            members.into_iter().map(|(name, value)| (name, avro_value(value))).collect(),
        ),
    }
}

/// Microseconds of processor time of a message, of each, in turns.
fn beside(
    ours: impl Fn() -> anyhow::Result<Vec<u8>>,
    peer: impl Fn() -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<[f64; 2]> {
    let turn = |work: &dyn Fn() -> anyhow::Result<Vec<u8>>| {
        let begin = processor_us();
        for _ in 0..TURN {
            black_box(work()?);
        }
        anyhow::Ok(processor_us() - begin)
    };
    let mut sums = [0.0; 2];
    for _ in 0..TURNS {
        sums = [sums[0] + turn(&ours)?, sums[1] + turn(&peer)?];
    }
    Ok(sums.map(|sum| sum / f64::from(TURN * TURNS)))
}

/// Processor time of this thread.
fn processor_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
