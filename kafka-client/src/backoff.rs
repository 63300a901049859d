//! How long to wait before the next attempt: exponential with jitter (KIP-580).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The pause grows from `base` by doubling up to `max`, each time off by at most 20 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    /// The pause after `failures` failures in a row (0 means none yet: no pause); `random` decides
    /// the jitter.
    pub(crate) fn after(&self, failures: u32, random: u64) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = self.base.saturating_mul(1 << (failures - 1).min(20));
        let percent = 80 + u32::try_from(random % 41).unwrap_or(0);
        doubled.min(self.max).saturating_mul(percent) / 100
    }
}

/// A number nobody can foresee well enough to synchronise clients with; not for secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff =
        Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) };

    #[test]
    fn grows_by_doubling_up_to_the_maximum() {
        let pauses: Vec<_> = (0..6).map(|n| BACKOFF.after(n, 20).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1000]);
        assert_eq!(BACKOFF.after(u32::MAX, 20).as_millis(), 1000);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for random in 0..200 {
            let pause = BACKOFF.after(1, random).as_millis();
            assert!((80..=120).contains(&pause), "{pause}");
        }
    }
}
