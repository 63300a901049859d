//! What a feed says of records: which its readers get, and what as their values.

use bytes::Bytes;
use kafka_upstream_core::expression::{Client, RecordExpression};

/// What keys or values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deserializer {
    /// Bytes: text where they are UTF-8.
    Noop,
    Json,
    /// By the schemas of a registry: readers get JSON.
    SchemaRegistry,
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
    /// With another key, which is JSON, or another value; none is the record's own.
    Changed {
        key: Option<Bytes>,
        value: Option<ChangedValue>,
    },
    /// An item that says why there is no value.
    Error(&'static str),
    Nothing,
    /// Nothing, with the reason.
    Skipped(&'static str),
    /// Nothing, once the record is in the dead-letter topic; with the reason.
    DeadLetter(&'static str),
    /// Readers end, with the reason.
    Stop(&'static str),
}

/// What readers get as a record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangedValue {
    pub(crate) bytes: Option<Bytes>,
    pub(crate) deserializer: Deserializer,
}

/// A record's key and value as JSON, where they are decoded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decoded {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) error: Option<&'static str>,
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

impl Decoded {
    /// What readers get where no expression says otherwise.
    pub(crate) fn selected(&self) -> Selected {
        if self.key.is_none() && self.value.is_none() {
            return Selected::Whole;
        }
        let value = self
            .value
            .clone()
            .map(|json| ChangedValue { bytes: Some(json), deserializer: Deserializer::Json });
        Selected::Changed { key: self.key.clone(), value }
    }

    /// The same with other bytes, made of its own.
    pub(crate) fn map(self, change: impl Fn(Bytes) -> Bytes) -> Self {
        Self { key: self.key.map(&change), value: self.value.map(&change), error: self.error }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.key.iter().chain(&self.value).map(Bytes::len).sum()
    }
}

impl Selected {
    /// Whether it is something that a reader is given.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self, Self::Whole | Self::Changed { .. } | Self::Error(_))
    }

    /// Why it is not what the feed says.
    pub(crate) fn error(&self) -> Option<&'static str> {
        match self {
            Self::Error(error)
            | Self::Skipped(error)
            | Self::DeadLetter(error)
            | Self::Stop(error) => Some(error),
            Self::Whole | Self::Changed { .. } | Self::Nothing => None,
        }
    }

    /// The same with other bytes as its value, made of its own.
    pub(crate) fn with_value(mut self, change: impl FnOnce(Bytes) -> Bytes) -> Self {
        if let Self::Changed { value: Some(value), .. } = &mut self {
            value.bytes = value.bytes.take().map(change);
        }
        self
    }

    /// What it takes in memory beside the record.
    pub(crate) fn bytes(&self) -> usize {
        let Self::Changed { key, value } = self else { return 0 };
        let value = value.as_ref().and_then(|value| value.bytes.as_ref());
        key.iter().chain(value).map(Bytes::len).sum()
    }
}

/// The record is larger than the feed delivers.
pub(super) const RECORD_TOO_LARGE: &str = "record_too_large";
/// The value is not what `deserializer` says.
pub(super) const DECODE_ERROR: &str = "decode_error";
pub(super) const KEY_DECODE_ERROR: &str = "key_decode_error";
/// The expression has no result for the record.
pub(super) const FILTER_ERROR: &str = "filter_error";
pub(super) const EXPRESSION_ERROR: &str = "expression_error";
/// What is reported of a record at which readers end.
pub(crate) fn reported(error: &str) -> &str {
    match error {
        DECODE_ERROR => "the value cannot be decoded",
        KEY_DECODE_ERROR => "the key cannot be decoded",
        EXPRESSION_ERROR => "value_expression has no result",
        other => other,
    }
}

/// Those that are counted.
pub(super) const ERRORS: [&str; 4] =
    [DECODE_ERROR, KEY_DECODE_ERROR, FILTER_ERROR, EXPRESSION_ERROR];

impl Selection {
    /// Whether there is nothing to look at.
    pub(crate) fn takes_all(&self) -> bool {
        self.filter.is_none()
            && self.value_expression.is_none()
            && self.on_decode_error == OnDecodeError::ErrorItem
    }

    /// Whether readers get different things of one record.
    pub(crate) fn is_per_client(&self) -> bool {
        self.per_client().is_some()
    }

    /// The field by which they do.
    pub(super) fn per_client(&self) -> Option<&'static str> {
        let all = [("filter", &self.filter), ("value_expression", &self.value_expression)];
        let names_client =
            |expression: &RecordExpression| RecordExpression::uses_client(expression);
        let (field, _) = all.into_iter().find(|(_, it)| it.as_ref().is_some_and(names_client))?;
        Some(field)
    }
}
