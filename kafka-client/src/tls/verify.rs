//! Whether a broker's certificate is one that we accept.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::explain::{self, TlsError};

/// The certificates of a truststore.
pub(super) struct Trusted {
    anchors: RootCertStore,
    /// As they are, for brokers that show one of them as their own.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Trusted {
    /// These, each of which must be one.
    pub(super) fn only(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut anchors = RootCertStore::empty();
        for (place, certificate) in certificates.iter().enumerate() {
            anchors.add(certificate.clone()).map_err(|error| {
                let fault = explain::unusable(&error);
                format!("certificate {} of {} {fault}", place + 1, certificates.len())
            })?;
        }
        Ok(Self { anchors, certificates })
    }

    /// Those that can be used; systems have one or the other that cannot. `None` without any.
    pub(super) fn whatever_works(certificates: Vec<CertificateDer<'static>>) -> Option<Self> {
        let mut anchors = RootCertStore::empty();
        let (used, _) = anchors.add_parsable_certificates(certificates);
        (used > 0).then_some(Self { anchors, certificates: Vec::new() })
    }
}

/// Checks what `ssl.endpoint.identification.algorithm` and `enable.ssl.certificate.verification`
/// leave to be checked.
pub(super) struct Verifier {
    /// `None`: everyone.
    pub(super) trusted: Option<Trusted>,
    pub(super) names: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(shown)?;
        if trusted.certificates.iter().any(|trusted| trusted == shown) {
            // A broker's own certificate in the truststore, as many make it with `openssl req
            // -x509`: no issuer's, so there is no path to it, but Java takes it, too.
            check_dates(shown, now)?;
        } else {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &trusted.anchors,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.names {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // That the broker has the certificate's key is worth nothing where everyone's certificate will
    // do, and cannot be checked with those that our libraries cannot read or whose key is too short.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.trusted.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.trusted.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (begin, end) = validity(certificate).ok_or(CertificateError::BadEncoding)?;
    let time = |at: SystemTime| {
        UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    };
    let (not_before, not_after) = (time(begin), time(end));
    if now < not_before {
        Err(CertificateError::NotValidYetContext { time: now, not_before }.into())
    } else if now > not_after {
        Err(CertificateError::ExpiredContext { time: now, not_after }.into())
    } else {
        Ok(())
    }
}

/// The earliest end of these; one that cannot be read is left out.
pub(super) fn earliest(certificates: &[CertificateDer<'_>]) -> Option<SystemTime> {
    certificates.iter().filter_map(|der| validity(der)).map(|(_, end)| end).min()
}

/// First and last moment of a certificate, at 1970 or later.
fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let time = |at: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(at.timestamp()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    Some((time(parsed.validity().not_before), time(parsed.validity().not_after)))
}

/// As it is checked against the certificate; a name also goes out as SNI, an address does not.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    // The zone of a link-local address is nobody's business but ours.
    let bare = host.split_once('%').map_or(host, |(address, _)| address);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::NoName(host.to_owned()))
}
