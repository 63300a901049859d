//! Caddy, a proxy in front of a capture route.

use std::process::Command;

use super::debian::program;

/// A command that runs Caddy.
///
/// # Errors
/// When there is none; the line that installs it is named.
pub fn caddy() -> anyhow::Result<Command> {
    program("caddy", "version", "usr/bin/caddy", "a proxy in front of a capture route")
}
