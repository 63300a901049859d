//! `host-bridge tail` in a terminal: what it shows, where it goes on, and how it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use serde_json::Value;
use xtask::build;

/// A topic `orders`, a bridge that writes to it, and a file with the feed `orders`.
struct Setup {
    bridge: Bridge,
    dir: tempfile::TempDir,
    // After what uses it.
    _kafka: Kafka,
}

impl Setup {
    async fn start() -> anyhow::Result<Self> {
        let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
        kafka.create_topic("orders", 1).await?;
        let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
        let setup = Self { bridge, dir: tempfile::tempdir()?, _kafka: kafka };
        let feeds = "listen = ['127.0.0.1:1']\n[feeds.orders]\ntopics = ['orders']\n";
        let text = format!(
            "token_file = '/not/readable'\n[clusters.default]\nbootstrap.servers = '{}'\n\
             [clusters.gone]\nbootstrap.servers = '127.0.0.1:{}'\n[feeds]\n{feeds}",
            setup._kafka.bootstrap(),
            ports::free()?,
        );
        fs::write(setup.dir.path().join("bridge.toml"), text)?;
        Ok(setup)
    }

    async fn write(&self, value: &str) -> anyhow::Result<()> {
        let request = Request::post("/v1/clusters/default/topics/orders", value.to_owned());
        let request = request.header("kafka-key", "k").header("kafka-header-trace", "7");
        let reply = request.send(self.bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    }

    /// A line of a shell in which `tail` is the command. Whatever hangs is killed.
    fn shell(&self, line: &str) -> anyhow::Result<Command> {
        let (binary, dir) = (build::bridge()?, self.dir.path().display());
        let tail = format!("timeout 60 {} tail --config {dir}/bridge.toml", binary.display());
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", &line.replace("tail", &tail)]);
        Ok(command)
    }

    fn run(&self, line: &str) -> anyhow::Result<Output> {
        Ok(self.shell(line)?.output()?)
    }

    /// What it writes until it ends by itself.
    fn shown(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_shown_for_people_for_programs_and_bare() -> anyhow::Result<()> {
    let setup = Setup::start().await?;
    setup.write(r#"{"order":1.50,"items":[]}"#).await?;
    setup.write("two \u{1b}[31m\u{9b}").await?;
    let values = setup.shown("tail orders --from earliest --limit 2 --format value")?;
    assert_eq!(values, "{\"order\":1.50,\"items\":[]}\ntwo \u{1b}[31m\u{9b}\n");
    let pretty = setup.shown("tail default orders --from earliest --limit 2")?;
    let (start, rest) = pretty.split_once("timestamp=").context("a timestamp")?;
    assert_eq!(start, "topic=orders partition=0 offset=0 ");
    let (time, rest) = rest.split_once(' ').context("a key")?;
    ensure!(time.starts_with("20") && time.ends_with('Z'), "{pretty}");
    let shown = "key=k headers={\"trace\":[\"7\"]}\n{\n  \"order\": 1.50,\n  \"items\": []\n}\n\n\
        topic=orders partition=0 offset=1 ";
    ensure!(rest.starts_with(shown), "{pretty}");
    ensure!(rest.ends_with("\ntwo \\u{1b}[31m\\u{9b}\n\n"), "{pretty}");
    let lines = setup.shown("tail orders --from earliest --limit 2 --format json")?;
    let items: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let [first, second] = &*items else { anyhow::bail!("two lines: {lines}") };
    assert_eq!(first.pointer("/headers/trace/0"), Some(&Value::from("7")));
    assert_eq!(second.pointer("/metadata/offset"), Some(&Value::from(1)));
    // The cursor of a record goes on behind it, and so does its time by the millisecond.
    let cursor = first.get("id").and_then(Value::as_str).context("an id")?;
    let next = setup.shown(&format!("tail orders --from {cursor} --limit 1 --format json"))?;
    assert_eq!(serde_json::from_str::<Value>(&next)?, *second);
    let since = second.pointer("/metadata/timestamp").context("a timestamp")?;
    let timed = setup.shown(&format!("tail orders --from {since} --limit 1 --format json"))?;
    ensure!(timed == next || first.pointer("/metadata/timestamp") == Some(since), "{timed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_until_ctrl_c_or_until_its_pipe_is_closed() -> anyhow::Result<()> {
    let setup = Setup::start().await?;
    setup.write("0").await?;
    // No further record comes: the pipe's end alone says that nobody reads.
    let first = setup.shown("tail orders --from earliest --format value | head -1")?;
    assert_eq!(first, "0\n");
    let mut command = setup.shell("exec tail orders --from earliest --format value")?;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("its output")?);
    for number in 0..5 {
        let mut line = String::new();
        output.read_line(&mut line)?;
        assert_eq!(line, format!("{number}\n"));
        setup.write(&(number + 1).to_string()).await?;
    }
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    ensure!(signal.success(), "{signal}");
    let (mut rest, ended) = (String::new(), child.wait_with_output()?);
    output.read_to_string(&mut rest)?;
    ensure!(rest.is_empty() || rest == "5\n", "{rest}");
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(130), &b""[..]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told_in_a_sentence() -> anyhow::Result<()> {
    let setup = Setup::start().await?;
    for (line, told) in [
        ("tail nowhere", "error: there is no feed nowhere; the configuration has orders\n"),
        ("tail nowhere orders", "error: there is no [clusters.nowhere]\n"),
        ("tail default 'a b'", "error: `a b` is not a topic's name\n"),
        ("tail default missing", "error: there is no topic `missing`\n"),
        (
            "tail orders --from yesterday",
            "error: --from must be `earliest`, `latest`, milliseconds, a time of RFC 3339 or a cursor; \
             cursor: is neither TOPIC@PARTITION#OFFSET nor the base64 of that\n",
        ),
    ] {
        let output = setup.run(line)?;
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_eq!(String::from_utf8(output.stderr)?, told, "{line}");
        ensure!(output.stdout.is_empty(), "{line}");
    }
    let gone = setup.run("tail gone orders")?;
    let told = String::from_utf8(gone.stderr)?;
    ensure!(told.starts_with("error: orders: ") && told.lines().count() == 1, "{told}");
    assert_eq!(gone.status.code(), Some(1), "{told}");
    fs::write(setup.dir.path().join("bridge.toml"), "[feeds.a]\ntopics = []\ncluster = 'b'\n")?;
    let wrong = String::from_utf8(setup.run("tail a")?.stderr)?;
    ensure!(wrong.contains("line 2: feeds.a.topics: must name 1 to 100 topics"), "{wrong}");
    Ok(())
}
