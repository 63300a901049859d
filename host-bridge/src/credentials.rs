//! Where credentials come from that no configuration holds: token endpoints and AWS.

mod aws;
mod http;
mod oauth;

use std::sync::Arc;

use kafka_client::{Client, Config, CredentialSource, Source};

/// A client that asks there for what its configuration leaves open.
pub(crate) fn client(config: Config) -> Client {
    match config.credential_source() {
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
