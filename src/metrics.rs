//! The filter's counters and gauges, in the host's own statistics.

use kafka_upstream_core::outbox::Depth;

use crate::host::{self, MetricType};

/// Counters; each counts records or requests since the host started.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    /// Memory mode: requests answered 200 because their record is queued.
    Queued,
    /// Records that Kafka acknowledged.
    Written,
    /// Records that were surely not written.
    NotWritten,
    /// Records that may have been written.
    Unknown,
    /// Requests that were refused before a record was made of them.
    Refused,
    /// Answers that nobody waited for any more.
    ClientGone,
    /// Callouts dispatched.
    Callouts,
}

/// The metrics of one root.
#[derive(Debug)]
pub(crate) struct Metrics {
    counters: [Option<u32>; 7],
    gauges: [(Option<u32>, i64); 5],
}

impl Metrics {
    pub(crate) fn define() -> Self {
        let counter = |name: &str| host::define_metric(MetricType::Counter, name);
        let gauge = |name: &str| (host::define_metric(MetricType::Gauge, name), 0);
        Self {
            counters: [
                counter("kafka_upstream_requests_queued"),
                counter("kafka_upstream_records_written"),
                counter("kafka_upstream_records_not_written"),
                counter("kafka_upstream_records_unknown"),
                counter("kafka_upstream_requests_refused"),
                counter("kafka_upstream_client_gone"),
                counter("kafka_upstream_callouts"),
            ],
            gauges: [
                gauge("kafka_upstream_queue_records"),
                gauge("kafka_upstream_queue_bytes"),
                gauge("kafka_upstream_batches_in_flight"),
                gauge("kafka_upstream_streams_waiting"),
                gauge("kafka_upstream_memory_bytes"),
            ],
        }
    }

    pub(crate) fn count(&self, counter: Counter) {
        if let Some(Some(id)) = self.counters.get(counter as usize) {
            host::add_to_metric(*id, 1);
        }
    }

    /// Tells the gauges what changed since the last report: workers share a gauge, so each adds its
    /// own share.
    pub(crate) fn report(&mut self, depth: Depth, waiting: usize) {
        let memory = host::memory_bytes();
        let values = [depth.records, depth.bytes, depth.in_flight, waiting, memory];
        for ((id, last), value) in self.gauges.iter_mut().zip(values) {
            let value = value as i64;
            if let (Some(id), true) = (id, value != *last) {
                host::add_to_metric(*id, value - *last);
                *last = value;
            }
        }
    }
}
