//! A child process that never outlives its owner, and whose log explains a failed start.

mod cpu;
mod ready;

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal};
use xtask::reaper;

pub use ready::wait_until;

/// How long a process that is dropped may take to end by itself before it is killed.
const GRACE_ON_DROP: Duration = Duration::from_millis(500);

/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Lines of the log that an error shows.
const TAIL_LINES: usize = 25;

/// A running child in a process group of its own; dropping it ends the whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be run.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let out = open_log(log)?;
        let err = out.try_clone()?;
        command.stdout(out).stderr(err);
        Self::start(name, command, log.to_path_buf())
    }

    /// Starts `command` with its output to where it says itself.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn spawn_unlogged(name: &str, command: Command) -> anyhow::Result<Self> {
        Self::start(name, command, PathBuf::from("/dev/null"))
    }

    fn start(name: &str, mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {:?} for {name}", command.get_program()))?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{name} has no process id"))?;
        reaper::watch(pid);
        Ok(Self { name: name.to_owned(), child, pid, log })
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its output.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<&str> = text.lines().rev().take(TAIL_LINES).collect();
        lines.reverse();
        lines.join("\n")
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        while self.is_running() {
            tokio::time::sleep(POLL).await;
        }
        self.kill9()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub fn hangup(&self) {
        self.signal(Signal::HUP);
    }

    /// Asks it to end and waits; after `grace` it is killed. Returns how it ended.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(&mut self, grace: Duration) -> anyhow::Result<ExitStatus> {
        self.thaw();
        self.terminate();
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if let Some(status) = self.exit_status() {
                self.kill9()?;
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
        self.kill9()
    }

    /// Ends it and everything in its group at once (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill9(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal_group(Signal::KILL);
        let status = self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        reaper::forget(self.pid);
        Ok(status)
    }

    /// Stops its clock (SIGSTOP): connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal_group(Signal::STOP);
    }

    /// Lets it go on after [`Process::freeze`] (SIGCONT).
    pub fn thaw(&self) {
        self.signal_group(Signal::CONT);
    }

    /// Processor time that it and its threads have used, user and system; Linux only.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        cpu::time(self.id())
    }

    /// Memory that it has in RAM, in bytes; Linux only.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn rss_bytes(&self) -> anyhow::Result<u64> {
        cpu::rss_bytes(self.id())
    }

    /// The most memory that it had in RAM at any time, in bytes; Linux only.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        cpu::peak_bytes(self.id())
    }

    /// How many files and sockets it has open; Linux only.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        cpu::descriptors(self.id())
    }

    /// An error that says what went wrong and shows the end of the log.
    pub fn failure(&mut self, what: &str) -> anyhow::Error {
        let state = match self.exit_status() {
            Some(status) => describe(status),
            None => "still running".to_owned(),
        };
        let (name, log, tail) = (&self.name, self.log().display(), self.log_tail());
        anyhow::anyhow!("{name}: {what} ({state}); {log} ends with:\n{tail}")
    }

    fn signal(&self, signal: Signal) {
        // The only failure is that it has ended already.
        let _gone = rustix::process::kill_process(self.pid, signal);
    }

    fn signal_group(&self, signal: Signal) {
        let _gone = rustix::process::kill_process_group(self.pid, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.thaw();
        self.terminate();
        let deadline = Instant::now() + GRACE_ON_DROP;
        while self.is_running() && Instant::now() < deadline {
            std::thread::park_timeout(POLL);
        }
        if let Err(error) = self.kill9() {
            eprintln!("{error:#}");
        }
    }
}

fn open_log(log: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open {}", log.display()))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("script", command, &dir.join("log")).unwrap()
    }

    #[tokio::test]
    async fn a_failed_start_shows_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("echo no such file; exit 3", dir.path());
        let error = child
            .wait_ready::<(), _, _>("to listen", Duration::from_secs(5), || async {
                anyhow::bail!("not yet")
            })
            .await
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("ended with code 3") && text.contains("no such file"), "{text}");
    }

    #[tokio::test]
    async fn a_child_that_ignores_sigterm_is_killed_with_its_own_children() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("trap '' TERM; sleep 60 & echo set; wait; wait", dir.path());
        let log = dir.path().join("log");
        child
            .wait_ready("to set its trap", Duration::from_secs(5), || async {
                anyhow::ensure!(fs::read(&log)? == b"set\n");
                Ok(())
            })
            .await
            .unwrap();
        let status = child.stop(Duration::from_millis(50)).await.unwrap();
        assert_eq!(status.signal(), Some(9));
        wait_until("the end of the group", Duration::from_secs(5), || async {
            anyhow::ensure!(rustix::process::test_kill_process_group(child.pid).is_err());
            Ok(())
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_frozen_child_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("exec sleep 60", dir.path());
        child.freeze();
        let status = child.stop(Duration::from_secs(5)).await.unwrap();
        assert_eq!(status.signal(), Some(15));
    }

    #[test]
    fn busy_work_costs_cpu_time_and_memory() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell("while :; do :; done", dir.path());
        let deadline = Instant::now() + Duration::from_secs(10);
        while child.cpu_time().unwrap().is_zero() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!child.cpu_time().unwrap().is_zero());
        assert!(child.rss_bytes().unwrap() > 0);
        assert!(child.peak_bytes().unwrap() >= child.rss_bytes().unwrap());
        assert!(child.descriptors().unwrap() >= 3);
    }
}
