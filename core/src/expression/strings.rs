//! Functions on strings; positions and sizes are in characters, as CEL counts them.

use super::cost::{Budget, EvaluationError};
use super::value::{Text, Value};

/// A string argument.
pub(super) fn text<'v, 'a>(
    value: &'v Value<'a>,
    function: &str,
) -> Result<&'v Text<'a>, EvaluationError> {
    match value {
        Value::String(text) => Ok(text),
        other => {
            Err(EvaluationError::new(format!("`{function}` is not for {}", other.type_name())))
        }
    }
}

pub(super) fn size<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let size = match value {
        Value::String(text) => {
            budget.pay_bytes(text.len())?;
            text.chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.entries().len(),
        other => {
            return Err(EvaluationError::new(format!("`size` is not for {}", other.type_name())));
        }
    };
    Ok(int(size))
}

/// A function of one string that gives one as long.
pub(super) fn map<'a>(
    value: &Value<'a>,
    function: impl Fn(&str) -> String,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let text = text(value, "a function of strings")?;
    budget.pay_bytes(text.len())?;
    Ok(Value::text(function(text)))
}

pub(super) fn trim<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let text = text(value, "trim")?;
    budget.pay_bytes(text.len())?;
    text.part(|text| Some(text.trim())).ok_or_else(|| EvaluationError::new("`trim` has no result"))
}

/// The arguments of a function of two strings, which are paid for.
pub(super) fn two<'v, 'a>(
    value: &'v Value<'a>,
    argument: &'v Value<'a>,
    budget: &mut Budget,
) -> Result<(&'v Text<'a>, &'v str), EvaluationError> {
    let (Value::String(text), Value::String(part)) = (value, argument) else {
        return Err(super::operators::mismatch("a function of strings", value, argument));
    };
    budget.pay_bytes(text.len() + part.len())?;
    Ok((text, part))
}

/// A byte's place as a character's; -1 when there is none.
pub(super) fn position<'a>(text: &str, at: Option<usize>) -> Value<'a> {
    match at.and_then(|at| text.get(..at)) {
        Some(before) => int(before.chars().count()),
        None => Value::Int(-1),
    }
}

pub(super) fn split<'a>(
    text: &Text<'a>,
    by: &str,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let whole: &str = text;
    let pieces: Box<dyn Iterator<Item = &str>> = match by {
        "" => Box::new(whole.split_inclusive(|_: char| true)),
        _ => Box::new(whole.split(by)),
    };
    let mut list = Vec::new();
    let mut at = 0;
    for piece in pieces {
        budget.pay(1)?;
        let range = at..at + piece.len();
        list.extend(text.part(|text| text.get(range.clone())));
        at = range.end + by.len();
    }
    Ok(Value::list(list))
}

/// Pays for the result before it is made: a short text can become a very long one.
pub(super) fn replace<'a>(
    value: &Value<'a>,
    from: &Value<'a>,
    to: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let (from, to) = (text(from, "replace")?, text(to, "replace")?);
    let text = text(value, "replace")?;
    budget.pay_bytes(text.len())?;
    let count = text.matches(&**from).count();
    budget.pay(count)?;
    budget.pay_bytes(count.saturating_mul(to.len()))?;
    Ok(Value::text(text.replace(&**from, to)))
}

pub(super) fn substring<'a>(
    value: &Value<'a>,
    start: &Value<'a>,
    end: Option<&Value<'a>>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let text = text(value, "substring")?;
    budget.pay_bytes(text.len())?;
    let start = offset(text, start);
    let end = end.map_or(Some(text.len()), |end| offset(text, end));
    let range = start.zip(end).map(|(start, end)| start..end);
    let part = range.and_then(|range| text.part(|text| text.get(range.clone())));
    part.ok_or_else(|| EvaluationError::new("`substring` is out of range"))
}

/// The byte at which a character starts, or the end.
fn offset(text: &str, at: &Value<'_>) -> Option<usize> {
    let Value::Int(at) = at else { return None };
    let at = usize::try_from(*at).ok()?;
    text.char_indices().map(|(byte, _)| byte).chain([text.len()]).nth(at)
}

pub(super) fn join<'a>(
    list: &Value<'a>,
    by: &str,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let Value::List(items) = list else {
        return Err(EvaluationError::new(format!("`join` is not for {}", list.type_name())));
    };
    let mut parts = Vec::with_capacity(items.len());
    for item in items.iter() {
        let part: &str = text(item, "join")?;
        budget.pay(1)?;
        budget.pay_bytes(part.len() + by.len())?;
        parts.push(part);
    }
    Ok(Value::text(parts.join(by)))
}

fn int<'a>(size: usize) -> Value<'a> {
    Value::Int(i64::try_from(size).unwrap_or(i64::MAX))
}
