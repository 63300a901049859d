//! Whether deliveries work, for filters that refuse requests while they do not.

use std::time::Duration;

use crate::config::Gating;

/// What the last batches say. Without gating it always admits.
#[derive(Debug)]
pub(super) struct Health {
    gating: Option<Gating>,
    gate: Gate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// So many batches have failed in a row.
    Open { failures: u32 },
    /// So many have succeeded in a row since; a request may be an attempt again at `probe_at`.
    Closed { recoveries: u32, probe_at: Duration },
}

impl Health {
    pub(super) fn new(gating: Option<Gating>) -> Self {
        Self { gating, gate: Gate::Open { failures: 0 } }
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_well(&self) -> bool {
        self.gate == Gate::Open { failures: 0 }
    }

    /// Whether a request may be queued. What is queued is the probe; when nothing is, one request
    /// in each interval is queued as the probe.
    pub(super) fn admits(&mut self, held_records: usize, now: Duration) -> bool {
        match (&mut self.gate, self.gating) {
            (Gate::Closed { probe_at, .. }, Some(gating)) => {
                let probes = held_records == 0 && now >= *probe_at;
                if probes {
                    *probe_at = now + gating.probe_interval;
                }
                probes
            }
            _ => true,
        }
    }

    /// How long what failed waits now, where that is not for the backoff to say.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self.gate {
            Gate::Open { .. } => None,
            Gate::Closed { .. } => self.gating.map(|gating| gating.probe_interval),
        }
    }

    pub(super) fn on_delivered(&mut self) {
        let needed = self.gating.map_or(0, |gating| gating.recoveries);
        self.gate = match self.gate {
            Gate::Closed { recoveries, probe_at } if recoveries + 1 < needed => {
                Gate::Closed { recoveries: recoveries + 1, probe_at }
            }
            _ => Gate::Open { failures: 0 },
        };
    }

    pub(super) fn on_failed(&mut self, now: Duration) {
        let Some(gating) = self.gating else { return };
        self.gate = match self.gate {
            Gate::Open { failures } if failures + 1 < gating.failures => {
                Gate::Open { failures: failures + 1 }
            }
            _ => Gate::Closed { recoveries: 0, probe_at: now + gating.probe_interval },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATING: Gating =
        Gating { failures: 2, probe_interval: Duration::from_secs(5), recoveries: 2 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_close_the_gate_and_successes_in_a_row_open_it() {
        let mut health = Health::new(Some(GATING));
        health.on_failed(at(0));
        health.on_delivered();
        health.on_failed(at(1));
        assert!(health.admits(9, at(1)), "one success begins the count anew");
        health.on_failed(at(2));
        assert!(!health.admits(9, at(100)), "what is queued is the probe");
        assert_eq!(health.pause(), Some(at(5)));
        health.on_delivered();
        assert!(!health.admits(9, at(3)), "one success is not two");
        health.on_failed(at(3));
        health.on_delivered();
        assert!(!health.admits(9, at(3)));
        health.on_delivered();
        assert!(health.admits(9, at(3)));
    }

    #[test]
    fn with_nothing_queued_one_request_in_each_interval_is_the_probe() {
        let mut health = Health::new(Some(GATING));
        health.on_failed(at(0));
        health.on_failed(at(0));
        assert!(!health.admits(0, at(4)));
        assert!(health.admits(0, at(5)));
        assert!(!health.admits(0, at(9)));
        assert!(health.admits(0, at(10)));
    }

    #[test]
    fn without_gating_nothing_is_refused() {
        let mut health = Health::new(None);
        (0..10).for_each(|second| health.on_failed(at(second)));
        assert!(health.admits(0, at(0)) && health.pause().is_none());
    }
}
