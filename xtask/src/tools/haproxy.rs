//! HAProxy, a proxy in front of a capture route.

use std::process::Command;

use super::debian::program;

/// A command that runs HAProxy.
///
/// # Errors
/// When there is none; the line that installs it is named.
pub fn haproxy() -> anyhow::Result<Command> {
    program("haproxy", "-v", "usr/sbin/haproxy", "a proxy in front of a capture route")
}
