//! Apicurio Registry, which has Confluent's API, from Maven Central.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::install::{install, run};
use crate::prerequisites::{Prerequisite, require};

/// The last line that keeps its schemas in memory without more.
const VERSION: &str = "2.6.13.Final";

/// The jar that `java -jar` runs.
///
/// # Errors
/// When Maven or Java is missing, or the download fails.
pub fn apicurio() -> anyhow::Result<PathBuf> {
    let name = format!("apicurio-registry-{VERSION}");
    let what = format!("fetching Apicurio Registry {VERSION} from Maven Central");
    let folder = install(&name, &what, fetch)?;
    Ok(folder.join(format!("apicurio-registry-app-{VERSION}-runner.jar")))
}

fn fetch(dir: &Path) -> anyhow::Result<()> {
    require(Prerequisite::Java)?;
    require(Prerequisite::Maven)?;
    let archive = format!("apicurio-registry-app-{VERSION}-all.tar.gz");
    let mut maven = Command::new("mvn");
    maven
        .args([
            "--quiet",
            "--batch-mode",
            "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
        ])
        .arg(format!("-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"))
        .arg(format!("-DoutputDirectory={}", dir.display()));
    run(maven)?;
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--file", &archive]).current_dir(dir);
    run(unpack)?;
    std::fs::remove_file(dir.join(archive))?;
    Ok(())
}
