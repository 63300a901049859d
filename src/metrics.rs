//! The filter's counters, gauges and histograms, in the host's own statistics.

use std::cell::Cell;

use kafka_upstream_core::outbox::Depth;
use kafka_upstream_core::outcome::Code;

use crate::host::{self, MetricType};

/// Counters; each counts records or requests since the host started.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    /// Records that Kafka acknowledged.
    Written,
    /// Records that were not written.
    NotWritten,
    /// Records that may have been written.
    Unknown,
    /// Outcomes of records whose client has gone.
    ClientGone,
    /// Callouts dispatched.
    Callouts,
    /// Batches sent again.
    Resends,
    /// Memory mode: records whose clients have a 200, and that will not be written.
    Dropped,
    /// Requests with more headers than the host passes to the filter.
    HeadersTruncated,
}

/// What became of a request; with the codes these are the values of the label `outcome`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestEnd {
    /// Its records are accepted under the delivery mode.
    Sent,
    /// No rule matches it, or it cannot be tapped.
    Passed,
    /// It was answered, or its copy given up, for this reason.
    Failed(Code),
}

/// The metrics of one root. What a callback counts is reported to the host at its end: a batch's
/// records together, not each by a call.
#[derive(Debug)]
pub(crate) struct Metrics {
    counters: [Tally; 8],
    histograms: [Option<u32>; 2],
    /// Defined when first reported, so that a host shows those that happened.
    requests: [Tally; 2 + Code::ALL.len()],
}

/// A counter, and how much of it the host does not know yet.
#[derive(Debug)]
struct Tally {
    id: Cell<Option<u32>>,
    unreported: Cell<i64>,
}

impl Tally {
    const fn new(id: Option<u32>) -> Self {
        Self { id: Cell::new(id), unreported: Cell::new(0) }
    }

    fn count(&self) {
        self.unreported.set(self.unreported.get() + 1);
    }

    fn report(&self, define: impl FnOnce() -> Option<u32>) {
        let count = self.unreported.replace(0);
        if count == 0 {
            return;
        }
        if self.id.get().is_none() {
            self.id.set(define());
        }
        if let Some(id) = self.id.get() {
            host::add_to_metric(id, count);
        }
    }
}

/// What one root has reported to the gauges. On Envoy workers and roots share a gauge, so each adds
/// its own share. WasmX traps when a gauge is added to: there it is set, and shows the worker that
/// was the last to set it.
#[derive(Debug)]
pub(crate) struct Gauges {
    adds: bool,
    gauges: [(Option<u32>, i64); 6],
}

impl Metrics {
    pub(crate) fn define() -> Self {
        let counter = |name: &str| Tally::new(host::define_metric(MetricType::Counter, name));
        let histogram = |name: &str| host::define_metric(MetricType::Histogram, name);
        Self {
            counters: [
                counter("kafka_upstream_records_written"),
                counter("kafka_upstream_records_not_written"),
                counter("kafka_upstream_records_unknown"),
                counter("kafka_upstream_client_gone"),
                counter("kafka_upstream_callouts"),
                counter("kafka_upstream_resends"),
                counter("kafka_upstream_records_dropped"),
                counter("kafka_upstream_headers_truncated"),
            ],
            histograms: [
                histogram("kafka_upstream_batch_records"),
                histogram("kafka_upstream_callout_ms"),
            ],
            requests: [const { Tally::new(None) }; 2 + Code::ALL.len()],
        }
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.counters.get(counter as usize).into_iter().for_each(Tally::count);
    }

    /// Counts a request by what became of it.
    pub(crate) fn count_request(&self, ended: RequestEnd) {
        let slot = match ended {
            RequestEnd::Sent => 0,
            RequestEnd::Passed => 1,
            RequestEnd::Failed(code) => 2 + code as usize,
        };
        self.requests.get(slot).into_iter().for_each(Tally::count);
    }

    /// Reports to the host what was counted; called at the end of each callback.
    pub(crate) fn report(&self) {
        self.counters.iter().for_each(|counter| counter.report(|| None));
        let outcomes =
            ["sent", "passed"].into_iter().chain(Code::ALL.iter().map(|code| code.name()));
        for (requests, outcome) in self.requests.iter().zip(outcomes) {
            requests.report(|| {
                // Envoy makes a label of it where its `stats_tags` say so.
                let name = format!("kafka_upstream_requests.outcome.{outcome}");
                host::define_metric(MetricType::Counter, &name)
            });
        }
    }

    /// A batch goes out.
    pub(crate) fn note_batch(&self, records: usize) {
        self.record(0, records as u64);
    }

    /// A callout took so long.
    pub(crate) fn note_callout(&self, millis: u128) {
        self.record(1, u64::try_from(millis).unwrap_or(u64::MAX));
    }

    fn record(&self, histogram: usize, value: u64) {
        if let Some(Some(id)) = self.histograms.get(histogram) {
            host::record_in_metric(*id, value);
        }
    }
}

impl Gauges {
    /// `adds` where the host is known to take additions.
    pub(crate) fn define(adds: bool) -> Self {
        let gauge = |name: &str| (host::define_metric(MetricType::Gauge, name), 0);
        let gauges = [
            gauge("kafka_upstream_queue_records"),
            gauge("kafka_upstream_queue_bytes"),
            gauge("kafka_upstream_batches_in_flight"),
            gauge("kafka_upstream_topics_failing"),
            gauge("kafka_upstream_streams_waiting"),
            gauge("kafka_upstream_memory_bytes"),
        ];
        Self { adds, gauges }
    }

    /// Tells what changed since the last report.
    pub(crate) fn report(&mut self, depth: Depth, waiting: usize, memory_bytes: usize) {
        let Depth { records, bytes, in_flight, failing } = depth;
        let values = [records, bytes, in_flight, failing, waiting, memory_bytes];
        for ((id, last), value) in self.gauges.iter_mut().zip(values) {
            let value = value as i64;
            if let (Some(id), true) = (id, value != *last) {
                match self.adds {
                    true => host::add_to_metric(*id, value - *last),
                    false => host::record_in_metric(*id, value.unsigned_abs()),
                }
                *last = value;
            }
        }
    }
}
