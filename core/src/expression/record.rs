//! Expressions over a record that is read: who gets it, and what readers get in place of its value.

use std::borrow::Cow;

use super::compile::{Bounds, Names};
use super::compiled::{Expression, ExpressionError};
use super::evaluate::Variables;
use super::record_input::{RecordInput, RecordParts};
use super::results;
use super::value::Value;

/// A compiled expression over a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordExpression(Expression);

/// What an expression makes of a record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewValue<'a> {
    /// Null is none, strings and bytes are as they are, anything else is written as JSON.
    pub bytes: Option<Cow<'a, [u8]>>,
    /// Whether it was.
    pub is_json: bool,
}

impl RecordExpression {
    /// Compiles the expression of a configuration's field.
    ///
    /// # Errors
    /// The field, and what is wrong at which line and column.
    pub fn compile(field: &'static str, source: &str) -> Result<Self, ExpressionError> {
        Expression::compile_over(field, source, Names::Record, Bounds::CONFIGURED).map(Self)
    }

    /// Compiles the expression of a reader: at most 2 KiB and 256 nodes, without loops.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn compile_of_reader(field: &'static str, source: &str) -> Result<Self, ExpressionError> {
        Expression::compile_over(field, source, Names::Record, Bounds::OF_READER).map(Self)
    }

    /// Whether a record fits a filter.
    ///
    /// # Errors
    /// The expression has no result for this record, or it is neither true nor false.
    pub fn holds<'a>(&'a self, input: &RecordInput<'a>) -> Result<bool, ExpressionError> {
        self.0.result_over(Variables::Record(input), results::truth)
    }

    /// Whether it can be a filter, as far as that is known without a record: a constant is true or
    /// false.
    ///
    /// # Errors
    /// It is something else, or has no result.
    pub fn check_filter(&self) -> Result<(), ExpressionError> {
        match self.0.uses().variables {
            true => Ok(()),
            false => self.holds(&RecordInput::new(RecordParts::default())).map(drop),
        }
    }

    /// What readers get in place of the value.
    ///
    /// # Errors
    /// The expression has no result for this record.
    pub fn value<'a>(&'a self, input: &RecordInput<'a>) -> Result<NewValue<'a>, ExpressionError> {
        self.0.result_over(Variables::Record(input), |value, budget| {
            let is_json = !matches!(value, Value::Null | Value::String(_) | Value::Bytes(_));
            Ok(NewValue { bytes: results::value(value, budget)?, is_json })
        })
    }

    /// Whether it names `headers`.
    #[must_use]
    pub fn uses_headers(&self) -> bool {
        self.0.uses().headers
    }

    /// Whether it names `client`: its result is another for each reader.
    #[must_use]
    pub fn uses_client(&self) -> bool {
        self.0.uses().client
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::Client;

    fn input<'a>() -> RecordParts<'a> {
        RecordParts {
            topic: "orders",
            partition: 3,
            offset: 17,
            timestamp_ms: 1_700_000_000_000,
            key: Some(b"customer-1"),
            key_is_json: false,
            value: Some(br#"{"total":41.5,"tags":["eu","new"]}"#),
            is_json: true,
            headers: vec![(b"tenant", Some(b"a")), (b"tenant", None), (b"raw", Some(b"\xff"))],
            client: Client { id: None, consumer: Some("a"), attrs: Some(r#"{"plan":"gold"}"#) },
        }
    }

    fn holds(source: &str, record: &RecordParts<'_>) -> Result<bool, String> {
        let filter = RecordExpression::compile("filter", source).map_err(|e| e.to_string())?;
        let input = RecordInput::new(record.clone());
        filter.holds(&input).map_err(|error| error.to_string())
    }

    #[test]
    fn a_filter_sees_every_part_of_a_record() {
        for source in [
            "topic == 'orders' && partition == 3 && offset == 17",
            "timestamp == 1700000000000",
            "key.startsWith('customer-')",
            "value.total > 40.0 && 'eu' in value.tags",
            "headers.tenant == ['a', null] && headers['raw'] == [b'\\xff']",
            "client.consumer == headers.tenant[0] && client.attrs.plan == 'gold'",
            "has(value.total) && !has(value.missing) && !has(client.id)",
            "value.tags.exists(tag, tag == 'new')",
        ] {
            assert_eq!(holds(source, &input()), Ok(true), "{source}");
        }
        let text = RecordParts { is_json: false, ..input() };
        assert_eq!(holds("value.contains('total')", &text), Ok(true));
        let bytes = RecordParts { value: Some(b"\xff"), key: None, ..text.clone() };
        assert_eq!(holds("value == b'\\xff' && key == null", &bytes), Ok(true));
        let tombstone = RecordParts { value: None, ..input() };
        assert_eq!(holds("value == null", &tombstone), Ok(true));
        let json = RecordParts { key: Some(b"{\"id\":7}"), key_is_json: true, ..input() };
        assert_eq!(holds("key.id == 7 && value.total > 40.0", &json), Ok(true));
    }

    #[test]
    fn what_a_record_has_not_is_an_error_and_not_false() {
        for (source, error) in [
            ("value.missing == 1", "filter: no such key: `missing`"),
            ("client.id == 'a'", "filter: no such key: `id`"),
            ("value.total", "filter: must be true or false, is double"),
        ] {
            assert_eq!(holds(source, &input()), Err(error.to_owned()), "{source}");
        }
        let broken = RecordParts { value: Some(b"{"), ..input() };
        let error = "filter: `value`: EOF while parsing an object";
        assert_eq!(holds("value.a == 1 || value.b == 2", &broken), Err(error.to_owned()));
        let large = vec![b' '; 16 * 1024 * 1024];
        let large = RecordParts { value: Some(&large), ..input() };
        let error = holds("value == 1", &large).unwrap_err();
        assert_eq!(error, "filter: costs more than 100000 steps");
    }

    #[test]
    fn a_constant_filter_is_true_or_false() {
        let check = |source: &str| {
            let checked = RecordExpression::compile("filter", source).unwrap().check_filter();
            checked.map_err(|error| error.reason)
        };
        for source in ["true", "1 == 2", "value", "offset > 1 || false", "has(client.id)"] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
        assert_eq!(check("1"), Err("must be true or false, is int".to_owned()));
        assert!(check("1 > 'a'").is_err());
    }

    #[test]
    fn names_of_requests_and_records_do_not_mix() {
        let error = "filter: line 1, column 1: `request` is unknown: there are `topic`, \
                     `partition`, `offset`, `timestamp`, `key`, `value`, `headers` and `client`";
        assert_eq!(holds("request.body == ''", &input()), Err(error.to_owned()));
        let error = Expression::compile("key_expression", "offset").unwrap_err().to_string();
        assert!(
            error.ends_with("`offset` is unknown: there are `request`, `source` and `message`")
        );
    }

    #[test]
    fn what_a_reader_may_write_is_bounded() {
        let compile = |source: &str| RecordExpression::compile_of_reader("filter", source);
        assert!(compile("value.total > 40.0 && key != null").is_ok());
        let looped = compile("value.tags.exists(tag, tag == 'new')").unwrap_err().to_string();
        assert_eq!(looped, "filter: a reader's filter has no loops: all, exists, map and the like");
        let long = format!("key == '{}'", "a".repeat(2048));
        assert_eq!(compile(&long).unwrap_err().to_string(), "filter: is longer than 2048 bytes");
        let wide = format!("key in [{}]", vec!["'a'"; 300].join(","));
        assert_eq!(compile(&wide).unwrap_err().to_string(), "filter: has more than 256 parts");
    }

    #[test]
    fn a_value_expression_gives_what_readers_get() {
        let value = |source: &str| {
            let expression = RecordExpression::compile("value_expression", source).unwrap();
            let input = RecordInput::new(input());
            let NewValue { bytes, is_json } = expression.value(&input).unwrap();
            (bytes.map(Cow::into_owned), is_json)
        };
        assert_eq!(value("{'id': key}"), (Some(br#"{"id":"customer-1"}"#.to_vec()), true));
        assert_eq!(value("key"), (Some(b"customer-1".to_vec()), false));
        assert_eq!(value("null"), (None, false));
        let uses = |source| {
            let expression = RecordExpression::compile("filter", source).unwrap();
            (expression.uses_headers(), expression.uses_client())
        };
        assert_eq!(uses("headers.a == client.id"), (true, true));
        assert_eq!(uses("key == 'headers'"), (false, false));
    }
}
