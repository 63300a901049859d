//! Builds the filter and the bridge with cargo, or takes them from where they were built before.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};

use crate::paths;
use crate::progress::Step;
use crate::tools;

/// A folder with `kafka_upstream.wasm` and `host-bridge`; nothing is built when it is set.
const PREBUILT: &str = "KAFKA_UPSTREAM_PREBUILT";

/// The filter, as shipped: `kafka_upstream.wasm`.
///
/// # Errors
/// When it does not compile.
pub fn filter() -> anyhow::Result<PathBuf> {
    static BUILT: Once = Mutex::new(None);
    once(&BUILT, || {
        let wasm = "kafka_upstream.wasm";
        if let Some(path) = prebuilt(wasm)? {
            return Ok(path);
        }
        cargo(
            "building the filter",
            &["--profile", "wasm", "--target", "wasm32-wasip1", "--package", "kafka-upstream"],
        )?;
        Ok(paths::target().join("wasm32-wasip1/wasm").join(wasm))
    })
}

/// The filter with the feature `trap`, quickly built: its VM ends when a test asks for it.
///
/// # Errors
/// When it does not compile.
pub fn filter_with_trap() -> anyhow::Result<PathBuf> {
    static BUILT: Once = Mutex::new(None);
    once(&BUILT, || {
        let package = ["--target", "wasm32-wasip1", "--package", "kafka-upstream"];
        cargo("building the filter that traps", &[&package[..], &["--features", "trap"]].concat())?;
        Ok(paths::target().join("wasm32-wasip1/debug/kafka_upstream.wasm"))
    })
}

/// The bridge, as shipped: `host-bridge` in release.
///
/// # Errors
/// When it does not compile.
pub fn bridge() -> anyhow::Result<PathBuf> {
    static BUILT: Once = Mutex::new(None);
    once(&BUILT, || {
        let binary = "host-bridge";
        if let Some(path) = prebuilt(binary)? {
            return Ok(path);
        }
        cargo("building host-bridge", &["--release", "--package", binary, "--bin", binary])?;
        Ok(paths::target().join("release").join(binary))
    })
}

/// The bridge with the feature `gssapi`, quickly built. It runs where Kerberos' library is found.
///
/// # Errors
/// When it does not compile, or what its build needs cannot be had.
pub fn bridge_with_gssapi() -> anyhow::Result<PathBuf> {
    static BUILT: Once = Mutex::new(None);
    once(&BUILT, || {
        let package = ["--package", "host-bridge", "--bin", "host-bridge", "--features", "gssapi"];
        let env = tools::kerberos()?.build_env()?;
        cargo_with("building host-bridge with Kerberos", &package, env)?;
        Ok(paths::target().join("debug/host-bridge"))
    })
}

/// What one process has built; tests ask for it many times.
type Once = Mutex<Option<PathBuf>>;

fn once(built: &Once, build: impl FnOnce() -> anyhow::Result<PathBuf>) -> anyhow::Result<PathBuf> {
    let mut built = built.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.as_ref() {
        return Ok(path.clone());
    }
    let path = build()?;
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
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_package(&mut cargo);
    let status = cargo
        .current_dir(paths::workspace())
        .args(["build", "--quiet"])
        .args(arguments)
        .envs(variables)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "{what} failed: cargo {status}");
    step.done();
    Ok(())
}

/// Takes from a command what cargo has told this process of its own package: another cargo would
/// take it for a change, and build `ring` and all that needs it anew.
pub fn forget_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}
