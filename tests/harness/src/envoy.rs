//! A real Envoy, from the file that is shipped or from a configuration made for a test.

mod config;
mod example;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::http::Request;
use crate::process::Process;
use crate::run_dir::RunDir;
use config::Rendered;
use xtask::tools;

pub use config::{AWAIT_BODY, EnvoyConfig, Listener};
pub use example::{Example, render_example};

/// Longest time until its admin page says LIVE; it compiles the filter first.
const START: Duration = Duration::from_secs(60);

/// Longest time for its orderly end.
const STOP: Duration = Duration::from_secs(10);

/// A running Envoy; it ends when this is dropped.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: u16,
    /// Listener names with their ports.
    ports: Vec<(String, u16)>,
    // After the process: a folder must not go away under it.
    dir: RunDir,
}

/// Which program runs Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runner {
    /// Envoy itself.
    Direct,
    /// `func-e run`, with all its folders under this one.
    FuncE(PathBuf),
}

impl Envoy {
    /// Runs Envoy with a configuration made by the builder.
    ///
    /// # Errors
    /// When it does not start, for instance because it rejects the configuration.
    pub async fn start(config: EnvoyConfig) -> anyhow::Result<Self> {
        let rendered = config.render()?;
        let arguments = ["--concurrency".to_owned(), config.concurrency.to_string()];
        Self::launch(&Runner::Direct, "envoy.json", rendered, &arguments).await
    }

    /// Runs Envoy, or func-e, with the text of a YAML file that [`render_example`] made.
    ///
    /// # Errors
    /// As [`Envoy::start`].
    pub async fn start_example(runner: &Runner, example: &Example) -> anyhow::Result<Self> {
        let text = render_example(example)?;
        let ports = [("http", example.port), ("feeds", example.readers_port)];
        let ports = ports.map(|(name, port)| (name.to_owned(), port)).to_vec();
        let rendered = Rendered { text, admin: example.admin_port, ports };
        Self::launch(runner, "envoy.yaml", rendered, &[]).await
    }

    /// Runs Envoy with the text of any YAML file and more arguments; the ports are those in the
    /// text.
    ///
    /// # Errors
    /// As [`Envoy::start`].
    pub async fn start_file(
        yaml: &str,
        admin: u16,
        ports: Vec<(String, u16)>,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let rendered = Rendered { text: yaml.to_owned(), admin, ports };
        Self::launch(&Runner::Direct, "envoy.yaml", rendered, arguments).await
    }

    async fn launch(
        runner: &Runner,
        file: &str,
        rendered: Rendered,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let dir = RunDir::new("envoy")?;
        let path = dir.path().join(file);
        fs::write(&path, rendered.text)?;
        let wanted = runner.clone();
        let mut command = tokio::task::spawn_blocking(move || command_of(&wanted)).await??;
        command.arg("--config-path").arg(&path).args(arguments);
        // Two Envoys on one machine must not share memory segments for hot restarts.
        command.arg("--disable-hot-restart");
        command.args(["--log-level", "warning", "--component-log-level", "wasm:info"]);
        let process = Process::spawn("envoy", command, &dir.path().join("envoy.log"))?;
        let mut envoy = Self { process, admin: rendered.admin, ports: rendered.ports, dir };
        envoy.wait_live().await?;
        Ok(envoy)
    }

    /// The port of a listener on 127.0.0.1.
    ///
    /// # Errors
    /// When there is no listener of that name.
    pub fn port(&self, listener: &str) -> anyhow::Result<u16> {
        let found = self.ports.iter().find(|(name, _)| name == listener);
        Ok(found.with_context(|| format!("no listener {listener}"))?.1)
    }

    /// The port of the admin page.
    #[must_use]
    pub fn admin_port(&self) -> u16 {
        self.admin
    }

    /// Its process: for CPU time, memory, freeze, thaw and kill. With func-e, func-e's.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.process.log()).unwrap_or_default()).into_owned()
    }

    /// The folder with its configuration and log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// GETs a path of the admin page, as text.
    ///
    /// # Errors
    /// When it does not answer 200.
    pub async fn admin_get(&self, path: &str) -> anyhow::Result<String> {
        admin_get(self.admin, path).await
    }

    /// All counters and gauges whose names match a regular expression.
    ///
    /// # Errors
    /// When the admin page does not answer.
    pub async fn stats(&self, filter: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let text = self.admin_get(&format!("/stats?filter={}", percent(filter))).await?;
        Ok(parse_stats(&text))
    }

    /// One counter or gauge by its whole name; 0 when Envoy does not have it (yet).
    ///
    /// # Errors
    /// When the admin page does not answer.
    pub async fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let all = parse_stats(&self.admin_get("/stats").await?);
        Ok(all.into_iter().find(|(found, _)| found == name).map_or(0, |(_, value)| value))
    }

    /// Ends it gracefully (SIGTERM), and kills it after 10 seconds.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop(STOP).await?;
        Ok(())
    }

    async fn wait_live(&mut self) -> anyhow::Result<()> {
        let admin = self.admin;
        let check = || async move {
            let text = admin_get(admin, "/ready").await?;
            ensure!(text.trim() == "LIVE", "/ready says {}", text.trim());
            Ok(())
        };
        self.process.wait_ready("to be LIVE", START, check).await
    }
}

async fn admin_get(port: u16, path: &str) -> anyhow::Result<String> {
    let reply = Request::get(path).send(port).await?;
    ensure!(reply.status == 200, "{path} answered {}: {}", reply.status, reply.text());
    Ok(reply.text())
}

fn command_of(runner: &Runner) -> anyhow::Result<Command> {
    let envoy = tools::envoy()?;
    let Runner::FuncE(home) = runner else { return Ok(Command::new(envoy)) };
    let mut command = Command::new(tools::func_e()?);
    command.env("ENVOY_PATH", envoy);
    for (variable, folder) in [
        ("FUNC_E_CONFIG_HOME", "config"),
        ("FUNC_E_DATA_HOME", "data"),
        ("FUNC_E_STATE_HOME", "state"),
        ("FUNC_E_RUNTIME_DIR", "run"),
    ] {
        let folder = home.join(folder);
        fs::create_dir_all(&folder)?;
        command.env(variable, folder);
    }
    command.env_remove("FUNC_E_HOME").arg("run");
    Ok(command)
}

/// Lines `name: number`; histograms are left out.
fn parse_stats(text: &str) -> Vec<(String, u64)> {
    let stat = |line: &str| {
        let (name, value) = line.rsplit_once(": ")?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(stat).collect()
}

/// Percent-encodes what may not stand in a query.
fn percent(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_histograms_left_out() {
        let text = "a.b: 3\nc: P0(nan,0) P25(nan,0)\nwasm.x: 18\n";
        assert_eq!(parse_stats(text), [("a.b".to_owned(), 3), ("wasm.x".to_owned(), 18)]);
    }

    #[test]
    fn a_regular_expression_fits_into_a_query() {
        assert_eq!(percent("^wasm.*|a_b$"), "%5Ewasm.%2A%7Ca_b%24");
    }
}
