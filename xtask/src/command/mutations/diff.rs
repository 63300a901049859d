//! Unified diffs: where their hunks belong in a file, and what becomes of it with all of them.
//!
//! Each diff is made against the sources as they are, whatever others change close by. `git apply`
//! looks for a hunk near its line number, takes the nearest place where it fits, and does not know
//! the lines that another diff has changed. Here the lines of a hunk must be in the file exactly
//! once: a hunk that no longer belongs anywhere, or might belong elsewhere, is a fault.

use anyhow::{Context, bail, ensure};

/// What a diff does to one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileDiff {
    /// Relative to the workspace.
    pub(super) path: String,
    pub(super) hunks: Vec<Hunk>,
}

/// Lines that change together, with those around them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hunk(Vec<(Kind, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kept,
    Removed,
    Added,
}

/// Lines of a file that others take the place of; none of them if something is only added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    from: usize,
    to: usize,
    added: Vec<String>,
}

/// Reads what follows the head of a patch.
pub(super) fn parse(text: &str) -> anyhow::Result<Vec<FileDiff>> {
    let mut files: Vec<FileDiff> = Vec::new();
    for line in text.lines() {
        if line.starts_with("diff --git ") || line.starts_with("--- ") {
            continue;
        }
        if let Some(path) = line.strip_prefix("+++ b/") {
            files.push(FileDiff { path: path.to_owned(), hunks: Vec::new() });
            continue;
        }
        let file = files.last_mut().context("the diff does not begin with a file")?;
        if line.starts_with("@@ ") {
            file.hunks.push(Hunk::default());
            continue;
        }
        let hunk = file.hunks.last_mut().context("a line of no hunk")?;
        hunk.0.push(match line.split_at_checked(1) {
            // Editors like to take the only blank from a line.
            None => (Kind::Kept, String::new()),
            Some((" ", rest)) => (Kind::Kept, rest.to_owned()),
            Some(("-", rest)) => (Kind::Removed, rest.to_owned()),
            Some(("+", rest)) => (Kind::Added, rest.to_owned()),
            Some(_) => bail!("no line of a diff: {line}"),
        });
    }
    ensure!(files.iter().any(|file| !file.hunks.is_empty()), "it changes nothing");
    Ok(files)
}

impl Hunk {
    /// Whether a line that it adds has this in it.
    pub(super) fn adds(&self, text: &str) -> bool {
        self.0.iter().any(|(kind, line)| *kind == Kind::Added && line.contains(text))
    }

    /// Its changes, in the lines of the one place where it fits.
    pub(super) fn edits(&self, file: &[&str]) -> anyhow::Result<Vec<Edit>> {
        let mut at = self.place(file)?;
        let mut edits = Vec::new();
        for run in self.0.chunk_by(|(a, _), (b, _)| (*a == Kind::Kept) == (*b == Kind::Kept)) {
            let of = |wanted| run.iter().filter(move |(kind, _)| *kind == wanted);
            let from = at;
            at += run.len() - of(Kind::Added).count();
            if of(Kind::Kept).count() == 0 {
                let added = of(Kind::Added).map(|(_, line)| line.clone()).collect();
                edits.push(Edit { from, to: at, added });
            }
        }
        Ok(edits)
    }

    fn place(&self, file: &[&str]) -> anyhow::Result<usize> {
        let before: Vec<&str> = (self.0.iter())
            .filter(|(kind, _)| *kind != Kind::Added)
            .map(|(_, line)| line.as_str())
            .collect();
        ensure!(!before.is_empty(), "a hunk without a line that is there before");
        let fits = |(_, lines): &(usize, &[&str])| *lines == before.as_slice();
        let places: Vec<_> = file.windows(before.len()).enumerate().filter(fits).collect();
        match places.as_slice() {
            [(place, _)] => Ok(*place),
            [] => bail!("these lines are not in it any more:\n{}", before.join("\n")),
            _ => bail!("these lines are in it {} times:\n{}", places.len(), before.join("\n")),
        }
    }
}

impl Edit {
    /// Whether both change the same lines. Whatever only adds lines gets along with what adds or
    /// changes lines beside it.
    pub(super) fn collides(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

/// The file with all edits; those that add lines in one place do so in their order.
pub(super) fn edited(file: &[&str], edits: &[Edit]) -> String {
    let mut edits: Vec<_> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.from, edit.to));
    let mut text = String::new();
    let mut push = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    let mut at = 0;
    for edit in edits {
        file.get(at..edit.from).unwrap_or_default().iter().for_each(|line| push(line));
        edit.added.iter().for_each(|line| push(line));
        at = edit.to;
    }
    file.get(at..).unwrap_or_default().iter().for_each(|line| push(line));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: [&str; 5] = ["a", "b", "c", "b", "e"];

    fn hunk(lines: &str) -> Hunk {
        let text = format!("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n{lines}");
        parse(&text).unwrap().remove(0).hunks.remove(0)
    }

    fn edits(lines: &str) -> Vec<Edit> {
        hunk(lines).edits(&FILE).unwrap()
    }

    #[test]
    fn line_numbers_do_not_matter() {
        let edits = edits(" c\n-b\n+B\n+b2\n e\n");
        assert_eq!(edited(&FILE, &edits), "a\nb\nc\nB\nb2\ne\n");
    }

    #[test]
    fn a_hunk_that_fits_nowhere_or_twice_is_refused() {
        for (lines, fault) in [(" b\n-d\n", "not in it any more"), ("-b\n+B\n", "in it 2 times")] {
            let error = hunk(lines).edits(&FILE).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn changes_side_by_side_get_along() {
        let all = [edits(" a\n+1\n b\n"), edits(" a\n-b\n+B\n c\n"), edits(" a\n b\n+2\n c\n")];
        let all = all.concat();
        for (place, edit) in all.iter().enumerate() {
            assert!(!all[..place].iter().any(|before| before.collides(edit)), "{edit:?}");
        }
        assert_eq!(edited(&FILE, &all), "a\n1\nB\n2\nc\nb\ne\n");
    }

    #[test]
    fn changes_of_the_same_lines_collide() {
        let change = edits(" a\n-b\n-c\n+B\n");
        for other in [edits(" b\n-c\n"), edits(" b\n+1\n c\n")] {
            assert!(change[0].collides(&other[0]) && other[0].collides(&change[0]), "{other:?}");
        }
    }

    #[test]
    fn what_is_no_diff_is_refused() {
        for text in ["", "what?\n", "+++ b/x\n a\n", "+++ b/x\n@@ -1 +1 @@\n?\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
