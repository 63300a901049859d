//! The manifests for Kubernetes: held to the schemas of their kinds, and to those who read what is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use kafka_upstream_core::config::Plugin;
use kafka_upstream_core::gateway::Gateway;
use serde_json::Value;
use xtask::{paths, tools};

use super::shipped::yaml;

fn folder() -> PathBuf {
    paths::workspace().join("kubernetes")
}

/// The files of a folder and of those in it.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

#[test]
fn each_manifest_has_the_fields_of_its_kind() -> anyhow::Result<()> {
    // Kustomize's own, a patch, and a kind whose schema no registry has.
    let skipped = ["kustomization.yaml", "sidecar.yaml", "higress/wasm-plugin.yaml"];
    let mut manifests = files(&folder())?;
    manifests.retain(|path| {
        path.extension().is_some_and(|it| it == "yaml")
            && !skipped.iter().any(|it| path.ends_with(it))
    });
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", tools::kubernetes_validate()?);
    python.arg(paths::workspace().join("tests/python/kubernetes.py"));
    let output = python.arg(tools::custom_resource_definitions()?).args(&manifests).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = String::from_utf8(output.stdout)?;
    for kind in ["Deployment", "EnvoyExtensionPolicy", "TrafficExtension", "WasmPlugin"] {
        assert!(seen.lines().any(|line| line.ends_with(kind)), "{kind}: {seen}");
    }
    Ok(())
}

#[test]
fn what_kustomize_is_to_read_is_there() -> anyhow::Result<()> {
    for path in files(&folder())?.iter().filter(|path| path.ends_with("kustomization.yaml")) {
        let document = yaml(&path.display().to_string())?;
        let listed = |pointer: &str| {
            let items = document.pointer(pointer).and_then(Value::as_array);
            items.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>()
        };
        let mut named = [listed("/resources"), listed("/configMapGenerator/0/files")].concat();
        named.extend(document.pointer("/patches/0/path").and_then(Value::as_str));
        assert!(!named.is_empty());
        for name in named {
            assert!(path.with_file_name(name).exists(), "{}: {name}", path.display());
        }
    }
    Ok(())
}

#[test]
fn the_filter_takes_the_configurations_of_the_policies() -> anyhow::Result<()> {
    let policies = fs::read_to_string(folder().join("envoy-gateway/filter.yaml"))?;
    let policies = serde_saphyr::from_multiple::<Value>(&policies)?;
    let policy = policies.iter().find(|it| it["kind"] == "EnvoyExtensionPolicy");
    let policy = policy.and_then(|policy| policy.pointer("/spec/wasm/0/config"));
    let istio = yaml("kubernetes/istio/traffic-extension.yaml")?;
    let plugin = yaml("kubernetes/istio/wasm-plugin.yaml")?;
    let higress = yaml("kubernetes/higress/wasm-plugin.yaml")?;
    for config in [
        policy,
        istio.pointer("/spec/wasm/pluginConfig"),
        plugin.pointer("/spec/pluginConfig"),
        higress.pointer("/spec/defaultConfig"),
    ] {
        let plugin = Plugin::parse(config.context("a configuration")?.to_string().as_bytes())?;
        assert!(!plugin.stops_at_headers, "none of them can set Envoy's option");
        for settings in &plugin.settings {
            let target = Gateway::Envoy.check_target(&settings.bridge.target);
            target.map_err(anyhow::Error::msg)?;
        }
    }
    Ok(())
}
