//! nginx, a gateway in front of the feeds.

use std::process::Command;

use super::debian::program;

/// A command that runs nginx.
///
/// # Errors
/// When there is none; the line that installs it is named.
pub fn nginx() -> anyhow::Result<Command> {
    program("nginx", "-v", "usr/sbin/nginx", "a gateway in front of feeds")
}
