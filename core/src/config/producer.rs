//! Checks the producer's profile: the brokers, the producer's properties, and how it gets access to
//! Kafka and to a schema registry. Whether the bridge can serve that is for the bridge to say.

use std::collections::BTreeMap;

use super::field::{ConfigError, fault, name, number, required, visible};
use super::raw::{Raw, Server};
use crate::access::{Authentication, Mechanism, OAuthBearer, Security};
use crate::limits;
use crate::profile::{Compression, Partitioner, Profile};
use crate::registry::{Confluent, GrantType, RegistryMode, SchemaRegistry, SchemaVersion, Subject};

pub(super) fn profile(raw: &Raw) -> Result<Profile, ConfigError> {
    let excluded = [
        ("bootstrap_servers", raw.bootstrap_servers.is_some()),
        ("authentication", raw.authentication.is_some()),
        ("security", raw.security.is_some()),
    ];
    if let (true, Some((field, _))) = (raw.cluster.is_some(), excluded.iter().find(|(_, is)| *is)) {
        return Err(fault("cluster", &format!("excludes {field}")));
    }
    let mut bootstrap_servers = Vec::new();
    for (index, server) in raw.bootstrap_servers.iter().flatten().enumerate() {
        bootstrap_servers.push(address(index, server)?);
    }
    if raw.bootstrap_servers.is_some() && bootstrap_servers.is_empty() {
        return Err(fault("bootstrap_servers", "must not be empty"));
    }
    Ok(Profile {
        cluster: name("cluster", raw.cluster.clone(), 64)?,
        cluster_name: cluster_name(raw)?,
        bootstrap_servers,
        properties: properties(raw)?,
        authentication: authentication(raw)?,
        security: security(raw)?,
        schema_registry: schema_registry(raw)?,
    })
}

/// The producer's properties that are written down, by Kafka's names.
fn properties(raw: &Raw) -> Result<BTreeMap<String, String>, ConfigError> {
    let keepalive = match raw.keepalive_enabled {
        Some(true) => Some(raw.keepalive.unwrap_or(60_000)),
        _ => None,
    };
    number("keepalive", raw.keepalive, (1000, DAY_MS), 0)?;
    let numbers = [
        ("acks", "producer_request_acks", raw.producer_request_acks, (-1, 1)),
        ("connections.max.idle.ms", "keepalive", keepalive, (1000, DAY_MS)),
        ("socket.connection.setup.timeout.ms", "timeout", raw.timeout, (1, DAY_MS)),
        ("batch.records", BATCH_RECORDS, raw.producer_request_limits_messages_per_request, RECORDS),
        ("batch.size", BATCH_BYTES, raw.producer_request_limits_bytes_per_request, BYTES),
        ("linger.ms", "linger", raw.linger, (0, HOUR_MS)),
        (
            "request.timeout.ms",
            "producer_request_timeout",
            raw.producer_request_timeout,
            (1, HOUR_MS),
        ),
        (
            "retries",
            "producer_request_retries_max_attempts",
            raw.producer_request_retries_max_attempts,
            (0, 1_000_000),
        ),
        (
            "retry.backoff.ms",
            "producer_request_retries_backoff_timeout",
            raw.producer_request_retries_backoff_timeout,
            (1, HOUR_MS),
        ),
    ];
    let mut properties = BTreeMap::new();
    for (property, path, value, range) in numbers {
        if value.is_some() {
            let number: i64 = number(path, value, range, 0)?;
            properties.insert(property.to_owned(), number.to_string());
        }
    }
    let names = [
        ("compression.type", raw.compression_type.map(Compression::name)),
        ("partitioner", raw.partitioner.map(Partitioner::name)),
    ];
    for (property, name) in names {
        properties.extend(name.map(|name| (property.to_owned(), name.to_owned())));
    }
    Ok(properties)
}

fn address(index: usize, server: &Server) -> Result<String, ConfigError> {
    let path = |field| format!("bootstrap_servers[{index}].{field}");
    let host = server.host.as_deref().ok_or_else(|| required(&path("host")))?;
    let port = server.port.ok_or_else(|| required(&path("port")))?;
    if host.is_empty() || host.contains(['/', ',', ' ']) {
        return Err(fault(&path("host"), "must be a host name or an IP address"));
    }
    visible(&path("host"), host)?;
    let port: u16 = number(&path("port"), Some(port), (1, u16::MAX), 0)?;
    let bracketed = host.contains(':') && !host.starts_with('[');
    Ok(if bracketed { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn cluster_name(raw: &Raw) -> Result<Option<String>, ConfigError> {
    match &raw.cluster_name {
        Some(name) if !(1..=255).contains(&name.len()) || name.chars().any(char::is_control) => {
            Err(fault("cluster_name", "must be 1 to 255 bytes without control characters"))
        }
        name => Ok(name.clone()),
    }
}

fn authentication(raw: &Raw) -> Result<Option<Authentication>, ConfigError> {
    let Some(set) = raw.authentication.clone().filter(asks_for_sasl) else { return Ok(None) };
    let path = |field: &str| format!("authentication.{field}");
    let mechanism = set.mechanism.ok_or_else(|| required(&path("mechanism")))?;
    let scram = matches!(mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha512);
    if scram || mechanism == Mechanism::Plain {
        need("authentication", "user", set.user.is_some())?;
        need("authentication", "password", set.password.is_some())?;
    }
    if set.tokenauth == Some(true) && !scram {
        return Err(fault(&path("tokenauth"), "needs SCRAM-SHA-256 or SCRAM-SHA-512"));
    }
    if mechanism == Mechanism::OAuthBearer {
        let none = OAuthBearer::default();
        let oauth = set.oauthbearer.as_ref().unwrap_or(&none);
        let section = path("oauthbearer");
        need(&section, "token_endpoint_url", oauth.token_endpoint_url.is_some())?;
        need(&section, "client_id", oauth.client_id.is_some())?;
        need(&section, "client_secret", oauth.client_secret.is_some())?;
        url(&path("oauthbearer.token_endpoint_url"), oauth.token_endpoint_url.as_deref())?;
    }
    Ok(Some(set))
}

fn security(raw: &Raw) -> Result<Option<Security>, ConfigError> {
    let Some(set) = raw.security.clone() else { return Ok(None) };
    if set.certificate_id.is_some() && set.ssl != Some(true) {
        return Err(fault("security.certificate_id", "needs security.ssl"));
    }
    Ok(Some(set).filter(|set| set.ssl == Some(true)))
}

fn schema_registry(raw: &Raw) -> Result<Option<SchemaRegistry>, ConfigError> {
    let confluent = raw.schema_registry.as_ref().and_then(|registry| registry.confluent.as_ref());
    let Some(set) = confluent.cloned().filter(asks_for_schemas) else { return Ok(None) };
    check_registry(REGISTRY, &set)?;
    check_subject(&format!("{REGISTRY}.key_schema"), set.key_schema.as_ref())?;
    check_subject(&format!("{REGISTRY}.value_schema"), set.value_schema.as_ref())?;
    Ok(Some(SchemaRegistry { confluent: Some(set) }))
}

/// Checks what a configuration says of a registry itself in this section.
///
/// # Errors
/// The first field that is wrong or missing.
pub fn check_registry(section: &str, set: &Confluent) -> Result<(), ConfigError> {
    need(section, "url", set.url.is_some())?;
    for one in set.urls() {
        let path = format!("{section}.url");
        url(&path, Some(one))?;
        if one.contains(['@', '?', '#']) {
            let reason = "must have no user, which authentication.basic has, and no query";
            return Err(fault(&path, reason));
        }
    }
    number(&format!("{section}.ttl"), set.ttl, (0, 3600), 0)?;
    registry_authentication(section, set)
}

/// Kong writes every field with its default: only what has none says that a section is meant.
fn asks_for_sasl(set: &Authentication) -> bool {
    let oauth = set.oauthbearer.as_ref().is_some_and(|oauth| oauth.token_endpoint_url.is_some());
    set.strategy.is_some()
        || set.mechanism.is_some()
        || set.user.is_some()
        || set.password.is_some()
        || oauth
}

fn asks_for_schemas(set: &Confluent) -> bool {
    let subjects = [&set.key_schema, &set.value_schema];
    let mode = set.authentication.as_ref().and_then(|authentication| authentication.mode);
    set.url.is_some()
        || mode.is_some_and(|mode| mode != RegistryMode::None)
        || subjects.into_iter().flatten().any(|subject| *subject != defaults(subject))
}

fn defaults(subject: &Subject) -> Subject {
    Subject { payload_encoding: subject.payload_encoding, ..Subject::default() }
}

fn registry_authentication(section: &str, confluent: &Confluent) -> Result<(), ConfigError> {
    let section = format!("{section}.authentication");
    let authentication = confluent.authentication.clone().unwrap_or_default();
    match authentication.mode.unwrap_or(RegistryMode::None) {
        RegistryMode::None => {}
        RegistryMode::Basic => {
            let (section, basic) = (format!("{section}.basic"), authentication.basic);
            let basic = basic.unwrap_or_default();
            need(&section, "username", basic.username.is_some())?;
            need(&section, "password", basic.password.is_some())?;
        }
        RegistryMode::OAuth2 => {
            let section = format!("{section}.oauth2");
            let oauth2 = authentication.oauth2.unwrap_or_default();
            need(&section, "token_endpoint", oauth2.token_endpoint.is_some())?;
            url(&format!("{section}.token_endpoint"), oauth2.token_endpoint.as_deref())?;
            if oauth2.grant_type == Some(GrantType::Password) {
                need(&section, "username", oauth2.username.is_some())?;
                need(&section, "password", oauth2.password.is_some())?;
            }
        }
    }
    let client = authentication.oauth2_client.unwrap_or_default();
    let section = format!("{section}.oauth2_client");
    number(&format!("{section}.timeout"), client.timeout, (0, 2_147_483_646), 0)?;
    let version = client.http_version.and_then(|version| version.as_f64()).unwrap_or(1.1);
    if version != 1.0 && version != 1.1 {
        return Err(fault(&format!("{section}.http_version"), "must be 1.0 or 1.1"));
    }
    Ok(())
}

/// Checks which schema a configuration names in this section.
///
/// # Errors
/// The first field that is wrong or missing.
pub fn check_subject(section: &str, subject: Option<&Subject>) -> Result<(), ConfigError> {
    let Some(subject) = subject.filter(|subject| **subject != defaults(subject)) else {
        return Ok(());
    };
    let name = subject.subject_name.as_deref().unwrap_or_default();
    need(section, "subject_name", !name.is_empty())?;
    let is_version = match &subject.schema_version {
        None => return Err(required(&format!("{section}.schema_version"))),
        Some(SchemaVersion::Number(number)) => *number > 0,
        Some(SchemaVersion::Text(text)) => {
            text == "latest" || text.parse::<u32>().is_ok_and(|number| number > 0)
        }
    };
    let wrong = || {
        let reason = "must be `latest` or a version number";
        fault(&format!("{section}.schema_version"), reason)
    };
    is_version.then_some(()).ok_or_else(wrong)
}

fn need(section: &str, field: &str, is_there: bool) -> Result<(), ConfigError> {
    if is_there { Ok(()) } else { Err(required(&format!("{section}.{field}"))) }
}

fn url(path: &str, url: Option<&str>) -> Result<(), ConfigError> {
    let rest = url.map(|url| url.strip_prefix("https://").or(url.strip_prefix("http://")));
    match rest {
        None => Ok(()),
        Some(Some(rest)) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(())
        }
        Some(_) => Err(fault(path, "must begin with http:// or https:// and be visible ASCII")),
    }
}

const REGISTRY: &str = "schema_registry.confluent";
/// Also the filter's, for its own batches.
pub(super) const BATCH_RECORDS: &str = "producer_request_limits_messages_per_request";
pub(super) const BATCH_BYTES: &str = "producer_request_limits_bytes_per_request";
/// What a frame holds.
pub(super) const RECORDS: (i64, i64) = (1, limits::FRAME_RECORDS_MAX as i64);
/// Half of a frame, so that a batch which is almost full takes one more record.
pub(super) const BYTES: (i64, i64) = (1, limits::FRAME_BYTES_MAX as i64 / 2);
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    fn parse(fields: &str) -> Result<Settings, String> {
        let config = format!(r#"{{"bridge":"b","topic":"t",{fields}}}"#);
        Settings::parse(config.as_bytes()).map_err(|error| error.to_string())
    }

    fn confluent(fields: &str) -> Result<Settings, String> {
        parse(&format!(r#""schema_registry":{{"confluent":{{{fields}}}}}"#))
    }

    #[test]
    fn what_access_needs_is_named() {
        for (fields, error) in [
            (r#""authentication":{"user":"u"}"#, "authentication.mechanism: is required"),
            (
                r#""authentication":{"mechanism":"PLAIN","user":"u"}"#,
                "authentication.password: is required",
            ),
            (
                r#""authentication":{"mechanism":"PLAIN","user":"u","password":"p","tokenauth":true}"#,
                "authentication.tokenauth: needs SCRAM-SHA-256 or SCRAM-SHA-512",
            ),
            (
                r#""authentication":{"mechanism":"OAUTHBEARER"}"#,
                "authentication.oauthbearer.token_endpoint_url: is required",
            ),
            (
                r#""authentication":{"mechanism":"SCRAM"}"#,
                "authentication.mechanism: expected one of `PLAIN`, \
                 `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER`, `AWS_MSK_IAM`, `GSSAPI`",
            ),
            (r#""security":{"certificate_id":"a"}"#, "security.certificate_id: needs security.ssl"),
            (r#""security":{"sll":true}"#, "security.sll: unknown field, did you mean `ssl`?"),
            (
                r#""cluster":"a","authentication":{"mechanism":"GSSAPI"}"#,
                "cluster: excludes authentication",
            ),
            (
                r#""cluster_name":"""#,
                "cluster_name: must be 1 to 255 bytes without control characters",
            ),
            (r#""keepalive":5"#, "keepalive: must be 1000 to 86400000, is 5"),
        ] {
            assert_eq!(parse(fields).unwrap_err(), error);
        }
    }

    #[test]
    fn what_a_registry_needs_is_named() {
        for (fields, error) in [
            (r#""authentication":{"mode":"basic"}"#, "url: is required"),
            (r#""value_schema":{"subject_name":"s"}"#, "url: is required"),
            (r#""url":"ftp://x""#, "url: must begin with http:// or https:// and be visible ASCII"),
            (r#""url":"http://r","ttl":3601"#, "ttl: must be 0 to 3600, is 3601"),
            (
                r#""url":"http://r","authentication":{"mode":"basic","basic":{"username":"u"}}"#,
                "authentication.basic.password: is required",
            ),
            (
                r#""url":"http://r","authentication":{"mode":"oauth2"}"#,
                "authentication.oauth2.token_endpoint: is required",
            ),
            (
                r#""url":"http://r","authentication":{"oauth2_client":{"http_version":2}}"#,
                "authentication.oauth2_client.http_version: must be 1.0 or 1.1",
            ),
            (
                r#""url":"http://r","value_schema":{"subject_name":"s"}"#,
                "value_schema.schema_version: is required",
            ),
            (
                r#""url":"http://r","key_schema":{"subject_name":"s","schema_version":"new"}"#,
                "key_schema.schema_version: must be `latest` or a version number",
            ),
            (
                r#""url":"http://r","key_schema":{"subject_name":"s","schema_version":0}"#,
                "key_schema.schema_version: must be `latest` or a version number",
            ),
            (
                r#""url":"http://r","key_schema":{"subject_name":"","schema_version":1}"#,
                "key_schema.subject_name: is required",
            ),
        ] {
            let expected = format!("schema_registry.confluent.{error}");
            assert_eq!(confluent(fields).unwrap_err(), expected);
        }
        let right = r#""url":"http://r","value_schema":{"subject_name":"s","schema_version":3}"#;
        assert!(confluent(right).unwrap().profile.schema_registry.is_some());
    }

    #[test]
    fn sections_that_hold_defaults_alone_are_no_sections() {
        let defaults = r#""authentication":{"user":null,"tokenauth":false,
                "oauthbearer":{"token_endpoint_tls_verify":true}},
            "security":{"ssl":false,"ssl_verify":true},
            "schema_registry":{"confluent":{"url":null,"ssl_verify":true,
                "authentication":{"mode":"none"},"value_schema":{"payload_encoding":"avro_json"}}}"#;
        assert_eq!(parse(defaults), parse(r#""mode":null"#));
    }

    #[test]
    fn no_secret_is_shown() {
        let fields = r#""bridge_token":"hunter2","authentication":{"mechanism":"PLAIN",
            "user":"hunter2","password":"hunter2"},"schema_registry":{"confluent":{
            "url":"http://r","authentication":{"mode":"basic","basic":{"username":"hunter2",
            "password":"hunter2"}}}}"#;
        let settings = parse(fields).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
        let document = String::from_utf8(settings.profile.to_json().unwrap()).unwrap();
        assert!(document.contains("hunter2"), "the bridge needs it");
        for misplaced in [
            r#""authentication":"hunter2""#,
            r#""authentication":{"password":["hunter2"]}"#,
            r#""authentication":{"tokenauth":"hunter2"}"#,
            r#""bridge_token":{"a":"hunter2"}"#,
            r#""schema_registry":{"confluent":{"authentication":{"basic":"hunter2"}}}"#,
        ] {
            let error = parse(misplaced).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
