//! The configurations of Kong's documentation, and one with every field set, are accepted.

use serde_json::{Value, json};

use super::{Plugin, Settings};

/// Each `config` of the plugin's documented examples, but for those with Lua functions, with a
/// topic and the field of ours that is required.
const EXAMPLES: &[(&str, &str)] = &[
    ("enable", r#"{"bootstrap_servers":[{"host":"localhost","port":9092}],"topic":"t"}"#),
    (
        "multiple-producer-topics",
        r#"{"topic":"t","bootstrap_servers":[{"host":"localhost","port":9092}],
            "topics_query_arg":"topic-list","allowed_topics":["my-topic","topic1","topic2"]}"#,
    ),
    ("compress-messages", r#"{"topic":"t","compression_type":"lz4"}"#),
    (
        "plain-auth",
        r#"{"topic":"t","authentication":{"strategy":"sasl","mechanism":"PLAIN","user":"u",
            "password":"p"}}"#,
    ),
    (
        "scram-sha-256",
        r#"{"topic":"t","authentication":{"strategy":"sasl","mechanism":"SCRAM-SHA-256",
            "user":"u","password":"p"}}"#,
    ),
    (
        "delegation-tokens",
        r#"{"topic":"t","authentication":{"strategy":"sasl","mechanism":"SCRAM-SHA-256",
            "user":"id","password":"hmac","tokenauth":true}}"#,
    ),
    (
        "oauthbearer",
        r#"{"topic":"t","authentication":{"strategy":"sasl","mechanism":"OAUTHBEARER",
            "oauthbearer":{"token_endpoint_url":"https://idp/token","client_id":"c",
            "client_secret":"s"}}}"#,
    ),
    ("tls", r#"{"topic":"t","security":{"ssl":true}}"#),
    (
        "mtls",
        r#"{"topic":"t","security":{"ssl":true,
            "certificate_id":"38fbf6a1-1c58-4dea-a391-85abf1b92f13"}}"#,
    ),
    (
        "record-headers-allowlist",
        r#"{"topic":"t","headers":{"forward_http_headers_as_record_headers":true,
            "forward_all_by_default":false,
            "include_headers":["x-request-id","x-tenant-id","x-correlation-id"],
            "name_mappings":{"x-request-id":"trace-id","x-tenant-id":"tenant"},
            "repeated_headers_behavior":"concatenate_by_comma"}}"#,
    ),
    (
        "record-headers-blocklist",
        r#"{"topic":"t","headers":{"forward_http_headers_as_record_headers":true,
            "forward_all_by_default":true,"exclude_headers":["authorization","cookie"],
            "repeated_headers_behavior":"retain_duplicates"}}"#,
    ),
    (
        "schema-registry",
        r#"{"bootstrap_servers":[{"host":"h","port":9092}],"topic":"t","schema_registry":{
            "confluent":{"url":"http://schema-registry:8081","authentication":{"mode":"basic",
            "basic":{"username":"user","password":"password"}},"value_schema":{
            "subject_name":"kong-value","schema_version":"latest",
            "payload_encoding":"simple_json"}}}}"#,
    ),
];

/// Every field of Kong's schema 3.16; `message_by_lua_functions` is empty, Lua is not supported.
fn every_field() -> Value {
    serde_json::from_str(include_str!("kong_every_field.json")).unwrap()
}

fn parse(mut config: Value) -> Settings {
    config["bridge"] = json!("host_bridge");
    let plugin = Plugin::parse(config.to_string().as_bytes()).unwrap();
    plugin.settings.into_iter().next().unwrap()
}

#[test]
fn each_documented_example_is_accepted() {
    for (name, example) in EXAMPLES {
        let config: Value = serde_json::from_str(example).unwrap();
        let settings = parse(config.clone());
        assert_eq!(settings.topic, "t", "{name}");
        assert_eq!(settings.profile.authentication.is_some(), config["authentication"].is_object());
        assert_eq!(settings.profile.security.is_some(), config["security"].is_object());
    }
}

#[test]
fn a_configuration_with_every_field_is_accepted_and_reaches_the_bridge() {
    let settings = parse(every_field());
    let profile: Value = serde_json::from_slice(&settings.profile.to_json().unwrap()).unwrap();
    let every = every_field();
    for section in ["authentication", "security", "schema_registry", "cluster_name"] {
        assert_eq!(drop_nulls(profile[section].clone()), drop_nulls(every[section].clone()));
    }
    for (property, value) in [
        ("acks", "-1"),
        ("connections.max.idle.ms", "60000"),
        ("socket.connection.setup.timeout.ms", "10000"),
    ] {
        assert_eq!(profile["properties"][property], value);
    }
}

/// The test above is worth something only while it sets every field that Kong has.
#[cfg(feature = "schema")]
#[test]
fn the_full_configuration_has_every_field_of_the_schema_that_is_not_new() {
    fn missing(schema: &Value, config: &Value, path: &str, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if field["x-new"] == true {
                continue;
            }
            let path = format!("{path}.{name}");
            match config.get(name) {
                None => found.push(path),
                Some(value) => missing(field, value, &path, found),
            }
        }
    }
    let mut found = Vec::new();
    missing(&super::schema::schema(), &every_field(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

fn drop_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(name, value)| (name, drop_nulls(value))).collect())
        }
        other => other,
    }
}
