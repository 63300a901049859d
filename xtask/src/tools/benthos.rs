//! Benthos, built of its module of the Go module proxy: a peer of benchmarks.

use std::path::PathBuf;
use std::process::Command;

use super::install::{install, run};
use crate::paths;
use crate::prerequisites::{Prerequisite, require};

/// The program.
///
/// # Errors
/// When Go is missing, or the download or build fails.
pub fn benthos() -> anyhow::Result<PathBuf> {
    require(Prerequisite::Go)?;
    let what = "building Benthos 4.27.0 from the Go module proxy";
    let folder = install("benthos-4.27.0", what, |dir| {
        let mut go = Command::new("go");
        go.current_dir(paths::workspace().join("bench/benthos")).args(["build", "-o"]).arg(dir);
        run(go)
    })?;
    Ok(folder.join("benthos"))
}
