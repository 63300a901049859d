//! The time of each step, the slowest tests, and what failed.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use xtask::progress::{self, seconds};

/// How many of the slowest tests are listed.
const SLOWEST: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Report {
    steps: Vec<(String, bool, Duration)>,
    tests: Vec<(String, Duration)>,
    failures: Vec<String>,
}

impl Report {
    /// Runs a step. Tests that fail are told by [`Report::fail`], and the next step runs; an error
    /// ends the command.
    pub(super) fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        progress::line(&format!("\n── {name}"));
        let (begin, failures) = (Instant::now(), self.failures.len());
        let result = work(self);
        let passed = result.is_ok() && self.failures.len() == failures;
        self.steps.push((name.to_owned(), passed, begin.elapsed()));
        result
    }

    pub(super) fn pass(&mut self, test: String, took: Duration) {
        self.tests.push((test, took));
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// Takes over what ran beside.
    pub(super) fn add(&mut self, other: Self) {
        self.tests.extend(other.tests);
        self.failures.extend(other.failures);
    }

    /// How many tests have run.
    pub(super) fn ran(&self) -> usize {
        self.tests.len() + self.failures.len()
    }

    pub(super) fn passed(&self) -> bool {
        self.steps.iter().all(|(_, passed, _)| *passed)
    }

    /// Ends with a line that says how many tests passed and failed.
    pub(super) fn summary(&self) -> String {
        let mut text = String::from("\n");
        for (name, passed, took) in &self.steps {
            let mark = if *passed { "ok  " } else { "FAIL" };
            let _infallible = writeln!(text, "{mark}  {name:<28} {:>12}", seconds(*took));
        }
        let all: Duration = self.steps.iter().map(|(_, _, took)| *took).sum();
        let _infallible = writeln!(text, "      {:<28} {:>12}\n", "in all", seconds(all));
        let mut slowest: Vec<_> = self.tests.iter().collect();
        slowest.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        for (test, took) in slowest.into_iter().take(SLOWEST) {
            let _infallible = writeln!(text, "{:>12}  {test}", seconds(*took));
        }
        for failure in &self.failures {
            let _infallible = writeln!(text, "FAIL  {failure}");
        }
        let _infallible =
            write!(text, "{} passed, {} failed", self.tests.len(), self.failures.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_test_lets_the_next_step_run_and_an_error_does_not() {
        let mut report = Report::default();
        report.step("format", |_| Ok(())).unwrap();
        assert!(report.passed());
        let failing = |report: &mut Report| {
            report.fail("a".to_owned());
            Ok(())
        };
        report.step("unit tests", failing).unwrap();
        assert!(!report.passed());
        let broken = report.step("build", |_| -> anyhow::Result<()> { bail!("no") });
        assert!(broken.is_err());
        let summary = report.summary();
        let marks: Vec<_> = summary.lines().filter_map(|line| line.split("  ").next()).collect();
        assert_eq!(&marks[1..4], ["ok", "FAIL", "FAIL"], "{summary}");
        assert!(summary.ends_with("FAIL  a\n0 passed, 1 failed"), "{summary}");
    }
}
