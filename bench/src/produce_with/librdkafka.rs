//! librdkafka at its highest rate: one thread that sends, and polls for delivery reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{bail, ensure};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::{Options, Payloads};

/// Records between two looks at the reports.
const REPORTS_EVERY: u64 = 1000;

/// How long to wait for reports when the queue is full. rdkafka spins through the last millisecond
/// of every wait, so a short one would be charged to librdkafka; the queue lasts longer than this.
const FULL: Duration = Duration::from_millis(100);

/// Longest wait for the last reports.
const FLUSH: Duration = Duration::from_secs(120);

/// Counts the reports.
#[derive(Clone, Default)]
struct Reports(Arc<Counts>);

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.0.written } else { &self.0.failed };
        counter.fetch_add(1, Relaxed);
    }
}

pub(super) fn produce(options: &Options, mut payloads: Payloads<'_>) -> anyhow::Result<u64> {
    let mut config = ClientConfig::new();
    for (name, value) in &options.producer_props {
        config.set(name, value);
    }
    let reports = Reports::default();
    let producer: BaseProducer<Reports> = config.create_with_context(reports.clone())?;
    for number in 0..options.num_records {
        let mut record = BaseRecord::<(), [u8]>::to(&options.topic).payload(payloads.next());
        while let Err((error, back)) = producer.send(record) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => producer.poll(FULL),
                other => bail!("not enqueued: {other}"),
            }
            record = back;
        }
        if number % REPORTS_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(FLUSH)?;
    let failed = reports.0.failed.load(Relaxed);
    ensure!(failed == 0, "{failed} records were not written");
    Ok(reports.0.written.load(Relaxed))
}
