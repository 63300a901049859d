//! The fields of a section of the configuration, and what is wrong with them.

use std::collections::BTreeSet;

use kafka_upstream_core::config::nearest;

use crate::config::{ConfigError, field};
use crate::consume::cursor::is_topic;

/// Those that were not read so far.
pub(crate) struct Fields<'a> {
    pub(crate) path: &'a str,
    pub(crate) table: toml::Table,
    pub(crate) faults: &'a mut Vec<ConfigError>,
}

/// The values of a field.
pub(crate) struct Choices<T: 'static> {
    pub(crate) default: T,
    pub(crate) accepted: &'static [(&'static str, T)],
    /// Those that are specified but cannot be had, and why.
    pub(crate) unsupported: &'static [(&'static str, &'static str)],
}

impl Fields<'_> {
    pub(crate) fn section(&mut self, name: &str) -> Option<toml::Table> {
        match self.table.remove(name)? {
            toml::Value::Table(table) => Some(table),
            _ => {
                self.fault(name, "must be a table");
                None
            }
        }
    }

    pub(crate) fn number(&mut self, name: &str, range: (usize, usize), default: usize) -> usize {
        let Some(value) = self.table.remove(name) else { return default };
        let number = match &value {
            toml::Value::Integer(number) => usize::try_from(*number).ok(),
            toml::Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let (least, most) = range;
        number.filter(|number| (least..=most).contains(number)).unwrap_or_else(|| {
            self.fault(name, &format!("must be a number from {least} to {most}"));
            default
        })
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.table.remove(name)? {
            toml::Value::String(text) => return Some(text),
            toml::Value::Boolean(flag) => return Some(flag.to_string()),
            _ => self.fault(name, "must be a string"),
        }
        None
    }

    /// A variable of the environment has its items separated by commas.
    pub(crate) fn list(&mut self, name: &str) -> Option<Vec<String>> {
        let items = match self.table.remove(name)? {
            toml::Value::String(text) => {
                Some(text.split(',').map(|item| item.trim().to_owned()).collect())
            }
            toml::Value::Array(items) => {
                let texts = items.into_iter().map(|item| item.as_str().map(str::to_owned));
                texts.collect()
            }
            _ => None,
        };
        if items.is_none() {
            self.fault(name, "must be a list of strings");
        }
        items
    }

    pub(super) fn listed(&mut self, name: &str, topics: Vec<String>) -> Vec<String> {
        let mut seen = BTreeSet::new();
        for topic in &topics {
            match (is_topic(topic), seen.insert(topic)) {
                (false, _) => self.fault(name, &format!("`{topic}` is not a topic's name")),
                (true, false) => self.fault(name, &format!("`{topic}` is named twice")),
                (true, true) => {}
            }
        }
        if topics.is_empty() || topics.len() > TOPICS_MAX {
            self.fault(name, &format!("must name 1 to {TOPICS_MAX} topics"));
        }
        topics
    }

    /// The first choice is the default.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &Choices<T>) -> T {
        let Choices { default, accepted, unsupported } = choices;
        let Some(text) = self.text(name) else { return *default };
        if let Some((_, choice)) = accepted.iter().find(|(accepted, _)| *accepted == text) {
            return *choice;
        }
        let accepted: Vec<_> = accepted.iter().map(|(name, _)| *name).collect();
        let accepted = accepted.join(", ");
        let reason = match unsupported.iter().find(|(name, _)| *name == text) {
            Some((_, why)) => format!("`{text}` {why}; there is {accepted}"),
            None => format!("must be one of {accepted}, not `{text}`"),
        };
        self.fault(name, &reason);
        *default
    }

    /// Whatever has not been read is not silently ignored.
    pub(crate) fn finish(self, fields: &[&str]) {
        for name in self.table.keys() {
            let reason = match nearest(name, fields) {
                Some(meant) => format!("unknown field, did you mean `{meant}`?"),
                None => format!("unknown field; there are {}", fields.join(", ")),
            };
            self.faults.push(field(&format!("{}.{name}", self.path), &reason));
        }
    }

    pub(crate) fn fault(&mut self, name: &str, reason: &str) {
        self.faults.push(field(&format!("{}.{name}", self.path), reason));
    }
}

pub(super) const FLAGS: &[(&str, bool)] = &[("true", true), ("false", false)];
pub(super) const TRUE: Choices<bool> = Choices { default: true, accepted: FLAGS, unsupported: &[] };
pub(crate) const FALSE: Choices<bool> =
    Choices { default: false, accepted: FLAGS, unsupported: &[] };
pub(super) const TOPICS_MAX: usize = 100;

pub(crate) fn is_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_legal)
}

/// Of feeds, and of bridges.
pub(crate) const NAME: &str = "must be 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`";
