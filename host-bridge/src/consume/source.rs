//! Where a feed is read: a cluster, by its own credential or by one that came with the request.

use kafka_client::Secret;
use ring::digest::{SHA256, digest};

/// Whose records are read, and by whose right: what differs in either shares nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) cluster: String,
    /// The hash of a credential that came with the request; none means the cluster's own.
    pub(crate) credential: Option<[u8; 32]>,
}

impl Source {
    /// A cluster by its own credential.
    pub(crate) fn of(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), credential: None }
    }

    pub(super) fn new(cluster: &str, token: Option<&Secret>) -> Self {
        let hash = |token: &Secret| {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest(&SHA256, token.expose().as_bytes()).as_ref());
            hash
        };
        Self { cluster: cluster.to_owned(), credential: token.map(hash) }
    }
}
