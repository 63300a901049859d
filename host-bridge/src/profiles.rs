//! The producer profiles that filters registered, by their hash, and those that were refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use kafka_upstream_core::profile;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::limits::{PROFILES_MAX, REFUSED_KEPT, REFUSED_PROFILES};
use crate::pipeline::Pipeline;

/// Registered profiles. They are few: a filter has one, and equal filters share it. A profile ends
/// with its client; then it is unknown again, and the filter registers it again.
#[derive(Default)]
pub(crate) struct Profiles {
    registered: RwLock<HashMap<[u8; 32], Weak<Pipeline>>>,
    refused: Mutex<BTreeMap<[u8; 32], Refused>>,
}

struct Refused {
    reason: String,
    since: Instant,
    last: Instant,
}

impl Profiles {
    pub(crate) fn get(&self, id: &[u8; 32]) -> Option<Arc<Pipeline>> {
        self.registered.read().unwrap_or_else(PoisonError::into_inner).get(id)?.upgrade()
    }

    /// Registers a profile. When there are too many, all are forgotten: those in use come back.
    pub(crate) fn put(&self, id: [u8; 32], pipeline: &Arc<Pipeline>) {
        self.refused().remove(&id);
        let mut profiles = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        if profiles.len() >= PROFILES_MAX {
            profiles.clear();
        }
        profiles.insert(id, Arc::downgrade(pipeline));
    }

    /// Remembers that a profile was refused, while its filter asks again.
    pub(crate) fn refuse(&self, id: [u8; 32], reason: &str) {
        let (now, mut refused) = (Instant::now(), self.refused());
        let since = refused.get(&id).map_or(now, |known| known.since);
        refused.insert(id, Refused { reason: reason.to_owned(), since, last: now });
        if refused.len() > REFUSED_PROFILES {
            let oldest = refused.iter().min_by_key(|(_, one)| one.last).map(|(id, _)| *id);
            oldest.map(|id| refused.remove(&id));
        }
    }

    /// Every profile that was refused lately.
    pub(crate) fn refused_json(&self) -> Vec<Value> {
        let one = |(id, refused): (&[u8; 32], &Refused)| {
            let seconds = refused.since.elapsed().as_secs();
            json!({ "profile": profile::hex(id), "reason": refused.reason, "seconds": seconds })
        };
        self.refused().iter().map(one).collect()
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Refused>> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, refused| refused.last.elapsed() < REFUSED_KEPT);
        refused
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refused_profiles_are_told_while_their_filters_ask_and_are_bounded() {
        let profiles = Profiles::default();
        for id in 0..=u8::MAX {
            profiles.refuse([id; 32], "cluster: `a` is not configured");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(profiles.refused_json().len(), REFUSED_PROFILES);
        profiles.refuse([1; 32], "cluster: `a` is not configured");
        assert_eq!(profiles.refused_json()[0]["profile"], "01".repeat(32), "the oldest goes");
        tokio::time::advance(Duration::from_secs(250)).await;
        profiles.refuse([1; 32], "cluster: `b` is not configured");
        tokio::time::advance(Duration::from_secs(250)).await;
        let told = profiles.refused_json();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["reason"], "cluster: `b` is not configured");
        assert_eq!(
            (&told[0]["seconds"], &told[0]["profile"]),
            (&500.into(), &"01".repeat(32).into())
        );
    }
}
