//! Where each setting was given: a line of the file, or a variable of the environment.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::error::ConfigError;
use super::lines::Lines;
use super::sources::variable;

/// The places of a configuration.
#[derive(Debug, Default, Clone)]
pub(crate) struct Places {
    file: Option<PathBuf>,
    lines: Lines,
    variables: BTreeSet<String>,
}

impl Places {
    pub(crate) fn new(file: Option<PathBuf>, text: &str, environment: &[(String, String)]) -> Self {
        let variables = environment.iter().map(|(name, _)| name.clone()).collect();
        Self { file, lines: Lines::of(text), variables }
    }

    /// A variable wins over the file.
    fn find(&self, field: &str) -> Option<String> {
        let is_set = |name: &String| self.variables.contains(name);
        let line = || self.lines.find(field).map(|line| format!("line {line}"));
        Some(variable(field)).filter(is_set).or_else(line)
    }

    /// A fault with its place.
    pub(crate) fn told(&self, error: &ConfigError) -> String {
        let place = match error {
            ConfigError::Field { field, .. } => self.find(field),
            _ => None,
        };
        place.map_or_else(|| error.to_string(), |place| format!("{place}: {error}"))
    }

    /// Where to change a setting, or to add it.
    pub(crate) fn to_change(&self, field: &str) -> String {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let is_set = |name: &String| self.variables.contains(name);
        match (Some(variable(field)).filter(is_set), self.lines.nearest(field), file) {
            (Some(variable), ..) => variable,
            (None, Some(line), Some(file)) => format!("line {line} of {file}"),
            (None, _, Some(file)) => format!("add {field} to {file}"),
            (None, _, None) => format!("add {field} to the file of --config"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_changed_where_it_stands_and_added_where_it_does_not() {
        let text = "[clusters.a]\nacks = 1\n";
        let variable = ("HOST_BRIDGE_INLINE_BOOTSTRAP_SERVERS".to_owned(), "b:1".to_owned());
        let places = Places::new(Some("/etc/b.toml".into()), text, &[variable]);
        for (field, place) in [
            ("clusters.a.acks", "line 2 of /etc/b.toml"),
            ("clusters.a.security.protocol", "line 1 of /etc/b.toml"),
            ("inline_bootstrap_servers", "HOST_BRIDGE_INLINE_BOOTSTRAP_SERVERS"),
            ("inline_token_endpoints", "add inline_token_endpoints to /etc/b.toml"),
            ("clusters.b", "add clusters.b to /etc/b.toml"),
        ] {
            assert_eq!(places.to_change(field), place);
        }
        let nowhere = Places::default().to_change("clusters.b");
        assert_eq!(nowhere, "add clusters.b to the file of --config");
    }
}
