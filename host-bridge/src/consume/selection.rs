//! What readers of a feed get of each record: whether any, and what as its value.

use bytes::Bytes;
use kafka_client::StoredRecord;
use kafka_upstream_core::expression::{Client, RecordExpression, RecordInput, RecordParts};

use super::envelope::{self, Record};
use super::feeds::{Deserializer, Feed};

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

/// A record at its place.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) record: &'a StoredRecord,
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

impl Feed {
    /// What readers get of a record.
    pub(crate) fn select(&self, placed: Placed<'_>, client: Client<'_>) -> Selected {
        let selection = &self.selection;
        if let Some(filter) = &selection.filter {
            match self.holds(filter, placed, client) {
                Ok(true) => {}
                Ok(false) => return Selected::Nothing,
                // It may keep tenants apart: what it cannot tell is nobody's.
                Err(error) if selection.dlq_topic.is_some() => {
                    tracing::debug!(error, "filter_failed");
                    return Selected::DeadLetter(FILTER_ERROR);
                }
                Err(_) => return Selected::Nothing,
            }
        }
        let headers: Vec<_> = placed.record.headers.iter().collect();
        let record = Record::of(placed.topic, placed.partition, placed.record, &headers);
        if let Some(error) = envelope::faulty(&record, self) {
            return match error {
                envelope::RECORD_TOO_LARGE => Selected::Whole,
                error => self.undecodable(error, Selected::Whole),
            };
        }
        let Some(expression) = &selection.value_expression else { return Selected::Whole };
        let names = borrowed(&headers);
        let input = self.input(&record, names, client);
        match expression.value(&input) {
            Ok(value) => Selected::Value {
                bytes: value.bytes.map(|bytes| Bytes::from(bytes.into_owned())),
                deserializer: match value.is_json {
                    true => Deserializer::Json,
                    false => Deserializer::Noop,
                },
            },
            Err(_) => self.undecodable(EXPRESSION_ERROR, Selected::Error(EXPRESSION_ERROR)),
        }
    }

    /// Whether a record fits a filter.
    ///
    /// # Errors
    /// The filter has no result for it.
    pub(crate) fn holds(
        &self,
        filter: &RecordExpression,
        placed: Placed<'_>,
        client: Client<'_>,
    ) -> Result<bool, String> {
        let headers: Vec<_> = match filter.uses_headers() || self.remove_confluent_header {
            true => placed.record.headers.iter().collect(),
            false => Vec::new(),
        };
        let record = Record::of(placed.topic, placed.partition, placed.record, &headers);
        let input = self.input(&record, borrowed(&headers), client);
        filter.holds(&input).map_err(|error| error.to_string())
    }

    fn input<'a>(
        &self,
        record: &Record<'a>,
        headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
        client: Client<'a>,
    ) -> RecordInput<'a> {
        RecordInput::new(RecordParts {
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            value: envelope::value(record, self),
            is_json: self.deserializer == Deserializer::Json,
            headers,
            client,
        })
    }

    fn undecodable(&self, reason: &'static str, item: Selected) -> Selected {
        match self.selection.on_decode_error {
            OnDecodeError::ErrorItem => item,
            OnDecodeError::Skip => Selected::Nothing,
            OnDecodeError::Dlq => Selected::DeadLetter(reason),
            OnDecodeError::Stop => Selected::Stop(reason),
        }
    }
}

type Header = (Bytes, Option<Bytes>);

fn borrowed(headers: &[Header]) -> Vec<(&[u8], Option<&[u8]>)> {
    headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect()
}

const FILTER_ERROR: &str = "filter_error";
const EXPRESSION_ERROR: &str = "expression_error";

#[cfg(test)]
mod tests;
