//! Why brokers cannot be reached, by stage: the last failure of each, until a connection is made.
//!
//! A broker that refused the login is left alone for a while: an account that is locked after some
//! wrong passwords must not be locked by a client that tries again with each of its connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use crate::backoff::{Backoff, random};
use crate::error::Cause;
use crate::handshake::HandshakeError;
use crate::limits::{FAULTS, LOGIN_BACKOFF, LOGIN_BACKOFF_MAX};
use crate::lock::Lock;
use crate::resolve::Endpoint;
use crate::sasl::SaslFault;
use crate::stage::{ConnectionFailure, Stage};
use crate::tls::TlsError;

/// The last failure of each broker.
#[derive(Debug, Default)]
pub(super) struct Failures(Lock<HashMap<Endpoint, Failure>>);

#[derive(Debug)]
struct Failure {
    error: ConnectError,
    /// When the same stage failed first.
    since: Instant,
    /// Failures in a row of the same stage.
    times: u32,
    /// After a failed authentication: when the broker may be asked again.
    again: Option<Instant>,
}

impl Failures {
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
        let fresh = || Failure { error: error.clone(), since: now, times: 0, again: None };
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

    pub(super) fn list(&self) -> Vec<ConnectionFailure> {
        let faults = self.0.lock();
        let told = faults.iter().map(|(endpoint, standing)| ConnectionFailure {
            server: Some(endpoint.to_string()),
            stage: standing.error.stage(),
            cause: standing.error.what(),
            lasts: standing.since.elapsed(),
        });
        told.collect()
    }
}

const BACKOFF: Backoff = Backoff { base: LOGIN_BACKOFF, max: LOGIN_BACKOFF_MAX };

/// Why there is no connection, with the address that was tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("broker {0} is not in the metadata")]
    Unlisted(i32),
    #[error("{endpoint}: {error}")]
    Unreachable { endpoint: Endpoint, error: DialError },
    #[error("{endpoint}, the advertised address of broker {id} according to {named_by}: {error}")]
    AdvertisedUnreachable { id: i32, endpoint: Endpoint, named_by: Endpoint, error: DialError },
    #[error("broker {id} advertises `{address}` according to {named_by}: {NO_ADDRESS}")]
    NoAddress { id: i32, address: String, named_by: Endpoint },
    #[error("{endpoint}: {error}")]
    Tls { endpoint: Endpoint, error: TlsError },
    #[error("{endpoint}: {error}")]
    Handshake { endpoint: Endpoint, error: HandshakeError },
    #[error("{endpoint} {cause}")]
    WrongCluster { endpoint: Endpoint, cause: Cause },
}

/// Why there is no stream to a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the host name has no address: {0}; does DNS know it here?")]
    Name(String),
    #[error(
        "no TCP connection: {0}; does a broker listen there, and is the network path to it open?"
    )]
    Tcp(String),
}

/// What to do about an address that is none.
const NO_ADDRESS: &str = "that is not a host and port; what does its advertised.listeners say?";

impl ConnectError {
    pub(crate) fn cause(&self) -> Cause {
        self.to_string().into()
    }

    /// What went wrong, for whoever knows the broker.
    pub(crate) fn what(&self) -> Cause {
        let told = match self {
            Self::Unlisted(_) => self.to_string(),
            Self::Unreachable { error, .. } => error.to_string(),
            Self::AdvertisedUnreachable { named_by, error, .. } => {
                format!("{error} The address was advertised by {named_by}")
            }
            Self::NoAddress { id, address, named_by } => format!(
                "broker {id} advertises `{address}`: {NO_ADDRESS} The address was advertised by \
                 {named_by}"
            ),
            Self::Tls { error, .. } => error.to_string(),
            Self::Handshake { error, .. } => error.to_string(),
            Self::WrongCluster { cause, .. } => format!("it {cause}"),
        };
        told.into()
    }

    pub(crate) fn stage(&self) -> Stage {
        match self {
            Self::Unlisted(_) | Self::NoAddress { .. } => Stage::Name,
            Self::Unreachable { error, .. } | Self::AdvertisedUnreachable { error, .. } => {
                match error {
                    DialError::Name(_) => Stage::Name,
                    DialError::Tcp(_) => Stage::Tcp,
                }
            }
            Self::Tls { .. } => Stage::Tls,
            Self::WrongCluster { .. } => Stage::Handshake,
            Self::Handshake { error, .. } => match error {
                HandshakeError::Tls(_) => Stage::Tls,
                HandshakeError::ClosedAtLogin(_) => Stage::Credential,
                HandshakeError::ClosedWithoutLogin
                | HandshakeError::Sasl(SaslFault::NoSuchMechanism { .. } | SaslFault::NotWanted) => {
                    Stage::Mechanism
                }
                HandshakeError::Sasl(_) => Stage::Credential,
                _ => Stage::Handshake,
            },
        }
    }

    /// Whether nobody was asked, because there was no credential to show.
    pub(crate) fn is_before_connecting(&self) -> bool {
        let Self::Handshake { error: HandshakeError::Sasl(fault), .. } = self else { return false };
        matches!(fault, SaslFault::NoCredential { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(endpoint: &Endpoint) -> ConnectError {
        let error = DialError::Tcp("refused".into());
        ConnectError::Unreachable { endpoint: endpoint.clone(), error }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_lasts_from_its_first_failure_to_the_next_connection() {
        let (faults, broker) = (Failures::default(), Endpoint::parse("b:1").unwrap());
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
        let faults = Failures::default();
        for port in 1..=u16::try_from(FAULTS + 9).unwrap() {
            let broker = Endpoint::new("b", port.into()).unwrap();
            faults.add(&broker, &unreachable(&broker));
        }
        assert_eq!(faults.list().len(), FAULTS);
    }
}
