//! How a fake cluster behaves.

use std::time::Duration;

use super::sasl::FakeSasl;
use super::sequences::WithoutState;

/// How a cluster behaves when nothing is made to fail.
#[derive(Debug, Clone)]
pub struct FakeSettings {
    /// Brokers 1 to n.
    pub brokers: i32,
    /// Of the dice that faults and delays are thrown with.
    pub seed: u64,
    /// Longest time until a broker hears of a leader change.
    pub metadata_delay: Duration,
    /// Whether a refusal names the new leader (KIP-951).
    pub leader_hints: bool,
    /// How producers without state are treated.
    pub without_state: WithoutState,
    /// Largest batch, bytes (`message.max.bytes`).
    pub batch_bytes: usize,
    /// Bytes that a stream in memory holds in each direction.
    pub stream_bytes: usize,
    /// What it demands of its clients; nothing lets everyone in.
    pub sasl: Option<FakeSasl>,
    /// Whether [`arrivals`](super::FakeCluster::arrivals) has every batch that reached a broker,
    /// with its bytes: memory that grows with each of them and is never given back.
    pub records_arrivals: bool,
    /// Bytes of record batches that each partition keeps (`retention.bytes`); `None` keeps all.
    /// Beyond it the oldest batches are removed, and the log start offset moves up behind them. The
    /// newest batch stays, even if it is larger. Bytes are counted as on the wire, compressed ones
    /// as such; each batch takes about 150 bytes of memory more.
    pub retention_bytes: Option<usize>,
}

impl Default for FakeSettings {
    fn default() -> Self {
        Self {
            brokers: 1,
            seed: 0,
            metadata_delay: Duration::ZERO,
            leader_hints: true,
            without_state: WithoutState::default(),
            batch_bytes: 1_048_588,
            stream_bytes: 64 * 1024,
            sasl: None,
            records_arrivals: true,
            retention_bytes: None,
        }
    }
}

impl FakeSettings {
    /// One broker that may run for long: no arrivals are recorded, and each partition keeps the
    /// newest `retention_bytes`.
    pub fn embedded(retention_bytes: usize) -> Self {
        Self { records_arrivals: false, retention_bytes: Some(retention_bytes), ..Self::default() }
    }
}
