//! An authority in memory, and the TLS servers that it vouches for.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Someone who issues certificates.
pub struct Issuer(CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    /// Makes one.
    ///
    /// # Errors
    /// When there is no key.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = params(name, 2020, 4000)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server with a certificate for `name`, valid from one year's beginning to another's.
    ///
    /// # Errors
    /// When there is no key.
    pub fn server(&self, name: &str, (from, to): (i32, i32)) -> anyhow::Result<TlsAcceptor> {
        let key = KeyPair::generate()?;
        let certificate = params(name, from, to)?.signed_by(&key, &self.0)?;
        acceptor(vec![certificate.der().clone()], &key)
    }

    /// A server that shows its certificate so many times over.
    ///
    /// # Errors
    /// When there is no key.
    pub fn verbose_server(&self, name: &str, times: usize) -> anyhow::Result<TlsAcceptor> {
        let key = KeyPair::generate()?;
        let certificate = params(name, 2020, 4000)?.signed_by(&key, &self.0)?;
        acceptor(vec![certificate.der().clone(); times], &key)
    }
}

/// A server whose certificate is its own issuer.
///
/// # Errors
/// When there is no key.
pub fn self_signed(name: &str) -> anyhow::Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let certificate = params(name, 2020, 4000)?.self_signed(&key)?;
    acceptor(vec![certificate.der().clone()], &key)
}

fn params(name: &str, from: i32, to: i32) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    Ok(params)
}

fn acceptor(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> anyhow::Result<TlsAcceptor> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).ok().context("a key in PKCS#8")?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
