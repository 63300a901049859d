//! The `ssl.*` properties: whom we trust, who we are, and what is checked.

use std::path::PathBuf;

use super::property::{Property, PropertyError};
use crate::secret::{Secret, SecretSource};

pub(super) const VERIFICATION: &str = "enable.ssl.certificate.verification";
pub(super) const IDENTIFICATION: &str = "ssl.endpoint.identification.algorithm";
pub(super) const PROTOCOLS: &str = "ssl.enabled.protocols";
pub(super) const TRUSTSTORE_TYPE: &str = "ssl.truststore.type";
pub(super) const KEYSTORE_TYPE: &str = "ssl.keystore.type";
pub(crate) const TRUSTSTORE: &str = "ssl.truststore.location";
pub(crate) const TRUSTSTORE_PASSWORD: &str = "ssl.truststore.password";
pub(super) const TRUSTSTORE_PASSWORD_FILE: &str = "ssl.truststore.password.file";
pub(crate) const TRUSTED: &str = "ssl.truststore.certificates";
pub(super) const TRUSTED_FILE: &str = "ssl.truststore.certificates.file";
pub(crate) const KEYSTORE: &str = "ssl.keystore.location";
pub(crate) const KEYSTORE_PASSWORD: &str = "ssl.keystore.password";
pub(super) const KEYSTORE_PASSWORD_FILE: &str = "ssl.keystore.password.file";
pub(crate) const KEY: &str = "ssl.keystore.key";
pub(super) const KEY_FILE: &str = "ssl.keystore.key.file";
pub(crate) const CHAIN: &str = "ssl.keystore.certificate.chain";
pub(super) const CHAIN_FILE: &str = "ssl.keystore.certificate.chain.file";
pub(crate) const KEY_PASSWORD: &str = "ssl.key.password";
pub(super) const KEY_PASSWORD_FILE: &str = "ssl.key.password.file";
pub(crate) const HTTPS_CA: &str = "https.ca.location";
pub(crate) const HTTPS_CA_PEM: &str = "https.ca.pem";

/// TLS as configured; no file has been read. Part of what makes two clients the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TlsSettings {
    pub(crate) truststore: Option<PathBuf>,
    pub(crate) truststore_password: Option<SecretSource>,
    /// PEM.
    pub(crate) trusted: Option<SecretSource>,
    pub(crate) keystore: Option<PathBuf>,
    pub(crate) keystore_password: Option<SecretSource>,
    /// PEM.
    pub(crate) key: Option<SecretSource>,
    /// PEM, our own certificate first.
    pub(crate) chain: Option<SecretSource>,
    pub(crate) key_password: Option<SecretSource>,
    pub(crate) versions: TlsVersions,
    verifies: bool,
    identifies: bool,
}

/// What is checked of a broker's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checks {
    /// Who issued it, its dates, and that it is for the host that was dialled.
    All,
    /// Who issued it and its dates.
    Issuer,
    Nothing,
}

/// Versions of TLS that are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum TlsVersions {
    #[default]
    Both,
    Only12,
    Only13,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            truststore: None,
            truststore_password: None,
            trusted: None,
            keystore: None,
            keystore_password: None,
            key: None,
            chain: None,
            key_password: None,
            versions: TlsVersions::default(),
            verifies: true,
            identifies: true,
        }
    }
}

impl TlsSettings {
    pub(crate) fn checks(&self) -> Checks {
        match (self.verifies, self.identifies) {
            (true, true) => Checks::All,
            (true, false) => Checks::Issuer,
            (false, _) => Checks::Nothing,
        }
    }

    /// Every file that it names.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let stores = [&self.truststore, &self.keystore].into_iter().flatten();
        let secrets = [
            &self.truststore_password,
            &self.trusted,
            &self.keystore_password,
            &self.key,
            &self.chain,
            &self.key_password,
        ];
        stores
            .chain(secrets.into_iter().flatten().filter_map(SecretSource::path))
            .cloned()
            .collect()
    }

    pub(super) fn set(&mut self, property: Property<'_>) -> Result<(), PropertyError> {
        match property.name {
            TRUSTSTORE => self.truststore = Some(path(property)?),
            TRUSTSTORE_PASSWORD => self.truststore_password = Some(password(property)?),
            TRUSTSTORE_PASSWORD_FILE => self.truststore_password = Some(file(property)?),
            TRUSTED => self.trusted = Some(pem(property)?),
            TRUSTED_FILE => self.trusted = Some(file(property)?),
            KEYSTORE => self.keystore = Some(path(property)?),
            KEYSTORE_PASSWORD => self.keystore_password = Some(password(property)?),
            KEYSTORE_PASSWORD_FILE => self.keystore_password = Some(file(property)?),
            KEY => self.key = Some(pem(property)?),
            KEY_FILE => self.key = Some(file(property)?),
            CHAIN => self.chain = Some(pem(property)?),
            CHAIN_FILE => self.chain = Some(file(property)?),
            KEY_PASSWORD => self.key_password = Some(password(property)?),
            KEY_PASSWORD_FILE => self.key_password = Some(file(property)?),
            PROTOCOLS => self.versions = versions(property)?,
            VERIFICATION => self.verifies = property.choice(super::BOOLEANS)?,
            IDENTIFICATION => self.identifies = identifies(property)?,
            // What a store is, it says itself: Java, too, reads PKCS12 as JKS and JKS as PKCS12.
            _ => property.choice(&[("JKS", ()), ("PKCS12", ()), ("PEM", ())])?,
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), PropertyError> {
        let excludes = |name, other| Err(PropertyError::Excludes { name, other });
        let needs = |name, other| Err(PropertyError::Needs { name, other });
        if self.truststore.is_some() && self.trusted.is_some() {
            excludes(TRUSTSTORE, TRUSTED)
        } else if self.keystore.is_some() && self.key.is_some() {
            excludes(KEYSTORE, KEY)
        } else if self.keystore.is_some() && self.chain.is_some() {
            excludes(KEYSTORE, CHAIN)
        } else if self.key.is_some() && self.chain.is_none() {
            needs(KEY, CHAIN)
        } else if self.chain.is_some() && self.key.is_none() {
            needs(CHAIN, KEY)
        } else {
            Ok(())
        }
    }
}

fn path(property: Property<'_>) -> Result<PathBuf, PropertyError> {
    let fits = !property.value.is_empty() && !property.value.contains(char::is_control);
    fits.then(|| property.value.into()).ok_or_else(|| property.invalid("the path of a file".into()))
}

pub(super) fn file(property: Property<'_>) -> Result<SecretSource, PropertyError> {
    path(property).map(SecretSource::File)
}

fn password(property: Property<'_>) -> Result<SecretSource, PropertyError> {
    let fits = !property.value.contains(char::is_control);
    fits.then(|| SecretSource::Given(Secret::new(property.value)))
        .ok_or_else(|| property.invalid_secret("a text without control characters"))
}

pub(super) fn pem(property: Property<'_>) -> Result<SecretSource, PropertyError> {
    let fits = property.value.contains("-----BEGIN ");
    fits.then(|| SecretSource::Given(Secret::new(property.value)))
        .ok_or_else(|| property.invalid_secret("PEM (`-----BEGIN …`)"))
}

fn identifies(property: Property<'_>) -> Result<bool, PropertyError> {
    match property.value {
        "https" => Ok(true),
        "" => Ok(false),
        _ => Err(property.invalid("https, or empty for no check of the host name".into())),
    }
}

fn versions(property: Property<'_>) -> Result<TlsVersions, PropertyError> {
    let (mut has_12, mut has_13) = (false, false);
    for version in property.value.split(',').map(str::trim) {
        match version {
            "TLSv1.2" => has_12 = true,
            "TLSv1.3" => has_13 = true,
            "TLSv1" | "TLSv1.1" | "SSLv3" => {
                return Err(property.unsupported("nothing below TLSv1.2 is spoken"));
            }
            _ => return Err(property.invalid("TLSv1.2, TLSv1.3 or both, with a comma".into())),
        }
    }
    Ok(match (has_12, has_13) {
        (true, false) => TlsVersions::Only12,
        (false, true) => TlsVersions::Only13,
        _ => TlsVersions::Both,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn with(properties: &[(&str, &str)]) -> Result<TlsSettings, String> {
        let first = [("bootstrap.servers", "a:1"), ("security.protocol", "SSL")];
        let config = Config::from_properties(first.into_iter().chain(properties.iter().copied()));
        config.map(|config| config.cluster.tls).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_checked_is_all_unless_it_is_switched_off() {
        assert_eq!(with(&[]).unwrap().checks(), Checks::All);
        assert_eq!(with(&[(IDENTIFICATION, "")]).unwrap().checks(), Checks::Issuer);
        assert_eq!(with(&[(VERIFICATION, "false")]).unwrap().checks(), Checks::Nothing);
        assert!(with(&[(IDENTIFICATION, "none")]).is_err());
    }

    #[test]
    fn versions_below_1_2_are_refused() {
        assert_eq!(with(&[(PROTOCOLS, "TLSv1.2")]).unwrap().versions, TlsVersions::Only12);
        assert_eq!(with(&[(PROTOCOLS, "TLSv1.3")]).unwrap().versions, TlsVersions::Only13);
        assert_eq!(with(&[(PROTOCOLS, "TLSv1.3, TLSv1.2")]).unwrap().versions, TlsVersions::Both);
        let error = with(&[(PROTOCOLS, "TLSv1.2,TLSv1.1")]).unwrap_err();
        assert!(error.contains("nothing below TLSv1.2 is spoken"), "{error}");
    }

    #[test]
    fn what_contradicts_itself_or_lacks_its_other_half_is_named() {
        let pem = "-----BEGIN X-----";
        for (properties, error) in [
            (
                &[(TRUSTSTORE, "/a"), (TRUSTED, pem)][..],
                "`ssl.truststore.location` excludes `ssl.truststore.certificates`",
            ),
            (
                &[(KEYSTORE, "/a"), (KEY_FILE, "/b"), (CHAIN, pem)],
                "`ssl.keystore.location` excludes `ssl.keystore.key`",
            ),
            (&[(KEY, pem)], "`ssl.keystore.key` needs `ssl.keystore.certificate.chain`"),
            (&[(CHAIN, pem)], "`ssl.keystore.certificate.chain` needs `ssl.keystore.key`"),
        ] {
            assert_eq!(with(properties).unwrap_err(), error);
        }
    }

    #[test]
    fn neither_debug_nor_an_error_shows_a_secret() {
        let settings = with(&[(KEYSTORE_PASSWORD, "hunter2"), (KEY_PASSWORD, "hunter3")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter"));
        for (name, value) in [(KEY_PASSWORD, "hunter2\n3"), (KEY, "hunter2")] {
            let error = with(&[(name, value)]).unwrap_err();
            assert!(!error.contains("hunter2") && error.contains(name), "{error}");
        }
        assert_ne!(with(&[(KEY_PASSWORD, "a")]), with(&[(KEY_PASSWORD, "b")]));
    }

    #[test]
    fn a_password_keeps_its_spaces() {
        let settings = with(&[(KEY_PASSWORD, " a ")]).unwrap();
        assert_eq!(settings.key_password, Some(SecretSource::Given(Secret::new(" a "))));
    }
}
