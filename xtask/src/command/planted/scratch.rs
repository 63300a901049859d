//! A copy of the workspace that may be broken, with a build directory of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use xtask::paths;
use xtask::process::Process;

use super::patch::Target;

/// Builds the client's dependencies too.
pub(super) const FIRST_BUILD: Duration = Duration::from_secs(1800);

/// For a build of the client and some of its tests.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// Seeds of the simulation that a planted bug is looked for with.
const SEEDS: &str = "200";

/// Dependencies and incremental builds are kept from patch to patch, and from run to run.
pub(super) struct Scratch {
    root: PathBuf,
}

/// What a test binary has printed.
pub(super) struct Run(String);

impl Scratch {
    /// The sources as they are now.
    pub(super) fn new() -> anyhow::Result<Self> {
        let scratch = Self { root: paths::target().join("planted") };
        let sources = scratch.sources();
        if sources.exists() {
            fs::remove_dir_all(&sources).with_context(|| sources.display().to_string())?;
        }
        copy(&paths::workspace(), &sources)?;
        Ok(scratch)
    }

    pub(super) async fn apply(&self, patch: &Path) -> anyhow::Result<()> {
        self.git(["apply".as_ref(), patch.as_os_str()]).await
    }

    pub(super) async fn revert(&self, patch: &Path) -> anyhow::Result<()> {
        self.git(["apply".as_ref(), "--reverse".as_ref(), patch.as_os_str()]).await
    }

    /// Runs these tests and no others.
    pub(super) async fn test(
        &self,
        target: Target,
        names: &[&str],
        patience: Duration,
    ) -> anyhow::Result<Run> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["test", "--package", "kafka-client"]);
        match target {
            Target::Lib => command.arg("--lib"),
            Target::Simulation => command.args(["--test", "simulation"]),
        };
        command.args(["--", "--exact"]).args(names);
        command.env("CARGO_TARGET_DIR", self.root.join("build"));
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "1");
        // A broken client may leave things unused.
        command.env("RUSTFLAGS", "-Awarnings");
        command.env("RUST_BACKTRACE", "0").env("KAFKA_SIM_SEEDS", SEEDS);
        let output = self.run("cargo test", command, patience).await?;
        Ok(Run(output.1))
    }

    async fn git<const N: usize>(&self, arguments: [&OsStr; N]) -> anyhow::Result<()> {
        let mut command = Command::new("git");
        // Inside of a repository git would skip what is not in its own folder.
        command.args(arguments).env("GIT_CEILING_DIRECTORIES", &self.root);
        let (success, output) = self.run("git", command, PATIENCE).await?;
        ensure!(success, "{output}");
        Ok(())
    }

    /// Whether it succeeded, and what it printed.
    async fn run(
        &self,
        name: &str,
        mut command: Command,
        patience: Duration,
    ) -> anyhow::Result<(bool, String)> {
        let log = self.root.join("log");
        fs::write(&log, "")?;
        command.current_dir(self.sources());
        let mut process = Process::spawn(name, command, &log)?;
        match tokio::time::timeout(patience, process.wait()).await {
            Ok(status) => Ok((status?.success(), fs::read_to_string(&log)?)),
            Err(_) => Err(process.failure("it does not end")),
        }
    }

    fn sources(&self) -> PathBuf {
        self.root.join("sources")
    }
}

impl Run {
    #[cfg(test)]
    pub(super) fn read(output: &str) -> Self {
        Self(output.to_owned())
    }

    /// Whether all tests have ended, well or not. Without, the build has failed.
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

const TAIL_LINES: usize = 40;

/// Copies a folder without what is built and what is hidden.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let (from, to) = (entry.path(), to.join(name));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_fails_is_no_test_that_fails() {
        let run = Run::read("error[E0308]: mismatched types\nerror: could not compile");
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
    fn what_is_built_or_hidden_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for file in ["a/b.rs", "target/x", ".git/y"] {
            let path = from.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        copy(&from, &to).unwrap();
        assert!(to.join("a/b.rs").is_file());
        assert!(!to.join("target").exists() && !to.join(".git").exists());
    }
}
