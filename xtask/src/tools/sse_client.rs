//! A client of Server-Sent Events for Python, from PyPI.

use std::path::PathBuf;

use super::install::install;
use super::wheels;

/// LaunchDarkly's client, which comes back by itself, and what it needs.
const WHEELS: &str = "\
launchdarkly-eventsource==1.7.4 \
--hash=sha256:42bbaee1741675199be193d99229ecb710a94089e74fc68b8c4edb90cddbdc5e
urllib3==2.8.0 --hash=sha256:0cf3cae568d36aa9576b28dfb35f11328f1cb974ca7647d9475ebb86c75ac6e3
";

/// The folder from which Python imports `ld_eventsource`.
///
/// # Errors
/// When Python or pip is missing, or the download fails.
pub fn sse_client() -> anyhow::Result<PathBuf> {
    let what = "fetching launchdarkly-eventsource 1.7.4 from PyPI";
    install("launchdarkly-eventsource-1.7.4", what, |dir| wheels(WHEELS, dir))
}
