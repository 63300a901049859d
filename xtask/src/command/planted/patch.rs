//! A patch that breaks one rule, and the tests that must notice.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

/// A unified diff under a head of `Breaks:` and `Test:` lines.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// What is wrong with the client then, in one sentence.
    pub(super) breaks: String,
    pub(super) tests: Vec<Test>,
}

/// A test by its full name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    pub(super) target: Target,
    pub(super) name: String,
}

/// A test binary of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Lib,
    Simulation,
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
            let shown = path.display().to_string();
            Self::parse(path, &text).context(shown)
        };
        paths.into_iter().map(read).collect()
    }

    pub(super) fn parse(path: PathBuf, text: &str) -> anyhow::Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (mut breaks, mut tests) = (String::new(), Vec::new());
        for line in text.lines().take_while(|line| !line.is_empty()) {
            match line.split_once(": ") {
                Some(("Breaks", what)) => breaks = what.to_owned(),
                Some(("Test", test)) => tests.push(Test::parse(test)?),
                _ => bail!("neither `Breaks:` nor `Test:`, and no empty line: {line}"),
            }
        }
        ensure!(breaks.ends_with('.'), "it must say in a sentence what it breaks");
        ensure!(!tests.is_empty(), "it must name a test");
        Ok(Self { name, path, breaks, tests })
    }
}

impl Test {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (target, name) = match text.split_once(' ') {
            Some(("lib", name)) => (Target::Lib, name),
            Some(("simulation", name)) => (Target::Simulation, name),
            _ => bail!("a test is `lib NAME` or `simulation NAME`, not {text}"),
        };
        Ok(Self { target, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_without_test_or_sentence_is_refused() {
        for head in ["Breaks: All.\n", "Test: lib a\n", "Breaks: All.\nTest: a\n", "What?\n"] {
            assert!(Patch::parse("p.patch".into(), head).is_err(), "{head}");
        }
    }

    #[test]
    fn the_head_ends_at_an_empty_line() {
        let text = "Breaks: All.\nTest: lib a::b\n\ndiff --git a/x b/x\n";
        let patch = Patch::parse("some/where.patch".into(), text).unwrap();
        assert_eq!((patch.name.as_str(), patch.breaks.as_str()), ("where", "All."));
        assert_eq!(patch.tests, [Test { target: Target::Lib, name: "a::b".to_owned() }]);
    }
}
