//! What says whether a Kubernetes manifest is one: the schemas of its kinds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::install::install;
use super::wheels;
use crate::prerequisites::{Prerequisite, require};

/// `kubernetes-validate`, as pip resolves it: the schemas of Kubernetes' own kinds.
const WHEELS: &str = "\
attrs==26.1.0
importlib-resources==7.1.0
jsonschema==4.26.0
jsonschema-specifications==2025.9.1
kubernetes-validate==1.37.0
packaging==26.4
pyyaml==6.0.4
referencing==0.37.0
rpds-py==2026.9.1
typing-extensions==4.16.0
";

/// Go modules with the CustomResourceDefinitions of Istio, and of Envoy Gateway and the Gateway API.
const MODULES: [(&str, &str); 2] = [
    ("istio.io/api@v1.32.0", "kubernetes/customresourcedefinitions.gen.yaml"),
    ("github.com/envoyproxy/gateway@v1.9.1", "charts/gateway-helm/charts/crds/crds"),
];

/// The folder from which Python imports `kubernetes_validate`.
///
/// # Errors
/// When Python or pip is missing, or the download fails.
pub fn kubernetes_validate() -> anyhow::Result<PathBuf> {
    let what = "fetching kubernetes-validate 1.37.0 from PyPI";
    install("kubernetes-validate-1.37.0", what, |dir| wheels(WHEELS, dir))
}

/// A folder with CustomResourceDefinitions.
///
/// # Errors
/// When Go is missing, or the download fails.
pub fn custom_resource_definitions() -> anyhow::Result<PathBuf> {
    let what = "fetching CustomResourceDefinitions from the Go module proxy";
    install("crds-istio-1.32.0-envoy-gateway-1.9.1", what, |dir| {
        MODULES.iter().try_for_each(|(module, path)| fetch(module, path, dir))
    })
}

fn fetch(module: &str, path: &str, dir: &Path) -> anyhow::Result<()> {
    require(Prerequisite::Go)?;
    let mut go = Command::new("go");
    let output = go.args(["mod", "download", "-json", module]).current_dir(dir).output()?;
    let answer: Value =
        serde_json::from_slice(&output.stdout).with_context(|| module.to_owned())?;
    let folder = answer.get("Dir").and_then(Value::as_str);
    let folder = Path::new(folder.with_context(|| format!("{module}: {answer}"))?);
    copy(&folder.join(path), dir)
}

/// The YAML files of a folder and of those in it, or one file.
fn copy(from: &Path, dir: &Path) -> anyhow::Result<()> {
    if from.is_dir() {
        return fs::read_dir(from)?.try_for_each(|entry| copy(&entry?.path(), dir));
    }
    let name = from.file_name().context("a file has a name")?;
    ensure!(!dir.join(name).exists(), "{} is there twice", from.display());
    fs::copy(from, dir.join(name)).with_context(|| from.display().to_string())?;
    Ok(())
}
