//! A host-bridge of one's own: its configuration, its process, its addresses.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::ensure;

use crate::http::{Address, Request, Response};
use crate::ports;
use crate::process::Process;
use crate::run_dir::RunDir;
use xtask::build;

/// Longest time until it answers `/healthz`.
const START: Duration = Duration::from_secs(30);

/// Longest time for its orderly end.
const DRAIN: Duration = Duration::from_secs(40);

/// What a bridge is started with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `bootstrap.servers` of the cluster `default`.
    pub bootstrap: String,
    /// More properties of that cluster, by Kafka's names.
    pub cluster: Vec<(String, String)>,
    /// TOML that stands above `[clusters.default]`: top-level keys first, then tables.
    pub extra: String,
    /// More addresses to listen on.
    pub listen: Vec<String>,
    /// Environment variables of the process.
    pub env: Vec<(String, String)>,
    /// The binary; none builds the workspace's.
    pub binary: Option<PathBuf>,
}

impl Settings {
    /// A bridge to one Kafka, with defaults for all else.
    #[must_use]
    pub fn to(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), ..Self::default() }
    }

    /// Sets a property of the cluster.
    #[must_use]
    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.cluster.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a line of top-level TOML.
    #[must_use]
    pub fn line(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self.extra.push('\n');
        self
    }
}

/// A running bridge on a TCP port of loopback and a unix socket; it ends when this is dropped.
#[derive(Debug)]
pub struct Bridge {
    process: Process,
    binary: PathBuf,
    env: Vec<(String, String)>,
    port: u16,
    // After the process: a folder must not go away under it.
    dir: RunDir,
}

impl Bridge {
    /// Writes `host-bridge.toml`, runs the binary and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be built or does not start; its log's end is shown.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let binary = match settings.binary.clone() {
            Some(path) => path,
            None => tokio::task::spawn_blocking(build::bridge).await??,
        };
        let (dir, port) = (RunDir::new("bridge")?, ports::free()?);
        let config = dir.path().join("host-bridge.toml");
        fs::write(&config, render(&settings, port, &socket_in(dir.path())))?;
        let process = spawn(&binary, &settings.env, dir.path())?;
        let mut bridge = Self { process, binary, env: settings.env, port, dir };
        bridge.wait_alive().await?;
        Ok(bridge)
    }

    /// Its TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of its unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(self.dir.path())
    }

    /// Its configuration file, for tests that change it.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("host-bridge.toml")
    }

    /// What it runs.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Its process: for CPU time, memory, freeze, thaw and log.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it at once (SIGKILL); [`Bridge::restart`] brings it back.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.process.kill9()?;
        Ok(())
    }

    /// Asks it to drain and end (SIGTERM), and waits up to 40 seconds.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.stop(DRAIN).await
    }

    /// Starts it again on the same listeners with the configuration file as it is now.
    ///
    /// # Errors
    /// As [`Bridge::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.process.is_running() {
            self.stop().await?;
        }
        self.process = spawn(&self.binary, &self.env, self.dir.path())?;
        self.wait_alive().await
    }

    /// GETs a path of its API.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        Request::get(path).send(self.port).await
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When it does not answer 200.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let reply = self.get("/metrics").await?;
        ensure!(reply.status == 200, "/metrics answered {}", reply.status);
        Ok(reply.text())
    }

    /// The sum of a metric's samples, over all labels that contain `label` (empty: all).
    ///
    /// # Errors
    /// When `/metrics` does not answer 200.
    pub async fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        Ok(sum(&self.metrics().await?, name, label))
    }

    async fn wait_alive(&mut self) -> anyhow::Result<()> {
        let (port, socket) = (self.port, self.socket());
        let addresses = [Address::from(port), Address::from(socket.as_path())];
        let check = || is_alive(&addresses);
        self.process.wait_ready("to answer /healthz", START, check).await
    }
}

async fn is_alive(addresses: &[Address]) -> anyhow::Result<()> {
    for address in addresses {
        let reply = Request::get("/healthz").send(address.clone()).await?;
        ensure!(reply.status == 200, "{address} answered {}", reply.status);
    }
    Ok(())
}

fn spawn(binary: &Path, env: &[(String, String)], dir: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(binary);
    command.arg("--config").arg(dir.join("host-bridge.toml"));
    // A backtrace would push what the bridge says at its end out of the last lines of its log.
    command.env("RUST_BACKTRACE", "0");
    command.envs(env.iter().map(|(key, value)| (key, value)));
    Process::spawn("host-bridge", command, &dir.join("host-bridge.log"))
}

fn socket_in(dir: &Path) -> PathBuf {
    dir.join("bridge.sock")
}

fn render(settings: &Settings, port: u16, socket: &Path) -> String {
    let own = [format!("127.0.0.1:{port}"), format!("unix:{}", socket.display())];
    let listen: Vec<_> = own.iter().chain(&settings.listen).collect();
    let mut text = format!("listen = {listen:?}\n");
    text.push_str(&settings.extra);
    text.push_str("\n[clusters.default]\n");
    let bootstrap = ("bootstrap.servers".to_owned(), settings.bootstrap.clone());
    for (key, value) in std::iter::once(&bootstrap).chain(&settings.cluster) {
        // A JSON string is a TOML string; writing to a String cannot fail.
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let _infallible = writeln!(text, "{} = {}", quote(key), quote(value));
    }
    text
}

/// Adds up samples `name{…} value` of a Prometheus text, over all labels that contain `label`.
#[must_use]
pub fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let sample = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let same = labels.is_empty() || labels.starts_with('{');
        (same && labels.contains(label)).then(|| value.parse().ok())?
    };
    metrics.lines().filter_map(sample).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_lines_stand_above_the_cluster() {
        let settings = Settings::to("h:1").property("linger.ms", "5").line("a = 1");
        assert_eq!(
            render(&settings, 7, Path::new("/s")),
            "listen = [\"127.0.0.1:7\", \"unix:/s\"]\na = 1\n\n[clusters.default]\n\
             \"bootstrap.servers\" = \"h:1\"\n\"linger.ms\" = \"5\"\n"
        );
    }

    #[test]
    fn samples_of_one_metric_add_up() {
        let text = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3\nab 7\na_total 9\n";
        assert!((sum(text, "a", "") - 5.0).abs() < 1e-9);
        assert!((sum(text, "a", "x=\"2\"") - 3.0).abs() < 1e-9);
    }
}
