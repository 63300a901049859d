//! A schema registry with Confluent's API. Its schemas are remembered, and each is asked for once,
//! however many wait for it; while the registry is away the last ones that it gave are used.

mod answer;
mod api;
mod cache;
pub(crate) mod connection;
#[cfg(test)]
pub(crate) mod fixture;
mod oauth;
pub(crate) mod registries;
mod schema;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};

use self::api::Api;
use self::cache::{Cache, Flight, Found};
use self::connection::Connection;
pub(crate) use self::schema::{Failure, Key, Registered, Rule};

/// A registry, by how it is asked.
pub(crate) struct Registry {
    /// As it is called in metrics and logs.
    name: String,
    api: Api,
    ttl: Duration,
    cache: Mutex<Cache>,
    health: Mutex<Health>,
}

/// Whether the registry answered when it was last asked; else why not, and since when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    pub(crate) fault: Option<(Failure, Instant)>,
    pub(crate) answers: u64,
    pub(crate) failures: u64,
    /// How often a schema was used that could not be asked for again.
    pub(crate) stale: u64,
}

impl Registry {
    pub(crate) fn new(name: String, connection: &Connection) -> Self {
        let ttl = connection
            .confluent
            .ttl
            .map_or(TTL, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        let (cache, health) = Default::default();
        Self { name, api: Api::new(connection), ttl, cache, health }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn health(&self) -> Health {
        self.lock_health().clone()
    }

    /// The schema of that name. One that is known is used for `ttl`; after that it is asked for again,
    /// and what was known serves as long as no better answer comes. Dropped before it is done, the
    /// question goes on.
    ///
    /// # Errors
    /// There is none. [`Failure::Unavailable`] if the registry is away.
    pub(crate) async fn get(self: &Arc<Self>, key: &Key) -> Result<Arc<Registered>, Failure> {
        let found = self.lock().find(key, self.ttl, Instant::now(), || self.ask(key));
        let (known, flight) = match found {
            Found::Known(known) => return Ok(known),
            Found::Stale(known) => {
                self.lock_health().stale += 1;
                return Ok(known);
            }
            Found::Failed(failure) => return Err(failure),
            Found::Asked(known, flight) => (known, flight),
        };
        let Some(known) = known else { return flight.await };
        match timeout(REFRESH_PATIENCE, flight).await {
            Ok(Ok(fresh)) => Ok(fresh),
            Ok(Err(failure @ Failure::Unknown(_))) => Err(failure),
            Ok(Err(_)) | Err(_) => {
                self.lock_health().stale += 1;
                Ok(known)
            }
        }
    }

    /// Asks whether there is a registry that lets the bridge in.
    ///
    /// # Errors
    /// At which step that fails.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        self.api.probe().await
    }

    /// A question of its own, which no waiter can cut short.
    fn ask(self: &Arc<Self>, key: &Key) -> Flight {
        let (registry, key) = (Arc::clone(self), key.clone());
        let asking = tokio::spawn(async move {
            let asked = timeout(FLIGHT, registry.api.fetch(&key)).await;
            let late = || format!("no answer within {} s", FLIGHT.as_secs());
            let answer = asked.unwrap_or_else(|_| Err(Failure::Unavailable(late().into())));
            registry.note(&answer);
            registry.lock().settle(&key, answer.map(Arc::new), Instant::now())
        });
        let ended = |end: Result<_, tokio::task::JoinError>| {
            end.unwrap_or_else(|error| Err(Failure::Unavailable(error.to_string().into())))
        };
        asking.map(ended).boxed().shared()
    }

    /// Keeps in mind, and logs once, whether the registry answers.
    fn note(&self, answer: &Result<Registered, Failure>) {
        let mut health = self.lock_health();
        let registry = &*self.name;
        match answer {
            Ok(_) | Err(Failure::Unknown(_) | Failure::Unusable(_)) => {
                health.answers += 1;
                if health.fault.take().is_some() {
                    tracing::info!(registry, "registry_available");
                }
            }
            Err(failure) => {
                health.failures += 1;
                if health.fault.is_none() {
                    tracing::warn!(registry, fault = %failure, "registry_not_available");
                }
                let since = health.fault.as_ref().map_or_else(Instant::now, |(_, since)| *since);
                health.fault = Some((failure.clone(), since));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long a subject's schema is used before it is asked for again, unless `ttl` says.
const TTL: Duration = Duration::from_secs(60);
/// How long records wait for a newer schema where one is known.
const REFRESH_PATIENCE: Duration = Duration::from_millis(250);
/// How long a schema may take with all that it refers to, over all addresses.
const FLIGHT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
