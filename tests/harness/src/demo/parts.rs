//! The broker, the bridge and Envoy with the shipped `envoy/envoy.yaml`.

use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, Example, Runner};
use harness::ports;
use xtask::progress::Step;

use super::Options;
use super::broker::Broker;

/// The topic that `envoy/envoy.yaml` writes to, and the feed by which it is read.
pub(crate) const TOPIC: &str = "http-requests";

/// Partitions of that topic.
const PARTITIONS: i32 = 3;

/// What runs; its parts end in this order when it is dropped.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) envoy: Envoy,
    pub(crate) bridge: Bridge,
    pub(crate) broker: Broker,
}

impl Parts {
    pub(crate) async fn start(options: &Options) -> anyhow::Result<Self> {
        let broker = if options.memory {
            Broker::embedded(TOPIC, PARTITIONS).await?
        } else {
            Broker::kafka(options.kafka, options.brokers, TOPIC, PARTITIONS).await?
        };
        let step = Step::begin("starting host-bridge");
        let binary = Some(options.bridge.clone());
        let feeds_port = ports::free()?;
        let feed = format!(
            "[feeds]\nlisten = ['127.0.0.1:{feeds_port}']\n[feeds.{TOPIC}]\ntopics = ['{TOPIC}']"
        );
        let settings = Settings::to(broker.bootstrap()).line(&feed);
        let bridge = Bridge::start(Settings { binary, ..settings }).await?;
        step.done();
        let example = Example {
            port: ports::free()?,
            admin_port: ports::free()?,
            wasm: options.filter.clone(),
            socket: bridge.socket(),
            bridge_port: bridge.port(),
            readers_port: ports::free()?,
            feeds_port,
        };
        let runner = options.runner();
        let step = Step::begin(match runner {
            Runner::Direct => "starting Envoy",
            Runner::FuncE(_) => "starting Envoy by func-e",
        });
        let envoy = Envoy::start_example(&runner, &example).await?;
        step.done();
        Ok(Self { envoy, bridge, broker })
    }
}
