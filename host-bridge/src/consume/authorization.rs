//! Who reads, as a gateway says, and what of a feed: `gateway` of `[feeds]`, `[[authorization]]`, and
//! the headers `kafka-upstream-*`.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use kafka_client::Secret;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::feeds::{Feed, Feeds, OVERRIDE};
use super::globs;
use super::refusal::{Code, Refusal};
use super::selection::Identity;
use super::topics::Topics;
use crate::auth::{self, Tokens};
use crate::config::{ConfigError, Listen, ListenTls, field, is_loopback};

/// Whose word counts, and what readers may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Authorization {
    /// Without one nobody's headers are believed.
    pub(crate) gateway: Option<Gateway>,
    /// With any, what none allows is refused.
    rules: Vec<Rule>,
}

/// How a gateway proves that it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// By one of the tokens of a file, with each request.
    Token(PathBuf),
    /// By a certificate of `client_ca_file`; with any names, one that is for one of them.
    Mtls(Vec<ServerName<'static>>),
    /// By the rights of the sockets.
    Unix,
    /// Whoever reaches the bridge is taken for one.
    None,
}

/// `[[authorization]]`. Patterns are names in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    consumer: String,
    feeds: Vec<String>,
    #[serde(default = "all")]
    topics: Vec<String>,
    #[serde(default = "all_operations")]
    operations: Vec<String>,
}

/// What a reader may of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    /// The feed as it is for this reader, where that differs: with fewer topics, or another reset. A
    /// topic that is left out is refused in the words for one that does not exist.
    pub(crate) feed: Option<Feed>,
    /// Who it is.
    pub(crate) identity: Identity,
    /// The consumer group in which it reads.
    pub(crate) group: Option<String>,
    /// The cluster, where it is another than the feed's.
    pub(crate) cluster: Option<String>,
    /// With what Kafka is asked, where each request brings that.
    pub(crate) token: Option<Secret>,
    /// For how long.
    pub(crate) expires_in: Option<Duration>,
    /// Those of the feed's topics for producing that it may write to.
    pub(crate) produce: Vec<String>,
}

impl Rule {
    fn check(&self, feeds: &Feeds, mut fault: impl FnMut(&str, &str)) {
        if self.consumer.is_empty() {
            fault("consumer", "names nobody; `*` is everybody");
        }
        for name in self.feeds.iter().filter(|name| !name.contains('*')) {
            if !feeds.feeds.contains_key(name) {
                fault("feeds", &format!("there is no [feeds.{name}]"));
            }
        }
        for (name, patterns) in [("feeds", &self.feeds), ("topics", &self.topics)] {
            if patterns.is_empty() {
                fault(name, "names none; `*` is all");
            }
        }
        let is_unknown = |operation: &&String| ![READ, PRODUCE].contains(&operation.as_str());
        for operation in self.operations.iter().filter(is_unknown) {
            let reason = format!("`{operation}` is not known; there are {READ}, {PRODUCE}");
            fault("operations", &reason);
        }
    }
}

impl Authorization {
    /// Takes what is read here out of `[feeds]`. What is wrong is added to `faults`.
    pub(crate) fn read(
        feeds: &mut toml::Table,
        rules: Vec<Rule>,
        faults: &mut Vec<ConfigError>,
    ) -> Self {
        let mut text = |name: &str| match feeds.remove(name)? {
            toml::Value::String(text) => Some(text),
            _ => {
                faults.push(field(&format!("feeds.{name}"), "must be a string"));
                None
            }
        };
        let (gateway, file) = (text(GATEWAY), text(TOKEN_FILE).map(PathBuf::from));
        let names = feeds.remove(NAMES);
        let (has_file, has_names) = (file.is_some(), names.is_some());
        let mut fault = |name: &str, reason: &str| -> Option<Gateway> {
            faults.push(field(&format!("feeds.{name}"), reason));
            None
        };
        let is = |kind: &str| gateway.as_deref() == Some(kind);
        if has_file && !is("token") {
            fault(TOKEN_FILE, "has a meaning with gateway = \"token\" only");
        }
        if has_names && !is("mtls") {
            fault(NAMES, "has a meaning with gateway = \"mtls\" only");
        }
        let gateway = match (gateway.as_deref(), file) {
            (None, _) => None,
            (Some("token"), Some(file)) => Some(Gateway::Token(file)),
            (Some("token"), None) => fault(TOKEN_FILE, "is missing: where are its tokens?"),
            (Some("mtls"), _) => match names.map_or(Some(Vec::new()), server_names) {
                Some(names) => Some(Gateway::Mtls(names)),
                None => fault(NAMES, "must be a list of names of DNS or IP addresses"),
            },
            (Some("unix"), _) => Some(Gateway::Unix),
            (Some("none"), _) => Some(Gateway::None),
            (Some(other), _) => {
                fault(GATEWAY, &format!("must be one of token, mtls, unix, none, not `{other}`"))
            }
        };
        Self { gateway, rules }
    }

    /// The names of which a gateway's certificate must have one, if any are given.
    pub(crate) fn names(&self) -> &[ServerName<'static>] {
        match &self.gateway {
            Some(Gateway::Mtls(names)) => names,
            _ => &[],
        }
    }

    /// Reads the tokens of gateways, if they have any. Blocks.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(crate) fn load(&self) -> Result<Option<Tokens>, ConfigError> {
        let Some(Gateway::Token(file)) = &self.gateway else { return Ok(None) };
        let tokens = auth::load(file.clone());
        tokens.map(Some).map_err(|error| field(&format!("feeds.{TOKEN_FILE}"), &error))
    }

    /// Whether readers' callers need a token. `token_file` is not asked where there is a gateway: what
    /// clients have as their own token it passes on.
    pub(crate) fn takes_tokens(&self, has_token_file: bool) -> bool {
        match self.gateway {
            None => has_token_file,
            Some(Gateway::Token(_)) => true,
            Some(Gateway::Mtls(_) | Gateway::Unix | Gateway::None) => false,
        }
    }

    /// What does not fit the rest of the configuration.
    pub(crate) fn check(
        &self,
        feeds: &Feeds,
        tls: Option<&ListenTls>,
        faults: &mut Vec<ConfigError>,
    ) {
        let has_authority = tls.is_some_and(|tls| tls.client_ca_file.is_some());
        for address in &feeds.listen {
            let reason = match (&self.gateway, address) {
                (Some(Gateway::Unix), Listen::Tcp(_) | Listen::Tls(_)) => "is no unix socket",
                (Some(Gateway::Mtls(_)), Listen::Tls(_)) if has_authority => continue,
                (Some(Gateway::Mtls(_)), Listen::Tls(_)) => "needs tls.client_ca_file",
                (Some(Gateway::Mtls(_)), _) => "has no TLS",
                (Some(Gateway::None), Listen::Tls(socket)) if !is_loopback(socket.ip()) => {
                    "is not a loopback address: whoever reaches it would be believed"
                }
                _ => continue,
            };
            faults.push(field(&format!("feeds.{GATEWAY}"), &format!("`{address}` {reason}")));
        }
        if self.gateway.is_none() && !self.rules.is_empty() {
            let reason = "is missing: without it nobody's name is believed, and no rule applies";
            faults.push(field(&format!("feeds.{GATEWAY}"), reason));
        }
        let per_reader = |(name, feed): (&String, &Feed)| {
            let field_of = feed.selection.per_client()?;
            let reason = "names `client`, and without `gateway` of [feeds] nobody says who reads";
            Some(field(&format!("feeds.{name}.{field_of}"), reason))
        };
        let elsewhere = |(name, feed): (&String, &Feed)| {
            let of_gateway = [
                ("credential", feed.per_request_credential),
                (OVERRIDE, !feed.cluster_override.is_empty()),
            ];
            let (field_of, _) = of_gateway.into_iter().find(|(_, is_set)| *is_set)?;
            let reason = "is for a gateway, and there is no `gateway` of [feeds]";
            Some(field(&format!("feeds.{name}.{field_of}"), reason))
        };
        let of_reader = |(name, _): (&String, &Feed)| {
            let reason = "depends on who reads, which nobody says without `gateway` of [feeds]";
            field(&format!("feeds.{name}.group"), reason)
        };
        if self.gateway.is_none() {
            faults.extend(feeds.feeds.iter().filter_map(per_reader));
            faults.extend(feeds.feeds.iter().filter_map(elsewhere));
            let grouped = feeds.feeds.iter().filter(|(_, feed)| feed.delivery.needs_gateway());
            faults.extend(grouped.map(of_reader));
        }
        for (number, rule) in (1..).zip(&self.rules) {
            rule.check(feeds, |name, reason| {
                faults.push(field(&format!("authorization[{number}].{name}"), reason));
            });
        }
    }

    /// What a request may of a feed, which exists or not. That the request comes from a gateway was
    /// checked before, if there is one.
    ///
    /// # Errors
    /// [`Code::GatewayUnauthenticated`], [`Code::IdentityRequired`], [`Code::AuthExpired`],
    /// [`Code::Forbidden`], [`Code::TopicNotAllowed`], [`Code::InvalidParameter`].
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        name: &str,
        feed: Option<&Feed>,
        now_ms: i64,
    ) -> Result<Granted, Refusal> {
        if self.gateway.is_none() {
            return without_gateway(headers, name, feed);
        }
        let said = Said::read(headers)?;
        let id = said.checked("client-id", CLIENT_ID, |text| is_client_id(text).then_some(text))?;
        let attrs = said.checked("attrs", "JSON", |text| {
            serde_json::from_str::<IgnoredAny>(text).is_ok().then_some(text)
        })?;
        let expires = said.checked("expires", EXPIRES, |text| text.parse::<i64>().ok())?;
        let left_ms = expires.map(|seconds| seconds.saturating_mul(1000).saturating_sub(now_ms));
        if left_ms.is_some_and(|left| left <= 0) {
            return Err(
                Code::AuthExpired.because("what the gateway knows of the reader has expired")
            );
        }
        let consumer =
            said.checked("consumer", CONSUMER, |text| is_consumer(text).then_some(text))?;
        let rules = self.rules_for(consumer, name)?;
        // A feed that nobody may read is refused as one that is not there.
        let Some(feed) = feed else {
            return Err(Code::FeedNotFound.because("there is no such feed"));
        };
        let mut topics = feed.topics.clone();
        if !self.rules.is_empty() {
            topics.held_to(rules.iter().flat_map(|rule| rule.topics.clone()).collect());
        }
        said.narrow(&mut topics)?;
        if topics.is_empty() {
            return Err(forbidden());
        }
        let reset =
            said.checked("auto-offset-reset", "one of auto_offset_reset_override", |text| {
                feed.reset_override.iter().copied().find(|reset| reset.name() == text)
            })?;
        let (cluster, token) = (said.cluster(feed)?, said.token(feed)?);
        let group = said.checked("group", GROUP, |text| is_group(text).then_some(text))?;
        let delivery = &feed.delivery;
        let produce = self.writable(consumer, name, feed);
        let is_narrowed = topics != feed.topics || reset.is_some();
        let reset = reset.unwrap_or(feed.reset);
        let feed = is_narrowed.then(|| Feed { topics, reset, ..feed.clone() });
        let [id, consumer, attrs] = [id, consumer, attrs].map(|said| said.map(str::to_owned));
        let identity = Identity { id, consumer, attrs };
        let group = delivery.group_id(name, &identity, group)?;
        let expires_in = left_ms.map(millis);
        Ok(Granted { feed, identity, group, cluster, token, expires_in, produce })
    }

    /// The topics to which a consumer may write.
    fn writable(&self, consumer: Option<&str>, name: &str, feed: &Feed) -> Vec<String> {
        let rules = consumer.map(|consumer| self.rules_of(consumer, name, PRODUCE));
        let rules = rules.unwrap_or_default();
        let may_write = |topic: &&String| {
            self.rules.is_empty() || rules.iter().any(|rule| globs::is_any(&rule.topics, topic))
        };
        feed.conversation.produce.iter().filter(may_write).cloned().collect()
    }

    fn rules_for(&self, consumer: Option<&str>, feed: &str) -> Result<Vec<&Rule>, Refusal> {
        if self.rules.is_empty() {
            return Ok(Vec::new());
        }
        let Some(consumer) = consumer else {
            let message = "the gateway does not say who reads (kafka-upstream-consumer)";
            return Err(Code::IdentityRequired.because(message));
        };
        let rules = self.rules_of(consumer, feed, READ);
        if rules.is_empty() { Err(forbidden()) } else { Ok(rules) }
    }

    /// Those that allow an operation.
    fn rules_of(&self, consumer: &str, feed: &str, operation: &str) -> Vec<&Rule> {
        let is_for = |rule: &&Rule| {
            globs::matches(&rule.consumer, consumer)
                && globs::is_any(&rule.feeds, feed)
                && rule.operations.iter().any(|it| it == operation)
        };
        self.rules.iter().filter(is_for).collect()
    }
}

/// What a gateway says in its headers.
struct Said<'a>(&'a HeaderMap);

impl<'a> Said<'a> {
    /// What a misspelt name was to hold a reader to is not left out.
    fn read(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let is_unknown = |name: &&HeaderName| {
            name.as_str().strip_prefix(PREFIX).is_some_and(|name| !SAID.contains(&name))
        };
        match headers.keys().find(is_unknown) {
            Some(name) => {
                Err(invalid(name.as_str(), &format!("is not known; there are {}", SAID.join(", "))))
            }
            None => Ok(Self(headers)),
        }
    }

    /// Given twice, one of them may be the client's.
    fn checked<T>(
        &self,
        name: &str,
        form: &str,
        check: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let name = format!("{PREFIX}{name}");
        let mut values = self.0.get_all(&name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return match self.0.contains_key(&name) {
                true => Err(invalid(&name, "is given twice")),
                false => Ok(None),
            };
        };
        let checked = value.to_str().ok().and_then(check);
        checked.map(Some).ok_or_else(|| invalid(&name, &format!("must be {form}")))
    }

    /// Holds a reader to the topics that the gateway names.
    fn narrow(&self, topics: &mut Topics) -> Result<(), Refusal> {
        let Some(narrowed) = self.checked("topics", "text", Some)? else { return Ok(()) };
        let narrowed: Vec<_> = narrowed.split(',').map(str::trim).collect();
        let foreign = narrowed.iter().find(|topic| !topics.has(topic));
        foreign.map_or(Ok(()), |topic| Err(Refusal::foreign_topic(topic)))?;
        topics.narrow(&narrowed);
        Ok(())
    }

    /// The cluster, where it is another than the feed's.
    fn cluster(&self, feed: &Feed) -> Result<Option<String>, Refusal> {
        let cluster = self.checked("cluster", "one of cluster_override", |text| {
            let is_own = text == feed.cluster;
            (is_own || feed.cluster_override.iter().any(|name| name == text)).then_some(text)
        })?;
        Ok(cluster.filter(|name| *name != feed.cluster).map(str::to_owned))
    }

    /// What the feed is read with. A token for a feed that needs none is not ignored: it would change
    /// what is read.
    fn token(&self, feed: &Feed) -> Result<Option<Secret>, Refusal> {
        let token = self.checked("token", TOKEN, |text| is_token(text).then_some(text))?;
        match (feed.per_request_credential, token) {
            (true, None) => {
                let message = "the gateway gives no token for Kafka (kafka-upstream-token)";
                Err(Code::IdentityRequired.because(message))
            }
            (false, Some(_)) => {
                let name = format!("{PREFIX}token");
                Err(invalid(&name, "the feed's `credential` is not `per-request`"))
            }
            (_, token) => Ok(token.map(Secret::new)),
        }
    }
}

fn without_gateway(
    headers: &HeaderMap,
    name: &str,
    feed: Option<&Feed>,
) -> Result<Granted, Refusal> {
    if let Some(name) = headers.keys().find(|name| name.as_str().starts_with(PREFIX)) {
        return Err(Code::GatewayUnauthenticated.because(format!(
            "{name}: only a gateway says that, and the bridge knows none (gateway of [feeds])"
        )));
    }
    let identity = Identity::default();
    let group = feed.map(|feed| feed.delivery.group_id(name, &identity, None));
    let group = group.transpose()?.flatten();
    let produce = feed.map(|feed| feed.conversation.produce.clone()).unwrap_or_default();
    let (cluster, token) = (None, None);
    Ok(Granted { feed: None, identity, group, cluster, token, expires_in: None, produce })
}

fn forbidden() -> Refusal {
    Code::Forbidden.because("the consumer may not read this feed")
}

fn invalid(name: &str, reason: &str) -> Refusal {
    Code::InvalidParameter.because(format!("{name}: {reason}"))
}

/// Of a list, or of a variable of the environment, which separates them by commas.
fn server_names(value: toml::Value) -> Option<Vec<ServerName<'static>>> {
    let texts: Option<Vec<_>> = match value {
        toml::Value::String(text) => Some(text.split(',').map(|it| it.trim().to_owned()).collect()),
        toml::Value::Array(items) => {
            items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    };
    texts?.into_iter().map(|text| ServerName::try_from(text).ok()).collect()
}

fn millis(number: i64) -> Duration {
    Duration::from_millis(number.unsigned_abs())
}

fn is_client_id(text: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=CLIENT_ID_BYTES).contains(&text.len()) && text.bytes().all(is_legal)
}

fn is_consumer(text: &str) -> bool {
    (1..=CONSUMER_BYTES).contains(&text.len())
}

/// `b64token` of RFC 6750.
fn is_token(text: &str) -> bool {
    let token = text.trim_end_matches('=');
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !token.is_empty() && text.len() <= TOKEN_BYTES && token.bytes().all(is_legal)
}

fn is_group(text: &str) -> bool {
    (1..=GROUP_BYTES).contains(&text.len())
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

fn all_operations() -> Vec<String> {
    vec![READ.to_owned()]
}

/// With which the names of a gateway's headers begin.
const PREFIX: &str = "kafka-upstream-";
const SAID: [&str; 10] = [
    "attrs",
    "auto-offset-reset",
    "client-id",
    "cluster",
    "consumer",
    "expires",
    "gateway-token",
    "group",
    "token",
    "topics",
];
const GATEWAY: &str = "gateway";
const TOKEN_FILE: &str = "gateway_token_file";
const NAMES: &str = "gateway_names";
const READ: &str = "read";
const PRODUCE: &str = "produce";
const CLIENT_ID_BYTES: usize = 128;
const CLIENT_ID: &str = "1 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`";
const EXPIRES: &str = "seconds since 1970";
const CONSUMER: &str = "a name of 1 to 256 bytes";
const GROUP: &str = "a name of 1 to 255 bytes";
const TOKEN: &str = "a token of 1 to 8,192 bytes (RFC 6750)";
const TOKEN_BYTES: usize = 8192;
/// Bytes of a group's name.
const GROUP_BYTES: usize = 255;
/// Bytes of a consumer's name.
const CONSUMER_BYTES: usize = 256;

#[cfg(test)]
mod tests;
