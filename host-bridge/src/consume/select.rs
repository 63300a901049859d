//! What readers of a feed get of a record: whether any, and what as its value.

use bytes::Bytes;
use kafka_client::StoredRecord;
use kafka_upstream_core::expression::{Client, RecordExpression, RecordInput, RecordParts};

use super::envelope::{self, Record};
use super::feeds::Feed;
use super::selection::{Deserializer, OnDecodeError, Selected};

/// A record at its place.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) record: &'a StoredRecord,
}

impl Placed<'_> {
    /// What readers of a feed get of it.
    pub(crate) fn select(self, feed: &Feed, client: Client<'_>) -> Selected {
        let selection = &feed.selection;
        if let Some(filter) = &selection.filter {
            match self.holds(filter, feed, client) {
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
        let headers: Vec<_> = self.record.headers.iter().collect();
        let record = Record::of(self.topic, self.partition, self.record, &headers);
        if let Some(error) = envelope::faulty(&record, feed) {
            return match error {
                envelope::RECORD_TOO_LARGE => Selected::Whole,
                error => undecodable(feed, error, Selected::Whole),
            };
        }
        let Some(expression) = &selection.value_expression else { return Selected::Whole };
        let input = input(feed, &record, borrowed(&headers), client);
        match expression.value(&input) {
            Ok(value) => Selected::Value {
                bytes: value.bytes.map(|bytes| Bytes::from(bytes.into_owned())),
                deserializer: match value.is_json {
                    true => Deserializer::Json,
                    false => Deserializer::Noop,
                },
            },
            Err(_) => undecodable(feed, EXPRESSION_ERROR, Selected::Error(EXPRESSION_ERROR)),
        }
    }

    /// Whether it fits a filter.
    ///
    /// # Errors
    /// The filter has no result for it.
    pub(crate) fn holds(
        self,
        filter: &RecordExpression,
        feed: &Feed,
        client: Client<'_>,
    ) -> Result<bool, String> {
        let headers: Vec<_> = match filter.uses_headers() || feed.remove_confluent_header {
            true => self.record.headers.iter().collect(),
            false => Vec::new(),
        };
        let record = Record::of(self.topic, self.partition, self.record, &headers);
        let input = input(feed, &record, borrowed(&headers), client);
        filter.holds(&input).map_err(|error| error.to_string())
    }
}

fn input<'a>(
    feed: &Feed,
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
        value: envelope::value(record, feed),
        is_json: feed.deserializer == Deserializer::Json,
        headers,
        client,
    })
}

fn undecodable(feed: &Feed, reason: &'static str, item: Selected) -> Selected {
    match feed.selection.on_decode_error {
        OnDecodeError::ErrorItem => item,
        OnDecodeError::Skip => Selected::Nothing,
        OnDecodeError::Dlq => Selected::DeadLetter(reason),
        OnDecodeError::Stop => Selected::Stop(reason),
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
