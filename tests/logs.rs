//! The log of a real bridge: whatever becomes of it, the bridge works and ends; and what it says of
//! a start that fails.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::http::{Address, Request};
use harness::process::{Process, wait_until};
use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use xtask::build;

/// Longest time for a start, and for what is waited for meanwhile.
const SOON: Duration = Duration::from_secs(15);
/// Longest time for an end, with nothing to drain.
const END: Duration = Duration::from_secs(5);

/// A bridge that logs as much as it can.
fn bridge(socket: &Path, kafka: &FakeCluster) -> anyhow::Result<Command> {
    let mut command = Command::new(build::bridge()?);
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    command.args(["--bootstrap-servers", &kafka.bootstrap()]).env("HOST_BRIDGE_LOG", "trace");
    Ok(command)
}

/// `is_counted`: whether lines are lost at once, and not only when too many wait.
async fn works_and_ends(name: &str, stderr: Stdio, is_counted: bool) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("bridge.sock");
    let kafka = FakeCluster::new(FakeSettings::default());
    kafka.create_topic("early", &[1]);
    kafka.listen().await?;
    let mut command = bridge(&socket, &kafka)?;
    command.stderr(stderr);
    let mut bridge = Process::spawn_unlogged("host-bridge", command)?;
    let address = Address::from(socket.as_path());
    let get = |path: &str| Request::get(path).send(address.clone());
    wait_until("the bridge to answer", SOON, async || {
        ensure!(get("/healthz").await?.status == 200);
        Ok(())
    })
    .await?;
    let write = async |topic: &str| -> anyhow::Result<()> {
        let path = format!("/v1/clusters/default/topics/{topic}");
        let reply = Request::post(&path, "value").send(address.clone()).await?;
        ensure!(reply.status == 200, "{name}: {topic}: {}", reply.text());
        Ok(())
    };
    write("early").await?;
    if is_counted {
        wait_until("lines to be lost", SOON, async || {
            let page = get("/metrics").await?.text();
            let lost = "host_bridge_log_lines_lost_total ";
            let lost =
                page.lines().find_map(|line| line.strip_prefix(lost)).context("no metric")?;
            ensure!(lost.parse::<u64>()? > 0, "none is lost");
            Ok(())
        })
        .await?;
    }
    // Whoever asks for metadata is alive, too.
    kafka.create_topic("late", &[1]);
    write("late").await?;
    let asked = Instant::now();
    let status = bridge.stop(END).await?;
    ensure!(status.success(), "{name}: {status} after {:?}", asked.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_can_write_or_read_holds_up_neither_requests_nor_the_end()
-> anyhow::Result<()> {
    let full = OpenOptions::new().write(true).open("/dev/full")?;
    works_and_ends("a full disk", full.into(), true).await?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    works_and_ends("a closed pipe", writer.into(), true).await?;
    let (reader, writer) = std::io::pipe()?;
    let mut other = writer.try_clone()?;
    // It is always full, until its reader is gone.
    let filling = std::thread::spawn(move || while other.write_all(&[b'x'; 4096]).is_ok() {});
    works_and_ends("a pipe that nobody reads", writer.into(), false).await?;
    drop(reader);
    ensure!(filling.join().is_ok());
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
