//! `host-bridge check`: whether the producers of capture routes can be made, and their topics written to.

use std::collections::BTreeSet;

use kafka_client::{Client, TopicOperation};
use kafka_upstream_core::config::Settings;

use super::Report;
use crate::captures::Captures;
use crate::clusters::Clusters;
use crate::config::Config;
use crate::config::captures::CaptureConfig;
use crate::registry::Rule;

impl Report {
    /// Whether the producers can be made, and the schemas that they name.
    pub(super) fn captures(&mut self, config: &Config) -> Vec<Rule> {
        for (name, capture) in &config.captures {
            let profiles = capture.plugin.settings.iter().map(|settings| &settings.profile);
            if profiles.clone().any(|it| it.schema_registry.is_some() && !it.has_schemas()) {
                self.note(&format!("capture {name}: its schema_registry names no schema"));
            }
            if profiles
                .clone()
                .any(|it| !it.bootstrap_servers.is_empty() || it.authentication.is_some())
            {
                self.note(&format!(
                    "capture {name}: brokers and credentials of its own are not tried"
                ));
            }
        }
        let made = Clusters::new(config);
        let made = made.and_then(|made| Captures::new(config, &made).map(|_| made));
        let settings = config.captures.values().flat_map(|capture| &capture.plugin.settings);
        match made {
            Ok(made) => settings.filter_map(|it| made.rule(&it.profile)).collect(),
            Err(fault) => {
                self.fail("configuration", &config.places.told(&fault));
                Vec::new()
            }
        }
    }

    /// Whether the topics of capture routes in a cluster may be written to; `client` where it was reached.
    pub(super) async fn captured(
        &mut self,
        client: Option<&Client>,
        config: &Config,
        cluster: &str,
    ) {
        for (name, capture) in &config.captures {
            for topic in topics(capture, cluster) {
                let what = format!("capture {name}, topic {topic}");
                match client {
                    Some(client) => self.topic(client, &what, TopicOperation::Write, topic).await,
                    None => self.note(&format!("{what}: no broker could be asked")),
                }
            }
        }
    }
}

/// The topics of a capture route in a cluster, by that one's own credential.
fn topics<'a>(capture: &'a CaptureConfig, cluster: &str) -> BTreeSet<&'a str> {
    let is_there = |settings: &&Settings| {
        let profile = &settings.profile;
        profile.bootstrap_servers.is_empty()
            && profile.authentication.is_none()
            && profile.cluster.as_deref().unwrap_or("default") == cluster
    };
    let topics = |settings: &'a Settings| {
        let more = if settings.has_one_topic() { &[][..] } else { &settings.targets.allowed };
        std::iter::once(&settings.topic).chain(more).map(String::as_str)
    };
    capture.plugin.settings.iter().filter(is_there).flat_map(topics).collect()
}
