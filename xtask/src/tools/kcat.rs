//! kcat, which reads records back.

use std::process::Command;

use anyhow::Context;

use super::debian::{libraries, unpack};
use super::install::install;

/// A command that runs kcat: the one in the path, else the one of Debian's package.
///
/// # Errors
/// When there is neither; the line that installs it is named.
pub fn kcat() -> anyhow::Result<Command> {
    if Command::new("kcat").arg("-V").output().is_ok_and(|output| output.status.success()) {
        return Ok(Command::new("kcat"));
    }
    let fetch = |dir: &_| unpack(&["kcat"], dir);
    let root = install("kcat", "fetching kcat from Debian", fetch).context(
        "kcat, which reads records back, is not installed\n  \
         Debian, Ubuntu: sudo apt-get install --yes kcat\n  \
         macOS:          brew install kcat",
    )?;
    let mut command = Command::new(root.join("usr/bin/kcat"));
    command.env("LD_LIBRARY_PATH", libraries(&root)?);
    Ok(command)
}
