//! A temporary folder for one run's sockets, logs and data.

use std::env;
use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;
use xtask::reaper;

/// A folder that goes away with its owner, but stays after a failed test so that its logs can
/// be read, or when `KAFKA_UPSTREAM_KEEP` is set.
///
/// It is in the system's temporary folder and has a short name, because the path of a unix socket
/// may have about 100 bytes.
#[derive(Debug)]
pub struct RunDir(Option<TempDir>, std::path::PathBuf);

impl RunDir {
    /// Makes a folder whose name begins with `prefix`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(prefix: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("ku-{prefix}-"))
            .tempdir()
            .context("cannot make a temporary folder")?;
        let path = dir.path().to_path_buf();
        Ok(Self(Some(dir), path))
    }

    /// Another owner takes it.
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take(), self.1.clone())
    }

    /// Has it go away with this process, for an owner that is not dropped before.
    pub(crate) fn remove_at_end(&self) {
        if env::var_os("KAFKA_UPSTREAM_KEEP").is_none() {
            reaper::sweep(self.path());
        }
    }

    /// Takes [`RunDir::remove_at_end`] back.
    pub(crate) fn remove_on_drop(&self) {
        reaper::keep(self.path());
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.1
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else { return };
        if std::thread::panicking() || env::var_os("KAFKA_UPSTREAM_KEEP").is_some() {
            eprintln!("kept {}", dir.keep().display());
        }
    }
}
