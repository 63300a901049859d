//! What went wrong in TLS, in words that say what to change.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::TlsFileError;

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

/// A failure of the handshake with `host`.
pub(super) fn at_handshake(error: &io::Error, host: &str) -> TlsError {
    match tls(error) {
        Some(Error::InvalidCertificate(what)) => TlsError::Refused(certificate(what, host)),
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
        other => TlsError::Other(other.to_string()),
    }
}

fn certificate(what: &CertificateError, host: &str) -> String {
    match what {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!(
                "the broker's certificate names no host (a common name does not count), so it is \
                 not for `{host}`; give it a subject alternative name, or switch the check off \
                 (ssl.endpoint.identification.algorithm=)"
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the broker's certificate is for {}, not for `{host}`; use such a name in \
             bootstrap.servers and advertised.listeners, or switch the check off \
             (ssl.endpoint.identification.algorithm=)",
            presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ")
        ),
        CertificateError::UnknownIssuer => {
            "the broker's certificate was issued by nobody whom we trust; is its issuer in \
             ssl.truststore.*?"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "the broker's certificate names an issuer whom we trust, but was signed with another \
             key; is the issuer in ssl.truststore.* the present one?"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            format!(
                "the broker's certificate, or its issuer's, expired {days} days ago; or is the clock wrong?"
            )
        }
        CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate, or its issuer's, is not valid yet; is the clock right?"
                .to_owned()
        }
        other => format!("the broker's certificate cannot be used: {other}"),
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
