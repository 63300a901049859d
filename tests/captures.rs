//! Requests that the bridge captures itself: the same records and replies as through the filter, and
//! through the proxies whose configurations are shipped.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use harness::bridge::{Bridge, Settings};
use harness::envoy::Envoy;
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{Ending, Limit, Load, Requests};
use harness::ports;
use harness::process::{Process, wait_until};
use harness::reader::{Tail, read_all};
use harness::record::ReadRecord;
use kafka_upstream_tests::{Gateway, acked};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use xtask::{paths, tools};

/// Random requests; `CAPTURE_REQUESTS` sets another number.
const REQUESTS: usize = 400;

/// What a request consists of, to send it twice.
#[derive(Debug, Clone)]
struct Sent {
    method: &'static str,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

const TYPES: [&str; 7] = [
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
    "text/plain; charset=utf-8",
    "application/octet-stream",
    "application/cloudevents+json",
    "",
];

fn text(rng: &mut Rng, alphabet: &[u8], most: usize) -> Vec<u8> {
    (0..rng.usize(0..=most)).filter_map(|_| rng.choice(alphabet)).copied().collect()
}

impl Sent {
    fn random(rng: &mut Rng) -> anyhow::Result<Self> {
        let path = text(rng, b"abc/.-_~+;=@", 12);
        let query = text(rng, b"ab=&%+41key", 16);
        let mut target = format!("/{}", String::from_utf8(path)?);
        if rng.bool() {
            target = format!("{target}%2f?key=k%20{}&{}", rng.u8(..), String::from_utf8(query)?);
        }
        let mut headers = Vec::new();
        let kind = rng.choice(TYPES).unwrap_or_default();
        if !kind.is_empty() {
            headers.push(("content-type".to_owned(), kind.into()));
        }
        for name in ["x-tag", "x-tag", "x-other", "ce-id", "cookie"] {
            if rng.bool() {
                let value = text(rng, b"ab, ;=\"\xc3\xa9\xfc1", 10);
                headers.push((name.to_owned(), value.trim_ascii().to_vec()));
            }
        }
        let body = match rng.u8(0..4) {
            0 => text(rng, b"{}[]\":,1a\\ ", 24),
            1 => br#"{"a":[1,2.50,"\u00fc"],"b":null}"#.to_vec(),
            2 => b"--b\r\ncontent-disposition: form-data; name=n\r\n\r\nv\r\n--b--".to_vec(),
            _ => (0..rng.usize(0..3000)).map(|_| rng.u8(..)).collect(),
        };
        let method = rng.choice(["POST", "PUT", "PATCH", "DELETE"]).unwrap_or("POST");
        Ok(Self { method, target, headers, body })
    }

    fn request(&self, prefix: &str) -> Request {
        let request = Request::post(&format!("{prefix}{}", self.target), self.body.clone());
        let request = request.method(self.method).header("host", "example.org:8000");
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    /// The same with what Envoy added for the filter to see.
    fn with_headers(mut self, seen: &Value) -> Self {
        let own = |name: &str| self.headers.iter().any(|(it, _)| it == name);
        let added = |(name, value): (&String, &Value)| {
            let is_added = !own(name) && !["host", "content-length"].contains(&name.as_str());
            is_added.then(|| Some((name.clone(), value.as_str()?.into())))?
        };
        let added: Vec<_> = seen.as_object().into_iter().flatten().filter_map(added).collect();
        self.headers.extend(added);
        self
    }
}

/// The configurations of the listeners, which the capture routes of their names have, too.
fn configurations() -> [(&'static str, Value); 4] {
    let all = json!({
        "forward_method": true, "forward_uri": true, "forward_headers": true,
        "key_query_arg": "key", "headers": { "include_headers": ["x-tag"] },
    });
    let expression = "{'h': request.headers['x-other'], 'q': request.query, 'm': request.method, \
         'p': request.path, 'b': request.body_bytes}";
    [
        ("kong", acked(&all)),
        ("body", acked(&json!({ "message_format": "body" }))),
        ("cloudevents", acked(&json!({ "message_format": "cloudevents" }))),
        (
            "expression",
            acked(&json!({
                "message_expression": expression, "error_handling": { "return_error_message": true },
            })),
        ),
    ]
}

/// What of a reply is the filter's.
fn reply(response: &Response) -> (u16, Option<&str>, Option<&str>, &[u8]) {
    let header = |wanted: &str| {
        let found = response.headers.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    (response.status, header("kafka-error"), header("content-type"), &response.body)
}

/// The record that a reply names.
fn record_at(response: &Response, records: &[ReadRecord]) -> anyhow::Result<ReadRecord> {
    let number = |wanted: &str| {
        let found = response.headers.iter().find(|(name, _)| name == wanted);
        found.and_then(|(_, value)| value.parse::<i64>().ok()).with_context(|| wanted.to_owned())
    };
    let place = (number("kafka-partition")?, number("kafka-offset")?);
    let found = records.iter().find(|it| (i64::from(it.partition), it.offset) == place);
    Ok(ReadRecord {
        offset: 0,
        partition: 0,
        timestamp_ms: 0,
        ..found.context("no record")?.clone()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_route_makes_the_records_and_replies_of_the_filter() -> anyhow::Result<()> {
    let count = std::env::var("CAPTURE_REQUESTS").ok().and_then(|count| count.parse().ok());
    let configurations = configurations();
    let gateway = Gateway::start(&configurations).await?;
    let mut settings = Settings::to(gateway.kafka.bootstrap());
    let files = TempDir::new()?;
    for (name, config) in &configurations {
        let mut config = config.clone();
        let config_file = files.path().join(name);
        config.as_object_mut().context("an object")?.insert("topic".to_owned(), json!(name));
        fs::write(&config_file, config.to_string())?;
        let path = config_file.display();
        settings = settings.line(&format!("[captures.{name}]\nconfig_file = '{path}'"));
    }
    let bridge = Bridge::start(settings).await?;
    let (mut rng, mut sent) = (Rng::with_seed(7), Vec::new());
    let mut tail = Tail::open(&gateway.kafka.bootstrap(), "kong").await?;
    let mut seen = Vec::new();
    for number in 0..count.unwrap_or(REQUESTS) {
        let (topic, _) = configurations.get(number % 4).context("four")?;
        let mut request = Sent::random(&mut rng)?;
        let filtered = gateway.send(topic, request.request("")).await?;
        if *topic == "kong" && filtered.status == 200 {
            // The record has the headers that the filter saw.
            seen.extend(tail.read().await?);
            let record = record_at(&filtered, &seen)?;
            request = request.with_headers(record.json()?.get("headers").context("headers")?);
        }
        let direct = request.request(&format!("/v1/capture/{topic}")).send(bridge.port()).await?;
        ensure!(reply(&filtered) == reply(&direct), "{request:?}: {filtered:?}, {direct:?}");
        sent.push((*topic, request, filtered, direct));
    }
    let mut compared = 0;
    for (topic, _) in &configurations {
        let records = read_all(&gateway.kafka.bootstrap(), topic).await?;
        for (_, request, filtered, direct) in sent.iter().filter(|(it, ..)| it == topic) {
            if filtered.status == 200 {
                let (filtered, direct) =
                    (record_at(filtered, &records)?, record_at(direct, &records)?);
                ensure!(filtered == direct, "{topic} {request:?}: {filtered:?}, {direct:?}");
                compared += 1;
            }
        }
    }
    println!("{compared} records are equal, and all replies of {} requests", sent.len());
    ensure!(compared > sent.len() / 4 && compared < sent.len(), "{compared}");
    Ok(())
}

/// A configuration that is shipped, for a free port, at a bridge. Returns its text and the port.
fn shipped(path: &str, bridge: u16) -> anyhow::Result<(String, u16)> {
    let text = fs::read_to_string(paths::workspace().join(path))?;
    let port = ports::free()?;
    let replaced = text
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"))
        .replace("http://:8080", &format!("http://:{port}"))
        .replace("port_value: 8080", &format!("port_value: {port}"))
        .replace("127.0.0.1:9280", &format!("127.0.0.1:{bridge}"))
        .replace("port_value: 9280", &format!("port_value: {bridge}"));
    ensure!(replaced != text, "{path}: no port was found");
    Ok((replaced, port))
}

/// Proxies by their configurations; what must be kept until the end, and their ports.
async fn proxies(bridge: u16) -> anyhow::Result<Vec<(Process, TempDir, u16)>> {
    let mut proxies = Vec::new();
    for file in ["nginx.conf", "haproxy.cfg", "Caddyfile"] {
        let (mut text, port) = shipped(&format!("proxies/{file}"), bridge)?;
        let dir = TempDir::new()?;
        let root = dir.path().display().to_string();
        let mut command = match file {
            "nginx.conf" => {
                let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let temporary = temporary.map(|it| format!("{it}_temp_path {root}/{it};")).concat();
                let own = format!("http {{\naccess_log off;\n{temporary}");
                text = text.replacen("http {", &own, 1);
                let mut command = spawn_blocking(tools::nginx).await??;
                command.args(["-e", "stderr", "-p", &root, "-c", file]);
                command.args(["-g", &format!("daemon off; pid {root}/pid;")]);
                command
            }
            "haproxy.cfg" => {
                let mut command = spawn_blocking(tools::haproxy).await??;
                command.args(["-f", file]);
                command
            }
            _ => {
                let mut command = spawn_blocking(tools::caddy).await??;
                command.args(["run", "--config", file, "--adapter", "caddyfile"]);
                command.env("HOME", &root);
                command
            }
        };
        fs::write(dir.path().join(file), text)?;
        command.current_dir(dir.path());
        let process = Process::spawn(file, command, &dir.path().join("log"))?;
        proxies.push((process, dir, port));
    }
    Ok(proxies)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxies_that_are_shipped_lead_to_a_capture_route() -> anyhow::Result<()> {
    let mut kafka = Kafka::start(KafkaVersion::V4_3, 1).await?;
    kafka.create_topic("orders", 3).await?;
    let capture = "[captures.orders]\ntopic = 'orders'\nproducer_async = false\n\
        delivery_timeout = 3000\nforward_uri = true\nforward_method = true\n\
        path_header = 'x-original-uri'\n\
        client_address_header = 'x-forwarded-for'\nscheme_header = 'x-forwarded-proto'\n\
        record_headers_expression = \"{'source': source.address, 'host': request.host}\"";
    let mut bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(capture)).await?;
    let running = proxies(bridge.port()).await?;
    let (text, port) = shipped("envoy/capture.yaml", bridge.port())?;
    let admin = ports::free()?;
    let text = text.replace("port_value: 9901", &format!("port_value: {admin}"));
    let _envoy = Envoy::start_file(&text, admin, Vec::new(), &[]).await?;
    let ports = running.iter().map(|(.., port)| *port).chain([port]);
    let target = "/a%2Fb/../c//?x=1&y=%20%C3%BC";
    for (number, port) in ports.clone().enumerate() {
        let ask = || Request::post(target, "order").header("host", "shop.example").send(port);
        wait_until("a proxy", Duration::from_secs(15), async || {
            let reply = ask().await?;
            ensure!(reply.status == 200, "{reply:?}");
            Ok(())
        })
        .await?;
        let records = read_all(&kafka.bootstrap(), "orders").await?;
        ensure!(records.len() == number + 1, "{} records", records.len());
        let record = records.iter().max_by_key(|record| record.timestamp_ms).context("a record")?;
        let message = record.json()?;
        ensure!(message.get("uri") == Some(&json!(target)), "{message}");
        // Envoy gives clients on loopback the machine's address.
        record.header("source").context("source")?.parse::<IpAddr>()?;
        ensure!(record.header("host").as_deref() == Some("shop.example"), "{record:?}");
        // The bridge answers while the proxy sends.
        let large = Request::post(target, vec![b'a'; 1_500_000]).send(port).await?;
        ensure!(reply(&large).0 == 413 && reply(&large).1 == Some("body_too_large"), "{large:?}");
    }
    kafka.freeze_broker(1)?;
    let ask = |port| async move { Request::post(target, "order").send(port).await };
    let mut asking = Vec::new();
    let under_way = async || bridge.metric("host_bridge_kafka_buffered_bytes", "").await;
    for port in ports.clone() {
        let before = under_way().await?;
        asking.push(tokio::spawn(ask(port)));
        wait_until("a record under way", Duration::from_secs(15), async || {
            ensure!(under_way().await? > before);
            Ok(())
        })
        .await?;
    }
    bridge.kill9()?;
    for reply in asking {
        let reply = reply.await??;
        ensure!([502, 504].contains(&reply.status), "it may be written: {reply:?}");
    }
    kafka.kill_broker(1)?;
    bridge.restart().await?;
    for port in ports {
        let reply = Request::post(target, "order").send(port).await?;
        ensure!(reply.status == 503, "{reply:?}");
        ensure!(reply.headers.iter().any(|(name, _)| name == "kafka-error"), "{reply:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_mode_every_200_is_in_kafka_after_sigterm() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("kept", 3).await?;
    let capture = "[captures.kept]\ntopic = 'kept'\nmessage_format = 'body'";
    let mut bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(capture)).await?;
    let requests =
        Requests::post("/v1/capture/kept/", "text/plain", |number| number.to_string().into());
    let load = Load::new(bridge.port(), requests).connections(32).limit(Limit::Requests(100_000));
    let load = tokio::spawn(load.run());
    wait_until("records", Duration::from_secs(20), async || {
        let kept = read_all(&kafka.bootstrap(), "kept").await?.len();
        ensure!(kept > 500, "{kept}");
        Ok(())
    })
    .await?;
    let status = bridge.stop().await?;
    ensure!(status.success(), "{status}");
    let (report, mut kept) = (load.await??, HashSet::new());
    for record in read_all(&kafka.bootstrap(), "kept").await? {
        let value = String::from_utf8(record.value.unwrap_or_default())?;
        ensure!(kept.insert(value.parse::<u64>()?), "{value} is there twice");
    }
    for (number, ending) in report.endings().filter(|(_, ending)| *ending == Ending::Status(200)) {
        ensure!(kept.contains(&number), "{number} had its 200 and is not there: {ending:?}");
    }
    println!("{:?}, {} records", report.counts(), kept.len());
    ensure!(report.count(200) < report.requests(), "the bridge ended after the load");
    Ok(())
}
