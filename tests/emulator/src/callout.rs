//! A callout as the bridge's side sees it, and the ways in which it can end.

use crate::abi::{self, Pair};
use crate::client::Reply;

/// A callout that the filter has dispatched.
#[derive(Debug, Clone)]
pub struct Callout {
    /// Its number within the host, in order of dispatch.
    pub id: usize,
    /// The VM that dispatched it.
    pub vm: usize,
    /// The context that gets its end.
    pub context: u32,
    /// Its token within the VM.
    pub token: u32,
    /// Where it goes.
    pub target: String,
    /// Headers with the pseudo-headers.
    pub headers: Vec<Pair>,
    /// Body.
    pub body: Vec<u8>,
    /// How long the filter waits, in ms.
    pub timeout_ms: u32,
    /// When it was dispatched, in ms.
    pub at_ms: u64,
}

impl Callout {
    /// The first value of a header as text; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        let value = abi::header(&self.headers, name).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }

    /// The request's path.
    #[must_use]
    pub fn path(&self) -> String {
        self.header(":path")
    }
}

/// How a callout ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A whole reply.
    Reply(Reply),
    /// Two replies to one request: the second is one too many.
    Duplicate(Reply),
    /// The connection is refused.
    Refused,
    /// The target's name does not resolve.
    Unresolvable,
    /// The connection closes after the request, without a reply.
    Closed,
    /// The connection is reset after the request.
    Reset,
    /// The reply ends after its headers.
    Cut(Reply),
    /// Nothing comes until the timeout.
    Stalled,
    /// The headers come, the body does not until the timeout.
    StalledAfterHeaders(Reply),
    /// The reply comes after the timeout.
    Late(Reply),
    /// What comes is no HTTP.
    Garbage,
    /// Envoy's circuit breaker refuses it.
    Overflow,
    /// Envoy has no healthy host for it.
    NoHost,
}

impl Ending {
    /// A 204, which has no body.
    #[must_use]
    pub fn no_content() -> Self {
        Self::Reply(Reply { status: 204, ..Reply::default() })
    }
}
