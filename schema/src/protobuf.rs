//! Protobuf: JSON becomes a message by its canonical JSON mapping, and a message JSON.
//!
//! As Confluent's serializers have it, what is written is the first message of the file. What is
//! read is any message that the index names, with each field that has no presence, also where it
//! has its default value.

mod decode;
mod encode;
mod index;
mod options;
mod source;
mod types;
mod well_known;
mod wire;

use crate::fault::Fault;
use crate::{Document, Invalid, Payload, SchemaError};
use types::Types;

#[derive(Debug)]
pub(crate) struct Schema {
    types: Types,
    /// The message that is written: the first one.
    written: usize,
}

impl Schema {
    pub(crate) fn parse(document: &Document) -> Result<Self, SchemaError> {
        let types = Types::of(&source::compile(document)?);
        let first = types.at_index(&[0]);
        let written = first.ok_or_else(|| SchemaError("it has no message".to_owned()))?;
        Ok(Self { types, written })
    }

    pub(crate) fn encode(&self, json: &[u8]) -> Result<Payload, Invalid> {
        let bytes = encode::payload(&self.types, self.written, json)?;
        Ok(Payload { message_index: index::FIRST.to_vec(), bytes })
    }

    pub(crate) fn decode(
        &self,
        message_index: Option<&[u8]>,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Invalid> {
        let malformed = |reason| Fault::new(format!("its message index is {reason}"));
        let (index, payload) = match message_index {
            None => index::read(bytes).map_err(malformed)?,
            Some(apart) => match index::read(apart).map_err(malformed)? {
                (index, []) => (index, bytes),
                _ => return Err(malformed("longer than it says").into()),
            },
        };
        let message = self.types.at_index(&index).ok_or_else(|| malformed("of no message"))?;
        Ok(decode::json(&self.types, message, payload)?)
    }
}

#[cfg(test)]
mod tests;
