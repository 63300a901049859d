//! A pool of brokers, each of which one test after the other has for itself: most tests need one,
//! and leave it as good as new.

use std::sync::{Mutex, PoisonError};

use super::{Kafka, KafkaVersion, Setup};
use crate::kafka::broker::Broker;

/// Those that run and that no test has. They end with this process.
static IDLE: Mutex<Vec<Kafka>> = Mutex::new(Vec::new());

/// What tells a pooled broker from others: the logs of topics that a test leaves go away at once.
const PROPERTIES: [(&str, &str); 1] = [("log.segment.delete.delay.ms", "0")];

impl Kafka {
    /// One broker without topics, which is nobody else's: one that another test of this process has
    /// dropped, else a fresh one.
    ///
    /// One that is dropped while it is down, or by a panic, is not used again. Tests that stop
    /// brokers on purpose have their own, by [`Kafka::start`].
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub async fn pooled(version: KafkaVersion) -> anyhow::Result<Self> {
        while let Some(mut kafka) = take(version) {
            match kafka.clear().await {
                Ok(()) => return Ok(kafka),
                Err(error) => {
                    eprintln!("a broker leaves the pool: {error:#}");
                    kafka.is_pooled = false;
                }
            }
        }
        let setup = Setup { properties: &PROPERTIES, ..Setup::default() };
        let mut kafka = Self::start_setup(version, 1, 1, setup).await?;
        kafka.is_pooled = true;
        Ok(kafka)
    }

    async fn clear(&mut self) -> anyhow::Result<()> {
        self.check()?;
        self.delete_all_topics().await
    }

    /// Keeps the brokers for the next test if they are pooled and can be used again.
    pub(super) fn release(&mut self) {
        let is_fit = self.brokers.iter().all(Broker::answers);
        if !self.is_pooled || !is_fit || std::thread::panicking() {
            return;
        }
        let kafka = Self {
            version: self.version,
            is_pooled: true,
            brokers: std::mem::take(&mut self.brokers),
            dir: self.dir.take(),
        };
        kafka.dir.remove_at_end();
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(kafka);
    }
}

fn take(version: KafkaVersion) -> Option<Kafka> {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let index = idle.iter().position(|kafka| kafka.version == version)?;
    let kafka = idle.swap_remove(index);
    kafka.dir.remove_on_drop();
    Some(kafka)
}
