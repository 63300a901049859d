//! Where each setting stands in the configuration file.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// Lines by the path of what stands there, such as `clusters.default.acks`.
#[derive(Debug, Default, Clone)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Of a file that is TOML; else there are none.
    pub(super) fn of(text: &str) -> Self {
        let mut lines = Self::default();
        if let Ok(document) = DeTable::parse(text) {
            lines.add(text, "", document.get_ref());
        }
        lines
    }

    fn add(&mut self, text: &str, above: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = format!("{above}{}", key.get_ref());
            self.0.insert(path.clone(), line(text, key.span().start));
            match value.get_ref() {
                DeValue::Table(table) => self.add(text, &format!("{path}."), table),
                // `[[path]]`, counted from 1.
                DeValue::Array(items) => {
                    for (number, item) in (1..).zip(items.iter()) {
                        let path = format!("{path}[{number}]");
                        self.0.insert(path.clone(), line(text, item.span().start));
                        if let DeValue::Table(table) = item.get_ref() {
                            self.add(text, &format!("{path}."), table);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The line of a setting, or of the named table, such as `clusters.default`, that it is for.
    pub(super) fn nearest(&self, path: &str) -> Option<usize> {
        let above =
            || self.nearest(path.rsplit_once('.')?.0).filter(|_| path.matches('.').count() > 1);
        self.0.get(path).copied().or_else(above)
    }

    /// The line of a setting, or of the table that it should stand in.
    pub(super) fn find(&self, path: &str) -> Option<usize> {
        let above = || self.find(path.rsplit_once('.')?.0);
        self.0.get(path).copied().or_else(above)
    }
}

/// Counted from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_in_every_spelling() {
        let text = "listen = []\n[clusters.default]\nbootstrap.servers = 'a'\n'linger.ms' = 5\n\
            [clusters]\nother = { acks = 1 }\n[[rules]]\na = 1\n[[rules]]\nb = 1\n";
        let lines = Lines::of(text);
        for (path, line) in [
            ("listen", Some(1)),
            ("clusters.default.bootstrap.servers", Some(3)),
            ("clusters.default.linger.ms", Some(4)),
            ("clusters.other.acks", Some(6)),
            ("clusters.default.acks", Some(2)),
            ("clusters.default.sasl.password", Some(2)),
            ("rules[1].a", Some(8)),
            ("rules[2].b", Some(10)),
            ("rules[2].c", Some(9)),
            ("tls", None),
        ] {
            assert_eq!(lines.find(path), line, "{path}");
        }
        assert_eq!(Lines::of("[").find("listen"), None);
    }
}
