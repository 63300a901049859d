//! The producer profiles that filters registered, by their hash.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use kafka_client::Producer;

/// Registered profiles. They are few: a filter has one, and equal filters share it.
#[derive(Default)]
pub(crate) struct Profiles(RwLock<HashMap<[u8; 32], Producer>>);

impl Profiles {
    pub(crate) fn get(&self, id: &[u8; 32]) -> Option<Producer> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Registers a profile; false when there are too many.
    pub(crate) fn put(&self, id: [u8; 32], producer: Producer) -> bool {
        let mut profiles = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let room = profiles.len() < PROFILES_MAX || profiles.contains_key(&id);
        if room {
            profiles.insert(id, producer);
        }
        room
    }
}

/// Most profiles at a time; several may share a client.
const PROFILES_MAX: usize = 4096;
