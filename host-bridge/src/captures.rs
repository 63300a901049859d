//! What the bridge captures without a filter, with the producers of its records.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_upstream_core::config::Settings;
use kafka_upstream_core::profile;

use crate::clusters::Clusters;
use crate::config::captures::CaptureConfig;
use crate::config::{Config, ConfigError, field};
use crate::pipeline::Pipeline;

/// What is captured by each name.
#[derive(Default)]
pub(crate) struct Captures {
    pub(crate) routes: BTreeMap<String, Route>,
    /// Callers have a token in `Authorization`, which is none of their clients'.
    pub(crate) have_tokens: bool,
}

/// A section of the configuration.
pub(crate) struct Route {
    pub(crate) config: CaptureConfig,
    /// In the order of the plugin's settings.
    pub(crate) destinations: Vec<Destination>,
}

/// Where the records of some settings go.
pub(crate) struct Destination {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) profile: [u8; 32],
}

impl Captures {
    /// Makes the producers that the configuration asks for.
    pub(crate) fn new(config: &Config, clusters: &Clusters) -> Result<Self, ConfigError> {
        let mut routes = BTreeMap::new();
        let schemas = &config.schemas;
        for (name, config) in &config.captures {
            let destination = |settings: &Settings| {
                let document = serde_json::to_vec(&settings.profile).unwrap_or_default();
                let pipeline = clusters.for_capture(&settings.profile, schemas);
                let pipeline = pipeline
                    .map_err(|refusal| field(&format!("captures.{name}"), &refusal.to_string()))?;
                Ok(Destination { pipeline, profile: profile::id(&document) })
            };
            let destinations =
                config.plugin.settings.iter().map(destination).collect::<Result<_, _>>()?;
            routes.insert(name.clone(), Route { config: config.clone(), destinations });
        }
        Ok(Self { routes, have_tokens: config.token_file.is_some() })
    }
}
