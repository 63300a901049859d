//! kcat, which reads records back.

use std::process::Command;

use super::debian::program;

/// A command that runs kcat.
///
/// # Errors
/// When there is none; the line that installs it is named.
pub fn kcat() -> anyhow::Result<Command> {
    program("kcat", "-V", "usr/bin/kcat", "which reads records back")
}
