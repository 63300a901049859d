//! The commands that documents show, run as they stand there but for addresses and paths.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, Example, Runner};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::{Process, wait_until};
use xtask::{build, documents};

/// What takes the place of a documented address or path.
type Replacements = Vec<(&'static str, String)>;

/// A shell's command, with this run's values.
fn shell(line: &str, replacements: &Replacements) -> Command {
    let replace = |text: String, (from, to): &(&str, String)| text.replace(from, to);
    let line = replacements.iter().fold(line.to_owned(), replace);
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", &line]);
    command
}

/// The bridge is started, asked and checked, and Envoy's first record is written.
#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_and_an_operators_commands_do_what_they_say() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("http-requests", 1).await?;
    kafka.create_topic("orders", 1).await?;
    kafka.create_topic("captured", 1).await?;
    let (dir, port, envoy_port) = (tempfile::tempdir()?, ports::free()?, ports::free()?);
    let config = dir.path().join("host-bridge.toml");
    let (bootstrap, listen) = (kafka.bootstrap(), ports::free()?);
    let cluster = format!("[clusters.default]\nbootstrap.servers = '{bootstrap}'\n");
    let (feeds, own_feeds) = (ports::free()?, ports::free()?);
    let section = |port| {
        let jobs = "[feeds.jobs]\ntopics = ['orders']\nentrypoints = ['get']\n\
                    group = { mode = 'manual', id = 'jobs' }\n\
                    [feeds.work]\ntopics = ['orders']\ngroup = { mode = 'manual', id = 'work' }\n";
        format!(
            "[feeds]\nlisten = ['127.0.0.1:{port}']\ninstance_id = 'b1'\n\
             [feeds.orders]\ntopics = ['orders']\n{jobs}"
        )
    };
    let own = section(own_feeds);
    fs::write(&config, format!("listen = ['127.0.0.1:{listen}']\n{cluster}{own}"))?;
    let mut reading = Settings::to(&*bootstrap);
    // Nobody listens there.
    let webhook = "[webhooks.billing]\nfeed = 'orders'\nurl = 'http://127.0.0.1:9/'\n";
    let capture = "[captures.orders]\ntopic = 'captured'\nproducer_async = false\n";
    reading.extra = format!("{}{webhook}{capture}", section(feeds));
    let readers = Bridge::start(reading).await?;
    let order = Request::post("/v1/clusters/default/topics/orders", "{\"order\":1}");
    let reply = order.header("kafka-key", "customer-1").send(readers.port()).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let binary = build::bridge()?;
    let replacements: Replacements = vec![
        ("broker-1:9092,broker-2:9092", bootstrap),
        ("/etc/host-bridge.toml", config.display().to_string()),
        ("host-bridge --", format!("exec {} --", binary.display())),
        ("host-bridge check", format!("{} check", binary.display())),
        ("host-bridge tail", format!("{} tail", binary.display())),
        ("localhost:9280/v1/capture", format!("127.0.0.1:{}/v1/capture", readers.port())),
        ("localhost:9280/v1/webhooks", format!("127.0.0.1:{}/v1/webhooks", readers.port())),
        ("127.0.0.1:9280", format!("127.0.0.1:{port}")),
        ("localhost:9280", format!("127.0.0.1:{port}")),
        ("localhost:9290", format!("127.0.0.1:{feeds}")),
        ("localhost:10000", format!("127.0.0.1:{envoy_port}")),
    ];
    let (mut bridge, mut envoy, mut ran) = (None, None, 0);
    for line in documents::block_commands()? {
        match line.split_whitespace().next().context("a command")? {
            // Built and run by the other steps of `cargo xtask test`; the packages are what this
            // machine has already.
            "cargo" | "sudo" => continue,
            "host-bridge" if !line.contains(" check ") && !line.contains(" tail ") => {
                let log = dir.path().join("bridge.log");
                bridge = Some(Process::spawn("host-bridge", shell(&line, &replacements), &log)?);
                wait_until("the bridge", Duration::from_secs(15), async || {
                    let reply = Request::get("/healthz").send(port).await?;
                    ensure!(reply.status == 200, "{}", reply.status);
                    Ok(())
                })
                .await?;
                let wasm = build::filter()?;
                let (admin_port, socket) = (ports::free()?, dir.path().join("socket"));
                let readers_port = ports::free()?;
                let example = Example {
                    port: envoy_port,
                    admin_port,
                    wasm,
                    socket,
                    bridge_port: port,
                    readers_port,
                    feeds_port: feeds,
                };
                envoy = Some(Envoy::start_example(&Runner::Direct, &example).await?);
            }
            "host-bridge" | "curl" => {
                ensure!(bridge.is_some() && envoy.is_some(), "the quick start comes first");
                let output = shell(&line, &replacements).output()?;
                let text = String::from_utf8_lossy(&output.stdout);
                // Who closes the pipe of a stream has it fail.
                let is_cut = line.contains("| head");
                ensure!(output.status.success() || is_cut, "{line}: {text} {output:?}");
                let shows = match line.as_str() {
                    line if line.contains("/v1/webhooks") => "\"partition\":0",
                    line if line.contains("/events?") => "event: message",
                    line if line.contains("--format value") => "{\"order\":1}\n",
                    line if line.contains(" tail ") => "key=customer-1\n{\n  \"order\": 1\n}\n",
                    line if line.contains("/commits") => "HTTP/1.1 204 No Content",
                    line if line.contains("/cursor?") => "\"cursor\":",
                    line if line.contains("octet-stream") => "kafka-next-cursor: ",
                    line if line.contains("/v1/feeds/") => "nextCursor",
                    line if line.starts_with("curl -i ") => "kafka-offset: 0",
                    line if line.starts_with("curl") => "kafka-upstream-bridge",
                    _ => "ok    topic orders",
                };
                ensure!(text.contains(shows), "{line}: {text}");
            }
            other => bail!("no test runs `{other}`, which a document shows: {line}"),
        }
        ran += 1;
    }
    ensure!(ran >= 6, "only {ran} commands were run");
    Ok(())
}
