//! Brokers that did not let us in, and when to try again: an account that is locked after some
//! wrong passwords must not be lost to a client that knocks with each of its connections.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::backoff::{Backoff, random};
use crate::limits::{LOGIN_BACKOFF, LOGIN_BACKOFF_MAX};
use crate::lock::Lock;
use crate::resolve::Endpoint;
use crate::sasl::SaslFault;

/// The last refusal of each broker.
#[derive(Debug, Default)]
pub(super) struct Refusals(Lock<HashMap<Endpoint, Refusal>>);

#[derive(Debug)]
struct Refusal {
    fault: SaslFault,
    times: u32,
    again: Instant,
}

impl Refusals {
    /// The last refusal, if it is too early to try again.
    pub(super) fn standing(&self, endpoint: &Endpoint) -> Option<SaslFault> {
        let refusals = self.0.lock();
        let refusal = refusals.get(endpoint).filter(|refusal| Instant::now() < refusal.again)?;
        Some(refusal.fault.clone())
    }

    pub(super) fn add(&self, endpoint: &Endpoint, fault: &SaslFault) {
        let mut refusals = self.0.lock();
        let times = refusals.get(endpoint).map_or(0, |refusal| refusal.times).saturating_add(1);
        let again = Instant::now() + BACKOFF.after(times, random());
        let refusal = Refusal { fault: fault.clone(), times, again };
        refusals.insert(endpoint.clone(), refusal);
    }

    pub(super) fn forget(&self, endpoint: &Endpoint) {
        self.0.lock().remove(endpoint);
    }
}

const BACKOFF: Backoff = Backoff { base: LOGIN_BACKOFF, max: LOGIN_BACKOFF_MAX };
