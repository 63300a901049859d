//! nginx, a gateway in front of the feeds.

use std::process::Command;

use anyhow::Context;

use super::debian::{libraries, unpack};
use super::install::install;

/// A command that runs nginx: the one in the path, else the one of Debian's package.
///
/// # Errors
/// When there is neither; the line that installs it is named.
pub fn nginx() -> anyhow::Result<Command> {
    if Command::new("nginx").arg("-v").output().is_ok_and(|output| output.status.success()) {
        return Ok(Command::new("nginx"));
    }
    let fetch = |dir: &_| unpack(&["nginx"], dir);
    let root = install("nginx", "fetching nginx from Debian", fetch).context(
        "nginx, a gateway in front of feeds, is not installed\n  \
         Debian, Ubuntu: sudo apt-get install --yes nginx\n  \
         macOS:          brew install nginx",
    )?;
    let mut command = Command::new(root.join("usr/sbin/nginx"));
    command.env("LD_LIBRARY_PATH", libraries(&root)?);
    Ok(command)
}
