//! One line on standard error for each slow step, with the time it took.

use std::time::{Duration, Instant};

/// A step that has begun; it prints how long it took when it is done.
#[derive(Debug)]
pub struct Step {
    what: String,
    since: Instant,
    done: bool,
}

impl Step {
    /// Prints what begins.
    #[must_use]
    pub fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        eprintln!("{what} …");
        Self { what, since: Instant::now(), done: false }
    }

    /// Prints that the step is done, and returns the time it took.
    pub fn done(mut self) -> Duration {
        self.done = true;
        let took = self.since.elapsed();
        eprintln!("{}: done in {}", self.what, seconds(took));
        took
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.done {
            eprintln!("{}: gave up after {}", self.what, seconds(self.since.elapsed()));
        }
    }
}

/// A duration as people read it: `4.2 s`, or `3 min 20 s`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 120 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(4_230)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(200)), "3 min 20 s");
    }
}
