//! What became of each request of a run, and how long it took.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 10 * 60 * 1_000_000;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// No byte of it was sent: the server refused the connection.
    NotSent,
    /// The client left before the reply, on purpose.
    HungUp,
    /// The connection broke before the whole reply had come.
    Broken,
    /// No whole reply came in time.
    TimedOut,
    /// The reply's status.
    Status(u16),
}

/// Where a record is, as the reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Placement {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// One request's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) number: u64,
    pub(super) ending: Ending,
    pub(super) placement: Option<Placement>,
    pub(super) took: Duration,
}

/// All requests of a run.
#[derive(Clone, Debug)]
pub struct Report {
    first: u64,
    endings: Vec<Ending>,
    placements: BTreeMap<u64, Placement>,
    latency_us: Histogram<u64>,
    elapsed: Duration,
}

impl Report {
    pub(super) fn new(first: u64) -> anyhow::Result<Self> {
        Ok(Self {
            first,
            endings: Vec::new(),
            placements: BTreeMap::new(),
            latency_us: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
            elapsed: Duration::ZERO,
        })
    }

    pub(super) fn add(&mut self, samples: &[Sample]) -> anyhow::Result<()> {
        for sample in samples {
            let index = usize::try_from(sample.number - self.first)?;
            if self.endings.len() <= index {
                self.endings.resize(index + 1, Ending::NotSent);
            }
            if let Some(ending) = self.endings.get_mut(index) {
                *ending = sample.ending;
            }
            if let Some(placement) = sample.placement {
                self.placements.insert(sample.number, placement);
            }
            if matches!(sample.ending, Ending::Status(_)) {
                let micros = u64::try_from(sample.took.as_micros()).unwrap_or(u64::MAX);
                self.latency_us.saturating_record(micros.max(1));
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    /// Each request's number and how it ended.
    pub fn endings(&self) -> impl Iterator<Item = (u64, Ending)> {
        (self.first..).zip(self.endings.iter().copied())
    }

    /// Where the records are, by request number.
    #[must_use]
    pub fn placements(&self) -> &BTreeMap<u64, Placement> {
        &self.placements
    }

    /// Requests begun.
    #[must_use]
    pub fn requests(&self) -> u64 {
        u64::try_from(self.endings.len()).unwrap_or(u64::MAX)
    }

    /// How many requests ended in each way.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Ending, u64> {
        let mut counts = BTreeMap::new();
        for ending in &self.endings {
            *counts.entry(*ending).or_default() += 1;
        }
        counts
    }

    /// How many requests got a status.
    #[must_use]
    pub fn count(&self, status: u16) -> u64 {
        self.counts().get(&Ending::Status(status)).copied().unwrap_or_default()
    }

    /// Replies, of any status.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.latency_us.len()
    }

    /// From the first request to the last reply.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Replies per second.
    #[must_use]
    pub fn rps(&self) -> f64 {
        per(self.replies(), self.elapsed.as_secs_f64())
    }

    /// The latency in microseconds below which this share of the replies is, 0.5 for the median.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        self.latency_us.value_at_quantile(share)
    }

    /// All latencies of replies, in microseconds.
    #[must_use]
    pub fn latency_us(&self) -> &Histogram<u64> {
        &self.latency_us
    }
}

/// Divides; nothing per nothing is 0.
fn per(count: u64, unit: f64) -> f64 {
    // Counts of requests are far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52 keeps its value")]
    let count = count as f64;
    if unit > 0.0 { count / unit } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64, ending: Ending) -> Sample {
        let took = Duration::from_micros(100 * (number + 1));
        Sample { number, ending, placement: None, took }
    }

    #[test]
    fn endings_are_kept_by_number_whatever_the_order() {
        let mut report = Report::new(10).unwrap();
        report.add(&[sample(12, Ending::Status(200)), sample(10, Ending::HungUp)]).unwrap();
        report.add(&[sample(11, Ending::Status(503))]).unwrap();
        report.finish(Duration::from_secs(2));
        let endings: Vec<_> = report.endings().collect();
        let wanted = [Ending::HungUp, Ending::Status(503), Ending::Status(200)];
        assert_eq!(endings, (10..).zip(wanted).collect::<Vec<_>>());
        assert_eq!((report.requests(), report.replies(), report.count(200)), (3, 2, 1));
        assert!((report.rps() - 1.0).abs() < 1e-9);
    }
}
