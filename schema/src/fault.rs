//! What does not fit and why, the path to it gathered from the inside out.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// Why a schema cannot be used: one sentence without its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

/// Why a document does not fit a schema. Neither part quotes the document's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Invalid {
    /// Where, as JSONPath (RFC 9535): `$.lines[0].count`.
    pub path: String,
    /// Why, with the schema's own names: branches, symbols, fields.
    pub reason: String,
}

/// Characters of a name in a path: a document may choose its own.
const NAME_CHARS_MAX: usize = 64;

/// An [`Invalid`] whose path is not whole yet.
#[derive(Debug)]
pub(crate) struct Fault {
    reason: Cow<'static, str>,
    /// The innermost first.
    steps: Vec<Step>,
    /// Whether it is a limit that was met: no other branch of a union would do better.
    pub(crate) is_limit: bool,
}

#[derive(Debug)]
enum Step {
    Name(String),
    Index(usize),
}

impl Fault {
    pub(crate) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), steps: Vec::new(), is_limit: false }
    }

    pub(crate) fn limit(reason: &'static str) -> Self {
        Self { is_limit: true, ..Self::new(reason) }
    }

    /// The same, of the member `name` of an object.
    pub(crate) fn of_member(mut self, name: &str) -> Self {
        self.steps.push(Step::Name(cut(name, NAME_CHARS_MAX)));
        self
    }

    /// The same, of an item of an array.
    pub(crate) fn of_item(mut self, index: usize) -> Self {
        self.steps.push(Step::Index(index));
        self
    }

    /// The same, of what a schema has for a field that is missing.
    pub(crate) fn of_default(mut self) -> Self {
        const BEGINS: &str = "its default does not fit: ";
        if !self.is_limit && !self.reason.starts_with(BEGINS) {
            self.reason.to_mut().insert_str(0, BEGINS);
        }
        self
    }

    /// Whether it is about a part of the value, and not about the value as a whole.
    pub(crate) fn is_inside(&self) -> bool {
        !self.steps.is_empty()
    }
}

impl From<Fault> for Invalid {
    fn from(fault: Fault) -> Self {
        let mut path = String::from("$");
        for step in fault.steps.iter().rev() {
            match step {
                Step::Index(index) => _ = write!(path, "[{index}]"),
                Step::Name(name) if is_shorthand(name) => path.extend([".", name]),
                Step::Name(name) => _ = write!(path, "['{}']", Escaped(name)),
            }
        }
        Self { path, reason: fault.reason.into_owned() }
    }
}

/// Whether RFC 9535 lets a name stand behind a dot.
fn is_shorthand(name: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

/// The beginning of a text, for an error.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A name as it stands between single quotes (RFC 9535, 2.3.1.1).
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\'' | '\\' => write!(out, "\\{c}")?,
                c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c))?,
                c => out.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(fault: Fault) -> String {
        Invalid::from(fault).path
    }

    #[test]
    fn paths_are_those_of_rfc_9535() {
        let fault = Fault::new("r").of_item(3).of_member("lines").of_member("größe");
        assert_eq!(path(fault), "$.größe.lines[3]");
        assert_eq!(path(Fault::new("r")), "$");
        for (name, expected) in [
            ("com.acme.Order", "$['com.acme.Order']"),
            ("1st", "$['1st']"),
            ("", "$['']"),
            ("it's \\", "$['it\\'s \\\\']"),
            ("a\nb", "$['a\\u000ab']"),
        ] {
            assert_eq!(path(Fault::new("r").of_member(name)), expected);
        }
    }

    #[test]
    fn long_names_are_cut() {
        let fault = Fault::new("r").of_member(&"ä".repeat(1_000_000));
        assert_eq!(path(fault), format!("$.{}…", "ä".repeat(64)));
    }
}
