//! How many connections each listener takes, and which of them give way to a new one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::caller::Caller;
use crate::limits::{CONNECTIONS_MAX, DESCRIPTORS_RESERVED};

/// The places of one listener. No other listener's connections take them.
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    /// Connections without an authorized request, oldest first.
    unauthorized: Mutex<BTreeMap<u64, Arc<Caller>>>,
}

/// A connection's place. Dropped with its socket: a descriptor is free again.
pub(crate) struct Place {
    pub(crate) caller: Arc<Caller>,
    admission: Arc<Admission>,
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        let unauthorized = Mutex::default();
        Arc::new(Self { places: Arc::new(Semaphore::new(places)), unauthorized })
    }

    /// Whether a new connection must wait for the end of another.
    pub(crate) fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// A place for the listener's connection `number`. When there is none, the oldest connection
    /// that has sent no authorized request ends; where all have, this waits until one ends.
    pub(crate) async fn admit(self: &Arc<Self>, number: u64) -> Option<Place> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if let Some((_, oldest)) = self.unauthorized().pop_first() {
                    oldest.cut();
                }
                // It is never closed.
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        let caller = Arc::new(Caller::new(Arc::clone(self), number));
        self.unauthorized().insert(number, Arc::clone(&caller));
        Some(Place { caller, admission: Arc::clone(self), _permit: permit })
    }

    /// A connection is authorized, or has ended.
    pub(crate) fn forget(&self, number: u64) {
        self.unauthorized().remove(&number);
    }

    fn unauthorized(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Caller>>> {
        self.unauthorized.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.forget(self.caller.number());
    }
}

/// Raises the soft limit of descriptors to the hard one. Returns what the limit is now.
pub(crate) fn raise_descriptors() -> u64 {
    let limits = || getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((DESCRIPTORS_GUESSED, 0));
    let (_, hard) = limits();
    // Refused where the hard limit is above the system's own: then the soft one stays.
    let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    limits().0
}

/// Places of each listener where the process may have so many descriptors.
pub(crate) fn places(descriptors: u64, listeners: usize) -> usize {
    let reserved = DESCRIPTORS_RESERVED.min(descriptors / 2);
    let each = (descriptors - reserved) / u64::try_from(listeners).unwrap_or(u64::MAX).max(1);
    usize::try_from(each.clamp(1, CONNECTIONS_MAX)).unwrap_or(1)
}

/// The limit of descriptors where the system does not tell it: what most systems begin with.
const DESCRIPTORS_GUESSED: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_what_brokers_and_files_leave() {
        assert_eq!(places(256, 2), 64);
        assert_eq!(places(1024, 3), 170);
        assert_eq!(places(524_288, 2), 8192);
        assert_eq!(places(u64::MAX, 1), 8192);
        assert_eq!(places(1, 4), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_connection_without_an_authorized_request_gives_way() {
        let admission = Admission::new(3);
        let mut places = Vec::new();
        for number in 0..3 {
            places.push(admission.admit(number).await.unwrap());
        }
        places[0].caller.authorize();
        let newcomer = {
            let admission = Arc::clone(&admission);
            tokio::spawn(async move { admission.admit(3).await.unwrap().caller.number() })
        };
        places[1].caller.given_up().await;
        assert!(!newcomer.is_finished());
        places.remove(1);
        assert_eq!(newcomer.await.unwrap(), 3);
    }
}
