//! What is made of the code, so that it cannot differ from it: the schema of the plugin
//! configuration, Kong's filter meta file, and the reference of both configurations.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kafka_upstream_core::config::schema;
use serde_json::{Value, json};

use xtask::paths;

/// A file with its text.
#[derive(Debug)]
pub struct Generated {
    /// Where it belongs, from the workspace's root.
    pub path: &'static str,
    /// Its whole text.
    pub text: String,
}

/// Every generated file.
///
/// # Errors
/// When the schema has a form that the reference cannot show.
pub fn generate() -> anyhow::Result<Vec<Generated>> {
    let schema = schema::schema();
    let meta = json!({
        "config_schema": schema::draft_4(),
        "metrics": { "label_patterns": [
            { "label": "outcome", "pattern": "\\.outcome\\.([a-z_]+)" },
        ] },
    });
    Ok(vec![
        Generated { path: "docs/kafka-upstream.schema.json", text: format!("{schema:#}\n") },
        Generated { path: "kong/kafka_upstream.meta.json", text: format!("{meta:#}\n") },
        Generated { path: "docs/configuration.md", text: reference(&schema)? },
    ])
}

/// Writes every generated file into the workspace.
///
/// # Errors
/// When a file cannot be written.
pub fn write() -> anyhow::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for Generated { path, text } in generate()? {
        let path = paths::workspace().join(path);
        fs::create_dir_all(path.parent().context("a path without a folder")?)?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        written.push(path);
    }
    Ok(written)
}

/// The files in `root` that differ from what is generated.
///
/// # Errors
/// When nothing can be generated.
pub fn stale(root: &Path) -> anyhow::Result<Vec<&'static str>> {
    let differs =
        |one: &Generated| fs::read_to_string(root.join(one.path)).ok() != Some(one.text.clone());
    Ok(generate()?.iter().filter(|one| differs(one)).map(|one| one.path).collect())
}

fn reference(schema: &Value) -> anyhow::Result<String> {
    let mut page = String::from(INTRODUCTION);
    rows(schema, "", &mut page)?;
    page.push_str(CLUSTER);
    for property in kafka_client::properties() {
        let kafka_client::PropertyDoc { name, default, allowed, .. } = property;
        writeln!(page, "| `{name}` | {} | {allowed} |", code(default))?;
    }
    Ok(page)
}

/// A row for each field, those of an object under it.
fn rows(schema: &Value, prefix: &str, page: &mut String) -> anyhow::Result<()> {
    let fields = schema.get("properties").and_then(Value::as_object);
    for (name, field) in fields.with_context(|| format!("`{prefix}` has no fields"))? {
        let list = field.get("items");
        let path = format!("{prefix}{name}{}", if list.is_some() { "[]" } else { "" });
        let new = field.get("x-new") == Some(&Value::Bool(true));
        let meaning = field.get("description").and_then(Value::as_str).unwrap_or_default();
        writeln!(
            page,
            "| `{path}` | {} | {} | {} | {} | {} |",
            kind(field),
            default(field),
            bounds(field),
            if new { "new" } else { "yes" },
            meaning.split_whitespace().collect::<Vec<_>>().join(" "),
        )?;
        let inner = list.unwrap_or(field);
        if inner.get("properties").is_some() {
            rows(inner, &format!("{path}."), page)?;
        }
    }
    Ok(())
}

fn kind(field: &Value) -> String {
    let of = |schema: &Value| match (schema.get("enum"), schema.get("type")) {
        (Some(Value::Array(values)), _) => {
            let names = values.iter().filter(|value| !value.is_null());
            names.map(|value| format!("`{}`", text(value))).collect::<Vec<_>>().join(" ")
        }
        (_, Some(Value::Array(kinds))) => kinds.first().map(text).unwrap_or_default(),
        (_, Some(kind)) => text(kind),
        // The fields of a rule, and a version: the only ones of several types.
        _ if schema.pointer("/anyOf/0/$ref").is_some() => "object".to_owned(),
        _ => "string or integer".to_owned(),
    };
    let secret = if field.get("writeOnly").is_some() { ", secret" } else { "" };
    match field.get("items") {
        Some(items) => format!("list of {}", of(items)),
        None => format!("{}{secret}", of(field)),
    }
}

fn default(field: &Value) -> String {
    field
        .get("default")
        .filter(|value| !value.is_null())
        .map_or("–".to_owned(), |v| code(&text(v)))
}

fn bounds(field: &Value) -> String {
    match (field.get("minimum"), field.get("maximum")) {
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "–".to_owned(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn code(text: &str) -> String {
    if text == "–" { text.to_owned() } else { format!("`{text}`") }
}

const INTRODUCTION: &str = "\
# Configuration reference

Made by `cargo xtask generate` of the code that reads the configuration; a test fails when it
differs.

## The filter's plugin configuration

JSON. Names, defaults and meaning are Kong's where the column *Kong* says yes; the JSON Schema is
[kafka-upstream.schema.json](kafka-upstream.schema.json). A field that is absent or null has its
default, and `{}` stands for an empty list, too. An unknown field, a wrong type or a value out of
range stops the filter at its start, with the field's path and, for an unknown one, the nearest known
name; of what is not JSON, the line and the column are told.

| field | type | default | bounds | Kong | meaning |
| --- | --- | --- | --- | --- | --- |
";

const CLUSTER: &str = "
## `[clusters.NAME]` of host-bridge

Kafka's own property names. What a filter's configuration says of the producer wins over them, and
where neither says anything the filter's defaults `acks=1`, `request.timeout.ms=2000` and
`retries=10` hold for filters.

A property `NAME.file` has the path of a file with the value of `NAME`. Files are read again when
they change, or on SIGHUP; one that cannot be used is reported, and what was read before stays. A
store says itself whether it is JKS, PKCS12 or PEM. Without a truststore the system's roots are
trusted. `https.ca.location`, a PEM file that is read for every token, says whom to trust as a token
endpoint or a service of AWS, instead of the system's roots.

Options of `sasl.jaas.config` count as the properties of the same meaning; `tokenauth` and those of
AWS stand there alone: `awsProfileName`; `awsRoleArn` with `awsRoleSessionName`, `awsRoleExternalId`,
`awsStsRegion` and `awsRoleAccessKeyId`, `awsRoleSecretAccessKey`, `awsRoleSessionToken`; and, as our
addition, `awsAccessKeyId`, `awsSecretAccessKey`, `awsSessionToken` and `awsRegion`. No class is
loaded: a callback handler is a name that says where the credential comes from.
`service = \"azure-event-hubs\"` sets what Event Hubs needs, but for `bootstrap.servers` and
`sasl.password`, the connection string.

`[certificates.NAME]` has the `ssl.keystore.*` and `ssl.key.*` of a client certificate that filters
name as `security.certificate_id`, and `[inline]` the `ssl.*` and `https.*` that hold for brokers that
filters name by their addresses.

| property | default | allowed |
| --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_what_is_generated() {
        let stale = stale(&paths::workspace()).unwrap();
        assert!(stale.is_empty(), "run `cargo xtask generate`: {stale:?} differ");
    }
}
