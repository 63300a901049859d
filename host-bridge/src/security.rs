//! `security` of a profile: TLS as a filter asks for it, under what the bridge's configuration says.

use std::collections::BTreeMap;
use std::fmt;

use kafka_upstream_core::access::Security;

use crate::config::error::{ConfigError, field};

/// Kafka's properties by name.
pub(crate) type Properties = BTreeMap<String, String>;

/// What the bridge's configuration says of TLS beside its clusters.
#[derive(Clone, Default)]
pub struct Tls {
    /// Client certificates by the name that filters give as `certificate_id`.
    pub certificates: BTreeMap<String, Properties>,
    /// What holds for brokers that filters name by their addresses.
    pub inline: Properties,
}

impl fmt::Debug for Tls {
    /// The properties hold passwords and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = self.certificates.keys();
        f.debug_struct("Tls").field("certificates", &certificates).finish_non_exhaustive()
    }
}

/// Why a profile gets no TLS as it asks for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("security.certificate_id: `{0}` is not in the bridge's `certificates`")]
    UnknownCertificate(String),
    #[error("security.ssl: the bridge's cluster `{0}` is configured without TLS")]
    PlainCluster(String),
    #[error("security.ssl_verify: what is verified is for the bridge's cluster `{0}` to say")]
    VerifiedByCluster(String),
}

impl Refusal {
    /// The setting that could allow it.
    pub(crate) fn setting(&self) -> String {
        match self {
            Self::UnknownCertificate(id) => format!("certificates.{id}"),
            Self::PlainCluster(cluster) => format!("clusters.{cluster}.{PROTOCOL}"),
            Self::VerifiedByCluster(cluster) => format!("clusters.{cluster}.{VERIFICATION}"),
        }
    }
}

impl Tls {
    /// Refuses what could never work; reads the files.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// What could never work, one fault of each section; reads the files.
    pub(crate) fn faults(&self) -> Vec<ConfigError> {
        let is_key = |name: &str| name.starts_with("ssl.key");
        let is_tls = |name: &str| name.starts_with("ssl.") || name.starts_with("https.");
        let certificates = self.certificates.iter().map(|(id, properties)| {
            let section = format!("certificates.{id}");
            check(&section, properties, is_key, "ssl.keystore.* or ssl.key.*")
        });
        let inline = check("inline", &self.inline, is_tls, "ssl.* and https.*");
        certificates.chain([inline]).filter_map(Result::err).collect()
    }

    /// Adds what holds for brokers that a filter names by their addresses, and what it asks for.
    pub(crate) fn inline(
        &self,
        asked: Option<&Security>,
        properties: &mut Properties,
    ) -> Result<(), Refusal> {
        properties.extend(self.inline.clone());
        let Some(asked) = asked else { return Ok(()) };
        properties.insert(PROTOCOL.to_owned(), "SSL".to_owned());
        if asked.ssl_verify == Some(false) {
            properties.insert(VERIFICATION.to_owned(), "false".to_owned());
        }
        self.certificate(asked, properties)
    }

    /// Adds what a filter asks for to a configured cluster, which says itself whether it has TLS
    /// and what is verified.
    pub(crate) fn of_cluster(
        &self,
        cluster: &str,
        asked: &Security,
        properties: &mut Properties,
    ) -> Result<(), Refusal> {
        let protocol = properties.get(PROTOCOL).map_or("", String::as_str);
        if !protocol.ends_with("SSL") {
            return Err(Refusal::PlainCluster(cluster.to_owned()));
        }
        let verifies = properties.get(VERIFICATION).is_none_or(|value| value != "false");
        if verifies && asked.ssl_verify == Some(false) {
            return Err(Refusal::VerifiedByCluster(cluster.to_owned()));
        }
        self.certificate(asked, properties)
    }

    fn certificate(&self, asked: &Security, properties: &mut Properties) -> Result<(), Refusal> {
        let Some(id) = &asked.certificate_id else { return Ok(()) };
        let known = self.certificates.get(id);
        let own = known.ok_or_else(|| Refusal::UnknownCertificate(id.clone()))?;
        properties.retain(|name, _| !name.starts_with("ssl.key"));
        properties.extend(own.clone());
        Ok(())
    }
}

fn check(
    section: &str,
    properties: &Properties,
    fits: impl Fn(&str) -> bool,
    allowed: &str,
) -> Result<(), ConfigError> {
    if let Some(name) = properties.keys().find(|name| !fits(name)) {
        return Err(field(&format!("{section}.{name}"), &format!("only {allowed} can stand here")));
    }
    let given = properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // Who has no truststore here need not have the system's roots either.
    let trusts = properties.keys().any(|name| name.starts_with("ssl.truststore."));
    let verifies = if trusts { "true" } else { "false" };
    let rest = [("bootstrap.servers", "127.0.0.1:1"), (PROTOCOL, "SSL"), (VERIFICATION, verifies)];
    let config = kafka_client::Config::from_properties(rest.into_iter().chain(given))
        .map_err(|it| field(&format!("{section}.{}", it.property()), &it.to_string()))?;
    if properties.is_empty() {
        return Ok(());
    }
    config.cluster.check_files().map_err(|error| field(section, &error.to_string()))
}

const PROTOCOL: &str = "security.protocol";
const VERIFICATION: &str = "enable.ssl.certificate.verification";

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn tls() -> Tls {
        let certificates =
            BTreeMap::from([("mine".to_owned(), owned(&[("ssl.keystore.location", "/mine")]))]);
        Tls { certificates, inline: owned(&[("ssl.truststore.location", "/trusted")]) }
    }

    fn asked(json: &str) -> Security {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn inline_brokers_get_the_bridges_trust_and_the_named_certificate() {
        let mut properties = Properties::new();
        let wish = asked(r#"{"ssl":true,"ssl_verify":false,"certificate_id":"mine"}"#);
        tls().inline(Some(&wish), &mut properties).unwrap();
        let expected = owned(&[
            (PROTOCOL, "SSL"),
            (VERIFICATION, "false"),
            ("ssl.keystore.location", "/mine"),
            ("ssl.truststore.location", "/trusted"),
        ]);
        assert_eq!(properties, expected);
        let unknown = asked(r#"{"ssl":true,"certificate_id":"x"}"#);
        let error = tls().inline(Some(&unknown), &mut properties);
        assert_eq!(
            error.unwrap_err().to_string(),
            "security.certificate_id: `x` is not in the bridge's `certificates`"
        );
    }

    #[test]
    fn a_configured_cluster_decides_itself_on_tls_and_verification() {
        let plain = tls().of_cluster("c", &asked(r#"{"ssl":true}"#), &mut Properties::new());
        let plain = plain.unwrap_err().to_string();
        assert_eq!(plain, "security.ssl: the bridge's cluster `c` is configured without TLS");
        let own = [(PROTOCOL, "SASL_SSL"), ("ssl.keystore.key", "k"), ("ssl.key.password", "p")];
        let mut properties = owned(&own);
        let unverified = asked(r#"{"ssl":true,"ssl_verify":false}"#);
        assert!(tls().of_cluster("c", &unverified, &mut properties).is_err());
        assert_eq!(properties, owned(&own));
        let named = asked(r#"{"ssl":true,"ssl_verify":true,"certificate_id":"mine"}"#);
        tls().of_cluster("c", &named, &mut properties).unwrap();
        let expected = [(PROTOCOL, "SASL_SSL"), ("ssl.keystore.location", "/mine")];
        assert_eq!(properties, owned(&expected), "no half of another certificate is left");
    }

    #[test]
    fn a_certificate_that_cannot_work_is_refused_at_the_start() {
        let error = tls().check().unwrap_err().to_string();
        assert!(
            error.starts_with("certificates.mine: `ssl.keystore.location`: /mine: No such file"),
            "{error}"
        );
        let wrong = owned(&[("ssl.truststore.location", "/x")]);
        let certificates = BTreeMap::from([("a".to_owned(), wrong)]);
        let error = Tls { certificates, ..Tls::default() }.check().unwrap_err().to_string();
        let place = "certificates.a.ssl.truststore.location";
        assert_eq!(error, format!("{place}: only ssl.keystore.* or ssl.key.* can stand here"));
        let inline = owned(&[("acks", "all")]);
        assert!(Tls { inline, ..Tls::default() }.check().is_err());
        assert!(Tls::default().check().is_ok());
    }
}
