//! Which cluster this is: another one behind the same addresses is noticed before it is written to
//! (pure).

use std::sync::Arc;

use crate::error::Cause;

/// The id that brokers give their cluster.
#[derive(Debug)]
pub(super) struct Membership {
    id: Option<Arc<str>>,
    /// Whether no other id is ever taken (`cluster.id.pin`).
    is_pinned: bool,
    /// How many clusters there were before this one.
    era: u64,
}

impl Membership {
    pub(super) fn new(pin: Option<String>) -> Self {
        Self { is_pinned: pin.is_some(), id: pin.map(Arc::from), era: 0 }
    }

    pub(super) fn id(&self) -> Option<Arc<str>> {
        self.id.clone()
    }

    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// Whether an answer of such a cluster may be believed at all.
    pub(super) fn admits(&self, theirs: Option<&str>) -> Result<(), Cause> {
        match &self.id {
            Some(pin) if self.is_pinned && theirs != Some(pin) => {
                let theirs = theirs.unwrap_or("(none)");
                Err(format!("the cluster is {theirs}, and cluster.id.pin is {pin}").into())
            }
            _ => Ok(()),
        }
    }

    /// Takes the id of an admitted answer; gives the former one if that is another cluster. Brokers
    /// before 0.10.1 tell no id, and are taken for what is there.
    pub(super) fn adopt(&mut self, theirs: Option<&str>) -> Option<Arc<str>> {
        let theirs = theirs?;
        let was = self.id.replace(theirs.into()).filter(|was| **was != *theirs)?;
        self.era += 1;
        Some(was)
    }
}
