//! What readers of a feed get of a record: whether any, and what as its value.

use bytes::Bytes;
use kafka_client::StoredRecord;
use kafka_upstream_core::expression::{
    Client, ExpressionError, RecordExpression, RecordInput, RecordParts,
};

use super::envelope::{self, Record};
use super::feeds::Feed;
use super::selection::{
    ChangedValue, Decoded, Deserializer, EXPRESSION_ERROR, FILTER_ERROR, OnDecodeError,
    RECORD_TOO_LARGE, Selected,
};

/// A record at its place.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) record: &'a StoredRecord,
}

impl Placed<'_> {
    /// What readers of a feed get of it, as it is decoded.
    pub(crate) fn select(self, feed: &Feed, client: Client<'_>, decoded: &Decoded) -> Selected {
        let selection = &feed.selection;
        let expressions = [&selection.filter, &selection.value_expression];
        // One input for both: JSON is parsed once. Most records that are left out need no headers.
        let headers = self.headers_for(expressions.into_iter().flatten(), feed);
        let record = Record::of(self.topic, self.partition, self.record, &headers);
        let input = input(feed, &record, decoded, borrowed(&headers), client);
        match selection.filter.as_ref().map(|filter| filter.holds(&input)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => return Selected::Nothing,
            // It may keep tenants apart: what it cannot tell is nobody's. What it cannot tell of one
            // reader may be another's.
            Some(Err(error))
                if selection.dlq_topic.is_some() && !is_per_reader(&selection.filter) =>
            {
                tracing::debug!(%error, "filter_failed");
                return Selected::DeadLetter(FILTER_ERROR);
            }
            Some(Err(_)) => return Selected::Skipped(FILTER_ERROR),
        }
        let headers: Vec<_> = self.record.headers.iter().collect();
        match envelope::faulty(&Record { headers: &headers, ..record }, feed).or(decoded.error) {
            None => {}
            Some(RECORD_TOO_LARGE) => return Selected::Whole,
            Some(error) => return undecodable(feed, error),
        }
        let Some(expression) = &selection.value_expression else { return decoded.selected() };
        match expression.value(&input) {
            Ok(value) => Selected::Changed {
                key: decoded.key.clone(),
                value: Some(ChangedValue {
                    bytes: value.bytes.map(|bytes| Bytes::from(bytes.into_owned())),
                    deserializer: match value.is_json {
                        true => Deserializer::Json,
                        false => Deserializer::Noop,
                    },
                }),
            },
            Err(_) => match undecodable(feed, EXPRESSION_ERROR) {
                // Other readers may have a value.
                Selected::DeadLetter(error) if expression.uses_client() => Selected::Skipped(error),
                selected => selected,
            },
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
        decoded: &Decoded,
    ) -> Result<bool, ExpressionError> {
        let headers = self.headers_for([filter].into_iter(), feed);
        let record = Record::of(self.topic, self.partition, self.record, &headers);
        filter.holds(&input(feed, &record, decoded, borrowed(&headers), client))
    }

    /// The headers, where they are asked for.
    fn headers_for<'a>(
        self,
        mut expressions: impl Iterator<Item = &'a RecordExpression>,
        feed: &Feed,
    ) -> Vec<Header> {
        match feed.remove_confluent_header || expressions.any(RecordExpression::uses_headers) {
            true => self.record.headers.iter().collect(),
            false => Vec::new(),
        }
    }
}

fn input<'a>(
    feed: &Feed,
    record: &Record<'a>,
    decoded: &'a Decoded,
    headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
    client: Client<'a>,
) -> RecordInput<'a> {
    RecordInput::new(RecordParts {
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: decoded.key.as_deref().or(record.key),
        key_is_json: feed.key_deserializer == Deserializer::SchemaRegistry,
        value: decoded.value.as_deref().or_else(|| envelope::value(record, feed)),
        is_json: feed.deserializer != Deserializer::Noop,
        headers,
        client,
    })
}

fn is_per_reader(expression: &Option<RecordExpression>) -> bool {
    expression.as_ref().is_some_and(RecordExpression::uses_client)
}

fn undecodable(feed: &Feed, error: &'static str) -> Selected {
    match feed.selection.on_decode_error {
        OnDecodeError::ErrorItem => Selected::Error(error),
        OnDecodeError::Skip => Selected::Skipped(error),
        OnDecodeError::Dlq => Selected::DeadLetter(error),
        OnDecodeError::Stop => Selected::Stop(error),
    }
}

type Header = (Bytes, Option<Bytes>);

fn borrowed(headers: &[Header]) -> Vec<(&[u8], Option<&[u8]>)> {
    headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect()
}

#[cfg(test)]
mod tests;
