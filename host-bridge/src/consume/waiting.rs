//! What readers wait for before they come to a record.

use super::dead_letters::Writing;
use super::decoding::Lookup;

/// A record that is not decided on yet.
pub(crate) enum Waiting {
    /// It is being written to the dead-letter topic.
    DeadLetter(Writing),
    /// Its schema is being asked for.
    Schema(Lookup),
}

/// Who is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    DeadLetterTopic,
    Registry,
}

impl Waiting {
    pub(crate) fn waits_for(&self) -> WaitsFor {
        match self {
            Self::DeadLetter(_) => WaitsFor::DeadLetterTopic,
            Self::Schema(_) => WaitsFor::Registry,
        }
    }

    /// Whether readers may go on in the end: else it is to be tried again.
    pub(crate) async fn done(self) -> bool {
        match self {
            Self::DeadLetter(writing) => writing.done().await,
            Self::Schema(lookup) => lookup.done().await,
        }
    }
}
