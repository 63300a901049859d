//! Expressions in CEL, the Common Expression Language: over a request, what they make of a record, and
//! over a record, which readers get it.
//!
//! The crate `cel` reads the language. What is evaluated is our own form of it, so that an
//! evaluation can cost no more than `EXPRESSION_COST_MAX` steps, whatever it looks at.

mod chain;
mod compile;
mod compiled;
mod convert;
mod cost;
mod evaluate;
mod functions;
mod input;
mod json;
mod node;
mod operators;
mod pattern;
mod record;
mod record_input;
mod results;
mod strings;
#[cfg(test)]
mod tests;
mod value;

pub use compiled::{Expression, ExpressionError};
pub use input::Input;
pub use record::{NewValue, RecordExpression};
pub use record_input::{Client, RecordInput, RecordParts};

use crate::format::message::Message;

/// The expressions of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expressions {
    /// `message_expression`: the value.
    pub message: Option<Expression>,
    /// `topic_expression`.
    pub topic: Option<Expression>,
    /// `key_expression`.
    pub key: Option<Expression>,
    /// `partition_expression`.
    pub partition: Option<Expression>,
    /// `record_headers_expression`.
    pub headers: Option<Expression>,
}

impl Expressions {
    /// Puts the results into a message, in place of what its format has put there; headers are
    /// added to the format's.
    ///
    /// # Errors
    /// The field whose expression has no result for this request, or one of a wrong type.
    pub fn apply<'a>(
        &'a self,
        input: &Input<'a>,
        message: &mut Message<'a>,
    ) -> Result<(), ExpressionError> {
        if let Some(expression) = &self.message {
            message.value = expression.result(input, results::value)?;
        }
        if let Some(expression) = &self.topic {
            message.topic = Some(expression.result(input, results::topic)?);
        }
        if let Some(expression) = &self.key {
            message.key = expression.result(input, results::key)?;
        }
        if let Some(expression) = &self.partition {
            message.partition = expression.result(input, results::partition)?;
        }
        if let Some(expression) = &self.headers {
            message.headers.extend(expression.result(input, results::headers)?);
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Expression> {
        let all = [&self.message, &self.topic, &self.key, &self.partition, &self.headers];
        all.into_iter().flatten()
    }

    /// Whether one of them names `message`.
    #[must_use]
    pub fn use_message(&self) -> bool {
        self.all().any(|expression| expression.uses().message)
    }

    /// Whether one of them names `source`.
    #[must_use]
    pub fn use_source(&self) -> bool {
        self.all().any(|expression| expression.uses().source)
    }
}
