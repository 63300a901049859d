//! Which schema a record has, as it is configured, asked for and given.

use std::sync::Arc;

use kafka_client::HttpsTrust;
use kafka_upstream_core::profile::Profile;
use kafka_upstream_core::registry::{SchemaIdPlace, SchemaVersion, Subject};
use kafka_upstream_schema::Schema;
use kafka_upstream_schema::wire::SchemaId;

use super::connection::Connection;

/// Which schemas the records of some topics have, as configured.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    /// None stands for all.
    pub(crate) topics: Option<Vec<String>>,
    pub(crate) connection: Connection,
    pub(crate) key: Option<Subject>,
    pub(crate) value: Option<Subject>,
    pub(crate) place: SchemaIdPlace,
}

/// A schema that the registry gave.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) schema: Schema,
    /// Its number in this registry; none where it was asked for by its GUID.
    pub(crate) id: Option<u32>,
    pub(crate) guid: Option<[u8; 16]>,
    /// Of its subject, where it was asked for by that.
    pub(crate) version: Option<u32>,
    pub(crate) language: &'static str,
    /// Of its text and those that it refers to.
    pub(crate) bytes: usize,
}

/// Which schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// None stands for the latest version.
    Subject(Arc<str>, Option<u32>),
    Id(SchemaId),
}

/// Why there is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody answers, or not as a registry does: it may do so later.
    #[error("the schema registry is not available: {0}")]
    Unavailable(Arc<str>),
    /// The registry has no such schema.
    #[error("the schema registry does not know it: {0}")]
    Unknown(Arc<str>),
    /// It lets the bridge not in, or is no registry: an operator has to mend that.
    #[error("{0}")]
    Refused(Arc<str>),
    /// Its schema cannot be used.
    #[error("the schema cannot be used: {0}")]
    Unusable(Arc<str>),
}

impl Rule {
    /// That of a profile which names a schema.
    pub(crate) fn of_profile(profile: &Profile, trust: HttpsTrust) -> Option<Self> {
        let confluent = profile.schema_registry.as_ref()?.confluent.as_ref()?;
        let (key, value) = (confluent.key_subject(), confluent.value_subject());
        let rule = Self {
            topics: None,
            connection: Connection::new(confluent, trust),
            key: key.cloned(),
            value: value.cloned(),
            place: confluent.schema_id.unwrap_or_default(),
        };
        profile.has_schemas().then_some(rule)
    }
}

impl Key {
    /// Of a subject and a version as they are configured.
    pub(crate) fn of_subject(name: &str, version: Option<&SchemaVersion>) -> Self {
        let version = match version {
            Some(SchemaVersion::Number(number)) => Some(*number),
            Some(SchemaVersion::Text(text)) => text.parse().ok(),
            None => None,
        };
        Self::Subject(name.into(), version)
    }
}
