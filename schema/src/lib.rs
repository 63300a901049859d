//! Schemas of a registry: JSON becomes the payload of a Kafka record that fits one, and a payload
//! becomes JSON again.
//!
//! Nothing here does input or output, and no document or schema, however hostile, makes it panic or
//! take more than [`limits`] allow.

mod avro;
mod document;
mod fault;
mod json;
mod json_schema;
pub mod limits;
mod number;
mod protobuf;
mod rfc3339;
pub mod wire;

pub use document::{Document, Payload, PayloadEncoding, Reference, SchemaType};
pub use fault::{Invalid, SchemaError};

/// A schema that was read.
#[derive(Debug)]
pub struct Schema(Kind);

#[derive(Debug)]
enum Kind {
    Avro(avro::Schema),
    Json(json_schema::Schema),
    Protobuf(protobuf::Schema),
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// If it is malformed, refers to what is not there, or is larger than the limits.
    pub fn parse(document: &Document) -> Result<Self, SchemaError> {
        let references = document.references.iter().map(|reference| reference.text.len());
        if references.sum::<usize>() + document.text.len() > limits::SCHEMA_BYTES_MAX {
            return Err(SchemaError("it is larger than 1 MiB with all that it refers to".into()));
        }
        let kind = match document.schema_type {
            SchemaType::Avro => Kind::Avro(avro::Schema::parse(document)?),
            SchemaType::Json => Kind::Json(json_schema::Schema::parse(document)?),
            SchemaType::Protobuf => Kind::Protobuf(protobuf::Schema::parse(document)?),
        };
        Ok(Self(kind))
    }

    /// The payload of the JSON text `json`.
    ///
    /// # Errors
    /// If it is no JSON, or does not fit the schema.
    pub fn encode(&self, json: &[u8], encoding: PayloadEncoding) -> Result<Payload, Invalid> {
        match &self.0 {
            Kind::Avro(schema) => schema.encode(json, encoding),
            Kind::Json(schema) => schema.encode(json),
            Kind::Protobuf(schema) => schema.encode(json),
        }
    }

    /// The JSON text of what follows the schema's id in a record: the message index, unless
    /// `message_index` says that it came apart from the rest, and the payload.
    ///
    /// # Errors
    /// If the bytes are not of this schema.
    pub fn decode(
        &self,
        message_index: Option<&[u8]>,
        bytes: &[u8],
        encoding: PayloadEncoding,
    ) -> Result<Vec<u8>, Invalid> {
        match &self.0 {
            Kind::Avro(schema) => schema.decode(bytes, encoding),
            Kind::Json(schema) => schema.decode(bytes),
            Kind::Protobuf(schema) => schema.decode(message_index, bytes),
        }
    }
}
