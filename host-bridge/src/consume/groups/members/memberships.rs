//! Which groups the bridge is a member of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::membership::Membership;
use crate::consume::source::Source;

/// What it is of, id and topics.
pub(super) type Key = (Source, String, Vec<String>);

/// Those of all groups.
#[derive(Clone, Default)]
pub(super) struct Memberships(Arc<Mutex<BTreeMap<Key, Arc<Membership>>>>);

impl Memberships {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Membership>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
