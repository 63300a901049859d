//! Bytes that requests hold in the VM, within a bound: a VM never gives back memory to its host.

use std::cell::Cell;
use std::rc::Rc;

/// What a group of requests holds in all.
#[derive(Debug, Clone, Default)]
pub(crate) struct ByteBudget(Rc<Cell<usize>>);

/// A request's share of a budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    bytes: usize,
    budget: ByteBudget,
}

impl ByteBudget {
    /// A share of so many bytes, if all shares together stay within `most`.
    pub(crate) fn take(&self, bytes: usize, most: usize) -> Option<Reservation> {
        let mut share = Reservation { bytes: 0, budget: self.clone() };
        share.grow(bytes, most).then_some(share)
    }
}

impl Reservation {
    /// Makes it larger by so many bytes, if all shares together stay within `most`.
    pub(crate) fn grow(&mut self, bytes: usize, most: usize) -> bool {
        let total = self.budget.0.get().saturating_add(bytes);
        let is_within = total <= most;
        if is_within {
            self.budget.0.set(total);
            self.bytes += bytes;
        }
        is_within
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Self { bytes, budget } = self;
        budget.0.set(budget.0.get() - *bytes);
    }
}
