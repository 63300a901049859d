//! Avro through the crate's own border: schemas, JSON in both encodings, and bytes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by panicking"
)]
#![allow(missing_docs, unreachable_pub, reason = "a test has no users")]

mod forms;
mod hostile;
#[path = "../../../kafka-client/tests/decoding/memory.rs"]
mod memory;
mod misfits;
mod random;
mod schemas;

use kafka_upstream_schema::PayloadEncoding::{AvroJson, SimpleJson};
use kafka_upstream_schema::{Document, Invalid, PayloadEncoding, Reference, Schema, SchemaType};

fn document(text: &str, references: &[(&str, &str)]) -> Document {
    let reference = |(name, text): &(&str, &str)| Reference {
        name: (*name).to_owned(),
        text: (*text).to_owned(),
    };
    Document {
        schema_type: SchemaType::Avro,
        text: text.to_owned(),
        references: references.iter().map(reference).collect(),
    }
}

fn schema(text: &str) -> Schema {
    Schema::parse(&document(text, &[])).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The reason for which a schema is refused.
fn refused(text: &str) -> String {
    Schema::parse(&document(text, &[])).unwrap_err().to_string()
}

fn encode(schema: &Schema, json: &str, encoding: PayloadEncoding) -> Result<Vec<u8>, Invalid> {
    schema.encode(json.as_bytes(), encoding).map(|payload| payload.bytes)
}

fn decode(schema: &Schema, bytes: &[u8], encoding: PayloadEncoding) -> Result<String, Invalid> {
    schema.decode(None, bytes, encoding).map(|json| String::from_utf8(json).unwrap())
}

/// A record with the fields `fields`.
fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}
