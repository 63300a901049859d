//! A mutex for short critical sections, never held across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex that hands out its value even after a panic elsewhere: every critical section of this
/// crate leaves its state valid at each step, and one failed task must not fail all others.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
