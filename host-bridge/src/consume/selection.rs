//! What a feed says of records: which its readers get, and what as their values.

use bytes::Bytes;
use kafka_upstream_core::expression::{Client, RecordExpression};

/// What keys or values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deserializer {
    /// Bytes: text where they are UTF-8.
    Noop,
    Json,
}

/// A feed's filter, its value expression, and what becomes of records that cannot be decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) filter: Option<RecordExpression>,
    /// Whether readers may send filters of their own.
    pub(crate) allow_client_filter: bool,
    pub(crate) value_expression: Option<RecordExpression>,
    pub(crate) on_decode_error: OnDecodeError,
    /// Where records go that readers should have got and cannot.
    pub(crate) dlq_topic: Option<String>,
}

/// What becomes of a record whose key or value cannot be decoded, or has no result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OnDecodeError {
    /// It is delivered with the error.
    #[default]
    ErrorItem,
    Skip,
    Dlq,
    /// Readers end at it.
    Stop,
}

/// What readers get of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selected {
    /// The record as it is.
    Whole,
    /// With another value.
    Value {
        bytes: Option<Bytes>,
        deserializer: Deserializer,
    },
    /// An item that says why there is no value.
    Error(&'static str),
    Nothing,
    /// Nothing, once the record is in the dead-letter topic; with the reason.
    DeadLetter(&'static str),
    /// Readers end, with the reason.
    Stop(&'static str),
}

/// Who reads, as a gateway says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: Option<String>,
    pub(crate) consumer: Option<String>,
    /// JSON.
    pub(crate) attrs: Option<String>,
}

impl Identity {
    pub(crate) fn as_client(&self) -> Client<'_> {
        let Self { id, consumer, attrs } = self;
        Client { id: id.as_deref(), consumer: consumer.as_deref(), attrs: attrs.as_deref() }
    }
}

impl Selected {
    /// What it takes in memory beside the record.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Value { bytes: Some(bytes), .. } => bytes.len(),
            _ => 0,
        }
    }
}

impl Selection {
    /// Whether there is nothing to look at.
    pub(crate) fn takes_all(&self) -> bool {
        self.filter.is_none()
            && self.value_expression.is_none()
            && self.on_decode_error == OnDecodeError::ErrorItem
    }

    /// Whether readers get different things of one record.
    pub(crate) fn is_per_client(&self) -> bool {
        let all = [&self.filter, &self.value_expression];
        all.into_iter().flatten().any(RecordExpression::uses_client)
    }
}
