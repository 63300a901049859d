//! What an expression sees: the request and Kong's message, each part made when it is asked for.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::cost::{Budget, EvaluationError};
use super::json;
use super::node::Field;
use super::value::{Key, RcCow, SORTING, Value};
use crate::format::args::Args;
use crate::format::charset::Charset;
use crate::request::{Request, header_text};
use crate::time::rfc3339;

/// The variables of one request's expressions.
#[derive(Debug)]
pub struct Input<'a> {
    request: &'a Request,
    kong_message: Option<&'a [u8]>,
    timestamp_ms: i64,
    message: OnceCell<Result<Value<'a>, EvaluationError>>,
}

impl<'a> Input<'a> {
    /// `kong_message` is there when an expression names `message`; `timestamp_ms` is now, in ms
    /// since 1970-01-01 UTC.
    #[must_use]
    pub fn new(request: &'a Request, kong_message: Option<&'a [u8]>, timestamp_ms: i64) -> Self {
        Self { request, kong_message, timestamp_ms, message: OnceCell::new() }
    }

    pub(super) fn field(
        &self,
        field: Field,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvaluationError> {
        let request = self.request;
        Ok(match field {
            Field::Method => paid(&request.method, budget)?,
            Field::Uri => paid(&request.target, budget)?,
            Field::Path => paid(request.path(), budget)?,
            Field::Host => value(request, b"host", budget)?,
            Field::Scheme => paid(&request.scheme, budget)?,
            Field::ContentType => value(request, b"content-type", budget)?,
            Field::Id => paid(request.header(b"x-request-id").unwrap_or_default(), budget)?,
            Field::Time => Value::text(rfc3339(self.timestamp_ms)),
            Field::BodyBytes => Value::Bytes(RcCow::Borrowed(&request.body)),
            Field::Body => {
                budget.pay_bytes(request.body.len())?;
                let text = std::str::from_utf8(&request.body).map_err(|_| {
                    EvaluationError::new(
                        "`request.body` is not valid UTF-8, `request.body_bytes` can be used",
                    )
                })?;
                Value::String(RcCow::Borrowed(text))
            }
            Field::Query => self.query(budget)?,
            Field::Headers => self.headers(budget)?,
        })
    }

    /// All fields; one that this request has not as text is left out.
    pub(super) fn request(&self, budget: &mut Budget) -> Result<Value<'a>, EvaluationError> {
        let mut entries = Vec::new();
        for field in Field::ALL {
            match self.field(*field, budget) {
                Ok(value) => entries.push((name(field.name()), value)),
                Err(EvaluationError::Failed(_)) => {}
                Err(EvaluationError::Exhausted) => return Err(EvaluationError::Exhausted),
            }
        }
        Ok(Value::map(entries))
    }

    pub(super) fn source(&self) -> Result<Value<'a>, EvaluationError> {
        Ok(Value::map(vec![(name("address"), self.address())]))
    }

    pub(super) fn address(&self) -> Value<'a> {
        latin(&self.request.source_address)
    }

    pub(super) fn message(&self) -> Result<Value<'a>, EvaluationError> {
        // A document that is refused is read once, too: `||` may ask for it again and again.
        let read = || {
            json::read(
                "message",
                self.kong_message.ok_or_else(|| EvaluationError::new("there is no message"))?,
            )
        };
        self.message.get_or_init(read).clone()
    }

    fn query(&self, budget: &mut Budget) -> Result<Value<'a>, EvaluationError> {
        let request = self.request;
        let query = request.query();
        budget.pay_bytes(query.len() * SORTING)?;
        let content_type = request.value(b"content-type").map(header_text);
        let args = Args::parse(query, Charset::of(content_type.as_deref()));
        let mut entries = Vec::new();
        for (name, values) in args.into_groups() {
            let value = |text: Option<Cow<'a, str>>| text.map_or(Value::Bool(true), text_value);
            let values: Vec<_> = values.into_iter().map(value).collect();
            budget.pay(1 + values.len())?;
            entries.push((Key::text(name), one_or_list(values)));
        }
        Ok(Value::map(entries))
    }

    fn headers(&self, budget: &mut Budget) -> Result<Value<'a>, EvaluationError> {
        let mut groups: BTreeMap<Cow<'a, str>, Vec<Value<'a>>> = BTreeMap::new();
        for (name, value) in &self.request.headers {
            budget.pay(1)?;
            budget.pay_bytes(name.len() * SORTING + value.len())?;
            groups.entry(header_text(name)).or_default().push(latin(value));
        }
        let entries = groups.into_iter();
        Ok(Value::map(
            entries.map(|(name, values)| (Key::text(name), one_or_list(values))).collect(),
        ))
    }
}

fn value<'a>(
    request: &'a Request,
    name: &[u8],
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    paid(request.value(name).unwrap_or_default(), budget)
}

/// What is not UTF-8 is copied, twice as long at most.
fn paid<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<Value<'a>, EvaluationError> {
    budget.pay_bytes(bytes.len().saturating_mul(2))?;
    Ok(latin(bytes))
}

fn latin(bytes: &[u8]) -> Value<'_> {
    text_value(header_text(bytes))
}

fn text_value(text: Cow<'_, str>) -> Value<'_> {
    match text {
        Cow::Borrowed(text) => Value::String(RcCow::Borrowed(text)),
        Cow::Owned(text) => Value::text(text),
    }
}

fn name<'a>(name: &'static str) -> Key<'a> {
    Key::String(RcCow::Borrowed(name))
}

/// As in Kong's message: a list only where a name is there more than once.
fn one_or_list(mut values: Vec<Value<'_>>) -> Value<'_> {
    match values.len() {
        1 => values.pop().unwrap_or(Value::Null),
        _ => Value::list(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_cannot_be_read_is_read_once() {
        let request = Request::default();
        let input = Input::new(&request, Some(b"{"), 0);
        let first = input.message().unwrap_err();
        assert!(input.message.get().is_some_and(Result::is_err));
        assert_eq!(input.message().unwrap_err(), first);
    }
}
