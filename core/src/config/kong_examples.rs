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

/// Every field of Kong's schema 3.16 but `message_by_lua_functions`, set.
fn every_field() -> Value {
    let subject = |encoding: &str| json!({ "subject_name": "s", "schema_version": "3", "payload_encoding": encoding });
    json!({
        "allowed_topics": ["a", "b"],
        "authentication": {
            "strategy": "sasl", "mechanism": "OAUTHBEARER", "user": "u", "password": "p",
            "tokenauth": false,
            "oauthbearer": {
                "token_endpoint_url": "https://idp/token", "client_id": "c", "client_secret": "s",
                "scopes": ["kafka"], "extensions": { "logicalCluster": "lkc-1" },
                "token_endpoint_tls_verify": true,
            },
        },
        "bootstrap_servers": [{ "host": "broker", "port": 9092 }],
        "cluster_name": "main",
        "compression_type": "lz4",
        "error_handling": { "return_error_message": true },
        "forward_body": true, "forward_headers": true, "forward_method": true, "forward_uri": true,
        "headers": {
            "forward_http_headers_as_record_headers": true, "forward_all_by_default": false,
            "include_headers": ["x-a"], "exclude_headers": ["x-b"],
            "name_mappings": { "x-a": "a" }, "repeated_headers_behavior": "take_first",
        },
        "keepalive": 60000, "keepalive_enabled": true, "key_query_arg": "key",
        "new_kafka_async_producer": true,
        "producer_async": true, "producer_async_flush_timeout": 1000,
        "producer_async_buffering_limits_messages_in_memory": 50000,
        "producer_async_health_gating": true, "producer_async_health_failure_threshold": 3,
        "producer_async_health_probe_interval": 5000, "producer_async_health_recovery_threshold": 1,
        "producer_request_acks": -1, "producer_request_timeout": 2000,
        "producer_request_limits_bytes_per_request": 1048576,
        "producer_request_limits_messages_per_request": 200,
        "producer_request_retries_backoff_timeout": 100,
        "producer_request_retries_max_attempts": 10,
        "schema_registry": { "confluent": {
            "url": "https://registry", "ttl": 60, "ssl_verify": true,
            "authentication": {
                "mode": "oauth2", "basic": { "username": "u", "password": "p" },
                "logical_cluster_id": "lsrc-1", "identity_pool_id": "pool-1",
                "oauth2": {
                    "token_endpoint": "https://idp/token", "grant_type": "password",
                    "client_id": "c", "client_secret": "s", "username": "u", "password": "p",
                    "scopes": ["openid"], "audience": ["a"],
                    "token_headers": { "x-a": "1" }, "token_post_args": { "b": "2" },
                },
                "oauth2_client": {
                    "auth_method": "client_secret_jwt", "client_secret_jwt_alg": "HS256",
                    "http_proxy": "http://p", "http_proxy_authorization": "Basic x",
                    "http_version": 1.1, "https_proxy": "http://p",
                    "https_proxy_authorization": "Basic x", "keep_alive": true, "no_proxy": "a,b",
                    "ssl_verify": true, "timeout": 10000,
                },
            },
            "key_schema": subject("avro_json"), "value_schema": subject("simple_json"),
        } },
        "security": { "ssl": true, "ssl_verify": true, "certificate_id": "client" },
        "timeout": 10000,
        "topic": "t",
        "topics_query_arg": "topics",
    })
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
