//! The registries of this process: those of the configuration by name, and those that filters ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::{Value, json};

use super::Registry;
use super::connection::Connection;

pub(crate) struct Registries {
    named: BTreeMap<String, Arc<Registry>>,
    /// Addresses that a filter may name, besides loopback ones.
    allowed: BTreeSet<String>,
    made: Mutex<HashMap<Connection, Weak<Registry>>>,
}

impl Registries {
    pub(crate) fn new(
        configured: &BTreeMap<String, Connection>,
        allowed: &BTreeSet<String>,
    ) -> Self {
        let (mut named, mut made) = (BTreeMap::new(), HashMap::new());
        for (name, connection) in configured {
            let registry = Arc::new(Registry::new(name.clone(), connection));
            made.insert(connection.clone(), Arc::downgrade(&registry));
            named.insert(name.clone(), registry);
        }
        Self { named, allowed: allowed.clone(), made: Mutex::new(made) }
    }

    /// One of the configuration.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Registry>> {
        self.named.get(name).cloned()
    }

    /// One that is asked like that, made if it is new.
    pub(crate) fn of(&self, connection: &Connection) -> Arc<Registry> {
        let mut made = self.made();
        if let Some(registry) = made.get(connection).and_then(Weak::upgrade) {
            return registry;
        }
        made.retain(|_, registry| registry.strong_count() > 0);
        let registry = Arc::new(Registry::new(connection.host(), connection));
        made.insert(connection.clone(), Arc::downgrade(&registry));
        registry
    }

    /// The first of its addresses that a filter may not name.
    pub(crate) fn forbidden<'a>(
        &self,
        connection: &'a Connection,
        is_loopback: impl Fn(&str) -> bool,
    ) -> Option<&'a str> {
        let may = |url: &&str| !self.allowed.contains(*url) && !is_loopback(url);
        connection.confluent.urls().find(may)
    }

    /// Those that are in use, and all that are configured.
    pub(crate) fn all(&self) -> Vec<Arc<Registry>> {
        let made = self.made();
        let mut all: Vec<_> = made.values().filter_map(Weak::upgrade).collect();
        // Of two with equal connections the second is the first, in all but its name.
        let is_missing =
            |one: &&Arc<Registry>| !made.values().any(|it| it.as_ptr() == Arc::as_ptr(one));
        all.extend(self.named.values().filter(is_missing).cloned());
        all.sort_by(|one, other| one.name().cmp(other.name()));
        all
    }

    /// Those that did not answer when they were last asked. Schemas that are known are used meanwhile.
    pub(crate) fn faults(&self) -> Vec<Value> {
        let fault = |registry: Arc<Registry>| {
            let (failure, since) = registry.health().fault?;
            let (seconds, reason) = (since.elapsed().as_secs(), failure.to_string());
            Some(json!({ "registry": registry.name(), "reason": reason, "seconds": seconds }))
        };
        self.all().into_iter().filter_map(fault).collect()
    }

    fn made(&self) -> MutexGuard<'_, HashMap<Connection, Weak<Registry>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
