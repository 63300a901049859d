//! `image`: the filter as an OCI image, for gateways that fetch Wasm modules from a registry.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};
use xtask::{build, paths};

use super::Outcome;

/// The file that Istio, Envoy Gateway and Higress look for in an image's last layer.
const MODULE: &str = "plugin.wasm";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[derive(Args)]
pub(crate) struct Options {
    /// Where the image layout is written; target/image without it
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let folder = options.folder.clone().unwrap_or_else(|| paths::target().join("image"));
    let module = fs::read(build::filter()?)?;
    let digest = Layout { folder: &folder }.write(&module)?;
    println!("{digest} {}", folder.display());
    Ok(Outcome::Passed)
}

/// An image layout, as the OCI image specification 1.1 has it: blobs under their digests.
struct Layout<'a> {
    folder: &'a Path,
}

impl Layout<'_> {
    /// Returns the manifest's digest. The same module is always the same image.
    fn write(&self, module: &[u8]) -> anyhow::Result<String> {
        let tar = archive(module)?;
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(&tar)?;
        let layer = self.blob(LAYER, &gzip.finish()?)?;
        let config = json!({
            "architecture": "wasm",
            "os": "wasip1",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
        });
        let config = self.blob(CONFIG, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        });
        let manifest = manifest.to_string();
        let manifests = [self.blob(MANIFEST, manifest.as_bytes())?];
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        fs::write(self.folder.join("index.json"), index.to_string())?;
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        fs::write(self.folder.join("oci-layout"), version.to_string())?;
        Ok(digest(manifest.as_bytes()))
    }

    /// Writes a blob, and returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        let digest = digest(bytes);
        let path = self.folder.join("blobs").join(digest.replace(':', "/"));
        let parent = path.parent().context("a blob has a folder")?;
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }
}

fn archive(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut header = Header::new_ustar();
    header.set_size(module.len() as u64);
    header.set_mode(0o644);
    let mut tar = Builder::new(Vec::new());
    tar.append_data(&mut header, MODULE, module)?;
    Ok(tar.into_inner()?)
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use tar::Archive;

    use super::*;

    #[test]
    fn a_registry_finds_each_blob_and_a_gateway_the_module() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout { folder: folder.path() };
        let written = layout.write(b"\0asm").unwrap();
        assert_eq!(written, layout.write(b"\0asm").unwrap(), "an image can be built again");
        let json = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
        let blob = |descriptor: &Value| {
            let named = descriptor["digest"].as_str().unwrap();
            let path = folder.path().join("blobs").join(named.replace(':', "/"));
            let bytes = fs::read(&path).unwrap();
            assert_eq!(digest(&bytes), named);
            assert_eq!(bytes.len() as u64, descriptor["size"].as_u64().unwrap());
            path
        };
        let index = json(&folder.path().join("index.json"));
        assert_eq!(index["manifests"][0]["digest"], *written);
        let manifest = json(&blob(&index["manifests"][0]));
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        let (mut tar, mut module) = (Vec::new(), Vec::new());
        let layer = fs::File::open(blob(&manifest["layers"][0])).unwrap();
        GzDecoder::new(layer).read_to_end(&mut tar).unwrap();
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], *digest(&tar));
        let mut archive = Archive::new(&*tar);
        let mut file = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(file.path().unwrap().to_str(), Some("plugin.wasm"));
        file.read_to_end(&mut module).unwrap();
        assert_eq!(module, b"\0asm");
    }
}
