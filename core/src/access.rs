//! How a producer gets access to Kafka: SASL and TLS, as a filter's configuration asks for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// `authentication`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Authentication {
    /// The only strategy.
    pub strategy: Option<Strategy>,
    /// The SASL mechanism; required when anything of `authentication` is set.
    pub mechanism: Option<Mechanism>,
    /// User name of `PLAIN` and SCRAM.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub user: Option<Secret>,
    /// Password of `PLAIN` and SCRAM.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub password: Option<Secret>,
    /// SCRAM with a delegation token: `user` is its id, `password` its HMAC.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub tokenauth: Option<bool>,
    /// Where a token of `OAUTHBEARER` comes from.
    pub oauthbearer: Option<OAuthBearer>,
}

/// `authentication.strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Strategy {
    /// SASL.
    Sasl,
}

/// `authentication.mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Mechanism {
    /// User name and password in clear text.
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// OAuth 2 tokens by client credentials.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
    /// AWS IAM, for MSK; Kong's plugin does not have it.
    AwsMskIam,
    /// Kerberos; Kong's plugin does not have it.
    Gssapi,
}

/// `authentication.oauthbearer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OAuthBearer {
    /// The token endpoint.
    pub token_endpoint_url: Option<String>,
    /// The client's id.
    pub client_id: Option<String>,
    /// The client's secret.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub client_secret: Option<Secret>,
    /// Scopes to ask for.
    pub scopes: Option<Vec<String>>,
    /// SASL extensions, such as `logicalCluster` and `identityPoolId`.
    pub extensions: Option<BTreeMap<String, String>>,
    /// Whether the token endpoint's certificate is verified.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub token_endpoint_tls_verify: Option<bool>,
}

/// `security`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Security {
    /// TLS to the brokers.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub ssl: Option<bool>,
    /// Whether the brokers' certificates are verified.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub ssl_verify: Option<bool>,
    /// The name of a client certificate in the bridge's configuration; needs `ssl`.
    pub certificate_id: Option<String>,
}
