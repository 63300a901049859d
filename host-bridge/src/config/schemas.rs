//! `[registries.NAME]` and `[schemas.NAME]`: schema registries, and which schemas records have that come
//! without a filter.

use std::collections::{BTreeMap, BTreeSet};

use kafka_client::{ClientCertificate, HttpsTrust, SecretSource, TlsConfig, TlsTrust};
use kafka_upstream_core::config::{check_registry, check_subject, parse_section};
use kafka_upstream_core::registry::{Confluent, SchemaIdPlace, Subject};
use serde::de::DeserializeOwned;

use super::error::{ConfigError, field};
use super::sources::of_toml;
use crate::consume::feeds::fields::{Choices, Fields, NAME, is_name};
use crate::registry::Rule;
use crate::registry::connection::Connection;

/// As configured, and checked.
#[derive(Clone, Default)]
pub(crate) struct Schemas {
    pub(crate) registries: BTreeMap<String, Connection>,
    /// By cluster.
    rules: BTreeMap<String, Vec<Rule>>,
}

impl Schemas {
    /// Reads both sections. What is wrong is added to `faults`.
    pub(super) fn read(
        registries: toml::Table,
        schemas: toml::Table,
        clusters: &BTreeSet<&str>,
        faults: &mut Vec<ConfigError>,
    ) -> Self {
        let mut read = Self::default();
        each("registries", registries, faults, |path, name, table, faults| {
            let connection = connection(path, table, faults);
            read.registries.extend(connection.map(|connection| (name.to_owned(), connection)));
        });
        // A registry with a fault is reported once, not again by each section that names it.
        if faults.is_empty() {
            each("schemas", schemas, faults, |path, _, table, faults| {
                if let Some((cluster, rule)) = rule(path, table, &read.registries, clusters, faults)
                {
                    let rules = read.rules.entry(cluster).or_default();
                    let mut known =
                        rules.iter().filter_map(|other| other.topics.as_ref()).flatten();
                    let topics = rule.topics.as_ref();
                    if let Some(topic) = known.find(|it| topics.is_some_and(|own| own.contains(it)))
                    {
                        let why = format!("`{topic}` has its schemas in another section");
                        faults.push(field(&format!("{path}.topics"), &why));
                    }
                    rules.push(rule);
                }
            });
        }
        read
    }

    /// Which schemas records for this cluster have that come without a filter, and without a
    /// `schema_registry` of their capture route.
    pub(crate) fn of_cluster(&self, cluster: &str) -> Vec<Rule> {
        self.rules.get(cluster).cloned().unwrap_or_default()
    }

    /// What the topics of [`Self::of_cluster`] have, over all clusters.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values().flatten()
    }
}

/// Each section `[SECTION.NAME]`.
pub(super) fn each(
    section: &str,
    tables: toml::Table,
    faults: &mut Vec<ConfigError>,
    mut read: impl FnMut(&str, &str, toml::Table, &mut Vec<ConfigError>),
) {
    for (name, table) in tables {
        let path = format!("{section}.{name}");
        match table {
            toml::Value::Table(table) if is_name(&name) => read(&path, &name, table, faults),
            toml::Value::Table(_) => {
                faults.push(field(&path, &format!("the name {NAME}")));
            }
            _ => faults.push(field(&path, &format!("must be a section, [{section}.NAME]"))),
        }
    }
}

fn connection(
    path: &str,
    mut table: toml::Table,
    faults: &mut Vec<ConfigError>,
) -> Option<Connection> {
    if let Some(name) = OF_RECORDS.into_iter().find(|name| table.contains_key(*name)) {
        faults.push(field(&format!("{path}.{name}"), "stands in a section [schemas.NAME]"));
        return None;
    }
    let mut fields = Fields { path, table: std::mem::take(&mut table), faults };
    let trust = trust(&mut fields);
    let Fields { table: mut rest, faults, .. } = fields;
    if let Some(toml::Value::Table(authentication)) = rest.get_mut("authentication") {
        from_files(&format!("{path}.authentication"), authentication)
            .map_err(|fault| faults.push(fault))
            .ok()?;
    }
    let confluent = parsed::<Confluent>(path, rest, faults)?;
    let wrong = check_registry(path, &confluent).err();
    faults.extend(wrong.map(|fault| field(&fault.path, &fault.reason)));
    let authentication = confluent.authentication.as_ref().filter(|asked| asked.mode.is_none());
    if authentication.is_some_and(|asked| asked.basic.is_some() || asked.oauth2.is_some()) {
        let why = "is missing: without it `basic` and `oauth2` would not count";
        faults.push(field(&format!("{path}.authentication.mode"), why));
    }
    if confluent.ssl_verify == Some(false) && trust != HttpsTrust::System {
        let why =
            "with `false` leave out ca_file, certificate_file and key_file: they would not count";
        faults.push(field(&format!("{path}.ssl_verify"), why));
    }
    let connection = Connection::new(&confluent, trust);
    if let Some((name, why)) = connection.not_served() {
        let place = format!("{path}.authentication.oauth2_client.{name}");
        faults.push(field(&place, &format!("the bridge cannot do that, {why}")));
    }
    Some(connection)
}

/// `ca_file`, `certificate_file` and `key_file`.
fn trust(own: &mut Fields<'_>) -> HttpsTrust {
    let mut file = |name| own.text(name).map(|file| SecretSource::File(file.into()));
    let (ca, chain, key) = (file("ca_file"), file("certificate_file"), file("key_file"));
    let trust = match (chain, key) {
        (Some(chain), Some(key)) => {
            let certificate = ClientCertificate::Pem { key, chain, key_password: None };
            let trust = ca.map_or(TlsTrust::System, TlsTrust::Pem);
            let settings = TlsConfig::default().trust(trust).certificate(certificate);
            HttpsTrust::AsConfigured(Box::new(settings))
        }
        (None, None) => ca.map_or(HttpsTrust::System, HttpsTrust::Authorities),
        (Some(_), None) => {
            own.fault("key_file", "is missing beside certificate_file");
            HttpsTrust::System
        }
        (None, Some(_)) => {
            own.fault("certificate_file", "is missing beside key_file");
            HttpsTrust::System
        }
    };
    if let Err(error) = trust.check() {
        own.fault("ca_file", &error.to_string());
    }
    trust
}

/// Puts what stands in the file of `NAME_file` in the place of `NAME`.
fn from_files(path: &str, table: &mut toml::Table) -> Result<(), ConfigError> {
    let names: Vec<_> = table.keys().cloned().collect();
    for name in names {
        let place = format!("{path}.{name}");
        match (table.get_mut(&name), name.strip_suffix("_file")) {
            (Some(toml::Value::Table(nested)), _) => from_files(&place, nested)?,
            (Some(toml::Value::String(file)), Some(of)) => {
                let text = SecretSource::File(file.as_str().into()).read();
                let text = text.map_err(|error| field(&place, &error.to_string()))?;
                table.remove(&name);
                if table.insert(of.to_owned(), text.expose().into()).is_some() {
                    return Err(field(&place, &format!("stands beside `{of}`: one of the two")));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn rule(
    path: &str,
    table: toml::Table,
    registries: &BTreeMap<String, Connection>,
    clusters: &BTreeSet<&str>,
    faults: &mut Vec<ConfigError>,
) -> Option<(String, Rule)> {
    let before = faults.len();
    let mut own = Fields { path, table, faults };
    let cluster = own.text("cluster").unwrap_or_else(|| "default".to_owned());
    if !clusters.contains(cluster.as_str()) {
        own.fault("cluster", &format!("there is no [clusters.{cluster}]"));
    }
    let topics = own.list("topics").unwrap_or_default();
    if topics.is_empty() {
        own.fault("topics", "is missing: which topics' records have these schemas?");
    }
    let registry = own.text("registry").unwrap_or_default();
    let connection = registries.get(&registry).cloned();
    if connection.is_none() {
        own.fault("registry", &format!("there is no [registries.{registry}]"));
    }
    let place = own.choice("schema_id", &PLACES);
    if !own.table.contains_key("key_schema") && !own.table.contains_key("value_schema") {
        own.fault("value_schema", "or key_schema is missing");
    }
    let mut subject = |name: &str| {
        let (path, table) = (format!("{path}.{name}"), own.section(name)?);
        let subject = parsed::<Subject>(&path, table, own.faults)?;
        // Nothing but defaults is no subject in Kong's terms.
        let wrong = match &subject.subject_name {
            None => Some(field(&format!("{path}.subject_name"), "is required")),
            Some(_) => check_subject(&path, Some(&subject))
                .err()
                .map(|fault| field(&fault.path, &fault.reason)),
        };
        own.faults.extend(wrong);
        Some(subject)
    };
    let (key, value) = (subject("key_schema"), subject("value_schema"));
    own.finish(&FIELDS);
    let rule = Rule { topics: Some(topics), connection: connection?, key, value, place };
    (faults.len() == before).then_some((cluster, rule))
}

fn parsed<T: DeserializeOwned>(
    path: &str,
    table: toml::Table,
    faults: &mut Vec<ConfigError>,
) -> Option<T> {
    let json = of_toml(toml::Value::Table(table)).to_string();
    let parsed = parse_section(path, json.as_bytes());
    parsed.map_err(|fault| faults.push(field(&fault.path, &fault.reason))).ok()
}

const PLACES: Choices<SchemaIdPlace> = Choices {
    default: SchemaIdPlace::Prefix,
    accepted: &[("prefix", SchemaIdPlace::Prefix), ("header", SchemaIdPlace::Header)],
    unsupported: &[],
};
const OF_RECORDS: [&str; 3] = ["key_schema", "value_schema", "schema_id"];
const FIELDS: [&str; 6] =
    ["cluster", "topics", "registry", "schema_id", "key_schema", "value_schema"];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Schemas, String> {
        let mut tables: toml::Table = toml::from_str(text).unwrap();
        let mut section = |name: &str| match tables.remove(name) {
            Some(toml::Value::Table(table)) => table,
            _ => toml::Table::new(),
        };
        let (registries, schemas) = (section("registries"), section("schemas"));
        let mut faults = Vec::new();
        let read = Schemas::read(registries, schemas, &BTreeSet::from(["default"]), &mut faults);
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        faults.is_empty().then_some(read).ok_or_else(|| faults.join("; "))
    }

    const REGISTRY: &str = "[registries.main]\nurl = 'http://r:1, http://s'\n";
    const VALUE: &str =
        "value_schema = { subject_name = 'orders-value', schema_version = 'latest' }";

    #[test]
    fn a_cluster_has_the_schemas_of_its_topics() {
        let text = format!(
            "{REGISTRY}[schemas.orders]\nregistry = 'main'\ntopics = ['orders']\nschema_id = 'header'\n\
             {VALUE}\nkey_schema = {{ subject_name = 'k', schema_version = 3, payload_encoding = 'simple_json' }}"
        );
        let rules = read(&text).unwrap().of_cluster("default");
        let [rule] = &rules[..] else { panic!("one rule") };
        assert_eq!(rule.topics.as_deref(), Some(&["orders".to_owned()][..]));
        assert_eq!(rule.place, SchemaIdPlace::Header);
        assert!(rule.key.is_some() && rule.value.is_some());
        assert_eq!(
            rule.connection.confluent.urls().collect::<Vec<_>>(),
            ["http://r:1", "http://s"]
        );
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let basic = |fields: &str| {
            read(&format!(
                "{REGISTRY}[registries.main.authentication]\nmode = 'basic'\nbasic = {{ username = 'u', \
                 password_file = '{}' {fields} }}",
                file.path().display()
            ))
        };
        let schemas = basic("").unwrap();
        let authentication = schemas.registries["main"].confluent.authentication.clone().unwrap();
        assert_eq!(authentication.basic.unwrap().password.unwrap().expose(), "hunter2");
        let twice = basic(", password = 'x'").map(|_| ()).unwrap_err();
        assert!(
            twice.ends_with("password_file: stands beside `password`: one of the two"),
            "{twice}"
        );
    }

    #[test]
    fn each_fault_names_its_field() {
        let schema = |fields: &str| format!("{REGISTRY}[schemas.a]\n{fields}\n");
        let ca = tempfile::NamedTempFile::new().unwrap();
        let authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let authority = authority.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        std::fs::write(ca.path(), authority.pem()).unwrap();
        for (text, fault) in [
            ("[registries.a]\n".to_owned(), "registries.a.url: is required"),
            (
                "[registries.a]\nurl = 'r'".to_owned(),
                "registries.a.url: must begin with http:// or https:// and be visible ASCII",
            ),
            (
                format!("{REGISTRY}schema_id = 'header'"),
                "registries.main.schema_id: stands in a section [schemas.NAME]",
            ),
            (
                format!("{REGISTRY}certificate_file = 'c'"),
                "registries.main.key_file: is missing beside certificate_file",
            ),
            (
                format!("{REGISTRY}ssl_verify = false\nca_file = '{}'", ca.path().display()),
                "registries.main.ssl_verify: with `false` leave out ca_file, certificate_file and \
                 key_file: they would not count",
            ),
            (
                format!("{REGISTRY}authentication = {{ mode = 'basic' }}"),
                "registries.main.authentication.basic.username: is required",
            ),
            (
                schema(&format!("topics = ['t']\nregistry = 'x'\n{VALUE}")),
                "schemas.a.registry: there is no [registries.x]",
            ),
            (
                schema(&format!("registry = 'main'\n{VALUE}")),
                "schemas.a.topics: is missing: which topics' records have these schemas?",
            ),
            (
                schema("topics = ['t']\nregistry = 'main'"),
                "schemas.a.value_schema: or key_schema is missing",
            ),
            (
                format!("{REGISTRY}authentication = {{ basic = {{ user = 'hunter2' }} }}"),
                "registries.main.authentication.basic.user: unknown field",
            ),
            (
                format!("{REGISTRY}authentication = {{ basic = {{ username = 'u' }} }}"),
                "registries.main.authentication.mode: is missing: without it `basic` and `oauth2` would \
                 not count",
            ),
            (
                format!("{REGISTRY}ttl = '60'"),
                "registries.main.ttl: expected a whole number, not a string",
            ),
            (
                schema("topics = ['t']\nregistry = 'main'\nvalue_schema = { subject = 's' }"),
                "schemas.a.value_schema.subject: unknown field",
            ),
            (
                schema("topics = ['t']\nregistry = 'main'\nvalue_schema = {}"),
                "schemas.a.value_schema.subject_name: is required",
            ),
            (
                schema(&format!(
                    "topics = ['t']\nregistry = 'main'\n{VALUE}\n[schemas.b]\ntopics = ['u', 't']\n\
                     registry = 'main'\n{VALUE}"
                )),
                "schemas.b.topics: `t` has its schemas in another section",
            ),
            (
                schema("topics = ['t']\nregistry = 'main'\nvalue_schema = { subject_name = 's' }"),
                "schemas.a.value_schema.schema_version: is required",
            ),
            (
                schema(&format!("cluster = 'b'\ntopics = ['t']\nregistry = 'main'\n{VALUE}")),
                "schemas.a.cluster: there is no [clusters.b]",
            ),
        ] {
            assert_eq!(read(&text).map(|_| ()).unwrap_err(), fault);
        }
    }
}
