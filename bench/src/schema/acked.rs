//! Records by HTTP with a schema and without: how many a second, and what each costs the bridge when it is
//! written and when it is read.

use std::time::Duration;

use harness::bridge::{Bridge, Settings};
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{Load, Requests};
use harness::ports;
use harness::registry::SchemaRegistry;
use xtask::build;
use xtask::progress::Step;

use super::documents::{AVRO, order};
use crate::consume::pages;
use crate::report::{Bound, Report};
use crate::requests::{self, Figures};

const PARTITIONS: i32 = 12;
const CONNECTIONS: usize = 32;

/// The topic whose values have a schema, and one whose values have none.
const TOPICS: [&str; 2] = ["encoded", "plain"];

/// Kafka, a registry, and a bridge that knows both.
pub(super) struct Parts {
    bridge: Bridge,
    /// Of readers.
    port: u16,
    _kafka: Kafka,
    _registry: SchemaRegistry,
}

impl Parts {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let program = tokio::task::spawn_blocking(build::bridge_as_shipped).await??;
        let step = Step::begin("starting Kafka and a schema registry");
        let kafka = Kafka::start_measured(KafkaVersion::V4_3, 1, &[]).await?;
        let registry = SchemaRegistry::start().await?;
        step.done();
        registry.register("orders-value", "AVRO", AVRO).await?;
        for topic in TOPICS {
            kafka.create_topic(topic, PARTITIONS).await?;
        }
        let port = ports::free()?;
        let mut settings = Settings::to(kafka.bootstrap()).line(&format!(
            "[feeds]\nlisten = ['127.0.0.1:{port}']\n\
             [feeds.encoded]\ntopics = ['encoded']\ndeserializer = 'schema-registry'\n\
             schema_registry = 'main'\n[feeds.plain]\ntopics = ['plain']\ndeserializer = 'json'\n\
             [registries.main]\nurl = '{}'\n[schemas.orders]\nregistry = 'main'\n\
             topics = ['{}']\nvalue_schema = {{ subject_name = 'orders-value', \
             schema_version = 'latest', payload_encoding = 'simple_json' }}",
            registry.url(),
            TOPICS[0]
        ));
        settings.binary = Some(program);
        let bridge = Bridge::start(settings).await?;
        Ok(Self { bridge, port, _kafka: kafka, _registry: registry })
    }

    /// Each topic for so long: the one without a schema between the halves of the other.
    pub(super) async fn measure(&self, time: Duration, report: &mut Report) -> anyhow::Result<()> {
        for topic in TOPICS {
            self.load(topic, Duration::from_secs(1)).await?;
        }
        let [with, without] = TOPICS;
        let first = self.load(with, time / 2).await?;
        let plain = self.load(without, time).await?;
        let last = self.load(with, time / 2).await?;
        let encoded = (first.rps + last.rps) / 2.0;
        report.add("acked with Avro", "records/s", encoded);
        report.add("acked without", "records/s", plain.rps);
        report.judge("acked with Avro / without", "times", encoded / plain.rps, Bound::Least(0.7));
        let cpu = (first.cpu_us + last.cpu_us) / 2.0;
        report.add("bridge CPU of a record with Avro", "µs", cpu);
        report.add("bridge CPU of a record without", "µs", plain.cpu_us);
        Ok(())
    }

    /// Each topic's records by pages, from the first to the last, each for the first time.
    pub(super) async fn read(&self, report: &mut Report) -> anyhow::Result<()> {
        for topic in TOPICS {
            let begin = self.bridge.process().cpu_time()?;
            let read = pages::read(self.port, topic, "limit=5000&timeout=1000").await?;
            let cpu = self.bridge.process().cpu_time()? - begin;
            let each = cpu.as_secs_f64() * 1e6 / read as f64;
            report.add(format!("pages, bridge CPU of a record of `{topic}`"), "µs", each);
        }
        Ok(())
    }

    async fn load(&self, topic: &str, time: Duration) -> anyhow::Result<Figures> {
        let body = order(4, false);
        let path = format!("/v1/clusters/default/topics/{topic}");
        let requests = Requests::post(&path, "application/json", move |_| body.clone());
        let load = Load::new(self.bridge.port(), requests).connections(CONNECTIONS);
        requests::measure(self.bridge.process(), load, time).await
    }
}
