//! The budget of one evaluation: every step, byte and value that it makes is paid for before.

use crate::limits::EXPRESSION_COST_MAX;

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EvaluationError {
    /// The expression does not fit the request; `||` and `&&` may do without the part.
    #[error("{0}")]
    Failed(String),
    /// The budget is spent: the evaluation ends.
    #[error("costs more than {EXPRESSION_COST_MAX} steps")]
    Exhausted,
}

impl EvaluationError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }
}

/// What is left of the budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) const fn full() -> Self {
        Self(EXPRESSION_COST_MAX)
    }

    /// Pays for steps, or for values that are made or looked at.
    pub(super) fn pay(&mut self, steps: usize) -> Result<(), EvaluationError> {
        self.0 = self.0.checked_sub(steps).ok_or(EvaluationError::Exhausted)?;
        Ok(())
    }

    /// Pays for bytes that are made or looked at.
    pub(super) fn pay_bytes(&mut self, bytes: usize) -> Result<(), EvaluationError> {
        self.pay(bytes / BYTES_PER_STEP)
    }

    #[cfg(test)]
    pub(super) fn spent(self) -> usize {
        EXPRESSION_COST_MAX - self.0
    }
}

/// Copying this many bytes takes about as long as one step.
const BYTES_PER_STEP: usize = 128;
