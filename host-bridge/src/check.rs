//! `host-bridge check`: the configuration's faults with their lines, and how far a connection to each
//! broker goes. Nothing is written to Kafka.

mod captures;
mod feeds;
mod registries;

use std::time::{Duration, SystemTime};
use std::{fmt, io};

use kafka_client::{Client, NotReady, Probe, TopicOperation};
use kafka_upstream_core::wire;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use crate::config::{Args, Config, ConfigError, Listen, Places, field};
use crate::listen::Listeners;
use crate::logging::{Levels, START};
use crate::security::Properties;
use crate::{auth, clusters, credentials, metrics, tls, webhooks};

/// What was looked at, line by line, and whether all of it is well.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<String>,
    failed: bool,
}

/// Checks everything; `topics` are `TOPIC` of the cluster `default`, or `CLUSTER/TOPIC`.
pub async fn check(
    args: &Args,
    environment: impl Iterator<Item = (String, String)>,
    topics: &[String],
) -> Report {
    let mut report = Report::default();
    let environment: Vec<_> = environment.collect();
    let levels = environment.iter().find(|(name, _)| name == Levels::VARIABLE);
    if let Some(fault) = levels.and_then(|(_, levels)| Levels::parse(levels).fault) {
        report.fail("configuration", &format!("{fault} is not {}", Levels::ACCEPTED));
    }
    let (config, faults) = examine(args, environment.into_iter());
    for fault in &faults {
        report.fail("configuration", fault);
    }
    let Some(config) = config else { return report };
    let mut captured = Vec::new();
    if faults.is_empty() {
        let file = args.config.as_ref().map(|path| path.display().to_string());
        report.ok("configuration", &file.unwrap_or_else(|| "environment and flags".to_owned()));
        captured = report.captures(&config);
    }
    report.listeners(&config).await;
    if config.clusters.is_empty() {
        report.note("no cluster is configured, so no broker was asked");
    }
    let asked: Vec<_> =
        topics.iter().map(|topic| topic.split_once('/').unwrap_or(("default", topic))).collect();
    for (name, properties) in &config.clusters {
        let Ok(checked) = clusters::read(properties) else { continue };
        report.lines.push(format!("cluster {name}"));
        let client = credentials::client(checked);
        let topics = asked.iter().filter(|(cluster, _)| cluster == name).map(|(_, topic)| *topic);
        let feeds = config.feeds.feeds.iter().filter(|(_, feed)| feed.cluster == *name);
        let reached = report.cluster(&client).await;
        for topic in topics {
            let what = format!("topic {topic}");
            match reached {
                true => report.topic(&client, &what, TopicOperation::Write, topic).await,
                false => report.note(&format!("{what}: no broker could be asked")),
            }
        }
        report.captured(reached.then_some(&client), &config, name).await;
        for (name, feed) in feeds {
            match reached {
                true => report.feed(&client, name, feed).await,
                false => report.note(&format!("feed {name}: no broker could be asked")),
            }
        }
        client.close(Instant::now()).await;
    }
    report.registries(&config, &captured).await;
    for (cluster, topic) in asked {
        if !config.clusters.contains_key(cluster) {
            report.fail(&format!("topic {topic}"), &format!("there is no cluster {cluster}"));
        }
    }
    report
}

/// Whether a bridge answers there. Behind TLS nobody is asked.
async fn is_bridge(address: &Listen) -> bool {
    let asked = async {
        match address {
            Listen::Tcp(address) => ask_alive(TcpStream::connect(address).await?).await,
            Listen::Unix(path) => ask_alive(UnixStream::connect(path).await?).await,
            Listen::Tls(_) => Ok(Vec::new()),
        }
    };
    let head = timeout(ALIVE, asked).await.unwrap_or(Ok(Vec::new())).unwrap_or_default();
    String::from_utf8_lossy(&head).to_ascii_lowercase().contains(wire::MARKER)
}

async fn ask_alive(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").await?;
    let mut head = Vec::new();
    stream.take(ALIVE_BYTES).read_to_end(&mut head).await?;
    Ok(head)
}

/// The configuration to serve with; if anything is wrong, all of it is logged instead.
pub fn configuration(
    args: &Args,
    environment: impl Iterator<Item = (String, String)>,
) -> Option<Config> {
    let (config, faults) = examine(args, environment);
    for fault in &faults {
        tracing::error!(target: START, fault, "configuration_fault");
    }
    config.filter(|_| faults.is_empty())
}

/// The configuration, if it can be read, and all that is wrong with it, each with its place.
fn examine(
    args: &Args,
    environment: impl Iterator<Item = (String, String)>,
) -> (Option<Config>, Vec<String>) {
    let text = Config::text(args);
    let read = text.as_ref().ok().and_then(|text| text.as_deref()).unwrap_or_default();
    let environment: Vec<_> = environment.collect();
    let places = Places::new(args.config.clone(), read, &environment);
    let mut found = Vec::new();
    let config = match text {
        Ok(text) => Config::read(args, text.as_deref(), environment, &mut found),
        Err(fault) => {
            found.push(fault);
            None
        }
    };
    found.extend(config.as_ref().map(faults).into_iter().flatten());
    (config, found.iter().map(|fault| places.told(fault)).collect())
}

/// All that is wrong with a configuration that could be read.
fn faults(config: &Config) -> Vec<ConfigError> {
    let mut faults = config.tls.faults();
    for (name, properties) in &config.clusters {
        faults.extend(of_cluster(&format!("clusters.{name}"), properties));
    }
    let tokens = config.token_file.clone().map(auth::load).transpose();
    faults.extend(tokens.err().map(|error| field("token_file", &error)));
    faults.extend(config.authorization.load().err());
    faults.extend(webhooks::running::faults(&config.webhooks));
    let tls = config.listen_tls.as_ref().map(|tls| tls::load(tls, &[])).transpose();
    faults.extend(tls.err().map(|error| field("tls", &error)));
    faults
}

fn of_cluster(section: &str, properties: &Properties) -> Vec<ConfigError> {
    if let Ok(checked) = clusters::read(properties) {
        let fault = checked.cluster.check_files().err();
        return fault.map(|it| field(section, &it.to_string())).into_iter().collect();
    }
    // An option has no dot and stands in a property.
    let is_option = |name: &str| !name.contains('.') && !properties.contains_key(name);
    let place = |name: &str| match is_option(name) && properties.contains_key(JAAS) {
        true => format!("{section}.{JAAS}"),
        false => format!("{section}.{name}"),
    };
    let pairs = properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let faults = kafka_client::Config::faults(pairs).into_iter();
    faults.map(|it| field(&place(it.property()), &it.to_string())).collect()
}

impl Report {
    /// Whether anything is wrong.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    async fn listeners(&mut self, config: &Config) {
        for address in config.listen.iter().chain(&config.feeds.listen) {
            match Listeners::bind(std::slice::from_ref(address), config.unix_socket).await {
                Ok(bound) => {
                    bound.give_up();
                    self.ok(&format!("listen {address}"), "can be bound");
                }
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && is_bridge(address).await =>
                {
                    self.note(&format!("listen {address}: a bridge serves there now"));
                }
                Err(error) => self.fail("listen", &error.to_string()),
            }
        }
    }

    /// Whether a broker of the cluster can be asked more.
    async fn cluster(&mut self, client: &Client) -> bool {
        // Who gives no credential ends the way before TLS, and the certificates are told all the same.
        let _checked_before = client.reload().await;
        let Ok(probes) = timeout(PROBE, client.probe()).await else {
            self.fail("brokers", &format!("not all answered within {} s", PROBE.as_secs()));
            return false;
        };
        for probe in &probes {
            self.probe(probe);
        }
        self.certificates(client);
        if probes.iter().all(|probe| probe.fault.is_some()) {
            return false;
        }
        match client.ready(PATIENCE).await {
            Ok(()) => self.ok("authorization", "the brokers answer a producer"),
            Err(reason @ NotReady::NoProducerId(_)) => {
                self.fail("authorization", &reason.to_string());
            }
            Err(reason) => self.fail("metadata", &reason.to_string()),
        }
        true
    }

    async fn topic(&mut self, client: &Client, what: &str, operation: TopicOperation, topic: &str) {
        match client.may(operation, topic, PATIENCE).await {
            Ok(()) if operation == TopicOperation::Read => self.ok(what, "may be read"),
            Ok(()) => self.ok(what, "may be written to"),
            Err((stage, cause)) => self.fail(what, &format!("{stage}: {cause}")),
        }
    }

    fn probe(&mut self, probe: &Probe) {
        let of_broker = |id| format!("broker {id}, {}", probe.server);
        let who = probe.broker.map_or_else(|| probe.server.clone(), of_broker);
        let passed: Vec<_> = probe.passed.iter().map(|stage| stage.name()).collect();
        let passed = passed.join(", ");
        match &probe.fault {
            None => self.ok(&who, &passed),
            Some((stage, cause)) if passed.is_empty() => {
                self.fail(&who, &format!("{stage}: {cause}"))
            }
            Some((stage, cause)) => self.fail(&who, &format!("{passed}; {stage}: {cause}")),
        }
    }

    fn certificates(&mut self, client: &Client) {
        let Some(status) = client.tls() else { return };
        let now = SystemTime::now();
        let ends = [
            ("client certificate", status.certificate_ends),
            ("truststore", status.truststore_ends),
        ];
        for (what, end) in ends {
            match end.map(|end| metrics::days_between(now, end)) {
                Some(days) if days < 0 => self.fail(what, &format!("ended {} days ago", -1 - days)),
                Some(days) => self.ok(what, &format!("ends in {days} days")),
                None => {}
            }
        }
        if status.checks != "all" {
            self.note(&format!("of a broker's certificate is checked: {}", status.checks));
        }
    }

    fn ok(&mut self, what: &str, how: &str) {
        self.lines.push(format!("  ok    {what}: {how}"));
    }

    fn note(&mut self, what: &str) {
        self.lines.push(format!("  note  {what}"));
    }

    fn fail(&mut self, what: &str, why: &str) {
        self.failed = true;
        self.lines.push(format!("  FAIL  {what}: {why}"));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// How long who listens at one of our addresses may take to say whether it is a bridge, and how many
/// bytes of its answer are read.
const ALIVE: Duration = Duration::from_secs(2);
const ALIVE_BYTES: u64 = 4096;
/// The property with the options of a login module.
const JAAS: &str = "sasl.jaas.config";
/// How long all brokers of a cluster may take, one after the other.
const PROBE: Duration = Duration::from_secs(120);
/// How long a question to a cluster that is reached may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
