//! Kafka's programs, and its storage as a broker needs it before its first start.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};

use super::install::{install, run};
use super::{KafkaVersion, classes, fetched_libs, java};

/// The cluster id of every cluster here; any 16 bytes in base64 do.
pub const CLUSTER_ID: &str = "a2Fma2EtdXBzdHJlYW0tMQ";

/// For programs that run for a second, or share few processors: a quick start matters more than
/// fast code.
pub const QUICK: [&str; 2] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// A Java that runs Kafka's programs.
#[derive(Clone, Debug)]
pub struct KafkaJava {
    pub(super) version: KafkaVersion,
    pub(super) binary: PathBuf,
    pub(super) libs: PathBuf,
    /// Their classes as Java has them in memory; without it they start as well, in double the time.
    pub(super) archive: Option<PathBuf>,
}

/// Java with Kafka's jars, which are fetched if they must be; once a process.
///
/// # Errors
/// When Maven or Java is missing, or the download fails.
pub fn kafka_java(version: KafkaVersion) -> anyhow::Result<KafkaJava> {
    static FOUND: [Mutex<Option<KafkaJava>>; 2] = [const { Mutex::new(None) }; 2];
    let [older, newer] = &FOUND;
    let found = match version {
        KafkaVersion::V3_9 => older,
        KafkaVersion::V4_3 => newer,
    };
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(java) = found.as_ref() {
        return Ok(java.clone());
    }
    let (binary, libs) = (java()?, fetched_libs(version)?);
    let mut java = KafkaJava { version, binary, libs, archive: None };
    java.archive = classes::archive(&java);
    *found = Some(java.clone());
    Ok(java)
}

impl KafkaJava {
    /// The folder with the jars.
    #[must_use]
    pub fn libs(&self) -> &Path {
        &self.libs
    }

    /// A command of Java with Kafka's jars, followed by folders of classes and of jars (`folder/*`).
    ///
    /// # Errors
    /// When a path has a colon.
    pub fn command(&self, more: &[PathBuf]) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.binary);
        let paths = std::iter::once(self.libs.join("*")).chain(more.iter().cloned());
        command.arg("-cp").arg(env::join_paths(paths).context("a colon in the path of jars")?);
        if let Some(archive) = &self.archive {
            let mut option = std::ffi::OsString::from("-XX:SharedArchiveFile=");
            option.push(archive);
            // An archive that does not fit is passed over. Java would say so on standard output,
            // where what its programs print is read.
            command.arg(option).args(["-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr"]);
        }
        Ok(command)
    }

    /// A folder with the storage of a broker, as `StorageTool` makes it, where SCRAM knows these
    /// users and passwords with both of its mechanisms. `meta.properties` is another in each broker.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn storage(&self, users: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        let (version, key) = (self.version, self.key(users)?);
        let name = format!("kafka-{version}-storage-{key:016x}");
        let what = format!("formatting the storage of Kafka {version}");
        Ok(install(&name, &what, |dir| self.format(users, dir))?.join("data"))
    }

    fn format(&self, users: &[(&str, &str)], dir: &Path) -> anyhow::Result<()> {
        let properties = dir.join("server.properties");
        // The ports are not opened.
        fs::write(&properties, single_node(&dir.join("data"), [9092, 9093]))?;
        let mut command = self.command(&[])?;
        command.args(QUICK).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID]);
        command.arg("--config").arg(properties);
        for (user, password) in users {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let credential = format!("{mechanism}=[name={user},password={password}]");
                command.args(["--add-scram", &credential]);
            }
        }
        run(command)?;
        ensure!(dir.join("data/bootstrap.checkpoint").is_file(), "no bootstrap.checkpoint");
        Ok(())
    }

    /// Another number for other jars, another place of theirs, or other `details`.
    pub(super) fn key(&self, details: impl Hash) -> anyhow::Result<u64> {
        let jars = fs::read_dir(&self.libs)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let mut jars: Vec<_> =
            jars.with_context(|| format!("cannot read {}", self.libs.display()))?;
        jars.sort();
        let mut hasher = DefaultHasher::new();
        (&self.libs, jars, details).hash(&mut hasher);
        Ok(hasher.finish())
    }
}

/// Properties of a broker that is its own controller, with the ports of both.
pub(super) fn single_node(data: &Path, [broker, controller]: [u16; 2]) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{broker}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n",
        data.display()
    )
}
