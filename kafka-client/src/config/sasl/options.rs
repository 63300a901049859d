//! The options of a login module that have not been used yet, from `sasl.jaas.config` and from the
//! properties that mean the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::property::PropertyError;
use crate::secret::{Secret, SecretSource};

/// What is left at the end means nothing to the mechanism.
#[derive(Default)]
pub(super) struct Options {
    pub(super) texts: BTreeMap<String, Secret>,
    /// Secrets that are in a file, by the property that says so.
    pub(super) files: BTreeMap<&'static str, PathBuf>,
}

impl Options {
    pub(super) fn take(&mut self, option: &str) -> Option<Secret> {
        self.texts.remove(option)
    }

    pub(super) fn take_text(&mut self, option: &str) -> Option<String> {
        self.take(option).map(|text| text.expose().to_owned())
    }

    /// Where a secret stands, or where it is to be read.
    pub(super) fn secret(
        &mut self,
        option: &str,
        name: &'static str,
        file: &'static str,
    ) -> Result<SecretSource, PropertyError> {
        match (self.take(option), self.files.remove(file)) {
            (Some(_), Some(_)) => Err(PropertyError::Excludes { name: file, other: name }),
            (Some(secret), None) => Ok(SecretSource::Given(secret)),
            (None, Some(path)) => Ok(SecretSource::File(path)),
            (None, None) => Err(PropertyError::Missing(name)),
        }
    }
}
