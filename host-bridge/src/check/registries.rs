//! `host-bridge check`: whether schema registries let the bridge in, and have the schemas that are
//! configured.

use std::sync::Arc;

use kafka_upstream_core::registry::Subject;

use super::Report;
use crate::config::Config;
use crate::registry::{Key, Registry};

impl Report {
    pub(super) async fn registries(&mut self, config: &Config) {
        for (name, connection) in &config.schemas.registries {
            self.lines.push(format!("registry {name}"));
            let registry = Arc::new(Registry::new(name.clone(), connection));
            let probed = registry.probe().await;
            match &probed {
                Ok(()) => self.ok("connection", "the registry answers, and lets the bridge in"),
                Err(failure) => self.fail("connection", &failure.to_string()),
            }
            let feeds = config.feeds.feeds.iter();
            for (feed, _) in feeds.filter(|(_, feed)| feed.schema_registry.as_ref() == Some(name)) {
                let what = format!("feed {feed}");
                match probed {
                    Ok(()) => self.ok(&what, "may ask it for schemas"),
                    Err(_) => self.note(&format!("{what}: its readers wait for the registry")),
                }
            }
            if probed.is_err() {
                continue;
            }
            let rules = config.schemas.rules().filter(|rule| rule.connection == *connection);
            for subject in rules.flat_map(|rule| rule.key.iter().chain(&rule.value)) {
                self.schema(&registry, subject).await;
            }
        }
    }

    async fn schema(&mut self, registry: &Arc<Registry>, subject: &Subject) {
        let name = subject.subject_name.as_deref().unwrap_or_default();
        let what = format!("schema {name}");
        match registry.get(&Key::of_subject(name, subject.schema_version.as_ref())).await {
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
