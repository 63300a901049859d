//! How long to wait before the next attempt: exponential with jitter (KIP-580).

use std::cell::Cell;
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
        let doubled = self.base.max(LEAST).saturating_mul(1 << (failures - 1).min(20));
        let percent = 80 + u32::try_from(random % 41).unwrap_or(0);
        doubled.min(self.max.max(LEAST)).saturating_mul(percent) / 100
    }
}

/// Even who wants no pauses must not ask a broker as fast as it refuses.
const LEAST: Duration = Duration::from_millis(1);

thread_local! {
    static SEED: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
}

/// A number nobody can foresee well enough to synchronise clients with; not for secrets.
pub(crate) fn random() -> u64 {
    let state = SEED.get().wrapping_add(GOLDEN);
    SEED.set(state);
    mix(state)
}

/// Lets this thread's numbers follow from `seed`, so that a simulation can be run again.
#[cfg(feature = "fake_broker")]
pub(crate) fn seed_this_thread(seed: u64) {
    SEED.set(seed);
}

/// 2⁶⁴ divided by the golden ratio: the step of SplitMix64.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64.
pub(crate) fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
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
    fn a_pause_is_never_zero() {
        let none = Backoff { base: Duration::ZERO, max: Duration::ZERO };
        let growing = Backoff { max: BACKOFF.max, ..none };
        assert_eq!(none.after(0, 20), Duration::ZERO);
        assert_eq!([1, 9].map(|failures| none.after(failures, 20).as_millis()), [1, 1]);
        assert_eq!([1, 9].map(|failures| growing.after(failures, 20).as_millis()), [1, 256]);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for random in 0..200 {
            let pause = BACKOFF.after(1, random).as_millis();
            assert!((80..=120).contains(&pause), "{pause}");
        }
    }
}
