//! A schema registry of one's own on loopback: Apicurio, by Confluent's API.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::http::Request;
use crate::ports;
use crate::process::Process;
use crate::run_dir::RunDir;
use xtask::tools;

/// Longest time until it answers, and until it has ended.
const START: Duration = Duration::from_secs(60);
/// Where Apicurio has Confluent's API.
const API: &str = "/apis/ccompat/v7";

/// A registry, which keeps its schemas in memory; it ends when this is dropped.
#[derive(Debug)]
pub struct SchemaRegistry {
    jar: PathBuf,
    java: PathBuf,
    process: Option<Process>,
    port: u16,
    // After the process: a folder must not go away under it.
    dir: RunDir,
}

impl SchemaRegistry {
    /// Runs an empty registry.
    ///
    /// # Errors
    /// When it cannot be fetched, or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let parts = || Ok::<_, anyhow::Error>((tools::apicurio()?, tools::java()?));
        let (jar, java) = tokio::task::spawn_blocking(parts).await??;
        let (dir, port) = (RunDir::new("registry")?, ports::free()?);
        let mut registry = Self { jar, java, process: None, port, dir };
        registry.restart().await?;
        Ok(registry)
    }

    /// Runs it again after [`Self::stop`], empty.
    ///
    /// # Errors
    /// When it does not start; its log's end is shown.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.java);
        command
            .args(["-Xmx256m", "-Dquarkus.http.host=127.0.0.1"])
            .arg(format!("-Dquarkus.http.port={}", self.port))
            .arg("-jar")
            .arg(&self.jar);
        let process = Process::spawn("registry", command, &self.dir.path().join("registry.log"))?;
        let process = self.process.insert(process);
        let port = self.port;
        let ask = async || {
            let answer = Request::get(&format!("{API}/schemas/types")).send(port).await?;
            ensure!(answer.status == 200, "it answers {}", answer.status);
            Ok(())
        };
        process.wait_ready("to answer", START, ask).await
    }

    /// Ends it, and its schemas are gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the registry does not run")?.stop(START).await.map(drop)
    }

    /// Stops it where it is, until [`Self::thaw`]: it takes requests, and answers none.
    pub fn freeze(&self) {
        self.process.iter().for_each(Process::freeze);
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.process.iter().for_each(Process::thaw);
    }

    /// Its address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{API}", self.port)
    }

    /// Registers the next version of a subject, and gives its id.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub async fn register(&self, subject: &str, kind: &str, schema: &str) -> anyhow::Result<u32> {
        self.register_with(subject, kind, schema, json!([])).await
    }

    /// As [`Self::register`], with references as Confluent's API has them.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub async fn register_with(
        &self,
        subject: &str,
        kind: &str,
        schema: &str,
        references: Value,
    ) -> anyhow::Result<u32> {
        let body = json!({ "schemaType": kind, "schema": schema, "references": references });
        let path = format!("{API}/subjects/{subject}/versions");
        let request = Request::post(&path, body.to_string());
        let request = request.header("content-type", "application/vnd.schemaregistry.v1+json");
        let answer = request.send(self.port).await?;
        let told: Value = answer.json()?;
        let id =
            told.get("id").and_then(Value::as_u64).with_context(|| format!("{subject}: {told}"))?;
        Ok(u32::try_from(id)?)
    }
}
