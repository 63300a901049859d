//! Which schema registry checks keys and values, as a filter's configuration asks for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// `schema_registry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SchemaRegistry {
    /// A registry with Confluent's API.
    pub confluent: Option<Confluent>,
}

/// `schema_registry.confluent`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Confluent {
    /// The registry's address, `http://` or `https://`, or several with commas between; required.
    pub url: Option<String>,
    /// Seconds for which a schema is remembered.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 3600)))]
    pub ttl: Option<i64>,
    /// Whether the registry's certificate is verified.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub ssl_verify: Option<bool>,
    /// How the registry is asked.
    pub authentication: Option<RegistryAuthentication>,
    /// The schema of keys.
    pub key_schema: Option<Subject>,
    /// The schema of values.
    pub value_schema: Option<Subject>,
    /// Where a record says which schema it has: in front of key and value, or in its headers
    /// `__key_schema_id` and `__value_schema_id`.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "prefix", "x-new" = true)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_id: Option<SchemaIdPlace>,
}

impl Confluent {
    /// The addresses in `url`.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.as_deref().unwrap_or_default().split(',').map(str::trim)
    }

    /// The schema of keys, if one is named.
    #[must_use]
    pub fn key_subject(&self) -> Option<&Subject> {
        self.key_schema.as_ref().filter(|subject| subject.subject_name.is_some())
    }

    /// The schema of values, if one is named.
    #[must_use]
    pub fn value_subject(&self) -> Option<&Subject> {
        self.value_schema.as_ref().filter(|subject| subject.subject_name.is_some())
    }
}

/// `schema_registry.confluent.schema_id`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SchemaIdPlace {
    /// A zero byte and the id in four bytes stand in front.
    #[default]
    Prefix,
    /// The GUID, or the id where the registry gives no GUID, in a header; key and value are as they
    /// would be without a registry.
    Header,
}

/// `schema_registry.confluent.authentication`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RegistryAuthentication {
    /// How the client authenticates.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "none")))]
    pub mode: Option<RegistryMode>,
    /// Of `mode: basic`.
    pub basic: Option<Basic>,
    /// Of `mode: oauth2`.
    pub oauth2: Option<OAuth2>,
    /// How tokens are asked for in `mode: oauth2`.
    pub oauth2_client: Option<OAuth2Client>,
    /// Confluent Cloud's registry cluster, sent as `target-sr-cluster`.
    pub logical_cluster_id: Option<String>,
    /// Confluent Cloud's identity pool, sent as `Confluent-Identity-Pool-Id`.
    pub identity_pool_id: Option<String>,
}

/// `schema_registry.confluent.authentication.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RegistryMode {
    /// Not at all.
    None,
    /// User name and password.
    Basic,
    /// OAuth 2 tokens.
    OAuth2,
}

/// `schema_registry.confluent.authentication.basic`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Basic {
    /// User name.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub username: Option<Secret>,
    /// Password.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub password: Option<Secret>,
}

/// `schema_registry.confluent.authentication.oauth2`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OAuth2 {
    /// The token endpoint.
    pub token_endpoint: Option<String>,
    /// OAuth's grant type.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "client_credentials")))]
    pub grant_type: Option<GrantType>,
    /// The client's id.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub client_id: Option<Secret>,
    /// The client's secret.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub client_secret: Option<Secret>,
    /// User name of the grant type `password`.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub username: Option<Secret>,
    /// Password of the grant type `password`.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub password: Option<Secret>,
    /// Scopes to ask for.
    #[cfg_attr(feature = "schema", schemars(extend("default" = ["openid"])))]
    pub scopes: Option<Vec<String>>,
    /// Audiences to ask for.
    pub audience: Option<Vec<String>>,
    /// More headers of the request for a token.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub token_headers: Option<BTreeMap<String, Secret>>,
    /// More form arguments of the request for a token.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub token_post_args: Option<BTreeMap<String, Secret>>,
}

/// `schema_registry.confluent.authentication.oauth2.grant_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum GrantType {
    /// The client's own credentials.
    ClientCredentials,
    /// A user's name and password.
    Password,
}

/// `schema_registry.confluent.authentication.oauth2_client`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OAuth2Client {
    /// How the client authenticates to the token endpoint.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "client_secret_post")))]
    pub auth_method: Option<AuthMethod>,
    /// The algorithm of `client_secret_jwt`.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "HS512")))]
    pub client_secret_jwt_alg: Option<JwtAlgorithm>,
    /// Proxy for `http`.
    pub http_proxy: Option<String>,
    /// `Proxy-Authorization` for `http_proxy`.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub http_proxy_authorization: Option<Secret>,
    /// HTTP version of requests: 1.0 or 1.1.
    #[cfg_attr(feature = "schema", schemars(extend("default" = 1.1)))]
    pub http_version: Option<serde_json::Number>,
    /// Proxy for `https`.
    pub https_proxy: Option<String>,
    /// `Proxy-Authorization` for `https_proxy`.
    #[cfg_attr(feature = "schema", schemars(extend("writeOnly" = true)))]
    pub https_proxy_authorization: Option<Secret>,
    /// Whether connections are kept open.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub keep_alive: Option<bool>,
    /// Hosts that are asked without a proxy, with commas between.
    pub no_proxy: Option<String>,
    /// Whether the token endpoint's certificate is verified.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub ssl_verify: Option<bool>,
    /// Longest wait for the token endpoint in ms.
    #[cfg_attr(
        feature = "schema",
        schemars(range(min = 0, max = 2_147_483_646), extend("default" = 10_000))
    )]
    pub timeout: Option<i64>,
}

/// `schema_registry.confluent.authentication.oauth2_client.auth_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AuthMethod {
    /// In the header `authorization`.
    ClientSecretBasic,
    /// As a signed JWT.
    ClientSecretJwt,
    /// In the form.
    ClientSecretPost,
    /// Not at all.
    None,
}

/// `schema_registry.confluent.authentication.oauth2_client.client_secret_jwt_alg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-512.
    Hs512,
}

/// `key_schema` and `value_schema`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subject {
    /// The subject's name; required.
    pub subject_name: Option<String>,
    /// `latest` or a number; required.
    pub schema_version: Option<SchemaVersion>,
    /// How JSON stands for Avro: with the branch of a union named, or plainly.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "avro_json")))]
    pub payload_encoding: Option<PayloadEncoding>,
}

/// `schema_version`: Kong writes a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be `latest` or a version number")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SchemaVersion {
    /// A version.
    Number(u32),
    /// `latest`, or a version in digits.
    Text(String),
}

/// `payload_encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PayloadEncoding {
    /// Avro's JSON encoding.
    AvroJson,
    /// Plain JSON; the branch of a union follows from the value.
    SimpleJson,
}
