//! `matches`: a regular expression that is compiled with the expression, and what a byte costs it.

use regex_lite::{Regex, RegexBuilder};

use super::cost::{Budget, EvaluationError};
use super::strings::text;
use super::value::Value;
use crate::limits::EXPRESSION_REGEX_BYTES_MAX;

/// A compiled pattern; it finds a match anywhere, in time linear in the text.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    regex: Regex,
    steps_per_byte: usize,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

impl Pattern {
    /// Compiles a pattern within the smallest size that it fits into: each byte of a text is tried
    /// with all of it.
    pub(super) fn new(source: &str) -> Result<Self, String> {
        let mut size = STEP_BYTES;
        loop {
            match RegexBuilder::new(source).size_limit(size).build() {
                Ok(regex) => return Ok(Self { regex, steps_per_byte: size / STEP_BYTES }),
                Err(_) if size < EXPRESSION_REGEX_BYTES_MAX => size *= 2,
                Err(error) => return Err(format!("`matches`: {error}")),
            }
        }
    }

    pub(super) fn fits<'a>(
        &self,
        value: &Value<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvaluationError> {
        let text = text(value, "matches")?;
        budget.pay(text.len().saturating_mul(self.steps_per_byte))?;
        Ok(Value::Bool(self.regex.is_match(text)))
    }
}

/// So much of a pattern costs a step for each byte of a text.
const STEP_BYTES: usize = 256;
