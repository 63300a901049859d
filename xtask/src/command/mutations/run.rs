//! Runs tests of the scratch copy's build, and reads what each has come to.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use xtask::reaper;

use super::super::binaries::Binaries;
use super::patch::Target;
use super::scratch::{self, Scratch};

/// Which mutation is on: see `kafka-client/tests/mutations/switch.rs`.
const SWITCH: &str = "KAFKA_CLIENT_MUTATION";

/// Seeds of the simulation that a mutation is looked for with.
pub(super) const SEEDS: u32 = 200;

/// Those that are tried first. A seed fixes everything that happens: what fails with a few fails
/// with all.
pub(super) const FEW_SEEDS: u32 = 20;

const TAIL_LINES: usize = 40;

/// What a test binary has printed.
pub(super) struct Run(String);

impl Run {
    /// Runs these tests and no others, with one mutation on or with none.
    pub(super) fn of(
        (scratch, binaries): (&Scratch, &Binaries),
        (target, names): (Target, &[&str]),
        mutation: Option<&str>,
        seeds: u32,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let package = scratch.package(target);
        let mut command = Command::new(scratch::program(binaries, target)?);
        command.arg("--exact").args(names).current_dir(&package);
        command.env("CARGO_MANIFEST_DIR", &package).env("RUST_BACKTRACE", "0");
        command.env("KAFKA_SIM_SEEDS", seeds.to_string()).env_remove("KAFKA_SIM_SEED");
        match mutation {
            Some(name) => command.env(SWITCH, name),
            None => command.env_remove(SWITCH),
        };
        Ok(Self(output(command, patience)?))
    }

    #[cfg(test)]
    pub(super) fn read(output: &str) -> Self {
        Self(output.to_owned())
    }

    /// Whether all tests have ended, well or not. Without, the process has crashed.
    pub(super) fn is_complete(&self) -> bool {
        self.0.lines().any(|line| line.starts_with("test result: "))
    }

    /// `None` if there is no such test.
    pub(super) fn passed(&self, name: &str) -> Option<bool> {
        let line = format!("test {name} ... ");
        let found = self.0.lines().find_map(|shown| shown.strip_prefix(&line))?;
        match found {
            "ok" => Some(true),
            "FAILED" => Some(false),
            _ => None,
        }
    }

    /// The end of what was printed.
    pub(super) fn tail(&self) -> String {
        let lines: Vec<_> = self.0.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
    }
}

/// What a command prints. It has a process group of its own, which ends with it.
fn output(mut command: Command, patience: Duration) -> anyhow::Result<String> {
    // A file: nobody needs to empty it meanwhile.
    let mut log = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    let shown = command.get_program().display().to_string();
    let mut child = command.process_group(0).spawn().context(shown)?;
    let _watched = reaper::watch_child(&child);
    let pid = Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    let is_over = thread::scope(|scope| {
        scope.spawn(move || {
            // It stays a zombie, so that its number is nobody else's when the group is killed.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            if retry_on_intr(|| waitid(WaitId::Pid(pid), options)).is_ok() {
                let _sent = sender.send(());
            }
        });
        let is_over = ended.recv_timeout(patience).is_ok();
        let _gone = kill_process_group(pid, Signal::KILL);
        is_over
    });
    child.wait()?;
    let printed = text(&mut log)?;
    ensure!(is_over, "the tests do not end within {patience:?}\n{}", Run(printed).tail());
    Ok(printed)
}

fn text(log: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    log.rewind()?;
    log.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_crash_is_no_test_that_fails() {
        let run = Run::read("running 1 test\nfatal runtime error: stack overflow");
        assert!(!run.is_complete());
        assert_eq!(run.passed("a"), None);
    }

    #[test]
    fn what_a_test_came_to_is_read_by_its_whole_name() {
        let run = Run::read("test a::b ... FAILED\ntest a::bc ... ok\n\ntest result: FAILED. 1");
        assert!(run.is_complete());
        assert_eq!(run.passed("a::b"), Some(false));
        assert_eq!(run.passed("a::bc"), Some(true));
        assert_eq!(run.passed("b"), None);
    }

    #[test]
    fn both_outputs_are_read() {
        let printed = output(shell("echo a; echo b >&2; exit 3"), Duration::from_secs(30)).unwrap();
        assert_eq!(printed, "a\nb\n");
    }

    #[test]
    fn what_does_not_end_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let script = format!("echo begun; sleep 600 > {} & wait", pipe.display());
        // Ends when nobody can write to it any more.
        let reader = thread::spawn(move || std::fs::read(pipe));
        let error = output(shell(&script), Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains("do not end") && error.ends_with("begun"), "{error}");
        assert_eq!(reader.join().unwrap().unwrap(), [0; 0]);
    }
}
