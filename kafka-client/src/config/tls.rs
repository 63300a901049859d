//! The `ssl.*` properties: whom we trust, who we are, and what is checked.

use std::path::PathBuf;

use super::property::{BOOLEANS, Property, PropertyError};
use crate::secret::{Secret, SecretSource};
use crate::tls::{
    CHAIN, ClientCertificate, KEY, KEY_PASSWORD, KEYSTORE, KEYSTORE_PASSWORD, TRUSTED, TRUSTSTORE,
    TRUSTSTORE_PASSWORD, TlsChecks, TlsConfig, TlsTrust, TlsVersions,
};

pub(super) const VERIFICATION: &str = "enable.ssl.certificate.verification";
pub(super) const IDENTIFICATION: &str = "ssl.endpoint.identification.algorithm";
pub(super) const PROTOCOLS: &str = "ssl.enabled.protocols";
pub(super) const TRUSTSTORE_TYPE: &str = "ssl.truststore.type";
pub(super) const KEYSTORE_TYPE: &str = "ssl.keystore.type";
pub(super) const TRUSTSTORE_PASSWORD_FILE: &str = "ssl.truststore.password.file";
pub(super) const TRUSTED_FILE: &str = "ssl.truststore.certificates.file";
pub(super) const KEYSTORE_PASSWORD_FILE: &str = "ssl.keystore.password.file";
pub(super) const KEY_FILE: &str = "ssl.keystore.key.file";
pub(super) const CHAIN_FILE: &str = "ssl.keystore.certificate.chain.file";
pub(super) const KEY_PASSWORD_FILE: &str = "ssl.key.password.file";

/// What is said of TLS, before it is known whether it makes sense together.
#[derive(Default)]
pub(super) struct TlsProperties {
    truststore: Option<PathBuf>,
    truststore_password: Option<SecretSource>,
    trusted: Option<SecretSource>,
    keystore: Option<PathBuf>,
    keystore_password: Option<SecretSource>,
    key: Option<SecretSource>,
    chain: Option<SecretSource>,
    key_password: Option<SecretSource>,
    versions: TlsVersions,
    is_unverified: bool,
    is_unidentified: bool,
}

impl TlsProperties {
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
            VERIFICATION => self.is_unverified = !property.choice(BOOLEANS)?,
            IDENTIFICATION => self.is_unidentified = !identifies(property)?,
            // What a store is, it says itself: Java, too, reads PKCS12 as JKS and JKS as PKCS12.
            _ => property.choice(&[("JKS", ()), ("PKCS12", ()), ("PEM", ())])?,
        }
        Ok(())
    }

    pub(super) fn check(self) -> Result<TlsConfig, PropertyError> {
        let excludes = |name, other| Err(PropertyError::Excludes { name, other });
        let needs = |name, other| Err(PropertyError::Needs { name, other });
        let trust = match (self.truststore, self.trusted) {
            (Some(_), Some(_)) => return excludes(TRUSTSTORE, TRUSTED),
            (Some(path), None) => TlsTrust::Store { path, password: self.truststore_password },
            (None, Some(pem)) => TlsTrust::Pem(pem),
            (None, None) => TlsTrust::System,
        };
        let key_password = self.key_password;
        let certificate = match (self.keystore, self.key, self.chain) {
            (Some(_), Some(_), _) => return excludes(KEYSTORE, KEY),
            (Some(_), None, Some(_)) => return excludes(KEYSTORE, CHAIN),
            (Some(path), None, None) => {
                let password = self.keystore_password;
                Some(ClientCertificate::Store { path, password, key_password })
            }
            (None, Some(key), Some(chain)) => {
                Some(ClientCertificate::Pem { key, chain, key_password })
            }
            (None, Some(_), None) => return needs(KEY, CHAIN),
            (None, None, Some(_)) => return needs(CHAIN, KEY),
            (None, None, None) => None,
        };
        let checks = match (self.is_unverified, self.is_unidentified) {
            (false, false) => TlsChecks::All,
            (false, true) => TlsChecks::Issuer,
            (true, _) => TlsChecks::Nothing,
        };
        Ok(TlsConfig { trust, certificate, versions: self.versions, checks })
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

    fn with(properties: &[(&str, &str)]) -> Result<TlsConfig, String> {
        let first = [("bootstrap.servers", "a:1"), ("security.protocol", "SSL")];
        let config = Config::from_properties(first.into_iter().chain(properties.iter().copied()));
        config.map(|config| config.cluster.tls).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_checked_is_all_unless_it_is_switched_off() {
        assert_eq!(with(&[]).unwrap().checks, TlsChecks::All);
        assert_eq!(with(&[(IDENTIFICATION, "")]).unwrap().checks, TlsChecks::Issuer);
        assert_eq!(with(&[(VERIFICATION, "false")]).unwrap().checks, TlsChecks::Nothing);
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
        let settings =
            with(&[(KEYSTORE, "/a"), (KEYSTORE_PASSWORD, "hunter2"), (KEY_PASSWORD, "hunter3")])
                .unwrap();
        assert!(!format!("{settings:?}").contains("hunter"));
        for (name, value) in [(KEY_PASSWORD, "hunter2\n3"), (KEY, "hunter2")] {
            let error = with(&[(name, value)]).unwrap_err();
            assert!(!error.contains("hunter2") && error.contains(name), "{error}");
        }
        let with_key = |password| with(&[(KEYSTORE, "/a"), (KEY_PASSWORD, password)]);
        assert_ne!(with_key("a"), with_key("b"));
    }

    #[test]
    fn a_password_keeps_its_spaces() {
        let settings = with(&[(KEYSTORE, "/a"), (KEY_PASSWORD, " a ")]).unwrap();
        let Some(ClientCertificate::Store { key_password, .. }) = settings.certificate else {
            panic!("there is a keystore")
        };
        assert_eq!(key_password, Some(SecretSource::Given(Secret::new(" a "))));
    }

    #[test]
    fn typed_settings_are_what_the_properties_say() {
        let pem = "-----BEGIN X-----";
        let given = |text| SecretSource::Given(Secret::new(text));
        let by_store = TlsConfig::default()
            .trust(TlsTrust::Store { path: "/t".into(), password: Some(given("a")) })
            .certificate(ClientCertificate::Store {
                path: "/k".into(),
                password: Some(SecretSource::File("/p".into())),
                key_password: Some(given("b")),
            })
            .checks(TlsChecks::Issuer);
        let properties = [
            (TRUSTSTORE, "/t"),
            (TRUSTSTORE_PASSWORD, "a"),
            (KEYSTORE, "/k"),
            (KEYSTORE_PASSWORD_FILE, "/p"),
            (KEY_PASSWORD, "b"),
            (IDENTIFICATION, ""),
        ];
        assert_eq!(with(&properties), Ok(by_store.clone()));
        let by_pem = TlsConfig::default()
            .trust(TlsTrust::Pem(given(pem)))
            .certificate(ClientCertificate::Pem {
                key: SecretSource::File("/k".into()),
                chain: given(pem),
                key_password: None,
            })
            .versions(TlsVersions::Only13);
        let properties = [(TRUSTED, pem), (KEY_FILE, "/k"), (CHAIN, pem), (PROTOCOLS, "TLSv1.3")];
        assert_eq!(with(&properties), Ok(by_pem));
        let all = [("bootstrap.servers", "a:1"), ("security.protocol", "SSL"), (TRUSTSTORE, "/t")];
        let read = Config::from_properties(all).unwrap().cluster;
        let trust = TlsTrust::Store { path: "/t".into(), password: None };
        let set = crate::ClusterConfig::new("a:1").unwrap().tls(TlsConfig::default().trust(trust));
        assert_eq!(set, read);
        let named = by_store.files().into_iter().map(|path| path.display().to_string());
        assert_eq!(named.collect::<Vec<_>>(), ["/t", "/k", "/p"]);
    }
}
