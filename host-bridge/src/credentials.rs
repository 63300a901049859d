//! Where credentials come from that no configuration holds: token endpoints and AWS.

mod aws;
mod http;
mod oauth;

use std::sync::Arc;

use kafka_client::{Config, CredentialSource, Source};

/// Who gives the credentials that a client's configuration leaves open; none if it leaves none.
pub(crate) fn source(config: &Config) -> Option<Arc<dyn CredentialSource>> {
    match config.credential_source()? {
        Source::OAuth(client) => Some(Arc::new(oauth::TokenEndpoint::new(client))),
        Source::Aws(client) => Some(Arc::new(aws::Aws::new(client))),
    }
}

/// What a server says, made fit to be shown: bounded, and without control characters.
fn quotable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(QUOTED_CHARS).map(clean).collect()
}

/// Characters of a server's message that are shown.
const QUOTED_CHARS: usize = 200;
