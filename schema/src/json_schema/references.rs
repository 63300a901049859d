//! The schemas that a schema refers to, by the names that its registry has for them.

use std::error::Error;
use std::sync::Arc;

use referencing::{Retrieve, Uri};
use serde_json::Value;

use super::tree;
use crate::{Document, Invalid, SchemaError};

/// The base of references in a schema that has no `$id`.
pub(super) const BASE: &str = "json-schema:///";

/// Nothing but the references of the schema is ever read.
#[derive(Clone)]
pub(super) struct References(Arc<[(String, Value)]>);

impl References {
    pub(super) fn read(document: &Document) -> Result<Self, SchemaError> {
        let read = document.references.iter().map(|reference| {
            let name = &reference.name;
            let tree = tree::read(reference.text.as_bytes()).map_err(|fault| {
                SchemaError(format!("reference {name}: {}", Invalid::from(fault)))
            })?;
            Ok((name.strip_prefix("./").unwrap_or(name).to_owned(), tree.value))
        });
        Ok(Self(read.collect::<Result<_, _>>()?))
    }
}

impl Retrieve for References {
    /// A name is a whole URI, or relative to whatever schema refers to it.
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let uri = uri.as_str();
        let named = self.0.iter().filter(|(name, _)| {
            uri.strip_suffix(name.as_str())
                .is_some_and(|base| base.is_empty() || base.ends_with('/'))
        });
        let longest = named.max_by_key(|(name, _)| name.len());
        longest.map(|(_, schema)| schema.clone()).ok_or_else(|| "unknown".into())
    }
}
