//! Expressions in CEL, the Common Expression Language: over a request, what they make of a record, and
//! over a record, which readers get it.
//!
//! The crate `cel` reads the language. What is evaluated is our own form of it, so that an
//! evaluation can cost no more than `EXPRESSION_COST_MAX` steps, whatever it looks at.

mod chain;
mod compile;
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
mod results;
mod strings;
#[cfg(test)]
mod tests;
mod value;

pub use input::Input;
pub use record::{Client, NewValue, RecordExpression, RecordInput, RecordParts};

use crate::format::message::Message;
use compile::{Bounds, Names};
use evaluate::{Evaluation, Variables};
use node::Node;

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

/// A compiled expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    field: &'static str,
    source: String,
    node: Node,
    uses: Uses,
}

// A number that is written down is never NaN.
impl Eq for Expression {}

/// What an expression names that costs something to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Uses {
    message: bool,
    source: bool,
    headers: bool,
    client: bool,
}

/// Why an expression does not compile, or has no result for a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ExpressionError {
    /// The configuration's field.
    pub field: &'static str,
    /// What is wrong, at which line and column, or what the request has otherwise than the
    /// expression expects.
    pub reason: String,
}

impl Expression {
    /// Compiles the expression of a configuration's field.
    ///
    /// # Errors
    /// The field, and what is wrong at which line and column.
    pub fn compile(field: &'static str, source: &str) -> Result<Self, ExpressionError> {
        Self::compile_over(field, source, Names::Request, Bounds::CONFIGURED)
    }

    fn compile_over(
        field: &'static str,
        source: &str,
        names: Names,
        bounds: Bounds,
    ) -> Result<Self, ExpressionError> {
        match compile::compile(source, names, bounds) {
            Ok((node, uses)) => Ok(Self { field, source: source.to_owned(), node, uses }),
            Err(reason) => Err(ExpressionError { field, reason }),
        }
    }

    /// The text of the expression.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates it and takes its result.
    fn result<'a, T>(
        &'a self,
        input: &Input<'a>,
        take: impl Fn(value::Value<'a>, &mut cost::Budget) -> Result<T, cost::EvaluationError>,
    ) -> Result<T, ExpressionError> {
        self.result_over(Variables::Request(input), take)
    }

    fn result_over<'a, T>(
        &'a self,
        variables: Variables<'a, '_>,
        take: impl Fn(value::Value<'a>, &mut cost::Budget) -> Result<T, cost::EvaluationError>,
    ) -> Result<T, ExpressionError> {
        let mut evaluation = Evaluation::new(variables);
        let value = evaluation.value(&self.node);
        value
            .and_then(|value| take(value, &mut evaluation.budget))
            .map_err(|fault| ExpressionError { field: self.field, reason: fault.to_string() })
    }
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
        self.all().any(|expression| expression.uses.message)
    }

    /// Whether one of them names `source`.
    #[must_use]
    pub fn use_source(&self) -> bool {
        self.all().any(|expression| expression.uses.source)
    }
}
