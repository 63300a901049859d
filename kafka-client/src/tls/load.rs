//! Files and inline PEM become a TLS configuration, or an error that names the property.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, SupportedProtocolVersion};

use super::explain::{self, TlsFileError};
use super::settings::{
    CHAIN, ClientCertificate, KEY, KEY_PASSWORD, KEYSTORE, KEYSTORE_PASSWORD, TRUSTED, TRUSTSTORE,
    TRUSTSTORE_PASSWORD, TlsChecks, TlsConfig, TlsTrust, TlsVersions,
};
use super::store::{self, KeyAndChain, ec, pem};
use super::verify::{Trusted, Verifier, earliest};
use crate::files;
use crate::limits::STORE_BYTES;
use crate::secret::{Secret, SecretSource};

/// Reads all files and throws the result away: for a start that fails early.
pub(crate) fn check(settings: &TlsConfig) -> Result<(), TlsFileError> {
    load(settings).map(|_| ())
}

/// What the files make, and when it ends.
pub(super) struct Loaded {
    pub(super) config: Arc<ClientConfig>,
    pub(super) certificate_ends: Option<SystemTime>,
    pub(super) truststore_ends: Option<SystemTime>,
}

pub(super) fn load(settings: &TlsConfig) -> Result<Loaded, TlsFileError> {
    let versions: &[_] = match settings.versions {
        TlsVersions::Both => &[&TLS13, &TLS12],
        TlsVersions::Only12 => &[&TLS12],
        TlsVersions::Only13 => &[&TLS13],
    };
    let trusted = match settings.checks {
        TlsChecks::Nothing => None,
        TlsChecks::All | TlsChecks::Issuer => Some(trusted(settings)?),
    };
    let truststore_ends = trusted.as_ref().and_then(|trusted| earliest(&trusted.certificates));
    let builder = builder(trusted, settings.checks == TlsChecks::All, versions)?;
    let Some((property, identity)) = identity(settings)? else {
        let config = Arc::new(builder.with_no_client_auth());
        return Ok(Loaded { config, certificate_ends: None, truststore_ends });
    };
    let identity = ec::with_public_key(identity);
    let certificate_ends = earliest(&identity.chain);
    let config = builder.with_client_auth_cert(identity.chain, identity.key);
    let config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            unusable(property, "the private key does not belong to the certificate".into())
        }
        other @ rustls::Error::InvalidCertificate(_) => {
            unusable(property, format!("the certificate {}", explain::unusable(&other)))
        }
        other => unusable(property, format!("the private key cannot be used: {other}")),
    })?;
    Ok(Loaded { config: Arc::new(config), certificate_ends, truststore_ends })
}

/// A configuration but for who we are. `names`: whether the name of the host is checked.
pub(super) fn builder(
    trusted: Option<Trusted>,
    names: bool,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsFileError> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(Verifier { trusted, names, algorithms });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| unusable("ssl.enabled.protocols", error.to_string()))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// Whom we trust.
fn trusted(settings: &TlsConfig) -> Result<Trusted, TlsFileError> {
    match &settings.trust {
        TlsTrust::System => system_roots(TRUSTSTORE),
        TlsTrust::Pem(source) => authorities(TRUSTED, source),
        TlsTrust::Store { path, password } => {
            let bytes = read_store(TRUSTSTORE, path)?;
            let password = secret(TRUSTSTORE_PASSWORD, password.as_ref())?;
            only(TRUSTSTORE, store::trusted(&bytes, password.as_ref()))
        }
    }
}

/// Whom a PEM names.
pub(super) fn authorities(
    property: &'static str,
    source: &SecretSource,
) -> Result<Trusted, TlsFileError> {
    let text = read_secret(property, source)?;
    only(property, pem::certificates(text.expose().as_bytes()))
}

fn only(
    property: &'static str,
    certificates: Result<Vec<CertificateDer<'static>>, String>,
) -> Result<Trusted, TlsFileError> {
    let certificates = certificates.map_err(|what| unusable(property, what))?;
    if certificates.is_empty() {
        return Err(unusable(property, "there is no trusted certificate in it".into()));
    }
    Trusted::only(certificates).map_err(|what| unusable(property, what))
}

/// `property` is what says it otherwise.
pub(super) fn system_roots(property: &'static str) -> Result<Trusted, TlsFileError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "trusted_root_of_the_system_not_read");
    }
    Trusted::whatever_works(found.certs).ok_or(TlsFileError::NoSystemRoots { property })
}

/// Who we are, with the property to blame; `None` if nobody.
fn identity(settings: &TlsConfig) -> Result<Option<(&'static str, KeyAndChain)>, TlsFileError> {
    match &settings.certificate {
        None => Ok(None),
        Some(ClientCertificate::Store { path, password, key_password }) => {
            let key_password = secret(KEY_PASSWORD, key_password.as_ref())?;
            let bytes = read_store(KEYSTORE, path)?;
            let password = secret(KEYSTORE_PASSWORD, password.as_ref())?;
            let identity = store::identity(&bytes, password.as_ref(), key_password.as_ref());
            let identity = identity.map_err(|what| unusable(KEYSTORE, what))?;
            Ok(Some((KEYSTORE, identity)))
        }
        Some(ClientCertificate::Pem { key, chain, key_password }) => {
            let key_password = secret(KEY_PASSWORD, key_password.as_ref())?;
            let (key, chain) = (read_secret(KEY, key)?, read_secret(CHAIN, chain)?);
            let key = pem::private_key(key.expose().as_bytes(), key_password.as_ref())
                .map_err(|what| unusable(KEY, what))?;
            let chain = pem::certificates(chain.expose().as_bytes())
                .and_then(pem::at_least_one)
                .map_err(|what| unusable(CHAIN, what))?;
            Ok(Some((KEY, KeyAndChain { key, chain })))
        }
    }
}

fn read_store(property: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    files::read(path, STORE_BYTES).map_err(|error| unreadable(property, path, &error))
}

fn secret(
    property: &'static str,
    source: Option<&SecretSource>,
) -> Result<Option<Secret>, TlsFileError> {
    source.map(|source| read_secret(property, source)).transpose()
}

fn read_secret(property: &'static str, source: &SecretSource) -> Result<Secret, TlsFileError> {
    let path = source.path().map(|path| path.as_path()).unwrap_or(Path::new(""));
    source.read().map_err(|error| unreadable(property, path, &error))
}

fn unreadable(property: &'static str, path: &Path, error: &std::io::Error) -> TlsFileError {
    let (path, what) = (path.display().to_string(), error.to_string());
    TlsFileError::Unreadable { property, path, what }
}

fn unusable(property: &'static str, what: String) -> TlsFileError {
    TlsFileError::Unusable { property, what }
}
