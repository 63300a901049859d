//! What is counted of each feed, for `/metrics`. Readers add to counters that they hold: no label is
//! looked up for an event.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::feeds::{ENTRYPOINTS, Entrypoint};
use super::selection::ERRORS;
use super::start::GapReason;

/// The counters of all feeds.
#[derive(Default)]
pub(crate) struct FeedFamilies {
    connections: Family<OfEntrypoint, Gauge>,
    records: Family<OfEntrypoint, Counter>,
    bytes: Family<OfEntrypoint, Counter>,
    slow_closes: Family<OfEntrypoint, Counter>,
    lag: Family<OfFeed, Gauge>,
    tail_hits: Family<OfFeed, Counter>,
    catch_up_reads: Family<OfFeed, Counter>,
    filtered: Family<OfFeed, Counter>,
    dead_letters: Family<OfFeed, Counter>,
    commits: Family<OfFeed, Counter>,
    commit_failures: Family<OfFeed, Counter>,
    rebalances: Family<OfFeed, Counter>,
    gaps: Family<OfReason, Counter>,
    errors: Family<OfReason, Counter>,
    feeds: Mutex<BTreeMap<String, Arc<FeedMetrics>>>,
}

/// Those of one feed.
#[derive(Default)]
pub(crate) struct FeedMetrics {
    entrypoints: [EntrypointMetrics; 4],
    /// Records that were in memory for a reader, a segment at a time.
    pub(crate) tail_hits: Counter,
    /// Reads of a partition from Kafka for a reader.
    pub(crate) catch_up_reads: Counter,
    pub(crate) filtered: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) commits: Counter,
    pub(crate) commit_failures: Counter,
    pub(crate) rebalances: Counter,
    gaps: Vec<(GapReason, Counter)>,
    errors: Vec<(&'static str, Counter)>,
    lags: Arc<Lags>,
}

#[derive(Default)]
pub(crate) struct EntrypointMetrics {
    pub(crate) connections: Gauge,
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) slow_closes: Counter,
}

/// How far event streams are behind, as far as each has reported.
#[derive(Default)]
struct Lags {
    next: AtomicU64,
    streams: Mutex<BTreeMap<u64, Arc<AtomicI64>>>,
}

/// Where a stream tells how far it is behind, for as long as it is there.
pub(crate) struct Lag {
    number: u64,
    records: Arc<AtomicI64>,
    lags: Arc<Lags>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFeed {
    feed: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEntrypoint {
    feed: String,
    entrypoint: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    feed: String,
    reason: &'static str,
}

impl FeedFamilies {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Readers now: event streams, WebSockets, and pages under way";
        registry.register("feed_connections", help, self.connections.clone());
        let help = "Records sent to readers";
        registry.register("feed_records", help, self.records.clone());
        let help = "Bytes of pages, events and messages";
        registry.register("feed_bytes", help, self.bytes.clone());
        let help = "Replies and WebSockets that ended while nothing of them was taken";
        registry.register("feed_slow_closes", help, self.slow_closes.clone());
        let help = "Records that the event stream or WebSocket furthest behind has yet to pass";
        registry.register("feed_lag", help, self.lag.clone());
        let help = "Times that records were in memory for a reader";
        registry.register("feed_tail_hits", help, self.tail_hits.clone());
        let help = "Times that a partition was read from Kafka for a reader";
        registry.register("feed_catch_up_reads", help, self.catch_up_reads.clone());
        let help =
            "Records that a filter or `on_decode_error` left out, each time that it was looked at";
        registry.register("feed_filtered", help, self.filtered.clone());
        let help = "Records written to the dead-letter topic";
        registry.register("feed_dead_letters", help, self.dead_letters.clone());
        let help = "Commits of groups' positions";
        registry.register("feed_commits", help, self.commits.clone());
        let help = "Commits that were refused, or that Kafka did not answer";
        registry.register("feed_commit_failures", help, self.commit_failures.clone());
        let help = "Times that partitions came to the bridge's member of a group, or went";
        registry.register("feed_rebalances", help, self.rebalances.clone());
        let help = "Gaps reported to readers";
        registry.register("feed_gaps", help, self.gaps.clone());
        let help = "Records that cannot be decoded, or for which an expression has no result";
        registry.register("feed_errors", help, self.errors.clone());
    }

    /// The counters of a feed, each with its row from now on.
    pub(crate) fn of(&self, feed: &str) -> Arc<FeedMetrics> {
        let row = OfFeed { feed: feed.to_owned() };
        let of_reason = |family: &Family<OfReason, Counter>, reason| {
            family.get_or_create_owned(&OfReason { feed: feed.to_owned(), reason })
        };
        let entrypoints = ENTRYPOINTS.map(|entrypoint| {
            let row = OfEntrypoint { feed: feed.to_owned(), entrypoint: entrypoint.name() };
            EntrypointMetrics {
                connections: self.connections.get_or_create_owned(&row),
                records: self.records.get_or_create_owned(&row),
                bytes: self.bytes.get_or_create_owned(&row),
                slow_closes: self.slow_closes.get_or_create_owned(&row),
            }
        });
        self.lag.get_or_create_owned(&row);
        let gap = |reason: GapReason| (reason, of_reason(&self.gaps, reason.name()));
        let metrics = Arc::new(FeedMetrics {
            entrypoints,
            tail_hits: self.tail_hits.get_or_create_owned(&row),
            catch_up_reads: self.catch_up_reads.get_or_create_owned(&row),
            filtered: self.filtered.get_or_create_owned(&row),
            dead_letters: self.dead_letters.get_or_create_owned(&row),
            commits: self.commits.get_or_create_owned(&row),
            commit_failures: self.commit_failures.get_or_create_owned(&row),
            rebalances: self.rebalances.get_or_create_owned(&row),
            gaps: GapReason::ALL.map(gap).to_vec(),
            errors: ERRORS.map(|error| (error, of_reason(&self.errors, error))).to_vec(),
            lags: Arc::default(),
        });
        lock(&self.feeds).insert(feed.to_owned(), Arc::clone(&metrics));
        metrics
    }

    /// Before a scrape: how far behind the streams of each feed are now.
    pub(crate) fn look_at_lags(&self) {
        for (feed, metrics) in &*lock(&self.feeds) {
            let row = OfFeed { feed: feed.clone() };
            let streams = lock(&metrics.lags.streams);
            let most = streams.values().map(|records| records.load(Relaxed)).max();
            self.lag.get_or_create(&row).set(most.unwrap_or(0));
        }
    }
}

impl FeedMetrics {
    pub(crate) fn by(&self, entrypoint: Entrypoint) -> &EntrypointMetrics {
        let [get, sse, websocket, pubsub] = &self.entrypoints;
        match entrypoint {
            Entrypoint::Get => get,
            Entrypoint::Sse => sse,
            Entrypoint::Websocket => websocket,
            Entrypoint::Pubsub => pubsub,
        }
    }

    pub(crate) fn gap(&self, reason: GapReason) {
        let row = self.gaps.iter().find(|(of, _)| *of == reason);
        if let Some((_, counter)) = row {
            counter.inc();
        }
    }

    pub(crate) fn error(&self, error: &'static str) {
        let row = self.errors.iter().find(|(of, _)| *of == error);
        if let Some((_, counter)) = row {
            counter.inc();
        }
    }

    /// For an event stream.
    pub(crate) fn lag(&self) -> Lag {
        let (lags, records) = (Arc::clone(&self.lags), Arc::default());
        let number = lags.next.fetch_add(1, Relaxed);
        lock(&lags.streams).insert(number, Arc::clone(&records));
        Lag { number, records, lags }
    }
}

impl Lag {
    pub(crate) fn set(&self, records: i64) {
        self.records.store(records, Relaxed);
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        lock(&self.lags.streams).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
