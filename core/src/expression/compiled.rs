//! An expression that is compiled: where its parts come together.

use super::compile::{self, Bounds, Names};
use super::cost::{Budget, EvaluationError};
use super::evaluate::{Evaluation, Variables};
use super::input::Input;
use super::node::{Node, Uses};
use super::value::Value;

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

    pub(super) fn compile_over(
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

    /// What it names that costs something to have.
    pub(super) fn uses(&self) -> Uses {
        self.uses
    }

    #[cfg(test)]
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Evaluates it and takes its result.
    pub(super) fn result<'a, T>(
        &'a self,
        input: &Input<'a>,
        take: impl Fn(Value<'a>, &mut Budget) -> Result<T, EvaluationError>,
    ) -> Result<T, ExpressionError> {
        self.result_over(Variables::Request(input), take)
    }

    pub(super) fn result_over<'a, T>(
        &'a self,
        variables: Variables<'a, '_>,
        take: impl Fn(Value<'a>, &mut Budget) -> Result<T, EvaluationError>,
    ) -> Result<T, ExpressionError> {
        let mut evaluation = Evaluation::new(variables);
        let value = evaluation.value(&self.node);
        value
            .and_then(|value| take(value, &mut evaluation.budget))
            .map_err(|fault| ExpressionError { field: self.field, reason: fault.to_string() })
    }
}
