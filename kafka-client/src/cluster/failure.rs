//! Why there is no connection to a broker, and which stage of the way failed.

use crate::error::Cause;
use crate::handshake::HandshakeError;
use crate::resolve::Endpoint;
use crate::sasl::SaslFault;
use crate::stage::Stage;
use crate::tls::TlsError;

/// Why there is no connection, with the address that was tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("broker {0} is not in the metadata")]
    Unlisted(i32),
    #[error("{endpoint}: {error}")]
    Unreachable { endpoint: Endpoint, error: DialError },
    #[error("{endpoint}, the advertised address of broker {id} according to {named_by}: {error}")]
    AdvertisedUnreachable { id: i32, endpoint: Endpoint, named_by: Endpoint, error: DialError },
    #[error("broker {id} advertises `{address}` according to {named_by}: {NO_ADDRESS}")]
    NoAddress { id: i32, address: String, named_by: Endpoint },
    #[error("{endpoint}: {error}")]
    Tls { endpoint: Endpoint, error: TlsError },
    #[error("{endpoint}: {error}")]
    Handshake { endpoint: Endpoint, error: HandshakeError },
    #[error("{endpoint} {cause}")]
    Stranger { endpoint: Endpoint, cause: Cause },
}

/// Why there is no stream to a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the host name has no address: {0}; does the name server here know it?")]
    Name(String),
    #[error(
        "no TCP connection: {0}; does a broker listen there, and is the network path to it open?"
    )]
    Tcp(String),
}

/// What to do about an address that is none.
const NO_ADDRESS: &str = "that is no host and port; what does its advertised.listeners say?";

impl ConnectError {
    pub(crate) fn cause(&self) -> Cause {
        self.to_string().into()
    }

    /// What went wrong, for whoever knows the broker.
    pub(crate) fn what(&self) -> Cause {
        let told = match self {
            Self::Unlisted(_) => self.to_string(),
            Self::Unreachable { error, .. } => error.to_string(),
            Self::AdvertisedUnreachable { named_by, error, .. } => {
                format!("{error} The address was advertised by {named_by}")
            }
            Self::NoAddress { id, address, named_by } => format!(
                "broker {id} advertises `{address}`: {NO_ADDRESS} The address was advertised by \
                 {named_by}"
            ),
            Self::Tls { error, .. } => error.to_string(),
            Self::Handshake { error, .. } => error.to_string(),
            Self::Stranger { cause, .. } => format!("it {cause}"),
        };
        told.into()
    }

    pub(crate) fn stage(&self) -> Stage {
        match self {
            Self::Unlisted(_) | Self::NoAddress { .. } => Stage::Name,
            Self::Unreachable { error, .. } | Self::AdvertisedUnreachable { error, .. } => {
                match error {
                    DialError::Name(_) => Stage::Name,
                    DialError::Tcp(_) => Stage::Tcp,
                }
            }
            Self::Tls { .. } => Stage::Tls,
            Self::Stranger { .. } => Stage::Handshake,
            Self::Handshake { error, .. } => match error {
                HandshakeError::Tls(_) => Stage::Tls,
                HandshakeError::ClosedAtLogin(_) => Stage::Credential,
                HandshakeError::ClosedWithoutLogin
                | HandshakeError::Sasl(SaslFault::NoSuchMechanism { .. } | SaslFault::NotWanted) => {
                    Stage::Mechanism
                }
                HandshakeError::Sasl(_) => Stage::Credential,
                _ => Stage::Handshake,
            },
        }
    }

    /// Whether nobody was asked, because there was no credential to show.
    pub(crate) fn is_before_the_way(&self) -> bool {
        let Self::Handshake { error: HandshakeError::Sasl(fault), .. } = self else { return false };
        matches!(fault, SaslFault::NoCredential { .. })
    }
}
