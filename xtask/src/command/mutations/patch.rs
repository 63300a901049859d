//! A mutation: a patch that adds a bug behind a switch, and the tests that must fail with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::diff::{self, FileDiff};

/// A unified diff under a head of `Breaks:` and `Test:` lines.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) name: String,
    /// What is wrong then, in one sentence.
    pub(super) breaks: String,
    pub(super) tests: Vec<Test>,
    pub(super) files: Vec<FileDiff>,
}

/// A test by its full name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    pub(super) target: Target,
    pub(super) name: String,
}

/// A test binary of the client, or of the schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Lib,
    Simulation,
    Schema,
    Avro,
}

impl Target {
    /// As patches name them.
    pub(super) const ALL: [(Self, &str); 4] = [
        (Self::Lib, "lib"),
        (Self::Simulation, "simulation"),
        (Self::Schema, "schema"),
        (Self::Avro, "avro"),
    ];

    /// The folder of its package, and the name under which it is built.
    pub(super) fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Lib => ("kafka-client", "kafka-client-unit"),
            Self::Simulation => ("kafka-client", "simulation"),
            Self::Schema => ("schema", "schema-unit"),
            Self::Avro => ("schema", "avro"),
        }
    }
}

impl Patch {
    /// The patches of a folder, by name.
    pub(super) fn all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            paths.push(entry?.path());
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
        paths.sort();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Self::parse(name, &text).with_context(|| path.display().to_string())
        };
        paths.into_iter().map(read).collect()
    }

    pub(super) fn parse(name: String, text: &str) -> anyhow::Result<Self> {
        let (mut breaks, mut tests) = (String::new(), Vec::new());
        let (head, body) = text.split_once("\n\n").context("no empty line under the head")?;
        for line in head.lines() {
            match line.split_once(": ") {
                Some(("Breaks", what)) => breaks = what.to_owned(),
                Some(("Test", test)) => tests.push(Test::parse(test)?),
                _ => bail!("neither `Breaks:` nor `Test:`, and no empty line: {line}"),
            }
        }
        ensure!(breaks.ends_with('.'), "it must say in a sentence what it breaks");
        ensure!(!tests.is_empty(), "it must name a test");
        let files = diff::parse(body)?;
        // All mutations are in one build: each must do nothing until it is asked for by its name.
        let switch = format!("crate::mutation::is(\"{name}\")");
        let mut hunks = files.iter().flat_map(|file| &file.hunks);
        ensure!(hunks.all(|hunk| hunk.adds(&switch)), "each of its hunks must ask {switch}");
        Ok(Self { name, breaks, tests, files })
    }
}

impl Test {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let known = text.split_once(' ').and_then(|(of, name)| {
            let (target, _) = Target::ALL.into_iter().find(|(_, named)| *named == of)?;
            Some((target, name))
        });
        let (target, name) = known.with_context(|| {
            let names = Target::ALL.map(|(_, name)| name).join(", ");
            format!("a test is one of {names}, and its name, not {text}")
        })?;
        Ok(Self { target, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "\n\n+++ b/x.rs\n@@ -1 +1 @@\n a\n+crate::mutation::is(\"p\");\n";

    fn parse(head: &str) -> anyhow::Result<Patch> {
        Patch::parse("p".to_owned(), &format!("{head}{BODY}"))
    }

    #[test]
    fn a_head_without_test_or_sentence_is_refused() {
        for head in ["Breaks: All.", "Test: lib a", "Breaks: All.\nTest: a", "What?"] {
            assert!(parse(head).is_err(), "{head}");
        }
    }

    #[test]
    fn the_head_ends_at_an_empty_line() {
        let patch = parse("Breaks: All.\nTest: lib a::b").unwrap();
        assert_eq!((patch.name.as_str(), patch.breaks.as_str()), ("p", "All."));
        assert_eq!(patch.tests, [Test { target: Target::Lib, name: "a::b".to_owned() }]);
        assert_eq!(patch.files[0].path, "x.rs");
    }

    #[test]
    fn a_hunk_that_does_not_ask_for_its_own_switch_is_refused() {
        let head = "Breaks: All.\nTest: lib a::b";
        assert!(Patch::parse("q".to_owned(), &format!("{head}{BODY}")).is_err());
        let more = "@@ -9 +9 @@\n b\n+broken\n";
        assert!(Patch::parse("p".to_owned(), &format!("{head}{BODY}{more}")).is_err());
    }
}
