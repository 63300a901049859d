//! Runs a test program, and reads from its output which tests passed and how long each took.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use xtask::progress::{self, Active, Step, seconds};
use xtask::{build, paths};

use super::super::binaries::TestBinary;
use super::report::Report;

/// From this time on a test has a line of its own.
const SLOW: Duration = Duration::from_secs(1);

/// Which tests of a program run, and how many at a time.
pub(super) struct Run {
    threads: usize,
    arguments: Vec<String>,
}

impl Run {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads, arguments: Vec::new() }
    }

    /// Only tests with this in their names.
    pub(super) fn filter(mut self, name: &str) -> Self {
        self.arguments.push(name.to_owned());
        self
    }

    /// Not those with this in their names.
    pub(super) fn skip(mut self, name: &str) -> Self {
        self.arguments.extend(["--skip".to_owned(), name.to_owned()]);
        self
    }

    pub(super) fn binary(
        &self,
        binary: &TestBinary,
        variables: &[(&'static str, OsString)],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut command = Command::new(&binary.path);
        command.arg(format!("--test-threads={}", self.threads)).args(&self.arguments);
        // libtest prints the time of each test only where unstable options are allowed, and so that
        // a program can read it only as JSON.
        command.args(["-Zunstable-options", "--report-time", "--format=json"]);
        command.env("RUSTC_BOOTSTRAP", "1").envs(variables.iter().cloned());
        command.env("INSTA_UPDATE", "no").env("INSTA_WORKSPACE_ROOT", paths::workspace());
        command.env("CARGO_MANIFEST_DIR", &binary.folder).current_dir(&binary.folder);
        command.stdout(Stdio::piped());
        let name = &binary.name;
        let step = Step::begin(format!("running {name}"));
        let (succeeded, counts) =
            build::run_reading(command, |output| Counts::read(name, output, report))?;
        if counts.is_complete && (succeeded || counts.failed > 0) {
            step.done();
        } else {
            let running: Vec<_> = counts.running.keys().map(String::as_str).collect();
            report.fail(format!("{name}: ended while these tests ran: {}", running.join(", ")));
        }
        Ok(())
    }
}

/// What a program has said so far.
#[derive(Debug, Default)]
struct Counts {
    failed: usize,
    is_complete: bool,
    running: BTreeMap<String, Active>,
}

impl Counts {
    fn read(binary: &str, output: ChildStdout, report: &mut Report) -> anyhow::Result<Self> {
        let mut counts = Self::default();
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            match serde_json::from_slice::<Value>(&line) {
                Ok(event) if event.get("type").is_some() => counts.event(binary, &event, report),
                // What a test's children print.
                _ => progress::line(&String::from_utf8_lossy(&line)),
            }
        }
        Ok(counts)
    }

    fn event(&mut self, binary: &str, event: &Value, report: &mut Report) {
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("type") == "test" && ["ok", "failed", "ignored"].contains(&text("event")) {
            self.running.remove(text("name"));
        }
        match (text("type"), text("event")) {
            ("test", "started") => {
                let name = text("name").to_owned();
                self.running.insert(name.clone(), Active::begin(name));
            }
            ("suite", "ok" | "failed") => self.is_complete = true,
            ("test", "ok") => {
                let took = event.get("exec_time").and_then(Value::as_f64).unwrap_or_default();
                let took = Duration::try_from_secs_f64(took).unwrap_or_default();
                if took >= SLOW {
                    progress::line(&format!("ok    {:>9}  {}", seconds(took), text("name")));
                }
                report.pass(format!("{binary} {}", text("name")), took);
            }
            ("test", "failed") => {
                self.failed += 1;
                let (name, said) = (text("name"), text("stdout"));
                progress::line(&format!("FAIL             {name}\n{said}"));
                report.fail(format!("{binary} {name}"));
            }
            ("test", "ignored") => report.fail(format!("{binary} {} is ignored", text("name"))),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_runs_tests_one_at_a_time() {
        let run = Run::new(1).filter("outage").skip("cluster::");
        assert_eq!((run.threads, &*run.arguments.join(" ")), (1, "outage --skip cluster::"));
    }

    #[test]
    fn times_and_failures_are_read() {
        let (mut counts, mut report) = (Counts::default(), Report::default());
        for event in [
            json!({"type": "suite", "event": "started", "test_count": 3}),
            json!({"type": "test", "event": "started", "name": "a::b"}),
            json!({"type": "test", "event": "ok", "name": "a::b", "exec_time": 0.25}),
            json!({"type": "test", "event": "failed", "name": "c", "stdout": "why"}),
        ] {
            counts.event("core/lib", &event, &mut report);
        }
        assert!(!counts.is_complete, "a program that crashes now has failed");
        counts.event("core/lib", &json!({"type": "suite", "event": "failed"}), &mut report);
        assert!(counts.is_complete && counts.failed == 1);
        let summary = report.summary();
        assert!(summary.contains("0.2 s  core/lib a::b"), "{summary}");
        assert!(summary.ends_with("FAIL  core/lib c\n1 passed, 1 failed"), "{summary}");
    }
}
