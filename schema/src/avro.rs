//! Avro: schemas, and JSON to their binary encoding and back.
//!
//! The schema's parser is our own: one is wanted that a schema cannot make overflow the stack or
//! copy itself at each level, that keeps what a default says, and that takes what registries hold.

mod decode;
mod encode;
mod form;
mod logical;
mod parse;
mod types;

use crate::{Document, Invalid, Payload, PayloadEncoding, SchemaError};

/// A schema that was read.
#[derive(Debug)]
pub(crate) struct Schema(types::Types);

impl Schema {
    pub(crate) fn parse(document: &Document) -> Result<Self, SchemaError> {
        parse::parse(document).map(Self)
    }

    pub(crate) fn encode(
        &self,
        json: &[u8],
        encoding: PayloadEncoding,
    ) -> Result<Payload, Invalid> {
        let bytes = encode::encode(&self.0, json, encoding.into())?;
        Ok(Payload { message_index: Vec::new(), bytes })
    }

    pub(crate) fn decode(
        &self,
        bytes: &[u8],
        encoding: PayloadEncoding,
    ) -> Result<Vec<u8>, Invalid> {
        Ok(decode::decode(&self.0, bytes, encoding.into())?)
    }
}
