//! A wrong configuration is refused at the start, with the path of the field.

use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use kafka_upstream_tests::configuration;
use serde_json::{Value, json};
use xtask::build;

async fn envoys_word_on(fields: Value) -> anyhow::Result<String> {
    let listener = Listener::filter("orders", configuration("orders", &fields));
    let config = EnvoyConfig::new(build::filter()?).listener(listener);
    match Envoy::start(config).await {
        Ok(_) => anyhow::bail!("Envoy started with {fields}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn nested_rules(levels: usize) -> Value {
    (0..levels).fold(json!({}), |inner, _| json!({ "match": [{ "config": inner }] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_does_not_start_and_its_log_names_the_field() -> anyhow::Result<()> {
    for (fields, reason) in [
        (json!({ "topicc": "x" }), "topicc: unknown field, did you mean `topic`?"),
        (json!({ "topic": null }), "topic: is required"),
        (json!({ "topic": 7 }), "topic: expected a string, not a number"),
        (json!({ "producer_request_acks": 2 }), "producer_request_acks: must be -1 to 1, is 2"),
        (json!({ "forward_body": false }), "forward_body: at least one forward_* must be true"),
        (
            json!({ "producer_async": true, "delivery": "acked" }),
            "delivery: contradicts producer_async",
        ),
        (
            json!({ "bootstrap_servers": [{ "host": "h", "port": 99999 }] }),
            "bootstrap_servers[0].port: must be 1 to 65535, is 99999",
        ),
        (
            json!({ "message_by_lua_functions": ["return function(message) end"] }),
            "message_by_lua_functions: Lua is not supported: message_expression",
        ),
        (
            json!({ "key_expression": format!("has(message{})", ".a".repeat(1900)) }),
            "key_expression: has more than 256 operators in a row",
        ),
        (nested_rules(5), "match[0].config.match: is the same for all rules"),
        (nested_rules(40), "match[0].config.match[0]"),
        (
            json!({ "authentication": { "mechanism": "PLAIN", "password": "{vault://env/pw}" } }),
            "authentication.password: is a reference to one of Kong's vaults",
        ),
        (
            json!({ "host": "nginx" }),
            "host: expected one of `auto`, `envoy`, `wasmx`, `apisix`, not `nginx`",
        ),
        (json!({ "security": { "certificate_id": "c" } }), "security.certificate_id: needs"),
        (json!({ "authentication": { "user": "u" } }), "authentication.mechanism: is required"),
        (
            json!({ "schema_registry": { "confluent": { "url": "r" } } }),
            "schema_registry.confluent.url: must begin with http://",
        ),
    ] {
        let word = envoys_word_on(fields).await?;
        assert!(word.contains(&format!("kafka-upstream configuration: {reason}")), "{word}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_does_not_start_and_says_why() -> anyhow::Result<()> {
    for (settings, reason) in [
        (Settings::to("h:1").line("listen_ = 1"), "unknown field `listen_`"),
        (Settings::to("h:1").property("acsk", "1"), "acsk"),
        (Settings::to("h:1").property("acks", "2"), "acks"),
        (Settings::to(""), "bootstrap.servers"),
    ] {
        let error = match Bridge::start(settings.clone()).await {
            Ok(_) => anyhow::bail!("the bridge started with {settings:?}"),
            Err(error) => format!("{error:#}"),
        };
        assert!(error.contains(reason), "{reason}: {error}");
    }
    Ok(())
}
