//! Where settings come from, merged into one: file, then environment, then flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::args::Args;
use super::error::{ConfigError, field};
use super::lines::line;
use super::listen::{ListenTls, UnixSocket};
use crate::consume::authorization::Rule;

/// The configuration as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) listen: Option<Vec<String>>,
    pub(super) drain_timeout_ms: Option<u64>,
    pub(super) token_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) unix_socket: UnixSocket,
    pub(super) tls: Option<ListenTls>,
    #[serde(default)]
    pub(super) inline_bootstrap_servers: Vec<String>,
    #[serde(default)]
    pub(super) inline_token_endpoints: Vec<String>,
    #[serde(default)]
    pub(super) inline_schema_registries: Vec<String>,
    #[serde(default)]
    pub(super) clusters: BTreeMap<String, toml::Table>,
    #[serde(default)]
    pub(super) certificates: BTreeMap<String, toml::Table>,
    #[serde(default)]
    pub(super) captures: toml::Table,
    #[serde(default)]
    pub(super) feeds: toml::Table,
    #[serde(default)]
    pub(super) webhooks: toml::Table,
    #[serde(default)]
    pub(super) registries: toml::Table,
    #[serde(default)]
    pub(super) schemas: toml::Table,
    #[serde(default)]
    pub(super) authorization: Vec<Rule>,
    #[serde(default)]
    pub(super) inline: toml::Table,
}

/// `None` if the file is no configuration.
pub(super) fn merge(
    args: &Args,
    text: Option<&str>,
    environment: impl Iterator<Item = (String, String)>,
    faults: &mut Vec<ConfigError>,
) -> Option<Raw> {
    let mut raw = match (&args.config, text) {
        (Some(path), Some(text)) => parse(path, text, faults)?,
        _ => Raw::default(),
    };
    for (name, value) in environment {
        match name.strip_prefix(PREFIX) {
            Some(setting) if !OF_FLAGS.contains(&setting) => {
                set(&mut raw, &name, setting, value).unwrap_or_else(|fault| faults.push(fault));
            }
            _ => {}
        }
    }
    if !args.listen.is_empty() {
        raw.listen = Some(args.listen.clone());
    }
    if let Some(servers) = &args.bootstrap_servers {
        let default = raw.clusters.entry("default".to_owned()).or_default();
        put(default, "bootstrap.servers", servers.clone());
    }
    Some(raw)
}

/// Each setting and section by itself, so that a fault of one hides none of another.
fn parse(path: &Path, text: &str, faults: &mut Vec<ConfigError>) -> Option<Raw> {
    let before = faults.len();
    let mut wrong = |error: &toml::de::Error| faults.push(not_toml(path, text, error));
    let table = DeTable::parse(text).map_err(|error| wrong(&error)).ok()?;
    let span = table.span();
    for (key, value) in table.get_ref() {
        let mut one = DeTable::new();
        one.insert(key.clone(), value.clone());
        let one = toml::Deserializer::from(Spanned::new(span.clone(), one));
        let _only_its_fault = Raw::deserialize(one).map_err(|error| wrong(&error));
    }
    let raw = Raw::deserialize(toml::Deserializer::from(table)).ok()?;
    (faults.len() == before).then_some(raw)
}

/// Says where it is wrong and how, but shows neither the line nor the value: it may be a password.
fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or_default();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let place = format!("line {}, column {column}", line(text, at));
    let message = error.message();
    let text = format!("{place}: {}{}", without_value(message), hint(message));
    ConfigError::Toml { path: path.to_owned(), text }
}

/// What is meant by most who write this.
fn hint(message: &str) -> &'static str {
    let meant =
        |(start, part, _): &&(&str, &str, _)| message.starts_with(start) && message.contains(part);
    HINTS.iter().find(meant).map_or("", |(_, _, hint)| hint)
}

/// serde says `invalid type: string "hunter2", expected a map`.
pub(crate) fn without_value(message: &str) -> String {
    match (message.split_once(": "), message.rsplit_once(", expected ")) {
        (Some((what @ ("invalid type" | "invalid value"), _)), Some((_, expected))) => {
            format!("{what}, expected {expected}")
        }
        _ => message.to_owned(),
    }
}

/// The same value in JSON.
pub(super) fn of_toml(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(of_toml).collect(),
        toml::Value::Table(table) => {
            table.into_iter().map(|(name, value)| (name, of_toml(value))).collect()
        }
    }
}

/// The variables of this process that begin as ours do; what others mean by theirs is their own
/// business.
///
/// # Errors
/// One of ours that is not UTF-8.
pub fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut own = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with(PREFIX) {
            let value = value.into_string().map_err(|_| field(&name, "is not UTF-8"))?;
            own.push((name, value));
        }
    }
    Ok(own)
}

/// Sets what a variable names: lists are separated by commas, `__` steps into a table, and `_` is
/// the dot of a Kafka property.
fn set(raw: &mut Raw, name: &str, setting: &str, value: String) -> Result<(), ConfigError> {
    let list = || value.split(',').map(|item| item.trim().to_owned()).collect();
    match setting {
        "LISTEN" => raw.listen = Some(list()),
        "INLINE_BOOTSTRAP_SERVERS" => raw.inline_bootstrap_servers = list(),
        "TOKEN_FILE" => raw.token_file = Some(value.into()),
        "INLINE_TOKEN_ENDPOINTS" => raw.inline_token_endpoints = list(),
        "INLINE_SCHEMA_REGISTRIES" => raw.inline_schema_registries = list(),
        "DRAIN_TIMEOUT_MS" => {
            let millis = value
                .parse()
                .map_err(|error: std::num::ParseIntError| field(name, &error.to_string()))?;
            raw.drain_timeout_ms = Some(millis);
        }
        _ => {
            let property = |name: &str| name.to_lowercase().replace('_', ".");
            let table = |tables: &mut BTreeMap<_, _>, name: &str, property: String| {
                put(tables.entry(name.to_lowercase()).or_default(), &property, value.clone());
            };
            match *setting.split("__").collect::<Vec<_>>() {
                ["CLUSTERS", name, key] => table(&mut raw.clusters, name, property(key)),
                ["CERTIFICATES", name, key] => table(&mut raw.certificates, name, property(key)),
                ["UNIX_SOCKET", "MODE"] => raw.unix_socket.mode = Some(value),
                ["UNIX_SOCKET", "GROUP"] => raw.unix_socket.group = Some(value),
                [
                    "FEEDS",
                    key @ ("LISTEN" | "GATEWAY" | "GATEWAY_TOKEN_FILE" | "GATEWAY_NAMES"),
                ] => {
                    put(&mut raw.feeds, &key.to_lowercase(), value);
                }
                [section @ ("FEEDS" | "WEBHOOKS"), own, key] => {
                    let section =
                        if section == "FEEDS" { &mut raw.feeds } else { &mut raw.webhooks };
                    put(inside(section, own, name)?, &key.to_lowercase(), value);
                }
                ["REGISTRIES", own, ref tables @ .., key] => {
                    let mut table = inside(&mut raw.registries, own, name)?;
                    for own in tables {
                        table = inside(table, own, name)?;
                    }
                    put(table, &key.to_lowercase(), value);
                }
                ["INLINE", key] => put(&mut raw.inline, &property(key), value),
                _ => return Err(ConfigError::Variable(name.to_owned())),
            }
        }
    }
    Ok(())
}

/// The table of that name in another one, made if it is not there.
fn inside<'a>(
    table: &'a mut toml::Table,
    own: &str,
    variable: &str,
) -> Result<&'a mut toml::Table, ConfigError> {
    let own = table.entry(own.to_lowercase()).or_insert_with(|| toml::Table::new().into());
    own.as_table_mut().ok_or_else(|| field(variable, "the file has no such section"))
}

/// The variable that sets what stands at this path of the file.
pub(crate) fn variable(path: &str) -> String {
    let has_names = OF_NAMES.iter().any(|section| path.starts_with(section));
    let steps = match path.starts_with("registries.") {
        true => usize::MAX,
        false if has_names => 3,
        false => 2,
    };
    let steps = path.splitn(steps, '.');
    let steps: Vec<_> = steps.map(|step| step.replace('.', "_")).collect();
    format!("{PREFIX}{}", steps.join("__").to_uppercase())
}

/// Puts a property over the file's, which may be written as nested tables.
fn put(table: &mut toml::Table, property: &str, value: String) {
    remove(table, property);
    table.insert(property.to_owned(), toml::Value::String(value));
}

fn remove(table: &mut toml::Table, property: &str) {
    table.remove(property);
    for (dot, _) in property.match_indices('.') {
        let (head, rest) = property.split_at(dot);
        if let Some(toml::Value::Table(nested)) = table.get_mut(head) {
            remove(nested, rest.trim_start_matches('.'));
        }
    }
}

/// TOML reads `bootstrap.servers = …` as a table `bootstrap`: both spellings mean the property.
pub(super) fn flatten(
    section: &str,
    table: toml::Table,
    faults: &mut Vec<ConfigError>,
) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (key, value) in table {
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Table(nested) => {
                let nested = flatten(&format!("{section}.{key}"), nested, faults);
                properties.extend(
                    nested.into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)),
                );
                continue;
            }
            toml::Value::Array(_) | toml::Value::Datetime(_) => {
                let path = format!("{section}.{key}");
                let what = match LISTS.contains(&&*key) {
                    true => "belongs above the first section",
                    false => "must be a string, a number or a boolean",
                };
                faults.push(field(&path, what));
                continue;
            }
        };
        properties.insert(key, value);
    }
    properties
}

/// Sections of which each has a name.
const OF_NAMES: [&str; 4] = ["clusters.", "certificates.", "feeds.", "webhooks."];
/// What is read before the configuration.
const OF_FLAGS: [&str; 3] = ["CONFIG", "LOG", "LOG_FORMAT"];
const PREFIX: &str = "HOST_BRIDGE_";
/// The lists that are no properties.
const LISTS: [&str; 4] =
    ["listen", "inline_bootstrap_servers", "inline_token_endpoints", "inline_schema_registries"];
/// How a message begins, what is in it, and what is added.
const HINTS: [(&str, &str, &str); 3] = [
    (
        "unexpected key or value",
        "",
        "; a value with quotes in it, such as sasl.jaas.config, stands between single ones",
    ),
    ("cannot extend value of type string", "", "; of NAME and NAME.file only one can be set"),
    ("unknown field", "`clusters`", "; properties of Kafka stand in [clusters.NAME]"),
];
