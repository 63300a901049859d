//! The modules of a crate: how long its files are, and which import which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// A crate's modules without its tests; a module is a file.
#[derive(Debug)]
pub struct Modules {
    /// Lines of each file, by the module's path: empty for the root.
    files: BTreeMap<Module, File>,
}

/// Names from the crate's root down.
type Module = Vec<String>;

#[derive(Debug)]
struct File {
    path: PathBuf,
    lines: usize,
    imports: BTreeSet<Module>,
}

/// What the names of a crate stand for.
struct Names<'a> {
    modules: &'a BTreeSet<Module>,
    /// Where a module has a name from that others may take from it.
    given_on: BTreeMap<(Module, String), Module>,
}

impl Modules {
    /// Reads the crate whose sources are in `folder`, with `lib.rs` or `main.rs` as its root.
    ///
    /// # Errors
    /// When a file cannot be read, or none is there.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut texts = BTreeMap::new();
        collect(folder, folder, &mut texts)?;
        ensure!(!texts.is_empty(), "no Rust file is in {}", folder.display());
        let modules = texts.keys().cloned().collect();
        let mut names = Names { modules: &modules, given_on: BTreeMap::new() };
        for (module, (_, text)) in &texts {
            for keyword in ["pub use ", "pub(crate) use ", "pub(super) use "] {
                for path in declared(&without_tests(text), keyword) {
                    let name = path.rsplit([':', ' ']).next().unwrap_or_default().to_owned();
                    if let Some(from) = names.resolve(module, &path) {
                        names.given_on.insert((module.clone(), name), from);
                    }
                }
            }
        }
        let file = |(module, (path, text)): (Module, (PathBuf, String))| {
            let lines = text.lines().count();
            let mut imports = names.imports(&module, &without_tests(&text));
            imports.remove(&module);
            (module, File { path, lines, imports })
        };
        Ok(Self { files: texts.into_iter().map(file).collect() })
    }

    /// How many files there are.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Lines of all files.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.files.values().map(|file| file.lines).sum()
    }

    /// The file in the middle of all, by lines.
    #[must_use]
    pub fn median(&self) -> usize {
        let mut lines: Vec<_> = self.files.values().map(|file| file.lines).collect();
        lines.sort_unstable();
        lines.get(lines.len() / 2).copied().unwrap_or_default()
    }

    /// Lines of the longest file.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.files.values().map(|file| file.lines).max().unwrap_or_default()
    }

    /// How many times a module imports from one that it is part of.
    #[must_use]
    pub fn upward(&self) -> usize {
        let from = |(module, file): (&Module, &File)| {
            file.imports.iter().filter(|other| module.starts_with(other)).count()
        };
        self.files.iter().map(from).sum()
    }

    /// Groups of files that import each other, directly or through others of the group.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<&Path>> {
        let reached: BTreeMap<_, _> =
            self.files.keys().map(|module| (module, self.reached_from(module))).collect();
        let mut grouped = BTreeSet::new();
        let mut cycles = Vec::new();
        for (module, others) in &reached {
            if !others.contains(*module) || grouped.contains(module) {
                continue;
            }
            let group: Vec<_> = reached
                .iter()
                .filter(|(other, back)| others.contains(**other) && back.contains(*module))
                .map(|(other, _)| *other)
                .collect();
            cycles
                .push(group.iter().filter_map(|one| Some(&*self.files.get(*one)?.path)).collect());
            grouped.extend(group);
        }
        cycles
    }

    /// All that a module imports, and what these import, and so on.
    fn reached_from<'a>(&'a self, module: &'a Module) -> BTreeSet<&'a Module> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![module]);
        while let Some(file) = next.pop().and_then(|module| self.files.get(module)) {
            next.extend(file.imports.iter().filter(|other| reached.insert(*other)));
        }
        reached
    }
}

fn collect(
    root: &Path,
    folder: &Path,
    texts: &mut BTreeMap<Module, (PathBuf, String)>,
) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem == "tests" {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, texts)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = path.with_extension("");
            let names = inside.strip_prefix(root)?.iter();
            let mut module: Module =
                names.map(|name| name.to_string_lossy().into_owned()).collect();
            if matches!(module.as_slice(), [one] if one == "lib" || one == "main") {
                module.clear();
            }
            let text = fs::read_to_string(&path)?;
            // A library with a binary of its own: the library is the crate.
            if !module.is_empty() || stem == "lib" || !texts.contains_key(&module) {
                texts.insert(module, (path, text));
            }
        }
    }
    Ok(())
}

/// The code, without comments, paths of visibility, and the tests at its end.
fn without_tests(text: &str) -> String {
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let visibility = |line: &str| match line.split_once("(in ") {
        Some((before, rest)) => {
            before.to_owned() + rest.split_once(')').map_or(rest, |(_, after)| after)
        }
        None => line.to_owned(),
    };
    lines.map(visibility).collect::<Vec<_>>().join("\n")
}

impl Names<'_> {
    /// The modules of the same crate that the code of `module` names.
    fn imports(&self, module: &Module, code: &str) -> BTreeSet<Module> {
        let mut found = BTreeSet::new();
        for path in declared(code, "use ") {
            found.extend(self.resolve(module, &path));
        }
        // Paths in the code itself.
        for start in ["crate::", "super::"] {
            for (at, _) in code.match_indices(start) {
                let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                let rest = code.get(at..).unwrap_or_default();
                let path = rest.split(|c| !is_path(c)).next().unwrap_or_default();
                // `crate::{…}` is read above.
                if !path.ends_with(':') {
                    found.extend(self.resolve(module, path));
                }
            }
        }
        found
    }

    /// The file that a path leads to; none where it leads out of the crate.
    fn resolve(&self, module: &Module, path: &str) -> Option<Module> {
        let path = path.split(" as ").next().unwrap_or_default();
        let mut names = path.split("::").map(str::trim).peekable();
        let mut at = match *names.peek()? {
            "crate" => Module::new(),
            "self" | "super" => module.clone(),
            name => {
                let child = [module.as_slice(), &[name.to_owned()]].concat();
                self.modules.contains(&child).then(|| module.clone())?
            }
        };
        while let Some(name) = names.next_if(|name| matches!(*name, "crate" | "self" | "super")) {
            if name == "super" {
                at.pop();
            }
        }
        for name in names {
            at.push(name.to_owned());
            if !self.modules.contains(&at) {
                at.pop();
                // What a module takes from another to give it on is the other's.
                return self.given_on.get(&(at.clone(), name.to_owned())).cloned().or(Some(at));
            }
        }
        Some(at)
    }
}

/// The paths of all declarations that begin with `keyword`.
fn declared(code: &str, keyword: &str) -> Vec<String> {
    let declarations = code.split(keyword).skip(1).filter_map(|rest| rest.split_once(';'));
    declarations.flat_map(|(tree, _)| flatten(tree)).collect()
}

/// The paths of a use declaration: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn flatten(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inside)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
    let (mut depth, mut start, mut parts) = (0_usize, 0, Vec::new());
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.extend(inside.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(inside.get(start..));
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(flatten).map(|path| format!("{}{path}", before.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)]) -> Modules {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Modules::read(dir.path()).unwrap()
    }

    #[test]
    fn files_that_import_each_other_are_a_cycle() {
        let found = modules(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;\npub use b::Inner;\n"),
            ("a.rs", "use crate::b::{self, Inner, deep::{One, Two}};\nuse std::fs;\n"),
            ("b.rs", "pub(crate) mod deep;\n// use crate::c::D;\n"),
            ("b/deep.rs", "pub(in crate::c) fn f() -> crate::a::A { super::g() }\n"),
            ("c.rs", "use crate::Inner as I;\n\n#[cfg(test)]\nmod tests {\nuse crate::c;\n}\n"),
            ("c/tests.rs", "use super::*;\n"),
        ]);
        assert_eq!((found.files(), found.lines(), found.median(), found.longest()), (5, 15, 2, 6));
        assert_eq!(found.upward(), 1, "b::deep imports from b");
        let cycles = found.cycles();
        assert!(found.files[&vec!["c".to_owned()]].imports.contains(&vec!["b".to_owned()]));
        let names: Vec<_> = cycles.iter().flatten().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.rs", "deep.rs"]);
    }

    #[test]
    fn a_crate_without_files_is_an_error() {
        assert!(Modules::read(tempfile::tempdir().unwrap().path()).is_err());
    }
}
