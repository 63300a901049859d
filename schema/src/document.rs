//! What a schema is made of, and what comes of a value.

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
    /// The schemas that it refers to, each once, and behind those that it refers to itself.
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

/// What a record holds beside its schema's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Which message of its file it is, encoded as it follows the schema's id; empty but for Protobuf.
    pub message_index: Vec<u8>,
    /// The bytes that the schema describes.
    pub bytes: Vec<u8>,
}
