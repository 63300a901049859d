//! Kafka, the bridge and Envoy with the filter as they are shipped, started together to be measured.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bridge::{self, Bridge};
use crate::envoy::{Envoy, EnvoyConfig, Listener};
use crate::kafka::{Kafka, KafkaVersion};
use xtask::build;
use xtask::progress::Step;

/// What runs; its parts end in this order when it is dropped.
#[derive(Debug)]
pub struct Stack {
    /// The gateway with the filter.
    pub envoy: Envoy,
    /// The bridge.
    pub bridge: Bridge,
    /// Kafka.
    pub kafka: Kafka,
}

/// What to start.
#[derive(Debug)]
pub struct Plan {
    /// Kafka's version; 4.3 by default.
    pub kafka: KafkaVersion,
    /// Brokers; 1 by default.
    pub brokers: usize,
    /// Topics with their partitions; as many replicas as there are brokers, up to 3.
    pub topics: Vec<(String, i32)>,
    /// The bridge; its `bootstrap` is filled in.
    pub bridge: bridge::Settings,
    /// Listeners of Envoy; the clusters `host_bridge` and `host_bridge_tcp` are there.
    pub listeners: Vec<Listener>,
    /// Envoy's workers; 1 by default.
    pub concurrency: u32,
    /// What was built before; by default this workspace's programs are built.
    pub programs: Option<Programs>,
}

/// A filter and a bridge.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The Wasm module.
    pub filter: PathBuf,
    /// The bridge's binary.
    pub bridge: PathBuf,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            kafka: KafkaVersion::V4_3,
            brokers: 1,
            topics: Vec::new(),
            bridge: bridge::Settings::default(),
            listeners: Vec::new(),
            concurrency: 1,
            programs: None,
        }
    }
}

impl Programs {
    /// The programs in a folder, under the names that cargo gives them.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { filter: folder.join(build::FILTER), bridge: folder.join(build::BRIDGE) }
    }

    /// The filter and the bridge, built as shipped.
    async fn build() -> anyhow::Result<Self> {
        let build = || Ok(Self { filter: build::filter()?, bridge: build::bridge_as_shipped()? });
        tokio::task::spawn_blocking(build).await?
    }
}

impl Stack {
    /// Builds what is not built, and starts everything.
    ///
    /// # Errors
    /// When a part is missing or does not start; the error has the end of its log.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let Programs { filter, bridge } = match plan.programs {
            Some(programs) => programs,
            None => Programs::build().await?,
        };
        let binary = Some(bridge);
        let kafka = start_kafka(plan.kafka, plan.brokers, &plan.topics).await?;
        let bootstrap = kafka.bootstrap();
        let bridge = Bridge::start(bridge::Settings { bootstrap, binary, ..plan.bridge }).await?;
        let config = EnvoyConfig::new(filter).concurrency(plan.concurrency).bridge(&bridge);
        let config = plan.listeners.into_iter().fold(config, EnvoyConfig::listener);
        let envoy = Envoy::start(config).await?;
        Ok(Self { envoy, bridge, kafka })
    }
}

/// A plugin configuration that writes to a topic through the bridge's unix socket and waits for
/// Kafka; fields of `more`, an object, are added or replace these.
#[must_use]
pub fn plugin(topic: &str, more: &Value) -> Value {
    let mut config = json!({"bridge": "host_bridge", "topic": topic, "producer_async": false});
    if let (Some(fields), Some(more)) = (config.as_object_mut(), more.as_object()) {
        fields.extend(more.clone());
    }
    config
}

async fn start_kafka(
    version: KafkaVersion,
    brokers: usize,
    topics: &[(String, i32)],
) -> anyhow::Result<Kafka> {
    let step = Step::begin(format!("starting Kafka {version}"));
    let kafka = Kafka::start_measured(version, brokers, &[]).await?;
    let replication = i32::try_from(brokers.min(3))?;
    for (topic, partitions) in topics {
        kafka.create_topic_with(topic, *partitions, replication, &[]).await?;
    }
    step.done();
    Ok(kafka)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_fields_win_over_the_built_in_ones() {
        let config = plugin("t", &json!({"producer_async": true, "timeout": 5}));
        let wanted =
            json!({"bridge": "host_bridge", "topic": "t", "producer_async": true, "timeout": 5});
        assert_eq!(config, wanted);
    }
}
