//! Schemas of a registry: JSON becomes the payload of a Kafka record that fits one, and a payload
//! becomes JSON again.
//!
//! Nothing here does input or output, and no document or schema, however hostile, makes it panic or
//! take more than [`limits`] allow.

mod avro;
mod json_schema;
pub mod limits;
mod protobuf;
pub mod wire;

/// How a registry names the language of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaType {
    /// `AVRO`, also where a registry names none.
    Avro,
    /// `JSON`: JSON Schema, draft 4 to 2020-12.
    Json,
    /// `PROTOBUF`: `.proto` text, proto2 or proto3.
    Protobuf,
}

/// A schema as its registry stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its language.
    pub schema_type: SchemaType,
    /// Its text.
    pub text: String,
    /// The schemas that it refers to, each behind those that it refers to itself.
    pub references: Vec<Reference>,
}

/// A schema that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The name by which it is referred to: Avro's full name, JSON Schema's `$ref`, Protobuf's import.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// How JSON stands for values that JSON does not have (Kong's `payload_encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PayloadEncoding {
    /// Avro's JSON encoding: a union's value is tagged with its branch, bytes are characters below 256.
    AvroJson,
    /// As one would write it by hand: unions untagged, bytes in base64.
    #[default]
    SimpleJson,
}

/// A schema that was read.
#[derive(Debug)]
pub struct Schema(Kind);

#[derive(Debug)]
enum Kind {
    Avro(avro::Schema),
    Json(json_schema::Schema),
    Protobuf(protobuf::Schema),
}

/// What a record holds beside its schema's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Which message of its file it is, encoded as it follows the schema's id; empty but for Protobuf.
    pub message_index: Vec<u8>,
    /// The bytes that the schema describes.
    pub bytes: Vec<u8>,
}

/// Why a schema cannot be used: one sentence without its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

/// Why a document does not fit a schema. Neither part quotes the document's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Invalid {
    /// Where, as JSONPath (RFC 9535): `$.lines[0].count`.
    pub path: String,
    /// Why, with the schema's own names: branches, symbols, fields.
    pub reason: String,
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// If it is malformed, refers to what is not there, or is larger than the limits.
    pub fn parse(document: &Document) -> Result<Self, SchemaError> {
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
