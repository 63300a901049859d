//! `host-bridge check`: whether schema registries let the bridge in, and have the schemas that are
//! configured.

use std::collections::HashSet;
use std::sync::Arc;

use super::Report;
use crate::config::Config;
use crate::registry::connection::Connection;
use crate::registry::{Failure, Key, Registry, Rule};

impl Report {
    /// `captured` are the schemas that capture routes name themselves.
    pub(super) async fn registries(&mut self, config: &Config, captured: &[Rule]) {
        let named = &config.schemas.registries;
        let rules: Vec<_> = config.schemas.rules().chain(captured).collect();
        for (name, connection) in named {
            let registry = Arc::new(Registry::new(name.clone(), connection));
            let probed = self.connection(&registry).await;
            let feeds = config.feeds.feeds.iter();
            for (feed, _) in feeds.filter(|(_, feed)| feed.schema_registry.as_ref() == Some(name)) {
                let what = format!("feed {feed}");
                match probed {
                    Ok(()) => self.ok(&what, "may ask it for schemas"),
                    Err(_) => self.note(&format!("{what}: its readers wait for the registry")),
                }
            }
            if probed.is_ok() {
                self.schemas(&registry, connection, &rules).await;
            }
        }
        let mut seen: HashSet<_> = named.values().collect();
        for connection in captured.iter().map(|rule| &rule.connection) {
            if !seen.insert(connection) {
                continue;
            }
            let registry = Arc::new(Registry::new(connection.host(), connection));
            if self.connection(&registry).await.is_ok() {
                self.schemas(&registry, connection, &rules).await;
            }
        }
    }

    async fn connection(&mut self, registry: &Registry) -> Result<(), Failure> {
        self.lines.push(format!("registry {}", registry.name()));
        let probed = registry.probe().await;
        match &probed {
            Ok(()) => self.ok("connection", "the registry answers, and lets the bridge in"),
            Err(failure) => self.fail("connection", &failure.to_string()),
        }
        probed
    }

    /// Those that it is asked for.
    async fn schemas(
        &mut self,
        registry: &Arc<Registry>,
        connection: &Connection,
        rules: &[&Rule],
    ) {
        let rules = rules.iter().filter(|rule| rule.connection == *connection);
        let mut seen = HashSet::new();
        for subject in rules.flat_map(|rule| rule.key.iter().chain(&rule.value)) {
            let name = subject.subject_name.as_deref().unwrap_or_default();
            let key = Key::of_subject(name, subject.schema_version.as_ref());
            if seen.insert(key.clone()) {
                self.schema(registry, name, &key).await;
            }
        }
    }

    async fn schema(&mut self, registry: &Arc<Registry>, name: &str, key: &Key) {
        let what = format!("schema {name}");
        match registry.get(key).await {
            Ok(found) => {
                let version =
                    found.version.map_or_else(String::new, |it| format!("version {it}, "));
                let id = found.id.unwrap_or_default();
                self.ok(&what, &format!("{}, {version}id {id}", found.language));
            }
            Err(failure) => self.fail(&what, &failure.to_string()),
        }
    }
}
