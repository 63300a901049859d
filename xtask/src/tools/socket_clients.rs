//! Clients of WebSockets that others wrote: `websockets` for Python, and `ws` for Node.js.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::install::{install, run};
use super::wheels;
use crate::prerequisites::{Prerequisite, require};

const WHEELS: &str = "\
websockets==17.4 --hash=sha256:c6bd2c9781915592b209160d0f017d4c7c82ad53075e6b0c24d2a89299e7f9e9
";
const WS: &str = "ws@8.23.0";
const WS_SHA256: &str = "b8bd105a274ae9ca114f8c6ce4d9dbb0c764fe5118ba633c557e1703e297c587";

/// The folder from which Python imports `websockets`.
///
/// # Errors
/// When Python or pip is missing, or the download fails.
pub fn websockets() -> anyhow::Result<PathBuf> {
    install("websockets-17.4", "fetching websockets 17.4 from PyPI", |dir| wheels(WHEELS, dir))
}

/// The folder of `ws`, which Node.js requires by its path.
///
/// # Errors
/// When Node.js or npm is missing, or the download fails.
pub fn ws() -> anyhow::Result<PathBuf> {
    let what = "fetching ws 8.23.0 from npm";
    Ok(install("ws-8.23.0", what, fetch_ws)?.join("package"))
}

fn fetch_ws(dir: &Path) -> anyhow::Result<()> {
    require(Prerequisite::Npm)?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", WS]).current_dir(dir);
    run(npm)?;
    fs::write(dir.join("sums"), format!("{WS_SHA256}  ws-8.23.0.tgz\n"))?;
    let mut check = Command::new("sha256sum");
    check.args(["--check", "sums"]).current_dir(dir);
    run(check)?;
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--file", "ws-8.23.0.tgz"]).current_dir(dir);
    run(unpack)
}
