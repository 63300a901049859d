//! What went wrong in TLS, in words that say what to change.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::TlsFileError;
use crate::config::HTTPS_CA;
use crate::sasl::quotable;

/// Why there is no TLS with a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsError {
    /// Our own files.
    #[error(transparent)]
    Files(#[from] TlsFileError),
    #[error("`{0}` is neither a host name nor an address that a certificate could be for")]
    NoName(String),
    #[error(
        "the listener closed the connection in the TLS handshake; does it speak TLS \
         (security.protocol), and does it want a client certificate (ssl.keystore.*)?"
    )]
    Closed,
    #[error("the listener does not speak TLS; does security.protocol fit?")]
    NotTls,
    #[error("no TLS handshake within {} ms; does the listener speak TLS (security.protocol)?", .0.as_millis())]
    Silent(std::time::Duration),
    /// The broker's certificate.
    #[error("{0}")]
    Refused(String),
    /// The broker does not want us.
    #[error("{0}")]
    Alert(String),
    #[error("{0}")]
    Other(String),
}

/// Who is at the other end, and which properties are about it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    Broker,
    /// A token endpoint, or a service of AWS.
    Https,
}

impl Peer {
    const fn certificate(self) -> &'static str {
        match self {
            Self::Broker => "the broker's certificate",
            Self::Https => "its certificate",
        }
    }

    const fn trust(self) -> &'static str {
        match self {
            Self::Broker => "ssl.truststore.*",
            Self::Https => HTTPS_CA,
        }
    }

    /// What to do about a certificate for another name.
    const fn naming(self) -> &'static str {
        match self {
            Self::Broker => {
                "use such a name in bootstrap.servers and advertised.listeners, or switch the \
                 check off (ssl.endpoint.identification.algorithm=)"
            }
            Self::Https => "use such a name in its address",
        }
    }

    const fn renaming(self) -> &'static str {
        match self {
            Self::Broker => {
                "give it a subject alternative name, or switch the check off \
                 (ssl.endpoint.identification.algorithm=)"
            }
            Self::Https => "give it a subject alternative name",
        }
    }
}

/// A failure of the handshake with `host`.
pub(super) fn at_handshake(error: &io::Error, host: &str, peer: Peer) -> TlsError {
    match tls(error) {
        Some(Error::InvalidCertificate(what)) => TlsError::Refused(certificate(what, host, peer)),
        Some(Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        )) => TlsError::Other("TLS: a message of the handshake is too large".to_owned()),
        Some(Error::InvalidMessage(_)) => TlsError::NotTls,
        Some(other) => other_failure(other),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => TlsError::Closed,
            _ => TlsError::Other(error.to_string()),
        },
    }
}

/// What a stream's failure says of TLS, if it does: with TLS 1.3 a broker refuses our certificate
/// only after the handshake.
pub(crate) fn explain(error: &io::Error) -> Option<TlsError> {
    tls(error).map(other_failure)
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn other_failure(error: &Error) -> TlsError {
    match error {
        Error::AlertReceived(alert) => TlsError::Alert(received(*alert)),
        Error::PeerIncompatible(_) => TlsError::Other(format!(
            "no version or cipher of TLS in common: {error}; see ssl.enabled.protocols, here and \
             at the broker"
        )),
        other => TlsError::Other(format!("TLS: {other}")),
    }
}

fn certificate(what: &CertificateError, host: &str, peer: Peer) -> String {
    let (whose, trust) = (peer.certificate(), peer.trust());
    match what {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!(
                "{whose} names no host (a common name does not count), so it is not for `{host}`; \
                 {}",
                peer.renaming()
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("{whose} is for {}, not for `{host}`; {}", listed(presented), peer.naming())
        }
        CertificateError::UnknownIssuer => {
            format!("{whose} was issued by nobody whom we trust; is its issuer in {trust}?")
        }
        CertificateError::BadSignature => format!(
            "{whose} names an issuer whom we trust, but was signed with another key; is the issuer \
             in {trust} the present one?"
        ),
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            format!("{whose}, or its issuer's, expired {days} days ago; or is the clock wrong?")
        }
        CertificateError::NotValidYetContext { .. } => {
            format!("{whose}, or its issuer's, is not valid yet; is the clock right?")
        }
        other => format!("{whose} cannot be used: {other}"),
    }
}

/// The first of a certificate's names; some have thousands.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES).map(|name| quotable(bare(name)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The library says `DnsName("a.b")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn received(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::CertificateRequired => {
            "it wants a client certificate; set ssl.keystore.*"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::UnsupportedCertificate => {
            "it wants a client certificate that it trusts; is ssl.keystore.* set, and its issuer \
             in the broker's truststore?"
        }
        AlertDescription::CertificateExpired | AlertDescription::CertificateRevoked => {
            "our certificate (ssl.keystore.*) has expired or is revoked"
        }
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
            "there is no version or cipher of TLS in common, or it misses a client certificate; \
             see ssl.enabled.protocols and ssl.keystore.*"
        }
        AlertDescription::UnrecognisedName => "it does not know the host name (SNI)",
        _ => "see the broker's log",
    };
    format!("the broker ended TLS with {alert:?}: {why}")
}

/// Names of a certificate that are shown.
const NAMES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_with_thousands_of_names_is_told_in_one_line() {
        let names: Vec<_> = (0..3000).map(|n| format!("DnsName(\"b-{n}.example.com\")")).collect();
        let told = listed(&names);
        assert!(told.starts_with("b-0.example.com, b-1.example.com, "), "{told}");
        assert!(told.ends_with("b-9.example.com and 2990 more"), "{told}");
        assert_eq!(listed(&names[..1]), "b-0.example.com");
    }
}
