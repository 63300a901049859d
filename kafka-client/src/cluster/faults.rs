//! Which brokers cannot be reached, and why: the last failure of each, until a connection is made.
//!
//! Who did not let us in is left alone for a while: an account that is locked after some wrong
//! passwords must not be lost to a client that knocks with each of its connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::ConnectError;
use crate::backoff::{Backoff, random};
use crate::handshake::HandshakeError;
use crate::limits::{FAULTS, LOGIN_BACKOFF, LOGIN_BACKOFF_MAX};
use crate::lock::Lock;
use crate::resolve::Endpoint;
use crate::stage::{Fault, Stage};

/// The last failure of each broker.
#[derive(Debug, Default)]
pub(super) struct Faults(Lock<HashMap<Endpoint, Standing>>);

#[derive(Debug)]
struct Standing {
    error: ConnectError,
    /// When the same stage failed first.
    since: Instant,
    /// Failures in a row of the same stage.
    times: u32,
    /// When a broker may be asked again that did not let us in.
    again: Option<Instant>,
}

impl Faults {
    /// The last failure, if it is too early to try again.
    pub(super) fn standing(&self, endpoint: &Endpoint) -> Option<ConnectError> {
        let faults = self.0.lock();
        let standing = faults.get(endpoint)?;
        let is_early = standing.again.is_some_and(|again| Instant::now() < again);
        is_early.then(|| standing.error.clone())
    }

    pub(super) fn add(&self, endpoint: &Endpoint, error: &ConnectError) {
        let now = Instant::now();
        let mut faults = self.0.lock();
        if faults.len() >= FAULTS && !faults.contains_key(endpoint) {
            // A cluster that names ever new addresses; each fault is still told where it happens.
            let oldest = faults.iter().min_by_key(|(_, standing)| standing.since);
            let oldest = oldest.map(|(endpoint, _)| endpoint.clone());
            oldest.map(|endpoint| faults.remove(&endpoint));
        }
        let is_refusal =
            matches!(error, ConnectError::Handshake { error: HandshakeError::Sasl(_), .. });
        let fresh = || Standing { error: error.clone(), since: now, times: 0, again: None };
        let standing = match faults.entry(endpoint.clone()) {
            Entry::Occupied(entry) if entry.get().error.stage() == error.stage() => {
                entry.into_mut()
            }
            Entry::Occupied(mut entry) => {
                entry.insert(fresh());
                entry.into_mut()
            }
            Entry::Vacant(entry) => entry.insert(fresh()),
        };
        standing.error = error.clone();
        standing.times = standing.times.saturating_add(1);
        standing.again = is_refusal.then(|| now + BACKOFF.after(standing.times, random()));
    }

    pub(super) fn forget(&self, endpoint: &Endpoint) {
        self.0.lock().remove(endpoint);
    }

    /// Its name has an address again, or at last.
    pub(super) fn forget_name(&self, endpoint: &Endpoint) {
        self.0
            .lock()
            .retain(|at, standing| at != endpoint || standing.error.stage() != Stage::Name);
    }

    /// Whether the last attempt ended at its name.
    pub(super) fn has_no_address(&self, endpoint: &Endpoint) -> bool {
        self.0.lock().get(endpoint).is_some_and(|standing| standing.error.stage() == Stage::Name)
    }

    /// Forgets those of whom the cluster no longer speaks.
    pub(super) fn retain(&self, is_known: impl Fn(&Endpoint) -> bool) {
        self.0.lock().retain(|endpoint, _| is_known(endpoint));
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        let faults = self.0.lock();
        let told = faults.iter().map(|(endpoint, standing)| Fault {
            server: Some(endpoint.to_string()),
            stage: standing.error.stage(),
            cause: standing.error.what(),
            lasts: standing.since.elapsed(),
        });
        told.collect()
    }
}

const BACKOFF: Backoff = Backoff { base: LOGIN_BACKOFF, max: LOGIN_BACKOFF_MAX };

#[cfg(test)]
mod tests {
    use super::super::failure::DialError;
    use super::*;
    use crate::sasl::SaslFault;

    fn unreachable(endpoint: &Endpoint) -> ConnectError {
        let error = DialError::Tcp("refused".into());
        ConnectError::Unreachable { endpoint: endpoint.clone(), error }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_lasts_from_its_first_failure_to_the_next_connection() {
        let (faults, broker) = (Faults::default(), Endpoint::parse("b:1").unwrap());
        faults.add(&broker, &unreachable(&broker));
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        faults.add(&broker, &unreachable(&broker));
        let [fault] = &*faults.list() else { panic!("one broker") };
        assert_eq!((fault.stage, fault.lasts.as_secs()), (Stage::Tcp, 5));
        assert_eq!(faults.standing(&broker), None, "it may be tried at once");
        let fault = SaslFault::NoSuchMechanism { mechanism: "PLAIN", offered: "none".into() };
        let refused = ConnectError::Handshake { endpoint: broker.clone(), error: fault.into() };
        faults.add(&broker, &refused);
        assert_eq!(faults.list()[0].stage, Stage::Mechanism);
        assert_eq!(faults.list()[0].lasts.as_secs(), 0);
        assert_eq!(faults.standing(&broker), Some(refused));
        faults.forget(&broker);
        assert_eq!(faults.list(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn ever_new_addresses_take_no_more_memory() {
        let faults = Faults::default();
        for port in 1..=u16::try_from(FAULTS + 9).unwrap() {
            let broker = Endpoint::new("b", port.into()).unwrap();
            faults.add(&broker, &unreachable(&broker));
        }
        assert_eq!(faults.list().len(), FAULTS);
    }
}
