//! Where credentials come from that no configuration holds: token endpoints and AWS.

mod aws;
pub(crate) mod oauth;
pub(crate) mod token;

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use kafka_client::{Client, Config, CredentialSource, Source};

use crate::http_client::HttpLimits;

/// A client that asks there for what its configuration leaves open.
pub(crate) fn client(config: Config) -> Client {
    match config.cluster.credential_source() {
        None => Client::new(config),
        Some(source) => Client::with_credentials(config, asked_at(source)),
    }
}

fn asked_at(source: Source) -> Arc<dyn CredentialSource> {
    match source {
        Source::OAuth(client) => Arc::new(oauth::TokenEndpoint::new(client)),
        Source::Aws(client) => Arc::new(aws::Aws::new(client)),
    }
}

/// A header that is not shown.
pub(crate) fn sensitive(value: String) -> Result<HeaderValue, ()> {
    let mut value = HeaderValue::try_from(value).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a server says, made fit to be shown: bounded, and without control characters.
pub(crate) fn quotable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(QUOTED_CHARS).map(clean).collect()
}

/// Characters of a server's message that are shown.
const QUOTED_CHARS: usize = 200;
/// A token with many claims has a few KiB.
const LIMITS: HttpLimits = HttpLimits {
    connect: Duration::from_secs(5),
    whole: Duration::from_secs(10),
    answer_bytes: 64 * 1024,
};
