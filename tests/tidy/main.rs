//! The rules of ARCHITECTURE.md that can be checked by reading the source.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod documents;
mod licences;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// A source file of the workspace.
struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in
        ["bench", "core", "host-bridge", "kafka-client", "schema", "src", "tests", "xtask"]
    {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 40, "only {} files were found", found.len());
    found
}

fn collect(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path, text });
        }
    }
}

impl Source {
    /// The lines before the file's own tests.
    fn body(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(number, line)| (number + 1, line));
        lines.take_while(|(_, line)| *line != "#[cfg(test)]")
    }

    fn is_test(&self) -> bool {
        let is_harness = self.path.starts_with("tests/harness/src/");
        self.path.starts_with("tests/") && !is_harness || self.path.ends_with("tests.rs")
    }

    /// First line and length of every function, found by its indentation.
    fn functions(&self) -> Vec<(usize, usize)> {
        let mut functions = Vec::new();
        let mut open: Option<(usize, String)> = None;
        for (number, line) in self.body() {
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            let words = line.trim_start();
            let starts = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn "]
                .iter()
                .chain(&["pub(super) fn ", "pub(crate) async fn ", "pub(super) async fn "])
                .any(|start| words.starts_with(start));
            match &open {
                None if starts && !line.ends_with(';') && !line.ends_with('}') => {
                    open = Some((number, format!("{indent}}}")));
                }
                Some((first, end)) if line == end => {
                    functions.push((*first, number - first + 1));
                    open = None;
                }
                _ => {}
            }
        }
        functions
    }
}

/// Fails with one line a fault.
fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_files_of_a_product_crate_import_each_other_in_circles() {
    let crates = ["src", "core/src", "kafka-client/src", "host-bridge/src", "schema/src"];
    let cycles = crates.iter().flat_map(|name| {
        let modules = xtask::modules::Modules::read(&root().join(name)).unwrap();
        let shown = |cycle: Vec<&Path>| format!("{cycle:?}");
        modules.cycles().into_iter().map(shown).collect::<Vec<_>>()
    });
    report(cycles.collect());
}

#[test]
fn every_file_begins_with_its_sentence() {
    let wrong = |source: &Source| {
        let first = source.text.lines().next().unwrap_or_default();
        !first.starts_with("//! ") || first.contains("Skeleton")
    };
    report(sources().into_iter().filter(wrong).map(|source| source.path).collect());
}

#[test]
fn files_and_functions_stay_short() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let lines = source.body().count();
        if lines > 600 {
            faults.push(format!("{}: {lines} lines", source.path));
        }
        for (line, length) in source.functions() {
            if length > 60 {
                faults.push(format!("{}:{line}: a function of {length} lines", source.path));
            }
        }
    }
    report(faults);
}

#[test]
fn arrows_point_one_way() {
    const FORBIDDEN: [(&str, &[&str]); 8] = [
        ("core/", &["proxy_wasm", "tokio", "SystemTime", "Instant::now", "std::net", "std::fs"]),
        ("kafka-client/", &["hyper", "axum", "kafka_upstream_core", "host_bridge"]),
        ("host-bridge/", &["proxy_wasm", "kafka_protocol"]),
        ("schema/src/", &["tokio", "std::net", "std::fs", "kafka_upstream_core"]),
        ("src/", &["kafka_protocol", "tokio"]),
        ("bench/", &["kafka_protocol"]),
        // Built first of all, while a newcomer waits.
        ("xtask/", &["kafka_protocol", "kafka_client", "tokio", "hyper"]),
        ("tests/support", &["kafka_protocol"]),
    ];
    let mut faults = Vec::new();
    for source in sources() {
        let rules = FORBIDDEN.iter().filter(|(folder, _)| source.path.starts_with(folder));
        for name in rules.flat_map(|(_, names)| names.iter()) {
            let uses = |line: &str| line.contains(name) && !line.trim_start().starts_with("//");
            let found = source.body().find(|(_, line)| uses(line));
            faults.extend(found.map(|(line, _)| format!("{}:{line}: {name}", source.path)));
        }
    }
    report(faults);
}

#[test]
fn only_host_rs_calls_the_host() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        for (line, text) in source.body() {
            let names =
                ["hostcalls", "self.send_http", "self.get_http", "self.dispatch_http", "unsafe "];
            if source.path != "src/host.rs" && names.iter().any(|name| text.contains(name)) {
                faults.push(format!("{}:{line}: {}", source.path, text.trim()));
            }
        }
    }
    report(faults);
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "XX".to_owned() + "X"];
    let marks = ["#[ig".to_owned() + "nore", "thread::sl".to_owned() + "eep"];
    let mut faults = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if words.iter().chain(&marks).any(|word| line.contains(word.as_str())) {
                faults.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    report(faults);
}

#[test]
fn every_path_that_the_architecture_names_exists() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(text.lines().count() <= 150, "ARCHITECTURE.md is too long");
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        word.contains('/') && !word.contains([' ', '{', '*']) && !word.starts_with('/')
    };
    let missing = quoted.filter(is_path).filter(|path| !root().join(path).exists());
    report(missing.map(str::to_owned).collect());
}
