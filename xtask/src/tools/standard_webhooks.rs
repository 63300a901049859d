//! What verifies signatures of Standard Webhooks in Python, from PyPI.

use std::path::PathBuf;

use super::install::install;
use super::wheels;

const WHEELS: &str = "\
standardwebhooks==1.1.0 --hash=sha256:9a88d48a1f198be61517fc7ad328cf58ba02b73f0fbd8941d4213e9c0b6c2a61
";

/// The folder from which Python imports `standardwebhooks`.
///
/// # Errors
/// When Python or pip is missing, or the download fails.
pub fn standard_webhooks() -> anyhow::Result<PathBuf> {
    let what = "fetching standardwebhooks 1.1.0 from PyPI";
    install("standardwebhooks-1.1.0", what, |dir| wheels(WHEELS, dir))
}
