//! What an expression sees of a record that is read: each part made when it is asked for.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::cost::{Budget, EvaluationError};
use super::json;
use super::node::Part;
use super::value::{Key, RcCow, SORTING, Value};

/// What an expression sees of a record.
#[derive(Debug, Clone, Default)]
pub struct RecordParts<'a> {
    /// `topic`
    pub topic: &'a str,
    /// `partition`
    pub partition: i32,
    /// `offset`
    pub offset: i64,
    /// `timestamp`, in ms since 1970-01-01 UTC
    pub timestamp_ms: i64,
    /// `key`: null, text, or bytes where it is not UTF-8; or what its JSON says
    pub key: Option<&'a [u8]>,
    /// Whether `key` is JSON.
    pub key_is_json: bool,
    /// `value`: as `key`
    pub value: Option<&'a [u8]>,
    /// Whether `value` is JSON.
    pub is_json: bool,
    /// `headers`: a list of values by name. Needed only where [`RecordExpression::uses_headers`].
    pub headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
    /// `client`
    pub client: Client<'a>,
}

/// The variables of one record's expressions.
#[derive(Debug)]
pub struct RecordInput<'a> {
    record: RecordParts<'a>,
    key: Json<'a>,
    value: Json<'a>,
}

/// JSON that is read once, also where it is none: `||` may ask for it again and again.
type Json<'a> = OnceCell<Result<Value<'a>, EvaluationError>>;

/// Who reads, as the gateway says; what it does not say is not there, and asking for it fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct Client<'a> {
    /// `client.id`
    pub id: Option<&'a str>,
    /// `client.consumer`
    pub consumer: Option<&'a str>,
    /// `client.attrs`, as JSON
    pub attrs: Option<&'a str>,
}

impl<'a> RecordInput<'a> {
    /// Over these parts.
    #[must_use]
    pub fn new(record: RecordParts<'a>) -> Self {
        Self { record, key: OnceCell::new(), value: OnceCell::new() }
    }

    pub(super) fn part(
        &self,
        part: Part,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvaluationError> {
        Ok(match part {
            Part::Topic => Value::String(RcCow::Borrowed(self.record.topic)),
            Part::Partition => Value::Int(self.record.partition.into()),
            Part::Offset => Value::Int(self.record.offset),
            Part::Timestamp => Value::Int(self.record.timestamp_ms),
            Part::Key if self.record.key_is_json => {
                read("key", self.record.key, &self.key, budget)?
            }
            Part::Key => text_or_bytes(self.record.key, budget)?,
            Part::Value if self.record.is_json => {
                read("value", self.record.value, &self.value, budget)?
            }
            Part::Value => text_or_bytes(self.record.value, budget)?,
            Part::Headers => self.headers(budget)?,
            Part::Client => self.record.client.value()?,
        })
    }

    fn headers(&self, budget: &mut Budget) -> Result<Value<'a>, EvaluationError> {
        let mut lists: BTreeMap<Cow<'a, str>, Vec<Value<'a>>> = BTreeMap::new();
        for (name, value) in &self.record.headers {
            budget.pay(1)?;
            budget.pay_bytes(name.len() * SORTING)?;
            let value = text_or_bytes(*value, budget)?;
            lists.entry(String::from_utf8_lossy(name)).or_default().push(value);
        }
        let list = |(name, values)| (Key::text(name), Value::list(values));
        Ok(Value::map(lists.into_iter().map(list).collect()))
    }
}

impl<'a> Client<'a> {
    fn value(self) -> Result<Value<'a>, EvaluationError> {
        let text = |text| Value::String(RcCow::Borrowed(text));
        let attrs = self.attrs.map(|attrs| json::read("client.attrs", attrs.as_bytes()));
        let parts = [
            ("id", self.id.map(text)),
            ("consumer", self.consumer.map(text)),
            ("attrs", attrs.transpose()?),
        ];
        let said =
            |(name, value): (&'static str, Option<_>)| Some((Key::text(name.into()), value?));
        Ok(Value::map(parts.into_iter().filter_map(said).collect()))
    }
}

fn read<'a>(
    name: &'static str,
    text: Option<&'a [u8]>,
    once: &Json<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let Some(text) = text else { return Ok(Value::Null) };
    budget.pay_bytes(text.len())?;
    once.get_or_init(|| json::read(name, text)).clone()
}

fn text_or_bytes<'a>(
    bytes: Option<&'a [u8]>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    budget.pay_bytes(bytes.len())?;
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(RcCow::Borrowed(text)),
        Err(_) => Value::Bytes(RcCow::Borrowed(bytes)),
    })
}
