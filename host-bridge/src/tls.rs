//! TLS towards gateways: the bridge's certificate, and the authority of theirs.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::config::ListenTls;
use crate::watched::{self, Watched};

/// The TLS configuration of listeners, which follows its files.
pub(crate) type ServerTls = Watched<ServerConfig>;

/// Reads the files that the configuration names.
///
/// # Errors
/// Which file cannot be used, and why.
pub(crate) fn load(tls: &ListenTls) -> Result<ServerTls, String> {
    let mut paths = vec![tls.certificate_file.clone(), tls.key_file.clone()];
    paths.extend(tls.client_ca_file.clone());
    let tls = tls.clone();
    Watched::new(paths, move || server_config(&tls))
}

fn server_config(tls: &ListenTls) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = tls.client_ca_file.as_ref().map(|path| verifier(path, &provider)).transpose()?;
    let chain = certificates(&tls.certificate_file)?;
    let key = PrivateKeyDer::from_pem_slice(&watched::read(&tls.key_file)?)
        .map_err(|error| format!("{}: {error}", tls.key_file.display()))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("{}: {error}", tls.certificate_file.display()))?;
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
        roots.add(certificate).map_err(|error| named(&error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| named(&error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = watched::read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| format!("{}: {error}", path.display()))?;
    match all.is_empty() {
        true => Err(format!("{}: there is no certificate in it", path.display())),
        false => Ok(all),
    }
}
