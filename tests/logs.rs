//! The log of a real bridge: whatever becomes of it, the bridge works and ends; and what it says of
//! a start that fails.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::http::{Address, Request};
use harness::process::{Process, wait_until};
use xtask::build;

/// Longest time for a start, and for what is waited for meanwhile.
const SOON: Duration = Duration::from_secs(15);
/// Longest time for an end, with nothing to drain.
const END: Duration = Duration::from_secs(5);

/// A bridge that logs as much as it can, of a cluster that nobody serves.
fn bridge(socket: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(build::bridge()?);
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    command.args(["--bootstrap-servers", "127.0.0.1:1"]).env("HOST_BRIDGE_LOG", "trace");
    Ok(command)
}

async fn works_and_ends(name: &str, stderr: Stdio) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("bridge.sock");
    let mut command = bridge(&socket)?;
    command.stderr(stderr);
    let mut bridge = Process::spawn_unlogged("host-bridge", command)?;
    let address = Address::from(socket.as_path());
    let get = |path: &str| Request::get(path).send(address.clone());
    wait_until("the bridge to answer", SOON, async || Ok(get("/healthz").await?.status == 200))
        .await?;
    wait_until("lines to be lost", SOON, async || {
        ensure!(get("/v1/clusters/default/topics/t").await?.status != 200, "{name}: a GET writes");
        let page = get("/metrics").await?.text();
        let line = page.lines().find(|line| line.starts_with("host_bridge_log_lines_lost_total "));
        let lost = line.and_then(|line| line.rsplit(' ').next()).context("no such metric")?;
        Ok(lost.parse::<u64>()? > 0)
    })
    .await?;
    let asked = Instant::now();
    let status = bridge.stop(END).await?;
    ensure!(status.success(), "{name}: {status} after {:?}", asked.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_can_write_or_read_holds_up_neither_requests_nor_the_end()
-> anyhow::Result<()> {
    works_and_ends("a full disk", OpenOptions::new().write(true).open("/dev/full")?.into()).await?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    works_and_ends("a closed pipe", writer.into()).await?;
    let (reader, writer) = std::io::pipe()?;
    works_and_ends("a pipe that nobody reads", writer.into()).await?;
    drop(reader);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_tells_all_faults_with_their_lines() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (config, log) = (directory.path().join("config"), directory.path().join("log"));
    let text = "[clusters.a]\nbootstrap.servers = 'a:1'\nacks = 7\nlinger.millis = 5\n\
        [inline]\nacks = 1\n";
    std::fs::write(&config, text)?;
    let mut command = Command::new(build::bridge()?);
    command.arg("--config").arg(&config).args(["--log-format", "json"]);
    command.env("HOST_BRIDGE_LOG", "debgu").env("RUST_BACKTRACE", "1");
    let status = Process::spawn("host-bridge", command, &log)?.wait().await?;
    let log = std::fs::read_to_string(log)?;
    ensure!(status.code() == Some(1), "{status}: {log}");
    let lines: Vec<serde_json::Value> =
        log.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(log.clone())?;
    let faults: Vec<_> = lines.iter().filter_map(|line| line["fault"].as_str()).collect();
    let [misspelt, faults @ ..] = &faults[..] else { anyhow::bail!("{log}") };
    assert!(misspelt.contains("`debgu`") && lines[0]["accepted"].is_string(), "{log}");
    for place in ["line 3: clusters.a.acks: ", "line 4: clusters.a.linger.millis: ", "line 6: "] {
        assert!(faults.iter().any(|fault| fault.starts_with(place)), "{place}: {log}");
    }
    assert_eq!((faults.len(), lines.len()), (3, 4), "{log}");
    Ok(())
}
