//! CEL's operators: arithmetic that cannot overflow silently, comparison across number types.

use std::cmp::Ordering;

use super::cost::{Budget, EvaluationError};
use super::value::{Key, Value};

pub(super) fn add<'a>(
    left: &Value<'a>,
    right: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    match (left, right) {
        (Value::String(a), Value::String(b)) => {
            budget.pay_bytes(a.len() + b.len())?;
            Ok(Value::text([&**a, &**b].concat()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.pay_bytes(a.len() + b.len())?;
            Ok(Value::bytes([&**a, &**b].concat()))
        }
        (Value::List(a), Value::List(b)) => {
            budget.pay(a.len() + b.len())?;
            Ok(Value::List(a.iter().chain(b.iter()).cloned().collect()))
        }
        _ => arithmetic(Arithmetic::Add, left, right),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

pub(super) fn arithmetic<'a>(
    operator: Arithmetic,
    left: &Value<'a>,
    right: &Value<'a>,
) -> Result<Value<'a>, EvaluationError> {
    use Arithmetic::{Add, Divide, Modulo, Multiply, Subtract};
    let result = match (left, right) {
        (Value::Int(_), Value::Int(0)) | (Value::UInt(_), Value::UInt(0))
            if matches!(operator, Divide | Modulo) =>
        {
            return Err(EvaluationError::new("division by zero"));
        }
        (Value::Int(a), Value::Int(b)) => match operator {
            Add => a.checked_add(*b),
            Subtract => a.checked_sub(*b),
            Multiply => a.checked_mul(*b),
            Divide => a.checked_div(*b),
            Modulo => a.checked_rem(*b),
        }
        .map(Value::Int),
        (Value::UInt(a), Value::UInt(b)) => match operator {
            Add => a.checked_add(*b),
            Subtract => a.checked_sub(*b),
            Multiply => a.checked_mul(*b),
            Divide => a.checked_div(*b),
            Modulo => a.checked_rem(*b),
        }
        .map(Value::UInt),
        (Value::Double(a), Value::Double(b)) if operator != Modulo => {
            Some(Value::Double(match operator {
                Add => a + b,
                Subtract => a - b,
                Multiply => a * b,
                Divide | Modulo => a / b,
            }))
        }
        _ => return Err(mismatch(operator.name(), left, right)),
    };
    result.ok_or_else(|| EvaluationError::new(format!("`{}` overflows", operator.name())))
}

impl Arithmetic {
    const fn name(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

pub(super) fn negate<'a>(value: &Value<'a>) -> Result<Value<'a>, EvaluationError> {
    match value {
        Value::Int(int) => {
            int.checked_neg().map(Value::Int).ok_or_else(|| EvaluationError::new("`-` overflows"))
        }
        Value::Double(double) => Ok(Value::Double(-double)),
        other => Err(EvaluationError::new(format!("`-` is not for {}", other.type_name()))),
    }
}

/// `==`: values of different types are not equal, except that numbers are compared by value.
pub(super) fn equal(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<bool, EvaluationError> {
    budget.pay(1)?;
    Ok(match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::String(a), Value::String(b)) => {
            budget.pay_bytes(a.len().min(b.len()))?;
            **a == **b
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.pay_bytes(a.len().min(b.len()))?;
            **a == **b
        }
        (Value::List(a), Value::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal(a, b, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(a), Value::Map(b)) => {
            if a.entries().len() != b.entries().len() {
                return Ok(false);
            }
            for (key, value) in a.entries() {
                pay_lookup(key, budget)?;
                match b.get(key) {
                    Some(other) if equal(value, other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        _ => numbers(left, right).is_some_and(Ordering::is_eq),
    })
}

/// The order of `<` and its like.
pub(super) fn order(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<Option<Ordering>, EvaluationError> {
    match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => Ok(Some(a.cmp(b))),
        (Value::String(a), Value::String(b)) => {
            budget.pay_bytes(a.len().min(b.len()))?;
            Ok(Some((**a).cmp(&**b)))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.pay_bytes(a.len().min(b.len()))?;
            Ok(Some((**a).cmp(&**b)))
        }
        (
            Value::Int(_) | Value::UInt(_) | Value::Double(_),
            Value::Int(_) | Value::UInt(_) | Value::Double(_),
        ) => Ok(numbers(left, right)),
        _ => Err(mismatch("<", left, right)),
    }
}

/// Numbers by value; none for a NaN, or when one is no number.
fn numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => whole(b).and_then(|b| mixed(b, *a)).map(Ordering::reverse),
        (a, Value::Double(b)) => whole(a).and_then(|a| mixed(a, *b)),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(int) => Some(i128::from(*int)),
        Value::UInt(uint) => Some(i128::from(*uint)),
        _ => None,
    }
}

fn mixed(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "saturates beyond every whole number here")]
    let floor = double.floor() as i128;
    Some(whole.cmp(&floor).then(if double > double.floor() {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}

/// `x in container`.
pub(super) fn contains(
    container: &Value<'_>,
    wanted: &Value<'_>,
    budget: &mut Budget,
) -> Result<bool, EvaluationError> {
    match container {
        Value::List(items) => {
            for item in items.iter() {
                if equal(item, wanted, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => match Key::asked(wanted) {
            Some(key) => {
                pay_lookup(&key, budget)?;
                Ok(map.get(&key).is_some())
            }
            None => Ok(false),
        },
        _ => Err(mismatch("in", wanted, container)),
    }
}

/// `container[index]`.
pub(super) fn index<'a>(
    container: &Value<'a>,
    index: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, EvaluationError> {
    match container {
        Value::List(items) => {
            let at = match Key::asked(index) {
                Some(Key::Int(int)) => usize::try_from(int).ok(),
                Some(Key::UInt(uint)) => usize::try_from(uint).ok(),
                _ => return Err(mismatch("[]", container, index)),
            };
            let item = at.and_then(|at| items.get(at));
            item.cloned().ok_or_else(|| EvaluationError::new("the index is out of bounds"))
        }
        Value::Map(map) => {
            let key = Key::asked(index).ok_or_else(|| mismatch("[]", container, index))?;
            pay_lookup(&key, budget)?;
            map.get(&key).cloned().ok_or_else(|| match &key {
                Key::String(name) => no_such_key(name),
                _ => EvaluationError::new("no such key"),
            })
        }
        _ => Err(mismatch("[]", container, index)),
    }
}

/// `value.field`.
pub(super) fn select<'a>(value: &Value<'a>, field: &str) -> Result<Value<'a>, EvaluationError> {
    let Value::Map(map) = value else {
        return Err(EvaluationError::new(format!("{} has no field `{field}`", value.type_name())));
    };
    map.field(field).cloned().ok_or_else(|| no_such_key(field))
}

fn no_such_key(name: &str) -> EvaluationError {
    let shown: String = name.chars().take(64).collect();
    EvaluationError::new(format!("no such key: `{shown}`"))
}

/// A lookup compares some tens of keys with the wanted one.
fn pay_lookup(key: &Key<'_>, budget: &mut Budget) -> Result<(), EvaluationError> {
    match key {
        Key::String(name) => budget.pay_bytes(name.len().saturating_mul(17)),
        _ => budget.pay(1),
    }
}

pub(super) fn mismatch(operator: &str, left: &Value<'_>, right: &Value<'_>) -> EvaluationError {
    let (left, right) = (left.type_name(), right.type_name());
    EvaluationError::new(format!("`{operator}` is not for {left} and {right}"))
}
