//! What a profile becomes: the client of its cluster, the producer with its settings, the encoder of
//! its records, and the limits that hold for them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use kafka_client::{Client, Producer, ProducerConfig};
use kafka_upstream_core::wire::Delivery;
use tokio::time::Instant;

use crate::encoding::Encoder;
use crate::limits::{
    AWAY_PATIENCE, CLUSTER_AWAY, MEMORY_DELIVERY, READY_AGAIN, READY_PATIENCE, READY_RETRY,
};

/// Shared by all profiles that ask for the same.
pub(crate) struct Pipeline {
    cluster: String,
    client: Client,
    producer: Producer,
    encoder: Option<Encoder>,
    /// Whether the cluster answered when it was last asked.
    is_ready: AtomicBool,
    /// When it was last used.
    used_ms: AtomicU64,
    began: Instant,
}

/// Until when records have time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Topics and memory are waited for.
    pub(crate) waiting: Instant,
    /// The producer tries to write them.
    pub(crate) delivery: Instant,
}

impl Pipeline {
    /// Over a client of the cluster of this name, with a producer of these settings.
    pub(crate) fn new(
        cluster: &str,
        client: Client,
        config: &ProducerConfig,
        encoder: Option<Encoder>,
    ) -> Self {
        let producer = client.producer_with(config);
        let (is_ready, used_ms, began) =
            (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
        Self { cluster: cluster.to_owned(), client, producer, encoder, is_ready, used_ms, began }
    }

    /// The name of its cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether its producer holds no record, and nobody else has it.
    pub(crate) fn is_idle(&self) -> bool {
        self.producer.is_idle()
    }

    /// Its producer, which is in use now.
    pub(crate) fn producer(&self) -> &Producer {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(now, Relaxed);
        &self.producer
    }

    pub(crate) fn last_used(&self) -> Instant {
        self.began + Duration::from_millis(self.used_ms.load(Relaxed))
    }

    /// Whether the cluster answered when it was last asked.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// None where keys and values are produced as they come.
    pub(crate) fn encoder(&self) -> Option<&Encoder> {
        self.encoder.as_ref()
    }

    /// What records of this delivery mode get whose sender is answered by `deadline`.
    pub(crate) fn limits(&self, delivery: Delivery, deadline: Instant) -> Limits {
        let now = Instant::now();
        match delivery {
            Delivery::Acked => {
                let end = if self.is_away() { deadline.min(now + AWAY_PATIENCE) } else { deadline };
                Limits { waiting: end, delivery: end }
            }
            // A client of memory mode has its 200: while it is unknown whether a record was written,
            // only the producer can find out.
            Delivery::Memory | Delivery::Queued => {
                Limits { waiting: deadline, delivery: deadline + MEMORY_DELIVERY }
            }
        }
    }

    /// Whether no broker has answered for some time.
    pub(crate) fn is_away(&self) -> bool {
        self.client.silent_for().is_some_and(|silent| silent >= CLUSTER_AWAY)
    }

    /// Connects, and logs each change: the cluster id and its brokers, or the stage that failed.
    pub(crate) async fn watch(&self) {
        let (cluster, mut was) = (&*self.cluster, None);
        loop {
            let answer = self.client.ready(READY_PATIENCE).await;
            let is_ready = answer.is_ok();
            self.is_ready.store(is_ready, Relaxed);
            match answer {
                _ if was == Some(is_ready) => {}
                Ok(()) => {
                    let (cluster_id, brokers) = (self.client.cluster_id(), self.client.brokers());
                    let cluster_id = cluster_id.as_deref();
                    tracing::info!(cluster, cluster_id, brokers, "connected");
                }
                Err(reason) => {
                    let stage = self.client.faults().first().map(|fault| fault.stage.name());
                    tracing::warn!(cluster, stage, fault = %reason, "not_connected");
                }
            }
            was = Some(is_ready);
            tokio::time::sleep(if is_ready { READY_AGAIN } else { READY_RETRY }).await;
        }
    }
}
