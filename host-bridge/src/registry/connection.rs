//! How a registry is reached, and who may say so.

use kafka_client::HttpsTrust;
use kafka_upstream_core::registry::{Confluent, RegistryMode};

/// Two that are equal are one registry with one memory.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Connection {
    /// Without its subjects.
    pub(crate) confluent: Confluent,
    pub(crate) trust: HttpsTrust,
}

impl Connection {
    /// What `confluent` says of the registry itself; `trust` is for where its certificates, and those of
    /// its token endpoint, are verified.
    pub(crate) fn new(confluent: &Confluent, trust: HttpsTrust) -> Self {
        let confluent = Confluent {
            key_schema: None,
            value_schema: None,
            schema_id: None,
            ..confluent.clone()
        };
        let trust = match confluent.ssl_verify {
            Some(false) => HttpsTrust::Anyone,
            _ => trust,
        };
        Self { confluent, trust }
    }

    /// The token endpoint, where one is asked.
    pub(crate) fn token_endpoint(&self) -> Option<&str> {
        let authentication = self.confluent.authentication.as_ref()?;
        let is_asked = authentication.mode == Some(RegistryMode::OAuth2);
        let oauth2 = authentication.oauth2.as_ref().filter(|_| is_asked)?;
        oauth2.token_endpoint.as_deref()
    }

    /// The first field that asks for what the bridge does not do.
    pub(crate) fn not_served(&self) -> Option<(&'static str, &'static str)> {
        let authentication = self.confluent.authentication.as_ref()?;
        let is_asked = authentication.mode == Some(RegistryMode::OAuth2);
        let client = authentication.oauth2_client.as_ref().filter(|_| is_asked)?;
        let version = client.http_version.as_ref().and_then(serde_json::Number::as_f64);
        let fields = [
            (client.http_proxy.is_some(), "http_proxy", NO_PROXY),
            (client.https_proxy.is_some(), "https_proxy", NO_PROXY),
            (version == Some(1.0), "http_version", "it speaks HTTP/1.1"),
        ];
        fields.into_iter().find(|(is_set, ..)| *is_set).map(|(_, field, why)| (field, why))
    }

    /// Its first host, as it is called in metrics where the configuration has no name for it.
    pub(crate) fn host(&self) -> String {
        let url = self.confluent.urls().next().unwrap_or_default();
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    }
}

const NO_PROXY: &str = "it asks token endpoints directly";
