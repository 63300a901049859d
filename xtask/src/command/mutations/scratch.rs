//! A copy of the workspace with all mutations in it, and its one build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use xtask::build;
use xtask::paths;

use super::super::binaries::Binaries;
use super::diff::{self, Edit};
use super::patch::{Patch, Target};

/// The switch, as it lies beside the client's patches.
const SWITCH: &str = "kafka-client/tests/mutations/switch.rs";

/// The folders of packages that are mutated, and what their unit tests need.
const PACKAGES: [(&str, &str); 2] =
    [("kafka-client", "required-features = [\"fake_broker\"]\n"), ("schema", "")];

/// Of the workspace, with the client's profile: here its build takes longer than its tests.
const ROOT_MANIFEST: &str = "Cargo.toml";
const OPTIMIZED: &str = "kafka-client = { opt-level = 1 }";
const QUICK: &str = "kafka-client = { opt-level = 0 }";

/// Files by their path in the workspace, with what they have in them.
type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(super) struct Scratch {
    sources: PathBuf,
    /// Patches that do not fit, by name, and why. They are not in the copy.
    pub(super) unfit: BTreeMap<String, String>,
}

impl Scratch {
    /// The sources as they are now, and all patches. A file that is the same as the last time is
    /// left alone, so that cargo takes what it has built of it.
    pub(super) fn new(patches: &[Patch]) -> anyhow::Result<Self> {
        let sources = paths::target().join("mutations/sources");
        let mut files = Files::new();
        read(&paths::workspace(), Path::new(""), &mut files)?;
        let unfit = mutate(&mut files, patches)?;
        add_switch(&mut files)?;
        sync(&sources, &files).with_context(|| sources.display().to_string())?;
        Ok(Self { sources, unfit })
    }

    /// Builds the tests with all mutations, into the workspace's own target folder, because what
    /// they depend on is compiled there already.
    ///
    /// It is, if it has the same features, and these depend on which packages are chosen. So the
    /// same packages are chosen as for all other tests, and the targets by names that only these
    /// two have: no other package is built, above all no binary that would take the place of the
    /// right one. `--lib` would choose a library of each package.
    pub(super) fn build(&self) -> anyhow::Result<Binaries> {
        let mut cargo = build::command();
        cargo.args(["test", "--no-run", "--workspace", "--exclude", "kafka-upstream"]);
        cargo.args(Target::ALL.iter().flat_map(|(target, _)| ["--test", target.place().1]));
        cargo.current_dir(&self.sources).env("CARGO_TARGET_DIR", paths::target());
        Binaries::build(cargo)
    }

    /// Where cargo would run the tests.
    pub(super) fn package(&self, target: Target) -> PathBuf {
        self.sources.join(target.place().0)
    }
}

/// The test program that has the tests of a target.
pub(super) fn program(binaries: &Binaries, target: Target) -> anyhow::Result<&Path> {
    let (folder, name) = target.place();
    binaries.test(&format!("{folder}/{name}"))
}

/// All files of a folder but what is built and what is hidden.
fn read(root: &Path, folder: &Path, files: &mut Files) -> anyhow::Result<()> {
    let from = root.join(folder);
    for entry in fs::read_dir(&from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = folder.join(name);
        if entry.file_type()?.is_dir() {
            read(root, &path, files)?;
        } else {
            let bytes = fs::read(entry.path()).with_context(|| path.display().to_string())?;
            files.insert(path, bytes);
        }
    }
    Ok(())
}

/// Puts every patch into the files that it changes. Gives those that do not fit, and why.
fn mutate(files: &mut Files, patches: &[Patch]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut edits: BTreeMap<PathBuf, Vec<Edit>> = BTreeMap::new();
    let mut unfit = BTreeMap::new();
    for patch in patches {
        match edits_of(patch, files, &edits) {
            Ok(of_patch) => {
                for (path, edit) in of_patch {
                    edits.entry(path).or_default().push(edit);
                }
            }
            Err(error) => {
                unfit.insert(patch.name.clone(), format!("{error:#}"));
            }
        }
    }
    for (path, edits) in edits {
        let file = files.get_mut(&path).with_context(|| path.display().to_string())?;
        let text = std::str::from_utf8(file).with_context(|| path.display().to_string())?;
        *file = diff::edited(&text.lines().collect::<Vec<_>>(), &edits).into_bytes();
    }
    Ok(unfit)
}

/// The edits of a patch, all of which fit, and collide with none of those before.
fn edits_of(
    patch: &Patch,
    files: &Files,
    before: &BTreeMap<PathBuf, Vec<Edit>>,
) -> anyhow::Result<Vec<(PathBuf, Edit)>> {
    let mut edits = Vec::new();
    for file in &patch.files {
        let path = PathBuf::from(&file.path);
        let bytes = files.get(&path).with_context(|| format!("{} is not there", file.path))?;
        let text = std::str::from_utf8(bytes).with_context(|| file.path.clone())?;
        let lines: Vec<_> = text.lines().collect();
        for hunk in &file.hunks {
            for edit in hunk.edits(&lines).with_context(|| file.path.clone())? {
                let others = before.get(&path).into_iter().flatten();
                let is_free = others.into_iter().all(|other| !edit.collides(other));
                ensure!(is_free, "{}: an earlier patch changes the same lines", file.path);
                edits.push((path.clone(), edit));
            }
        }
    }
    Ok(edits)
}

/// Adds what the scratch copy has and the sources have not.
fn add_switch(files: &mut Files) -> anyhow::Result<()> {
    let switch = file(files, SWITCH)?.clone();
    for (folder, features) in PACKAGES {
        files.insert(format!("{folder}/src/mutation.rs").into(), switch.clone());
        let lib = file(files, &format!("{folder}/src/lib.rs"))?;
        // A mutation may leave things unused.
        lib.splice(0..0, *b"#![allow(warnings)]\n");
        lib.extend_from_slice(b"\nmod mutation;\n");
        // The unit tests, as a target that can be chosen by its name: see [`Scratch::build`].
        let unit =
            format!("\n[[test]]\nname = \"{folder}-unit\"\npath = \"src/lib.rs\"\n{features}");
        file(files, &format!("{folder}/Cargo.toml"))?.extend_from_slice(unit.as_bytes());
    }
    let root = file(files, ROOT_MANIFEST)?;
    let text = std::str::from_utf8(root)?;
    ensure!(text.contains(OPTIMIZED), "{ROOT_MANIFEST} has no `{OPTIMIZED}`");
    *root = text.replace(OPTIMIZED, QUICK).into_bytes();
    Ok(())
}

fn file<'a>(files: &'a mut Files, path: &str) -> anyhow::Result<&'a mut Vec<u8>> {
    files.get_mut(Path::new(path)).with_context(|| format!("{path} is not there"))
}

/// Makes a folder have these files and no others. A file that has not changed keeps its time.
fn sync(folder: &Path, files: &Files) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let mut old = Files::new();
    read(folder, Path::new(""), &mut old)?;
    for path in old.keys().filter(|path| !files.contains_key(*path)) {
        fs::remove_file(folder.join(path))?;
    }
    for (path, bytes) in files.iter().filter(|(path, bytes)| old.get(*path) != Some(bytes)) {
        let path = folder.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> Files {
        files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_vec())).collect()
    }

    fn patch(name: &str, hunk: &str) -> Patch {
        let head = "Breaks: All.\nTest: lib a\n\n+++ b/x.rs\n@@ -1 +1 @@\n";
        let hunk = hunk.replace('?', &format!("crate::mutation::is(\"{name}\")"));
        Patch::parse(name.to_owned(), &format!("{head}{hunk}")).unwrap()
    }

    #[test]
    fn all_patches_that_fit_are_in_the_copy() {
        let mut files = files(&[("x.rs", "a\nb\nc\n")]);
        let patches = [
            patch("p", " a\n-b\n+b?\n c\n"),
            patch("q", " a\n+?\n b\n c\n"),
            patch("r", "-b\n+B?\n"),
            patch("s", " a\n+?\n d\n"),
        ];
        let unfit = mutate(&mut files, &patches).unwrap();
        assert_eq!(unfit.keys().collect::<Vec<_>>(), ["r", "s"]);
        let text = "a\ncrate::mutation::is(\"q\")\nbcrate::mutation::is(\"p\")\nc\n";
        assert_eq!(files, self::files(&[("x.rs", text)]));
    }

    #[test]
    fn the_patches_of_this_workspace_fit() {
        let patches = super::super::patches().unwrap();
        assert!(patches.len() >= 46);
        let mut files = Files::new();
        for (folder, _) in PACKAGES {
            let sources = Path::new(folder).join("src");
            read(&paths::workspace(), &sources, &mut files).unwrap();
        }
        assert_eq!(mutate(&mut files, &patches).unwrap(), BTreeMap::new());
    }

    #[test]
    fn what_is_built_or_hidden_is_not_copied_and_what_is_gone_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        sync(&from, &files(&[("a/b.rs", "text"), ("target/x", ""), (".git/y", "")])).unwrap();
        sync(&to, &files(&[("gone.rs", "")])).unwrap();
        let mut copied = Files::new();
        read(&from, Path::new(""), &mut copied).unwrap();
        sync(&to, &copied).unwrap();
        let mut found = Files::new();
        read(&to, Path::new(""), &mut found).unwrap();
        assert_eq!(found, files(&[("a/b.rs", "text")]));
    }

    #[test]
    fn a_file_that_has_not_changed_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let modified = |name: &str| dir.path().join(name).metadata().unwrap().modified().unwrap();
        sync(dir.path(), &files(&[("a", "1"), ("b", "1")])).unwrap();
        for name in ["a", "b"] {
            let file = fs::File::options().append(true).open(dir.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        sync(dir.path(), &files(&[("a", "1"), ("b", "2")])).unwrap();
        assert_eq!(modified("a"), std::time::UNIX_EPOCH);
        assert_ne!(modified("b"), std::time::UNIX_EPOCH);
    }
}
