//! `[webhooks.NAME]`: which feed's records are sent where, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use kafka_client::{
    ClientCertificate, HttpsTrust, OAuthClient, Secret, SecretSource, TlsConfig, TlsTrust,
};

use super::cloudevents::Attributes;
use super::retry::Retry;
use super::window::Ordering;
use crate::config::{ConfigError, field};
use crate::consume::delivery::GroupMode;
use crate::consume::feeds::fields::{Choices, FALSE, Fields, NAME};
use crate::consume::feeds::{Feed, Feeds, is_name};
use crate::http_client::is_inner;

/// A webhook as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookConfig {
    /// The name of a `[feeds.NAME]`.
    pub(super) feed: String,
    pub(super) group_id: String,
    pub(super) url: String,
    pub(super) qos: Qos,
    pub(super) format: Format,
    /// Of CloudEvents: what records get that are none, and as whom the bridge asks for permission.
    pub(super) attributes: Attributes,
    pub(super) origin: Option<HeaderValue>,
    /// Records of a request. With more than one the body is an array, whatever it has.
    pub(super) batch_max: usize,
    pub(super) ordering: Ordering,
    /// Partitions from which is sent at a time.
    pub(super) concurrency: usize,
    pub(super) auth: Auth,
    /// With which requests are signed.
    pub(super) secrets: Option<Secrets>,
    pub(super) retry: Retry,
    pub(super) on_failure: OnFailure,
    pub(super) headers: HeaderMap,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) trust: HttpsTrust,
    pub(super) allow_link_local: bool,
}

#[cfg(test)]
impl WebhookConfig {
    /// One that sets nothing else.
    pub(super) fn of_url(url: &str) -> Self {
        let text = format!("[hook]\nfeed = 'a'\nurl = '{url}'");
        let (mut feeds, mut faults) = (Feeds::default(), Vec::new());
        feeds.feeds.insert("a".to_owned(), crate::consume::feeds::Feed::of_topics(&["a"]));
        let mut webhooks = read(toml::from_str(&text).unwrap(), &feeds, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        webhooks.remove("hook").unwrap()
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The JSON of a page's item.
    Envelope,
    /// The value.
    Raw,
    CloudEvents,
}

/// How often a record is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Qos {
    AtLeastOnce,
    /// What is sent is committed before.
    AtMostOnce,
    /// Nothing is committed: each time that a partition comes it is read as `auto_offset_reset` says.
    None,
}

/// How a request says whose it is, beside its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Auth {
    None,
    Basic {
        username: String,
        password: SecretSource,
    },
    Bearer(SecretSource),
    /// A token of an endpoint's.
    OAuth2(OAuthClient),
}

/// Keys of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Secrets {
    Given(Vec<Secret>),
    /// One a line.
    File(SecretSource),
}

/// What becomes of a record that the receiver does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// It goes to the feed's dead-letter topic.
    Dlq,
    /// Nothing more is sent until an operator resumes the webhook.
    Stop,
    Skip,
}

/// Reads `[webhooks]`. What is wrong is added to `faults`.
pub(crate) fn read(
    sections: toml::Table,
    feeds: &Feeds,
    faults: &mut Vec<ConfigError>,
) -> BTreeMap<String, WebhookConfig> {
    let mut webhooks = BTreeMap::new();
    let mut groups = BTreeSet::new();
    for (name, table) in sections {
        let path = format!("webhooks.{name}");
        let toml::Value::Table(table) = table else {
            faults.push(field(&path, "is no webhook: a webhook is a section, [webhooks.NAME]"));
            continue;
        };
        if !is_name(&name) {
            faults.push(field(&path, &format!("the name {NAME}")));
        }
        let webhook = Webhook(Fields { path: &path, table, faults }).read(&name, feeds);
        if !groups.insert(webhook.group_id.clone()) {
            let reason = format!("another webhook has the group `{}`", webhook.group_id);
            faults.push(field(&format!("{path}.group_id"), &reason));
        }
        webhooks.insert(name, webhook);
    }
    webhooks
}

struct Webhook<'a>(Fields<'a>);

impl Webhook<'_> {
    fn read(mut self, name: &str, feeds: &Feeds) -> WebhookConfig {
        let own = &mut self.0;
        let feed = own.text("feed").unwrap_or_default();
        let found = feeds.feeds.get(&feed);
        match found {
            None if feed.is_empty() => own.fault("feed", "is missing: what is sent?"),
            None => own.fault("feed", &format!("there is no [feeds.{feed}]")),
            Some(of) if of.selection.is_per_client() => {
                own.fault("feed", "has an expression with `client`: nobody says who a webhook is");
            }
            Some(of) if of.per_request_credential => {
                own.fault("feed", "has credential = \"per-request\": a webhook makes no request");
            }
            Some(_) => {}
        }
        let group_id = group_id(own, name, feeds);
        let (format, batch_max) =
            (own.choice("format", &FORMATS), own.number("batch_max", BATCH_RANGE, 1));
        if format == Format::Raw && batch_max > 1 {
            own.fault("batch_max", "must be 1: a raw request has one value");
        }
        let dlq = found.is_some_and(|feed| feed.selection.dlq_topic.is_some());
        let (qos, ordering) = (own.choice("qos", &QOS), own.choice("ordering", &ORDERINGS));
        if qos == Qos::AtMostOnce && ordering != Ordering::Partition {
            own.fault("ordering", "must be partition: qos is `at-most-once`");
        }
        let secrets = self.secrets();
        let (attributes, origin) = self.cloudevents(name, format);
        let (auth, trust) = self.auth(secrets.is_some());
        let webhook = WebhookConfig {
            feed,
            group_id,
            format,
            batch_max,
            url: self.url(),
            qos,
            attributes,
            origin,
            ordering,
            concurrency: self.0.number("concurrency", CONCURRENCY_RANGE, CONCURRENCY),
            auth,
            secrets,
            retry: self.retry(),
            on_failure: self.on_failure(dlq, qos),
            headers: self.headers(),
            connect_timeout: self.millis("connect_timeout_ms", TIMEOUT_MS_RANGE, CONNECT_MS),
            timeout: self.millis("timeout_ms", TIMEOUT_MS_RANGE, WHOLE_MS),
            trust,
            allow_link_local: self.0.choice("allow_link_local", &FALSE),
        };
        self.check_address(&webhook);
        self.refuse_other_auth();
        self.0.finish(&FIELDS);
        webhook
    }

    fn url(&mut self) -> String {
        let Some(url) = self.0.text("url") else {
            self.0.fault("url", "is missing: where are records sent?");
            return String::new();
        };
        let parsed = url.parse::<Uri>().ok();
        let authority = parsed.as_ref().and_then(Uri::authority);
        let is_web = matches!(parsed.as_ref().and_then(Uri::scheme_str), Some("http" | "https"));
        match authority {
            Some(authority) if authority.as_str().contains('@') => {
                self.0.fault("url", "has a user: set auth = \"basic\"");
            }
            Some(_) if is_web && !url.contains('#') => {}
            _ => self.0.fault("url", "must be https://HOST/PATH or http://HOST/PATH"),
        }
        url
    }

    /// Of a name it is only known when it is resolved.
    fn check_address(&mut self, webhook: &WebhookConfig) {
        let url = webhook.url.parse::<Uri>().ok();
        let host = url.as_ref().and_then(Uri::host).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if !webhook.allow_link_local && host.parse().is_ok_and(is_inner) {
            let reason = "is a link-local address or one of a metadata service; \
                allow_link_local = true allows it";
            self.0.fault("url", reason);
        }
    }

    /// With whose certificates the receiver may have.
    fn auth(&mut self, is_signed: bool) -> (Auth, HttpsTrust) {
        let own = &mut self.0;
        let ca = own.text("ca_file").map(|file| SecretSource::File(file.into()));
        let trust = ca.clone().map_or(HttpsTrust::System, HttpsTrust::Authorities);
        let auth = match own.choice("auth", &AUTHS) {
            AuthName::None => Auth::None,
            AuthName::Mtls => return (Auth::None, self.certified(ca)),
            AuthName::OAuth2 => Auth::OAuth2(self.oauth2(trust.clone())),
            AuthName::Hmac => {
                if !is_signed {
                    own.fault("secrets", "or secrets_file is missing: auth is `hmac`");
                }
                Auth::None
            }
            AuthName::Basic => {
                let username = own.text("username").unwrap_or_default();
                if username.is_empty() || username.contains(':') {
                    own.fault("username", "must be there, without a colon: auth is `basic`");
                }
                Auth::Basic { username, password: self.secret("password") }
            }
            AuthName::Bearer => Auth::Bearer(self.secret("token")),
        };
        (auth, trust)
    }

    /// What `auth` has not read.
    fn refuse_other_auth(&mut self) {
        for (name, auth) in OF_AUTH {
            if self.0.table.remove(name).is_some() {
                self.0.fault(name, &format!("has a meaning with auth = \"{auth}\" only"));
            }
        }
    }

    /// TLS with a certificate of ours.
    fn certified(&mut self, ca: Option<SecretSource>) -> HttpsTrust {
        let own = &mut self.0;
        let mut file = |name| match own.text(name) {
            Some(file) => SecretSource::File(file.into()),
            None => {
                own.fault(name, "is missing: auth is `mtls`");
                SecretSource::Given(Secret::new(""))
            }
        };
        let (chain, key) = (file("certificate_file"), file("key_file"));
        let certificate = ClientCertificate::Pem { key, chain, key_password: None };
        let trust = ca.map_or(TlsTrust::System, TlsTrust::Pem);
        let settings = TlsConfig::default().trust(trust).certificate(certificate);
        HttpsTrust::AsConfigured(Box::new(settings))
    }

    fn oauth2(&mut self, trust: HttpsTrust) -> OAuthClient {
        let path = format!("{}.oauth2", self.0.path);
        let table = self.0.section("oauth2").unwrap_or_default();
        let mut own = Webhook(Fields { path: &path, table, faults: &mut *self.0.faults });
        let mut text = |name| {
            let text = own.0.text(name);
            if text.is_none() {
                own.0.fault(name, "is missing: auth is `oauth2`");
            }
            text.unwrap_or_default()
        };
        let (endpoint, id) = (text("token_endpoint"), text("client_id"));
        let scope = own.0.text("scope");
        let client =
            OAuthClient { endpoint, id, secret: own.secret("client_secret"), scope, trust };
        own.0.finish(&OAUTH2_FIELDS);
        client
    }

    fn cloudevents(&mut self, name: &str, format: Format) -> (Attributes, Option<HeaderValue>) {
        let path = format!("{}.cloudevents", self.0.path);
        let is_there = self.0.table.contains_key("cloudevents");
        let table = self.0.section("cloudevents").unwrap_or_default();
        let mut own = Webhook(Fields { path: &path, table, faults: &mut *self.0.faults });
        if is_there && format != Format::CloudEvents {
            own.0.faults.push(field(&path, "is there, and format is not `cloudevents`"));
        }
        let source = own.0.text("source").unwrap_or_else(|| format!("/webhooks/{name}"));
        let r#type = own.0.text("type").unwrap_or_else(|| EVENT_TYPE.to_owned());
        if source.is_empty() || r#type.is_empty() {
            own.0.fault("source", "or type is empty");
        }
        let origin = own.0.text("origin").map(HeaderValue::try_from).transpose();
        let origin = origin.unwrap_or_else(|_| {
            own.0.fault("origin", "is no name of a host");
            None
        });
        own.0.finish(&CLOUDEVENTS_FIELDS);
        (Attributes { source, r#type }, origin)
    }

    /// Written there, or in a file.
    fn secret(&mut self, name: &str) -> SecretSource {
        let (of_file, own) = (format!("{name}_file"), &mut self.0);
        match (own.text(name), own.text(&of_file)) {
            (Some(text), None) => SecretSource::Given(Secret::new(text)),
            (None, Some(file)) => SecretSource::File(file.into()),
            (Some(_), Some(_)) => {
                own.fault(&of_file, &format!("stands beside `{name}`: one of the two"));
                SecretSource::Given(Secret::new(""))
            }
            (None, None) => {
                own.fault(&of_file, &format!("or `{name}` is missing"));
                SecretSource::Given(Secret::new(""))
            }
        }
    }

    fn secrets(&mut self) -> Option<Secrets> {
        match (self.0.list("secrets"), self.0.text("secrets_file")) {
            (None, None) => None,
            (Some(texts), None) => {
                Some(Secrets::Given(texts.into_iter().map(Secret::new).collect()))
            }
            (None, Some(file)) => Some(Secrets::File(SecretSource::File(file.into()))),
            (Some(_), Some(_)) => {
                self.0.fault("secrets_file", "stands beside `secrets`: one of the two");
                None
            }
        }
    }

    fn on_failure(&mut self, has_dlq: bool, qos: Qos) -> OnFailure {
        let default = match (has_dlq, qos) {
            (true, _) => OnFailure::Dlq,
            (false, Qos::AtMostOnce) => OnFailure::Skip,
            (false, _) => OnFailure::Stop,
        };
        let chosen = self.0.choice("on_failure", &ON_FAILURE).unwrap_or(default);
        if chosen == OnFailure::Dlq && !has_dlq {
            self.0.fault("on_failure", "is `dlq`, and the feed has no dlq_topic");
        }
        if chosen == OnFailure::Stop && qos == Qos::AtMostOnce {
            self.0.fault("on_failure", "must be skip or dlq: qos is `at-most-once`");
        }
        chosen
    }

    fn retry(&mut self) -> Retry {
        let path = format!("{}.retry", self.0.path);
        let table = self.0.section("retry").unwrap_or_default();
        let mut own = Webhook(Fields { path: &path, table, faults: &mut *self.0.faults });
        let give_up = own.0.number("give_up_after_s", GIVE_UP_RANGE, 0) as u64;
        let attempts = own.0.number("attempts", ATTEMPTS_RANGE, 0);
        let retry = Retry {
            initial: own.millis("initial_ms", PAUSE_MS_RANGE, INITIAL_MS),
            most: own.millis("max_ms", PAUSE_MS_RANGE, MOST_MS),
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            give_up_after: Some(give_up).filter(|s| *s > 0).map(Duration::from_secs),
        };
        if retry.most < retry.initial {
            own.0.fault("max_ms", "is less than initial_ms");
        }
        own.0.finish(&RETRY_FIELDS);
        retry
    }

    fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in self.0.section("headers").unwrap_or_default() {
            let parsed = HeaderName::try_from(&name).ok();
            let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
            let (Some(parsed), Some(value)) = (parsed, value) else {
                self.0.fault("headers", &format!("`{name}` is no header with a text"));
                continue;
            };
            let is_ours = |own: &&str| parsed.as_str().starts_with(*own);
            if OWN_HEADERS.contains(&parsed) || OWN_PREFIXES.iter().any(is_ours) {
                self.0.fault("headers", &format!("`{name}` is set by the bridge"));
            }
            headers.append(parsed, value);
        }
        headers
    }

    fn millis(&mut self, name: &str, range: (usize, usize), default: usize) -> Duration {
        Duration::from_millis(self.0.number(name, range, default) as u64)
    }
}

/// Of its own: another member of the group would get some of the records.
fn group_id(own: &mut Fields<'_>, webhook: &str, feeds: &Feeds) -> String {
    let group_id = own.text("group_id").unwrap_or_else(|| format!("webhook.{webhook}"));
    if !(1..=GROUP_BYTES).contains(&group_id.len()) {
        own.fault("group_id", "must have 1 to 255 bytes");
    }
    let has_it = |feed: &Feed| match &feed.delivery.group {
        GroupMode::Manual { id: Some(id), suffix, .. } => {
            group_id.strip_prefix(&**id) == Some(suffix)
        }
        _ => false,
    };
    if let Some((feed, _)) = feeds.feeds.iter().find(|(_, feed)| has_it(feed)) {
        own.fault("group_id", &format!("[feeds.{feed}] has the group `{group_id}`"));
    }
    group_id
}

#[derive(Debug, Clone, Copy)]
enum AuthName {
    None,
    Basic,
    Bearer,
    Hmac,
    OAuth2,
    Mtls,
}

const GROUP_BYTES: usize = 255;
const BATCH_RANGE: (usize, usize) = (1, 500);
const CONCURRENCY: usize = 8;
const CONCURRENCY_RANGE: (usize, usize) = (1, 1000);
const TIMEOUT_MS_RANGE: (usize, usize) = (1, 300_000);
const CONNECT_MS: usize = 3000;
const WHOLE_MS: usize = 15_000;
const INITIAL_MS: usize = 1000;
const MOST_MS: usize = 3_600_000;
const PAUSE_MS_RANGE: (usize, usize) = (1, 86_400_000);
const ATTEMPTS_RANGE: (usize, usize) = (0, 1_000_000);
/// A year.
const GIVE_UP_RANGE: (usize, usize) = (0, 31_536_000);
const FORMATS: Choices<Format> = Choices {
    default: Format::Envelope,
    accepted: &[
        ("envelope", Format::Envelope),
        ("raw", Format::Raw),
        ("cloudevents", Format::CloudEvents),
    ],
    unsupported: &[],
};
const ORDERINGS: Choices<Ordering> = Choices {
    default: Ordering::Partition,
    accepted: &[
        ("partition", Ordering::Partition),
        ("key", Ordering::Key),
        ("none", Ordering::None),
    ],
    unsupported: &[],
};
const QOS: Choices<Qos> = Choices {
    default: Qos::AtLeastOnce,
    accepted: &[
        ("at-least-once", Qos::AtLeastOnce),
        ("at-most-once", Qos::AtMostOnce),
        ("none", Qos::None),
    ],
    unsupported: &[],
};
const AUTHS: Choices<AuthName> = Choices {
    default: AuthName::None,
    accepted: &[
        ("none", AuthName::None),
        ("basic", AuthName::Basic),
        ("bearer", AuthName::Bearer),
        ("hmac", AuthName::Hmac),
        ("oauth2", AuthName::OAuth2),
        ("mtls", AuthName::Mtls),
    ],
    unsupported: &[],
};
const ON_FAILURE: Choices<Option<OnFailure>> = Choices {
    default: None,
    accepted: &[
        ("dlq", Some(OnFailure::Dlq)),
        ("stop", Some(OnFailure::Stop)),
        ("skip", Some(OnFailure::Skip)),
    ],
    unsupported: &[],
};
/// Headers that a request has from the bridge, and the beginnings of such.
const OWN_HEADERS: [HeaderName; 5] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    HeaderName::from_static("idempotency-key"),
];
const OWN_PREFIXES: [&str; 3] = ["webhook-", "kafka-", "ce-"];
const FIELDS: [&str; 27] = [
    "feed",
    "url",
    "group_id",
    "qos",
    "format",
    "batch_max",
    "ordering",
    "concurrency",
    "auth",
    "username",
    "password",
    "password_file",
    "token",
    "token_file",
    "secrets",
    "secrets_file",
    "certificate_file",
    "key_file",
    "oauth2",
    "cloudevents",
    "retry",
    "on_failure",
    "headers",
    "connect_timeout_ms",
    "timeout_ms",
    "ca_file",
    "allow_link_local",
];
/// The fields that one value of `auth` has.
const OF_AUTH: [(&str, &str); 8] = [
    ("username", "basic"),
    ("password", "basic"),
    ("password_file", "basic"),
    ("token", "bearer"),
    ("token_file", "bearer"),
    ("oauth2", "oauth2"),
    ("certificate_file", "mtls"),
    ("key_file", "mtls"),
];
const OAUTH2_FIELDS: [&str; 5] =
    ["token_endpoint", "client_id", "client_secret", "client_secret_file", "scope"];
const CLOUDEVENTS_FIELDS: [&str; 3] = ["source", "type", "origin"];
/// The type of events that are records of Kafka and nothing more.
const EVENT_TYPE: &str = "org.apache.kafka.record";
const RETRY_FIELDS: [&str; 4] = ["initial_ms", "max_ms", "attempts", "give_up_after_s"];

#[cfg(test)]
mod tests;
