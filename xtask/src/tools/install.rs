//! Fills a folder once, whole or not at all, even when two processes want it at the same time.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::paths;
use crate::progress::Step;
use crate::reaper;

/// The folder `name` under `target/tools`, filled by `fill` if it is not there yet.
///
/// `fill` gets an empty folder beside it that takes its place when all went well.
pub(super) fn install(
    name: &str,
    what: &str,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let tools = paths::target().join("tools");
    let folder = tools.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let lock = File::create(tools.join(format!(".{name}.lock")))?;
    lock.lock().with_context(|| format!("cannot lock {name} for its download"))?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let step = Step::begin(what);
    let fresh = tempfile::Builder::new().prefix(&format!(".{name}-")).tempdir_in(&tools)?;
    fill(fresh.path()).with_context(|| what.to_owned())?;
    fs::rename(fresh.keep(), &folder)?;
    step.done();
    Ok(folder)
}

/// Runs a command to its end.
///
/// # Errors
/// When it fails; the error has what it printed.
pub fn run(mut command: Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    let _watched = reaper::watch_child(&child);
    let output = child.wait_with_output().with_context(|| format!("cannot run {shown}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    bail!("{shown} failed: {}\n{}", err.trim(), out.trim());
}
