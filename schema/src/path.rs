//! Where in a document something is, as JSONPath.

use std::fmt::{self, Display, Write as _};

use crate::fault::{Escaped, Invalid};

/// Characters of a name that an error shows; names are the document's, and may be of any length.
const NAME_CHARS_MAX: usize = 100;

/// A place in a document, linked from the inside to the outside: it costs nothing until it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Name(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    pub(crate) fn name(&'a self, name: &'a str) -> Self {
        Self::Name(self, name)
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self::Index(self, index)
    }

    /// What is wrong here.
    pub(crate) fn invalid(&self, reason: impl Into<String>) -> Invalid {
        Invalid { path: self.to_string(), reason: reason.into() }
    }
}

impl Display for Path<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => out.write_char('$'),
            Self::Name(parent, name) => write!(out, "{parent}{}", Name(name)),
            Self::Index(parent, index) => write!(out, "{parent}[{index}]"),
        }
    }
}

/// A member's name as a segment of JSONPath (RFC 9535, 2.5.1).
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl Display for Name<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self.0.char_indices().nth(NAME_CHARS_MAX) {
            Some((end, _)) => self.0.get(..end).unwrap_or_default(),
            None => self.0,
        };
        let cut = if shown.len() < self.0.len() { "…" } else { "" };
        let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
        if shown.starts_with(is_first) && shown.chars().all(|c| is_first(c) || c.is_ascii_digit()) {
            return write!(out, ".{shown}{cut}");
        }
        write!(out, "['{}{cut}']", Escaped(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_json_path() {
        let lines = Path::Root.name("lines");
        let line = lines.index(2);
        assert_eq!(line.name("count").to_string(), "$.lines[2].count");
        assert_eq!(line.name("a b").to_string(), "$.lines[2]['a b']");
        assert_eq!(line.name("it's\n\\").to_string(), "$.lines[2]['it\\'s\\u000a\\\\']");
        assert_eq!(line.name("").to_string(), "$.lines[2]['']");
        assert_eq!(line.name("9").to_string(), "$.lines[2]['9']");
    }

    #[test]
    fn a_long_name_is_cut() {
        let name = "é".repeat(1_000);
        let shown = Path::Root.name(&name).to_string();
        assert_eq!(shown, format!("$['{}…']", "é".repeat(NAME_CHARS_MAX)));
    }
}
