//! Licence and source of every dependency, from what cargo knows of them.

use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use super::{report, root};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The licences that `deny.toml` allows.
fn allowed() -> Vec<Licensee> {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let (_, list) = text.split_once("[licenses]\nallow = [\n").unwrap();
    let (list, _) = list.split_once("\n]").unwrap();
    let names = list.lines().map(|line| line.trim().trim_matches([',', '"']));
    names.map(|name| Licensee::parse(name).unwrap()).collect()
}

fn is_allowed(expression: &str, allowed: &[Licensee]) -> bool {
    let parsed = Expression::parse_mode(expression, ParseMode::LAX);
    let satisfies = |wanted: &LicenseReq| allowed.iter().any(|licence| licence.satisfies(wanted));
    parsed.is_ok_and(|parsed| parsed.evaluate(satisfies))
}

#[test]
fn every_dependency_has_an_allowed_licence_and_comes_from_crates_io() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--locked", "--all-features"]);
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 200, "only {} packages", packages.len());
    let (allowed, mut faults) = (allowed(), Vec::new());
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_allowed(licence, &allowed) {
            faults.push(format!("{}: the licence {licence}", package["id"]));
        }
        // The workspace's own have none.
        if package["source"].as_str().is_some_and(|source| source != REGISTRY) {
            faults.push(format!("{}: from {}", package["id"], package["source"]));
        }
    }
    report(faults);
}

#[test]
fn an_expression_is_allowed_by_its_parts() {
    let allowed = allowed();
    for good in ["MIT/Apache-2.0", "(MIT OR GPL-3.0) AND ISC", "Apache-2.0 WITH LLVM-exception"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "none", "", "GPL-2.0 WITH Classpath-exception-2.0"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn no_dependency_is_asked_for_in_any_version() {
    let mut faults = Vec::new();
    let nested = ["tests/emulator", "tests/harness"];
    let folders = [".", "bench", "core", "host-bridge", "kafka-client", "schema", "tests", "xtask"];
    for folder in folders.into_iter().chain(nested) {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let wild = |line: &&str| line.contains("= \"*\"") || line.contains("git = ");
        faults.extend(text.lines().filter(wild).map(|line| format!("{folder}: {line}")));
    }
    report(faults);
}
