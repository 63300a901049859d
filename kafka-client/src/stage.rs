//! The stages of a connection to a broker: which one failed is what an operator asks first.

use std::fmt;
use std::time::Duration;

use crate::error::Cause;

/// One stage, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The host's name becomes an address.
    Name,
    /// A connection to one of its addresses.
    Tcp,
    /// TLS on it, with the certificates of both sides.
    Tls,
    /// The listener speaks Kafka's protocol, in a version that we speak too.
    Handshake,
    /// The listener has the SASL mechanism that is configured.
    Mechanism,
    /// There is a credential, and the broker takes it.
    Credential,
    /// Who we are may do what a producer does.
    Authorization,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Name,
        Self::Tcp,
        Self::Tls,
        Self::Handshake,
        Self::Mechanism,
        Self::Credential,
        Self::Authorization,
    ];

    /// The stage in a word of lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Mechanism => "mechanism",
            Self::Credential => "credential",
            Self::Authorization => "authorization",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with the connection to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionFailure {
    /// The broker's `host:port`; nothing if it is the whole cluster's.
    pub server: Option<String>,
    /// The stage that failed.
    pub stage: Stage,
    /// What happened and what to change; never a secret.
    pub cause: Cause,
    /// For how long that has been so.
    pub lasts: Duration,
}
