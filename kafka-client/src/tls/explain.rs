//! What went wrong in TLS, in words that say what to change.

use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::settings::HTTPS_CA;
use crate::error::quotable;

/// Why the files of a TLS configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFileError {
    /// The system does not give us a file.
    #[error("`{property}`: {path}: {what}")]
    Unreadable {
        /// The property that names it.
        property: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        what: String,
    },
    /// What a property names, or has in it, cannot be used.
    #[error("`{property}`: {what}")]
    Unusable {
        /// The property.
        property: &'static str,
        /// Why, and what would help.
        what: String,
    },
    /// There is no truststore, and the system has no roots.
    #[error("the system has no trusted roots: install them (ca-certificates), or set `{property}`")]
    NoSystemRoots {
        /// The property.
        property: &'static str,
    },
    /// The thread that read them ended early.
    #[error("reading the files was interrupted")]
    Cancelled,
}

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
        Some(other) => other_failure(other, peer),
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
    tls(error).map(|error| other_failure(error, Peer::Broker))
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn other_failure(error: &Error, peer: Peer) -> TlsError {
    TlsError::Other(match (error, peer) {
        (Error::AlertReceived(alert), Peer::Broker) => return TlsError::Alert(received(*alert)),
        (Error::AlertReceived(alert), Peer::Https) => format!("it ended TLS ({})", words(alert)),
        (Error::PeerIncompatible(why), Peer::Broker) => format!(
            "no version or cipher of TLS in common ({}); see ssl.enabled.protocols, here and at \
             the broker",
            words(why)
        ),
        (Error::PeerIncompatible(why), Peer::Https) => {
            format!("no version or cipher of TLS in common ({})", words(why))
        }
        (Error::PeerMisbehaved(why), _) => {
            format!(
                "what answers breaks the rules of TLS ({}); is it the right server?",
                words(why)
            )
        }
        (Error::InvalidMessage(why), _) => {
            format!("a message is not TLS, or was damaged on its way ({})", words(why))
        }
        (Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. }, _) => {
            "a message of TLS came out of turn; is it the right server?".to_owned()
        }
        (other @ Error::InvalidCertificate(_), _) => {
            format!("{} {}", peer.certificate(), unusable(other))
        }
        (other, _) => format!("TLS: {other}"),
    })
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
            "{whose} names an issuer whom we trust, but was signed with another key, or an RSA key \
             has fewer than 2048 bits; is the issuer in {trust} the present one?"
        ),
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            format!("{whose}, or its issuer's, expired {days} days ago; or is the clock wrong?")
        }
        CertificateError::NotValidYetContext { .. } => {
            format!("{whose}, or its issuer's, is not valid yet; is the clock right?")
        }
        CertificateError::Other(why) if why.to_string() == OLD_VERSION => format!(
            "{whose}, or its issuer's, {}, with `{host}` as a subject alternative name",
            flaw(what)
        ),
        CertificateError::Other(why) if why.to_string() == ISSUERS_OWN => {
            format!("{whose} {}, or put it itself into {trust}", flaw(what))
        }
        other => format!("{whose}, or its issuer's, {}", flaw(other)),
    }
}

/// What is wrong with a certificate, to be said after "the certificate".
pub(super) fn unusable(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(what) => flaw(what),
        other => format!("cannot be used: {other}"),
    }
}

fn flaw(what: &CertificateError) -> String {
    match what {
        CertificateError::BadEncoding => "is no well-formed certificate: reissue it".to_owned(),
        CertificateError::UnhandledCriticalExtension => {
            "has a critical extension that is not known here: reissue it without".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is no longer accepted (SHA-1, for one): reissue it with \
             SHA-256 and RSA of 2048 bits or more, ECDSA or Ed25519"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for servers: reissue it with extendedKeyUsage=serverAuth".to_owned()
        }
        CertificateError::Other(why) => match why.to_string().as_str() {
            OLD_VERSION => "is of X.509 version 1 or 2, in which nothing says what it is for: \
                reissue it as version 3 (openssl x509 -req with -extfile, or keytool -gencert)"
                .to_owned(),
            ISSUERS_OWN => "is one for issuers (CA:TRUE): reissue it with \
                basicConstraints=CA:FALSE"
                .to_owned(),
            other => format!("cannot be used ({}): reissue it", words(&format_args!("{other}"))),
        },
        other => format!("cannot be used ({}): reissue it", words(other)),
    }
}

/// The library shows many errors by their names in its source: here as words.
fn words(error: &impl fmt::Debug) -> String {
    let (name, mut words, mut last) = (format!("{error:?}"), String::new(), 'A');
    for letter in name.chars().take_while(|letter| letter.is_alphanumeric()) {
        if letter.is_uppercase() && !last.is_uppercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
        last = letter;
    }
    words
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
    format!("the broker ended TLS ({}): {why}", words(&alert))
}

/// How the library names a certificate that is not of version 3.
const OLD_VERSION: &str = "UnsupportedCertVersion";
/// How it names an issuer's certificate that is shown as a server's.
const ISSUERS_OWN: &str = "CaUsedAsEndEntity";

/// Names of a certificate that are shown.
const NAMES: usize = 10;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ContentType, OtherError, PeerIncompatible, PeerMisbehaved};

    use super::*;

    #[test]
    fn a_certificate_with_thousands_of_names_is_told_in_one_line() {
        let names: Vec<_> = (0..3000).map(|n| format!("DnsName(\"b-{n}.example.com\")")).collect();
        let told = listed(&names);
        assert!(told.starts_with("b-0.example.com, b-1.example.com, "), "{told}");
        assert!(told.ends_with("b-9.example.com and 2990 more"), "{told}");
        assert_eq!(listed(&names[..1]), "b-0.example.com");
    }

    /// Words of a text, without what is written so on purpose, that look like names in a source.
    fn names_of_a_source(text: &str) -> Vec<&str> {
        let known = ["extendedKeyUsage", "basicConstraints", "serverAuth"];
        text.split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| !known.contains(word))
            .filter(|word| {
                let pairs = word.chars().zip(word.chars().skip(1));
                pairs.into_iter().any(|(a, b)| a.is_lowercase() && b.is_uppercase())
            })
            .collect()
    }

    #[test]
    fn no_text_of_the_library_is_shown_by_the_names_of_its_source() {
        let other = |why: &'static str| {
            CertificateError::Other(OtherError(Arc::new(io::Error::other(why))))
        };
        let certificates = [
            CertificateError::BadEncoding,
            CertificateError::Revoked,
            CertificateError::UnhandledCriticalExtension,
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
            CertificateError::InvalidPurpose,
            CertificateError::ApplicationVerificationFailure,
            other(OLD_VERSION),
            other(ISSUERS_OWN),
            other("PathLenConstraintViolated"),
        ];
        let faults = [
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            Error::PeerMisbehaved(PeerMisbehaved::TooManyWarningAlertsReceived),
            Error::InvalidMessage(InvalidMessage::MessageTooLarge),
            Error::InappropriateMessage {
                expect_types: vec![ContentType::Handshake],
                got_type: ContentType::ChangeCipherSpec,
            },
            Error::AlertReceived(AlertDescription::UnknownCA),
            Error::DecryptError,
            Error::PeerSentOversizedRecord,
        ];
        for fault in certificates.map(Error::InvalidCertificate).into_iter().chain(faults) {
            for peer in [Peer::Broker, Peer::Https] {
                let error = io::Error::new(io::ErrorKind::InvalidData, fault.clone());
                for told in [at_handshake(&error, "kafka.test", peer), other_failure(&fault, peer)]
                {
                    let told = told.to_string();
                    assert_eq!(names_of_a_source(&told), [""; 0], "{told}");
                }
            }
        }
        assert_eq!(words(&AlertDescription::UnknownCA), "unknown ca");
    }
}
