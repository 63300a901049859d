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
