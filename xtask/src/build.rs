//! Builds the filter, the bridge and the other programs with cargo, or takes them from where they
//! were built before.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, ensure};

use crate::progress::{self, Foreign, Step};
use crate::{paths, reaper, tools};

/// A folder with what [`filter`], [`filter_with_trap`], [`bridge`] and [`bridge_with_gssapi`]
/// return; nothing is built when it is set.
pub const PREBUILT: &str = "KAFKA_UPSTREAM_PREBUILT";

/// The filter in [`PREBUILT`].
pub const FILTER: &str = "kafka_upstream.wasm";

/// The filter with the feature `trap` in [`PREBUILT`].
pub const TRAP: &str = "kafka_upstream_trap.wasm";

/// The bridge in [`PREBUILT`]; it has the feature `gssapi`.
pub const BRIDGE: &str = "host-bridge";

/// What cargo builds the filter with.
const PACKAGE: [&str; 4] = ["--target", "wasm32-wasip1", "--package", "kafka-upstream"];

/// The filter, as shipped.
///
/// # Errors
/// When it does not compile.
pub fn filter() -> anyhow::Result<PathBuf> {
    static BUILT: Once = Mutex::new(None);
    once(&BUILT, FILTER, || {
        cargo("building the filter as shipped", &[&PACKAGE[..], &["--profile", "wasm"]].concat())?;
        Ok(paths::target().join("wasm32-wasip1/wasm").join(FILTER))
    })
}

/// The filter in half the time: for people who look at a demo.
///
/// # Errors
/// When it does not compile.
pub fn filter_quickly() -> anyhow::Result<PathBuf> {
    // By variables, so that what its build runs is shared with the other builds of this profile.
    let optimized = ["CARGO_PROFILE_DEV_OPT_LEVEL", "CARGO_PROFILE_DEV_DEBUG"];
    let variables = optimized.iter().zip(["1", "0"]).map(|(name, value)| (*name, value.into()));
    cargo_with("building the filter", &PACKAGE, variables.collect())?;
    Ok(paths::target().join("wasm32-wasip1/debug").join(FILTER))
}

/// The filter with the feature `trap`, quickly built: its VM ends when a test asks for it.
///
/// # Errors
/// When it does not compile.
pub fn filter_with_trap() -> anyhow::Result<PathBuf> {
    static BUILT: Once = Mutex::new(None);
    once(&BUILT, TRAP, || build_filter_with_trap(Vec::new()))
}

/// Builds [`filter_with_trap`] whatever is in [`PREBUILT`], with variables for cargo.
///
/// # Errors
/// When it does not compile.
pub fn build_filter_with_trap(variables: Vec<(&str, OsString)>) -> anyhow::Result<PathBuf> {
    let package = [&PACKAGE[..], &["--features", "trap"]].concat();
    cargo_with("building the filter that traps", &package, variables)?;
    Ok(paths::target().join("wasm32-wasip1/debug").join(FILTER))
}

/// The bridge, quickly built.
///
/// # Errors
/// When it does not compile.
pub fn bridge() -> anyhow::Result<PathBuf> {
    static BUILT: Once = Mutex::new(None);
    once(&BUILT, BRIDGE, || {
        cargo("building host-bridge", &["--package", BRIDGE, "--bin", BRIDGE])?;
        Ok(paths::target().join("debug").join(BRIDGE))
    })
}

/// The bridge as shipped, for benchmarks.
///
/// # Errors
/// When it does not compile.
pub fn bridge_as_shipped() -> anyhow::Result<PathBuf> {
    let release = ["--release", "--package", BRIDGE, "--bin", BRIDGE];
    cargo("building host-bridge as shipped", &release)?;
    Ok(paths::target().join("release").join(BRIDGE))
}

/// The bridge with the feature `gssapi`, quickly built. It runs where Kerberos' library is found.
///
/// # Errors
/// When it does not compile, or what its build needs cannot be had.
pub fn bridge_with_gssapi() -> anyhow::Result<PathBuf> {
    static BUILT: Once = Mutex::new(None);
    once(&BUILT, BRIDGE, || {
        let package = ["--package", BRIDGE, "--bin", BRIDGE, "--features", "gssapi"];
        let env = tools::kerberos()?.build_env()?;
        cargo_with("building host-bridge with Kerberos", &package, env)?;
        Ok(paths::target().join("debug").join(BRIDGE))
    })
}

/// The bridge and the program that shows it at work, built together: they share what they need.
///
/// # Errors
/// When they do not compile.
pub fn demo() -> anyhow::Result<PathBuf> {
    let packages = ["--package", BRIDGE, "--package", "kafka-upstream-harness", "--bins"];
    cargo("building host-bridge and the demo", &packages)?;
    Ok(paths::target().join("debug/demo"))
}

/// What one process has built; tests ask for it many times.
type Once = Mutex<Option<PathBuf>>;

fn once(
    built: &Once,
    file: &str,
    build: impl FnOnce() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<PathBuf> {
    let mut built = built.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.as_ref() {
        return Ok(path.clone());
    }
    let path = match prebuilt(file)? {
        Some(path) => path,
        None => build()?,
    };
    *built = Some(path.clone());
    Ok(path)
}

fn prebuilt(file: &str) -> anyhow::Result<Option<PathBuf>> {
    let Some(dir) = env::var_os(PREBUILT) else { return Ok(None) };
    let path = paths::workspace().join(dir).join(file);
    ensure!(path.is_file(), "{PREBUILT} is set, but {} is not there", path.display());
    Ok(Some(path))
}

/// Runs `cargo build`; what goes wrong is shown in the terminal.
fn cargo(what: &str, arguments: &[&str]) -> anyhow::Result<()> {
    cargo_with(what, arguments, Vec::new())
}

fn cargo_with(
    what: &str,
    arguments: &[&str],
    variables: Vec<(&str, OsString)>,
) -> anyhow::Result<()> {
    let step = Step::begin(what);
    let mut cargo = command();
    cargo.arg("build").args(arguments).envs(variables);
    let succeeded = run(cargo)?;
    ensure!(succeeded, "{what} failed: what cargo says stands above");
    step.done();
    Ok(())
}

/// Cargo in the workspace.
#[must_use]
pub fn command() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace());
    forget_package(&mut cargo);
    cargo
}

/// Runs a command to its end, and says whether it succeeded.
///
/// # Errors
/// When it cannot be run.
pub fn run(command: Command) -> anyhow::Result<bool> {
    let mut child = spawn(command)?;
    let shown = relay_errors(&mut child.process)?;
    let succeeded = child.process.wait()?.success();
    shown.into_iter().for_each(joined);
    Ok(succeeded)
}

/// As [`run`], for a command whose standard output is a pipe that `read` empties.
///
/// # Errors
/// When it cannot be run, or its output cannot be read.
pub fn run_reading<T>(
    command: Command,
    read: impl FnOnce(ChildStdout) -> anyhow::Result<T>,
) -> anyhow::Result<(bool, T)> {
    let mut child = spawn(command)?;
    let shown = relay_errors(&mut child.process)?;
    let output = child.process.stdout.take().context("standard output is no pipe")?;
    let found = read(output);
    if found.is_err() {
        // It may wait for its output to be read.
        child.process.kill()?;
    }
    let succeeded = child.process.wait()?.success();
    shown.into_iter().for_each(joined);
    Ok((succeeded, found?))
}

/// A child in a process group of its own, which is killed if this process ends before it.
struct Watched {
    process: Child,
    _group: reaper::Watched,
    _foreign: Option<Foreign>,
}

/// A terminal shows the child's standard error as it is; elsewhere each line passes through here,
/// so that silence is noticed.
fn spawn(mut command: Command) -> anyhow::Result<Watched> {
    command.stdin(Stdio::null()).process_group(0);
    let is_terminal = std::io::stderr().is_terminal();
    if !is_terminal {
        command.stderr(Stdio::piped());
    }
    let shown = command.get_program().display().to_string();
    let process = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    let group = reaper::watch_child(&process);
    // cargo draws a bar; what test programs print is read.
    let draws = is_terminal && shown.ends_with("cargo");
    Ok(Watched { process, _group: group, _foreign: draws.then(Foreign::begin) })
}

fn relay_errors(child: &mut Child) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(output) = child.stderr.take() else { return Ok(None) };
    let relay = move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            progress::line(&String::from_utf8_lossy(&line));
        }
    };
    Ok(Some(thread::Builder::new().spawn(relay)?))
}

fn joined(thread: JoinHandle<()>) {
    // It does nothing that panics.
    let _joined = thread.join();
}

/// Takes from a command what cargo has told this process of its own package: another cargo would
/// take it for a change, and build `ring` and all that needs it anew.
fn forget_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}
