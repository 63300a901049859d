//! Counters and gauges, cheap to count and read as one snapshot.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A snapshot of a client's counters (they only grow) and gauges (as they are now).
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Count,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.get(),)+ }
            }
        }
    };
}

stats! {
    /// Records with the outcome `Written`.
    records_written,
    /// Enqueued records with the outcome `NotWritten`.
    records_not_written,
    /// Records with the outcome `Unknown`.
    records_unknown,
    /// Batches put into a Produce request, resends included.
    batches_sent,
    /// Batches that were sent again.
    batches_resent,
    /// Batches cut into smaller ones after a refusal.
    batches_split,
    /// Times a partition began a new producer epoch or id, because sequences had become void.
    producer_resets,
    /// Times a broker's log was found to lack records that it had acknowledged.
    sequence_losses,
    /// Produce requests sent.
    produce_requests,
    /// Bytes of batches in Produce requests, as they are sent.
    produce_bytes,
    /// Fetch requests sent.
    fetch_requests,
    /// Bytes of batches in Fetch answers, as they came.
    fetch_bytes,
    /// Records given to readers.
    records_read,
    /// Gauge: bytes reserved by records that are not settled.
    buffered_bytes,
    /// Gauge: open connections.
    connections_open,
    /// Connections that completed their handshake.
    connections_opened,
    /// Attempts to connect that failed.
    connect_failures,
    /// Times the files of the TLS configuration were loaded.
    tls_loads,
    /// Times they could not be used, and what was loaded before stayed.
    tls_load_failures,
    /// Metadata answers.
    metadata_refreshes,
    /// Rounds in which no broker gave a Metadata answer.
    metadata_failures,
    /// Times another cluster was found behind the brokers' addresses.
    cluster_changes,
    /// Answers that asked us to pause (KIP-219).
    throttled_answers,
}

/// One counter or gauge.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }

    pub(crate) fn subtract(&self, n: usize) {
        self.0.fetch_sub(n as u64, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
