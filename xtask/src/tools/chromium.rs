//! Chromium without a window, whose `EventSource` reads feeds.

use std::process::Command;

use super::debian::program;

/// A command that runs Chromium's headless shell.
///
/// # Errors
/// When there is none; the line that installs it is named.
pub fn chromium() -> anyhow::Result<Command> {
    let name = "chromium-headless-shell";
    program(name, "--version", "usr/lib/chromium/chromium-headless-shell", "a browser")
}
