//! What cargo has built: programs, and tests by what they need.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use xtask::build;

/// A test program's place among the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads the sources.
    Rules,
    /// Needs nothing.
    Unit,
    /// The filter on models of its hosts.
    Emulator,
    /// Envoy, Kafka and the bridge.
    EndToEnd,
    /// Kafka, and clients that are compared.
    Bench,
}

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TestBinary {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The folder of its package, where it runs.
    pub(crate) folder: PathBuf,
    kind: Kind,
}

#[derive(Debug, Default)]
pub(crate) struct Binaries {
    programs: BTreeMap<String, PathBuf>,
    tests: Vec<TestBinary>,
}

impl Binaries {
    /// Runs a `cargo build` or `cargo test --no-run`, and keeps what it says of its products.
    pub(crate) fn build(mut command: Command) -> anyhow::Result<Self> {
        command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
        let (succeeded, binaries) = build::run_reading(command, Self::read)?;
        ensure!(succeeded, "the build failed: what cargo says stands above");
        Ok(binaries)
    }

    fn read(output: ChildStdout) -> anyhow::Result<Self> {
        Self::parse(BufReader::new(output))
    }

    fn parse(output: impl BufRead) -> anyhow::Result<Self> {
        let mut found = Self::default();
        for line in output.lines() {
            let line = line?;
            let message: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            found.add(&message);
        }
        found.tests.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn add(&mut self, message: &Value) {
        let text = |path: &str| message.pointer(path).and_then(Value::as_str);
        let (Some(path), Some(target), Some(manifest)) =
            (text("/executable"), text("/target/name"), text("/manifest_path"))
        else {
            return;
        };
        if message.pointer("/profile/test") != Some(&Value::Bool(true)) {
            self.programs.insert(target.to_owned(), path.into());
            return;
        }
        let folder = Path::new(manifest).parent().unwrap_or(Path::new(".")).to_path_buf();
        let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{package}/{target}");
        self.tests.push(TestBinary { name, path: path.into(), folder, kind: kind(target) });
    }

    /// A program by its name.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<&Path> {
        let found = self.programs.get(name);
        Ok(found.with_context(|| format!("cargo has not built {name}"))?)
    }

    /// A test program by the folder of its package and the name of its target, with a `/` between.
    pub(crate) fn test(&self, name: &str) -> anyhow::Result<&Path> {
        let found = self.tests.iter().find(|test| test.name == name);
        Ok(&found.with_context(|| format!("cargo has not built the tests {name}"))?.path)
    }

    /// The test programs of these kinds, kind by kind.
    pub(crate) fn tests(&self, kinds: &[Kind]) -> Vec<&TestBinary> {
        let of_kind = |kind: &Kind| {
            let kind = *kind;
            self.tests.iter().filter(move |test| test.kind == kind)
        };
        kinds.iter().flat_map(of_kind).collect()
    }
}

/// By the names of the test targets.
fn kind(target: &str) -> Kind {
    match target {
        "tidy" => Kind::Rules,
        "emulator" => Kind::Emulator,
        "end_to_end" => Kind::EndToEnd,
        "comparison" => Kind::Bench,
        _ => Kind::Unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_tests_are_told_apart() {
        let output = concat!(
            r#"{"reason":"build-script-executed"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/core/Cargo.toml","#,
            r#""target":{"name":"simulation"},"profile":{"test":true},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/core/Cargo.toml","#,
            r#""target":{"name":"kafka_upstream_core"},"profile":{"test":true},"#,
            r#""executable":"/t/core-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/host-bridge/Cargo.toml","#,
            r#""target":{"name":"host-bridge"},"profile":{"test":false},"executable":"/t/b"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","#,
            r#""target":{"name":"end_to_end"},"profile":{"test":true},"executable":"/t/e"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        let found = Binaries::parse(output.as_bytes()).unwrap();
        assert_eq!(found.program("host-bridge").unwrap(), Path::new("/t/b"));
        assert!(found.program("demo").is_err());
        let tests = found.tests(&[Kind::EndToEnd, Kind::Unit]);
        let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["tests/end_to_end", "core/kafka_upstream_core"]);
        assert_eq!(tests[1].folder, Path::new("/w/core"));
        assert_eq!(found.test("tests/end_to_end").unwrap(), Path::new("/t/e"));
        assert!(found.test("core/simulation").is_err());
    }
}
