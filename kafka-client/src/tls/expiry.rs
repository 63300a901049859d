//! When certificates end, for whoever must renew them in time.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

/// The TLS configuration that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsStatus {
    /// When the client certificate ends, or the first of those that are sent with it.
    pub certificate_ends: Option<SystemTime>,
    /// When the first certificate of the truststore ends; none with the system's roots.
    pub truststore_ends: Option<SystemTime>,
    /// What is checked of a broker's certificate: `all`, `issuer` or `nothing`.
    pub checks: &'static str,
    /// What is wrong with the files now; then what was loaded before is in force.
    pub fault: Option<super::TlsFileError>,
}

/// The earliest end of these; one that cannot be read is left out.
pub(super) fn earliest(certificates: &[CertificateDer<'_>]) -> Option<SystemTime> {
    certificates.iter().filter_map(|der| validity(der)).map(|(_, end)| end).min()
}

/// First and last moment of a certificate, at 1970 or later.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let time = |at: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(at.timestamp()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    Some((time(parsed.validity().not_before), time(parsed.validity().not_after)))
}
