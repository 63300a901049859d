//! The producer profiles that filters registered, by their hash.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::clusters::Shared;

/// Registered profiles. They are few: a filter has one, and equal filters share it. A profile ends
/// with its client; then it is unknown again, and the filter registers it again.
#[derive(Default)]
pub(crate) struct Profiles(RwLock<HashMap<[u8; 32], Weak<Shared>>>);

impl Profiles {
    pub(crate) fn get(&self, id: &[u8; 32]) -> Option<Arc<Shared>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id)?.upgrade()
    }

    /// Registers a profile. When there are too many, all are forgotten: those in use come back.
    pub(crate) fn put(&self, id: [u8; 32], shared: &Arc<Shared>) {
        let mut profiles = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if profiles.len() >= PROFILES_MAX {
            profiles.clear();
        }
        profiles.insert(id, Arc::downgrade(shared));
    }
}

/// Most profiles at a time; several may share a client.
const PROFILES_MAX: usize = 4096;
