//! Conversions between types; a value that does not fit is a fault, never another value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cost::{Budget, EvaluationError};
use super::value::{RcCow, Value};

pub(super) fn int<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    pay_parsing(value, budget)?;
    let int = match value {
        Value::Int(int) => Some(*int),
        Value::UInt(uint) => i64::try_from(*uint).ok(),
        #[expect(clippy::cast_possible_truncation, reason = "within the range of an int")]
        Value::Double(double) if double.abs() < TWO_TO_THE_63 => Some(*double as i64),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    int.map(Value::Int).ok_or_else(|| refused("int", value))
}

pub(super) fn uint<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    pay_parsing(value, budget)?;
    let uint = match value {
        Value::Int(int) => u64::try_from(*int).ok(),
        Value::UInt(uint) => Some(*uint),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the range of a uint"
        )]
        Value::Double(double) if (0.0..TWO_TO_THE_63 * 2.0).contains(double) => {
            Some(*double as u64)
        }
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    uint.map(Value::UInt).ok_or_else(|| refused("uint", value))
}

#[expect(clippy::cast_precision_loss, reason = "CEL's double() is the nearest double")]
pub(super) fn double<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    pay_parsing(value, budget)?;
    let double = match value {
        Value::Int(int) => Some(*int as f64),
        Value::UInt(uint) => Some(*uint as f64),
        Value::Double(double) => Some(*double),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    double.map(Value::Double).ok_or_else(|| refused("double", value))
}

pub(super) fn string<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Bool(bool) => Ok(Value::text(bool.to_string())),
        Value::Int(int) => Ok(Value::text(int.to_string())),
        Value::UInt(uint) => Ok(Value::text(uint.to_string())),
        Value::Double(double) => Ok(Value::text(double.to_string())),
        Value::Bytes(bytes) => {
            budget.pay_bytes(bytes.len())?;
            let text = std::str::from_utf8(bytes)
                .map_err(|_| EvaluationError::new("`string`: the bytes are not valid UTF-8"))?;
            Ok(Value::text(text.to_owned()))
        }
        other => Err(refused("string", other)),
    }
}

pub(super) fn bytes<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    match value {
        Value::Bytes(_) => Ok(value.clone()),
        Value::String(RcCow::Borrowed(text)) => Ok(Value::Bytes(RcCow::Borrowed(text.as_bytes()))),
        Value::String(text) => {
            budget.pay_bytes(text.len())?;
            Ok(Value::bytes(text.as_bytes().to_vec()))
        }
        other => Err(refused("bytes", other)),
    }
}

pub(super) fn base64_encode<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let Value::Bytes(bytes) = value else { return Err(refused("base64.encode", value)) };
    budget.pay_bytes(bytes.len())?;
    Ok(Value::text(STANDARD.encode(&**bytes)))
}

pub(super) fn base64_decode<'a>(
    value: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    let Value::String(text) = value else { return Err(refused("base64.decode", value)) };
    budget.pay_bytes(text.len())?;
    let bytes = STANDARD.decode(text.as_bytes());
    bytes
        .map(Value::bytes)
        .map_err(|_| EvaluationError::new("`base64.decode`: the text is not base64"))
}

/// Digits are read to the last, however many there are: a digit takes longer than a copied byte.
fn pay_parsing(value: &Value<'_>, budget: &mut Budget) -> Result<(), EvaluationError> {
    match value {
        Value::String(text) => budget.pay_bytes(text.len().saturating_mul(4)),
        _ => Ok(()),
    }
}

fn refused(function: &str, value: &Value<'_>) -> EvaluationError {
    EvaluationError::new(match value {
        Value::String(_) | Value::Int(_) | Value::UInt(_) | Value::Double(_) => {
            format!("`{function}`: the {} does not fit", value.type_name())
        }
        other => format!("`{function}` is not for {}", other.type_name()),
    })
}

const TWO_TO_THE_63: f64 = 9_223_372_036_854_775_808.0;
