//! TLS towards gateways: the bridge's certificate, and the authority of theirs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, SignatureScheme,
};

use crate::config::ListenTls;
use crate::watched::{self, Watched};

/// The TLS configuration of listeners, which follows its files.
pub(crate) type ServerTls = Arc<Watched<ServerConfig>>;

/// Reads the files that the configuration names. With any `names`, a caller's certificate must be for
/// one of them.
///
/// # Errors
/// Which file cannot be used, and why.
pub(crate) fn load(tls: &ListenTls, names: &[ServerName<'static>]) -> Result<ServerTls, String> {
    let mut paths = vec![tls.certificate_file.clone(), tls.key_file.clone()];
    paths.extend(tls.client_ca_file.clone());
    let (tls, names) = (tls.clone(), names.to_vec());
    Watched::new(paths, move || server_config(&tls, &names))
}

pub(crate) fn server_config(
    tls: &ListenTls,
    names: &[ServerName<'static>],
) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = tls.client_ca_file.as_ref().map(|path| verifier(path, &provider)).transpose()?;
    let chain = certificates(&tls.certificate_file)?;
    let key = PrivateKeyDer::from_pem_slice(&watched::read(&tls.key_file)?)
        .map_err(|error| format!("{}: {}", tls.key_file.display(), unreadable(&error)))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match verifier {
        Some(verifier) if !names.is_empty() => {
            let names = names.to_vec();
            builder.with_client_cert_verifier(Arc::new(NamedCallers { verifier, names }))
        }
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("{}: {}", tls.certificate_file.display(), explain(&error)))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn verifier(
    path: &Path,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| named(&explain(&error)))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| named(&error))
}

/// Of the callers that another verifier lets in, those whose certificate has one of these names.
#[derive(Debug)]
struct NamedCallers {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ClientCertVerifier for NamedCallers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let is_for = |name| verify_server_name(&certificate, name).is_ok();
        let is_named = self.names.iter().any(is_for);
        is_named.then_some(verified).ok_or(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Why a handshake with a gateway failed.
pub(crate) fn refused(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.map_or_else(|| error.to_string(), explain)
}

/// The library says much by the names of its source alone.
fn explain(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate was issued by nobody whom client_ca_file names".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidForName) => {
            "the certificate has none of the names in gateway_names".to_owned()
        }
        Error::InvalidCertificate(_) => {
            "the certificate has expired, is damaged, for another purpose or not of X.509 version 3"
                .to_owned()
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => "the caller does not accept the certificate of certificate_file".to_owned(),
        Error::AlertReceived(_) => "the caller ended TLS".to_owned(),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            "the caller does not speak TLS".to_owned()
        }
        Error::PeerIncompatible(_) => "no version or cipher of TLS in common".to_owned(),
        Error::PeerMisbehaved(_) => "the caller breaks the rules of TLS".to_owned(),
        other => other.to_string(),
    }
}

fn unreadable(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => {
            "it is no whole PEM: a line that begins or ends a section is wrong or missing"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = watched::read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| format!("{}: {}", path.display(), unreadable(&error)))?;
    match all.is_empty() {
        true => Err(format!("{}: there is no certificate in it", path.display())),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_told_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let key = || rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["bridge".to_owned()]).unwrap();
        let certificate = params.self_signed(&key()).unwrap().pem();
        std::fs::write(path("own.crt"), &certificate).unwrap();
        std::fs::write(path("own.key"), key().serialize_pem()).unwrap();
        let told = |certificate_file| {
            let tls =
                ListenTls { certificate_file, key_file: path("own.key"), client_ca_file: None };
            server_config(&tls, &[]).unwrap_err()
        };
        let mismatch = told(path("own.crt"));
        assert!(mismatch.ends_with("own.crt: the key does not belong to the certificate"));
        std::fs::write(path("cut.crt"), certificate.split_once("-----END").unwrap().0).unwrap();
        let cut = told(path("cut.crt"));
        assert!(cut.contains("cut.crt: it is no whole PEM"), "{cut}");
    }

    #[tokio::test]
    async fn of_an_authoritys_certificates_only_those_with_a_name_are_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let params = |name: &str| rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let mut authority = params("authority");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap();
        std::fs::write(path("root.crt"), root.pem()).unwrap();
        let issuer = rcgen::Issuer::new(authority, key);
        let issued = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            (params(name).signed_by(&key, &issuer).unwrap(), key)
        };
        let (own, key) = issued("bridge");
        std::fs::write(path("own.crt"), own.pem()).unwrap();
        std::fs::write(path("own.key"), key.serialize_pem()).unwrap();
        let tls = ListenTls {
            certificate_file: path("own.crt"),
            key_file: path("own.key"),
            client_ca_file: Some(path("root.crt")),
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let names = ["gateway.test", "other.test"].map(|name| name.try_into().unwrap());
        for (names, caller, refusal) in [
            (&names[..], "gateway.test", None),
            (&names, "x.test", Some("the certificate has none of the names in gateway_names")),
            (&[], "x.test", None),
        ] {
            let config = Arc::new(server_config(&tls, names).unwrap());
            let (certificate, key) = issued(caller);
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let provider = Arc::new(ring::default_provider());
            let client = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .unwrap();
            let (near, far) = tokio::io::duplex(64 * 1024);
            let client = tokio_rustls::TlsConnector::from(Arc::new(client));
            let connecting = client.connect("bridge".try_into().unwrap(), near);
            let accepting = tokio_rustls::TlsAcceptor::from(config).accept(far);
            let (_, accepted) = tokio::join!(connecting, accepting);
            let refused_because = accepted.err().map(|error| refused(&error));
            assert_eq!(refused_because.as_deref(), refusal, "{caller}");
        }
    }
}
