//! What TLS towards brokers is configured to be, by values; errors name the property of each.

use std::path::PathBuf;

use crate::secret::SecretSource;

// What errors name; a value that was set by code has the same name there.
pub(crate) const TRUSTSTORE: &str = "ssl.truststore.location";
pub(crate) const TRUSTSTORE_PASSWORD: &str = "ssl.truststore.password";
pub(crate) const TRUSTED: &str = "ssl.truststore.certificates";
pub(crate) const KEYSTORE: &str = "ssl.keystore.location";
pub(crate) const KEYSTORE_PASSWORD: &str = "ssl.keystore.password";
pub(crate) const KEY: &str = "ssl.keystore.key";
pub(crate) const CHAIN: &str = "ssl.keystore.certificate.chain";
pub(crate) const KEY_PASSWORD: &str = "ssl.key.password";
pub(crate) const HTTPS_CA: &str = "https.ca.location";
pub(crate) const HTTPS_CA_PEM: &str = "https.ca.pem";

/// TLS towards brokers. The default trusts the system's roots, checks everything, and shows no
/// certificate. No file is read before a client needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsConfig {
    pub(crate) trust: TlsTrust,
    pub(crate) certificate: Option<ClientCertificate>,
    pub(crate) versions: TlsVersions,
    pub(crate) checks: TlsChecks,
}

/// Whose certificates brokers may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsTrust {
    /// Those whom the system trusts.
    #[default]
    System,
    /// Those in a truststore (`ssl.truststore.location`): JKS, PKCS12 or PEM, as its bytes say.
    Store {
        /// The file.
        path: PathBuf,
        /// `ssl.truststore.password`.
        password: Option<SecretSource>,
    },
    /// Those in a PEM (`ssl.truststore.certificates`).
    Pem(SecretSource),
}

/// The certificate that brokers are shown, with its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientCertificate {
    /// The one private key of a keystore (`ssl.keystore.location`): JKS, PKCS12 or PEM, as its bytes
    /// say.
    Store {
        /// The file.
        path: PathBuf,
        /// `ssl.keystore.password`.
        password: Option<SecretSource>,
        /// `ssl.key.password`, where the key has a password of its own.
        key_password: Option<SecretSource>,
    },
    /// PEM.
    Pem {
        /// `ssl.keystore.key`.
        key: SecretSource,
        /// `ssl.keystore.certificate.chain`, our own certificate first.
        chain: SecretSource,
        /// `ssl.key.password`.
        key_password: Option<SecretSource>,
    },
}

/// What is checked of a broker's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsChecks {
    /// Who issued it, its dates, and that it is for the host that was dialled.
    #[default]
    All,
    /// Who issued it and its dates (`ssl.endpoint.identification.algorithm=`).
    Issuer,
    /// Nothing, which makes TLS worth little (`enable.ssl.certificate.verification=false`).
    Nothing,
}

/// Versions of TLS that are offered (`ssl.enabled.protocols`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2.
    Only12,
    /// 1.3.
    Only13,
}

impl TlsConfig {
    /// Whose certificates brokers may have; the system's roots unless set.
    #[must_use]
    pub fn trust(mut self, trust: TlsTrust) -> Self {
        self.trust = trust;
        self
    }

    /// The certificate that brokers are shown; none unless set.
    #[must_use]
    pub fn certificate(mut self, certificate: ClientCertificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Versions that are offered; both unless set.
    #[must_use]
    pub fn versions(mut self, versions: TlsVersions) -> Self {
        self.versions = versions;
        self
    }

    /// What is checked of a broker's certificate; everything unless set.
    #[must_use]
    pub fn checks(mut self, checks: TlsChecks) -> Self {
        self.checks = checks;
        self
    }

    /// Every file that it names.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let (trust_store, trust_secret) = match &self.trust {
            TlsTrust::System => (None, None),
            TlsTrust::Store { path, password } => (Some(path), password.as_ref()),
            TlsTrust::Pem(pem) => (None, Some(pem)),
        };
        let (keystore, secrets) = match &self.certificate {
            None => (None, [None, None, None]),
            Some(ClientCertificate::Store { path, password, key_password }) => {
                (Some(path), [password.as_ref(), key_password.as_ref(), None])
            }
            Some(ClientCertificate::Pem { key, chain, key_password }) => {
                (None, [Some(key), Some(chain), key_password.as_ref()])
            }
        };
        let secrets = secrets.into_iter().chain([trust_secret]).flatten();
        let stores = [trust_store, keystore].into_iter().flatten();
        stores.chain(secrets.filter_map(SecretSource::path)).cloned().collect()
    }
}
