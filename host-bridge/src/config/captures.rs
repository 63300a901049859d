//! `[captures.NAME]`: plugin configurations by which the bridge captures requests itself.

use std::collections::BTreeMap;

use axum::http::HeaderName;
use kafka_upstream_core::config::{Mode, Plugin};
use kafka_upstream_core::limits::RECORD_BYTES_MAX;
use serde_json::{Map, Value};

use super::error::{ConfigError, field};
use super::schemas::each;
use super::sources::of_toml;
use crate::consume::feeds::fields::Fields;

/// What a capture route does with a request.
#[derive(Clone)]
pub(crate) struct CaptureConfig {
    pub(crate) plugin: Plugin,
    pub(crate) proxy: ProxyHeaders,
}

/// Headers in which the proxy in front says what its client asked. None is believed but these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProxyHeaders {
    /// The path with the query string.
    pub(crate) path: Option<HeaderName>,
    pub(crate) scheme: Option<HeaderName>,
    /// The last of its addresses is the one that the proxy added.
    pub(crate) client_address: Option<HeaderName>,
}

/// Reads the section. What is wrong is added to `faults`.
pub(super) fn read(
    captures: toml::Table,
    faults: &mut Vec<ConfigError>,
) -> BTreeMap<String, CaptureConfig> {
    let mut read = BTreeMap::new();
    each("captures", captures, faults, |path, name, table, faults| {
        let capture = capture(path, table, faults);
        read.extend(capture.map(|capture| (name.to_owned(), capture)));
    });
    read
}

fn capture(path: &str, table: toml::Table, faults: &mut Vec<ConfigError>) -> Option<CaptureConfig> {
    let mut fields = Fields { path, table, faults };
    let proxy = ProxyHeaders {
        path: header(&mut fields, "path_header"),
        scheme: header(&mut fields, "scheme_header"),
        client_address: header(&mut fields, "client_address_header"),
    };
    let file = fields.text("config_file");
    let Fields { table, faults, .. } = fields;
    plugin(table, file.as_deref())
        .map(|plugin| CaptureConfig { plugin, proxy })
        .map_err(|(name, reason)| faults.push(field(&format!("{path}.{name}"), &reason)))
        .ok()
}

fn header(fields: &mut Fields<'_>, name: &str) -> Option<HeaderName> {
    let text = fields.text(name)?;
    let header = HeaderName::try_from(&text).ok();
    if header.is_none() {
        fields.fault(name, &format!("`{text}` is not the name of a header"));
    }
    header
}

/// A fault is a field and what is wrong with it.
fn plugin(table: toml::Table, file: Option<&str>) -> Result<Plugin, (String, String)> {
    let fault = |name: &str, reason: &str| Err((name.to_owned(), reason.to_owned()));
    let mut config = match (file, table.keys().next()) {
        (Some(_), Some(name)) => return fault(name, "belongs in the config_file"),
        (Some(path), None) => of_file(path)
            .map_err(|reason| ("config_file".to_owned(), format!("{path}: {reason}")))?,
        (None, _) => table.into_iter().map(|(name, value)| (name, of_toml(value))).collect(),
    };
    if let Some(name) = OF_FILTERS.into_iter().find(|name| config.contains_key(*name)) {
        return fault(name, "is for filters: here the bridge itself captures");
    }
    // Every plugin configuration names one.
    config.insert("bridge".to_owned(), "host-bridge".into());
    let mut plugin = Plugin::parse(Value::Object(config).to_string().as_bytes())
        .map_err(|error| (error.path, error.reason))?;
    if plugin.settings.iter().any(|settings| settings.mode == Mode::Tap) {
        return fault("mode", "`tap` needs an upstream, and a capture route has none");
    }
    // Of a filter's queue, which bounds the records of a request that goes to several topics.
    plugin.settings.iter_mut().for_each(|settings| settings.queue.bytes = RECORD_BYTES_MAX);
    Ok(plugin)
}

/// A plugin's configuration as JSON, or the whole plugin as Kong has it: `{"name": …, "config": …}`.
fn of_file(path: &str) -> Result<Map<String, Value>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let document =
        serde_json::from_slice(&text).map_err(|error| format!("is not JSON: {error}"))?;
    let Value::Object(mut plugin) = document else { return Err(MORE_THAN_A_PLUGIN.to_owned()) };
    if OF_MORE_THAN_A_PLUGIN.iter().any(|name| plugin.contains_key(*name)) {
        return Err(MORE_THAN_A_PLUGIN.to_owned());
    }
    let Some(name) = plugin.get("name") else { return Ok(plugin) };
    if !PLUGINS.iter().any(|known| name == known) {
        return Err(format!("is of the plugin {name}, and not of kafka-upstream"));
    }
    match plugin.remove("config") {
        Some(Value::Object(config)) => Ok(config),
        _ => Err("the plugin has no `config`".to_owned()),
    }
}

/// Fields of what Kong exports: a declarative configuration, and pages of its Admin API.
const OF_MORE_THAN_A_PLUGIN: [&str; 3] = ["_format_version", "data", "plugins"];
const MORE_THAN_A_PLUGIN: &str = "is not one plugin: take one, or what stands under its `config`";
/// Kong's, its form for Confluent, and the filter by its own name.
const PLUGINS: [&str; 3] = ["kafka-upstream", "confluent", "kafka_upstream"];

/// Fields that say how a filter reaches the bridge.
const OF_FILTERS: [&str; 6] = [
    "bridge",
    "bridge_authority",
    "bridge_token",
    "host",
    "allow_on_headers_stop_iteration",
    "group_commit",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, CaptureConfig>, String> {
        let mut faults = Vec::new();
        let captures = super::read(toml::from_str(text).unwrap(), &mut faults);
        faults.first().map_or(Ok(captures), |fault| Err(fault.to_string()))
    }

    #[test]
    fn a_capture_is_a_plugin_configuration_in_toml_or_in_a_file_of_json() {
        let inline = "[orders]\ntopic = 'orders'\nproducer_async = false\n\
            path_header = 'X-Original-URI'\n[[orders.match]]\npath_prefix = '/a'\n\
            config = { topic = 'a' }";
        let captures = read(inline).unwrap();
        let orders = &captures["orders"];
        assert_eq!(orders.plugin.settings[0].topic, "a");
        assert_eq!(orders.proxy.path, Some(HeaderName::from_static("x-original-uri")));
        for json in [
            r#"{"topic":"orders","forward_headers":true}"#,
            r#"{"name":"kafka-upstream","config":{"topic":"orders","forward_headers":true}}"#,
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), json).unwrap();
            let path = file.path().display();
            let captures = read(&format!("[a]\nconfig_file = '{path}'")).unwrap();
            let settings = &captures["a"].plugin.settings[0];
            assert!(settings.forward.headers && settings.topic == "orders");
        }
    }

    #[test]
    fn what_is_wrong_with_a_capture_names_its_field() {
        for (text, fault) in [
            ("a = 1", "captures.a: must be a section, [captures.NAME]"),
            ("['a/b']", "captures.a/b: the name must be 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`"),
            ("[a]", "captures.a.topic: is required"),
            ("[a]\ntopic = 't'\ntopc = 1", "captures.a.topc: unknown field, did you mean `topic`?"),
            (
                "[a]\ntopic = 't'\nbridge = 'b'",
                "captures.a.bridge: is for filters: here the bridge itself captures",
            ),
            (
                "[a]\ntopic = 't'\nmode = 'tap'",
                "captures.a.mode: `tap` needs an upstream, and a capture route has none",
            ),
            (
                "[a]\ntopic = 't'\nscheme_header = 'a b'",
                "captures.a.scheme_header: `a b` is not the name of a header",
            ),
            ("[a]\ntopic = 't'\nconfig_file = 'c'", "captures.a.topic: belongs in the config_file"),
        ] {
            assert_eq!(read(text).map(|_| ()).unwrap_err(), fault);
        }
        for (json, reason) in [
            ("_format_version: '3.0'", "is not JSON: expected value at line 1 column 1"),
            (r#"{"_format_version":"3.0","plugins":[]}"#, MORE_THAN_A_PLUGIN),
            (r#"{"data":[{"name":"kafka-upstream"}],"next":null}"#, MORE_THAN_A_PLUGIN),
            (r#"[{"name":"kafka-upstream"}]"#, MORE_THAN_A_PLUGIN),
            (
                r#"{"name":"kafka-log","config":{"topic":"t"}}"#,
                "is of the plugin \"kafka-log\", and not of kafka-upstream",
            ),
            (r#"{"name":"kafka-upstream"}"#, "the plugin has no `config`"),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), json).unwrap();
            let path = file.path().display();
            let fault = read(&format!("[a]\nconfig_file = '{path}'")).map(|_| ()).unwrap_err();
            assert_eq!(fault, format!("captures.a.config_file: {path}: {reason}"));
        }
        let missing = read("[a]\nconfig_file = '/nowhere'").map(|_| ()).unwrap_err();
        assert!(missing.starts_with("captures.a.config_file: /nowhere: No such file"), "{missing}");
    }
}
