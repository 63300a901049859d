//! What a client of APISIX's pubsub needs in Python, from PyPI.

use std::path::PathBuf;

use super::install::install;
use super::wheels;

const WHEELS: &str = "\
protobuf==7.36.2 --hash=sha256:bdb3a345d48db958e6ce1f18e508beb0cc981d64f24088427549c866cd039f1e
websocket-client==1.9.2 \
--hash=sha256:e1a673830a9c7bfa47b1cd3d5e4178f4c9651d80a4eab02c9c23a1c3ec6250ce
";

/// The folder from which Python imports `websocket` and `google.protobuf`.
///
/// # Errors
/// When Python or pip is missing, or the download fails.
pub fn pubsub_client() -> anyhow::Result<PathBuf> {
    let what = "fetching protobuf 7.36.2 and websocket-client 1.9.2 from PyPI";
    install("pubsub-client-7.36.2-1.9.2", what, |dir| wheels(WHEELS, dir))
}
