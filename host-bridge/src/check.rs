//! `host-bridge check`: the configuration's faults with their lines, and how far a connection to each
//! broker goes. Nothing is written to Kafka.

use std::time::{Duration, SystemTime};
use std::{fmt, io};

use kafka_client::{Client, NotReady, Probe};
use kafka_upstream_core::wire;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use crate::config::{Args, Config, ConfigError, Listen, Places, field};
use crate::listen::Listeners;
use crate::logging::{Levels, START};
use crate::security::Properties;
use crate::{auth, clusters, credentials, metrics, tls};

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
    if faults.is_empty() {
        let file = args.config.as_ref().map(|path| path.display().to_string());
        report.ok("configuration", &file.unwrap_or_else(|| "environment and flags".to_owned()));
    }
    for address in config.listen.iter().chain(&config.feeds.listen) {
        match Listeners::bind(std::slice::from_ref(address), config.unix_socket).await {
            Ok(bound) => {
                bound.give_up();
                report.ok(&format!("listen {address}"), "can be bound");
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_bridge(address).await => {
                report.note(&format!("listen {address}: a bridge serves there now"));
            }
            Err(error) => report.fail("listen", &error.to_string()),
        }
    }
    if config.clusters.is_empty() {
        report.note("no cluster is configured, so no broker was asked");
    }
    let asked: Vec<_> =
        topics.iter().map(|topic| topic.split_once('/').unwrap_or(("default", topic))).collect();
    for (name, properties) in &config.clusters {
        let Ok(checked) = clusters::read(properties) else { continue };
        report.lines.push(format!("cluster {name}"));
        let client = credentials::client(checked);
        let own = asked.iter().filter(|(cluster, _)| cluster == name);
        let own: Vec<_> = own.map(|(_, topic)| *topic).collect();
        report.cluster(&client, &own).await;
        client.close(Instant::now()).await;
    }
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

    async fn cluster(&mut self, client: &Client, topics: &[&str]) {
        // Who gives no credential ends the way before TLS, and the certificates are told all the same.
        let _checked_before = client.reload().await;
        let Ok(probes) = timeout(PROBE, client.probe()).await else {
            return self.fail("brokers", &format!("not all answered within {} s", PROBE.as_secs()));
        };
        for probe in &probes {
            self.probe(probe);
        }
        self.certificates(client);
        if probes.iter().all(|probe| probe.fault.is_some()) {
            let unasked = |topic| self.note(&format!("topic {topic}: no broker could be asked"));
            return topics.iter().for_each(unasked);
        }
        match client.ready(PATIENCE).await {
            Ok(()) => self.ok("authorization", "the brokers answer a producer"),
            Err(reason @ NotReady::NoProducerId(_)) => {
                self.fail("authorization", &reason.to_string());
            }
            Err(reason) => self.fail("metadata", &reason.to_string()),
        }
        for topic in topics {
            match client.may_write(topic, PATIENCE).await {
                Ok(()) => self.ok(&format!("topic {topic}"), "may be written to"),
                Err((stage, cause)) => {
                    self.fail(&format!("topic {topic}"), &format!("{stage}: {cause}"))
                }
            }
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
mod tests {
    use std::io::Write as _;

    use kafka_client::fake_broker::{FakeCluster, FakeSettings};

    use super::*;
    use crate::consume::topics::Topics;
    use crate::{config, connection};

    async fn checked(config: &std::path::Path) -> Report {
        let args = Args { config: Some(config.to_owned()), listen: free(), ..Args::default() };
        check(&args, std::iter::empty(), &[]).await
    }

    /// Any port.
    fn free() -> Vec<String> {
        vec!["127.0.0.1:0".to_owned()]
    }

    #[tokio::test]
    async fn an_address_that_is_taken_or_cannot_be_made_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (taken, dir) = (listener.local_addr().unwrap(), tempfile::tempdir().unwrap());
        let socket = dir.path().join("s");
        let toml =
            format!("listen = ['{taken}', 'unix:{}', 'unix:/no/such/s']\n", socket.display());
        let file = dir.path().join("config");
        std::fs::write(&file, toml).unwrap();
        let args = Args { config: Some(file), ..Args::default() };
        let report = check(&args, std::iter::empty(), &[]).await;
        let shown = report.to_string();
        assert!(report.has_failed() && !socket.exists(), "{shown}");
        for part in [
            &*format!("  FAIL  listen: {taken}: Address already in use"),
            &format!("  ok    listen unix:{}: can be bound\n", socket.display()),
            "  FAIL  listen: unix:/no/such/s: No such file or directory",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[tokio::test]
    async fn an_address_where_a_bridge_serves_already_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let mut listeners =
            vec![Listen::Unix(socket.clone()), Listen::Tcp("127.0.0.1:0".parse().unwrap())];
        let bound = Listeners::bind(&listeners, config::UnixSocketAccess::default()).await.unwrap();
        let tcp = bound.to_string().rsplit_once(',').unwrap().1.to_owned();
        listeners.pop();
        let routes = axum::Router::new().route(
            "/healthz",
            axum::routing::get(async || {
                crate::reply::json(axum::http::StatusCode::OK, &serde_json::Value::Null)
            }),
        );
        let shutdown = crate::Shutdown::default();
        let serving = tokio::spawn(async move {
            let server = connection::Server::new(
                routes,
                auth::Proof::None,
                shutdown.token().clone(),
                connection::Bounds::WRITERS,
            );
            bound.serve(server, None, 8, &shutdown, Duration::ZERO).await;
        });
        let listen = vec![format!("unix:{}", socket.display()), tcp];
        let args = Args { listen: listen.clone(), ..Args::default() };
        let report = check(&args, std::iter::empty(), &[]).await;
        assert!(!report.has_failed(), "{report}");
        for address in listen {
            let note = format!("  note  listen {address}: a bridge serves there now\n");
            assert!(report.to_string().contains(&note), "{report}");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn faults_of_reading_hide_none_of_another_section() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let toml = "listen = ['host:1', 'tls:0.0.0.0:1', '0.0.0.0:1']\n[clusters.a]\n\
            bootstrap.servers = 'a:1'\nacks = [1]\nlinger.ms = -1\n[clusters.b]\n\
            service = 'x'\n[inline]\nssl.x = {y = []}\n";
        std::fs::write(file.path(), toml).unwrap();
        let args = Args { config: Some(file.path().to_owned()), ..Args::default() };
        let environment = ["HOST_BRIDGE_LISTN", "HOST_BRIDGE_DRAIN_TIMEOUT_MS"];
        let environment = environment.map(|name| (name.to_owned(), "x".to_owned()));
        let (_, faults) = examine(&args, environment.into_iter());
        for fault in [
            "HOST_BRIDGE_LISTN: no such setting",
            "HOST_BRIDGE_DRAIN_TIMEOUT_MS: invalid digit",
            "line 1: listen: `host:1` is neither",
            "line 1: listen: `0.0.0.0:1` is not a loopback",
            "`tls:0.0.0.0:1` needs certificate_file",
            "line 4: clusters.a.acks: must be a string",
            "line 5: clusters.a.linger.ms: ",
            "line 7: clusters.b.service: `x` is not known",
            "line 9: inline.ssl.x.y: must be a string",
        ] {
            assert!(faults.iter().any(|it| it.contains(fault)), "{fault}: {faults:#?}");
        }
        let toml = "listen = 5\nlisten_ = []\ndrain_timeout_ms = 'hunter2'\n[tls]\nkey = ''\n";
        std::fs::write(file.path(), toml).unwrap();
        let (config, faults) = examine(&args, std::iter::empty());
        assert!(config.is_none() && faults.len() == 4, "{faults:#?}");
        for line in [1, 2, 3, 5] {
            let place = format!(": line {line}, column ");
            assert!(faults.iter().any(|fault| fault.contains(&place)), "{line}: {faults:#?}");
        }
        assert!(!faults.iter().any(|fault| fault.contains("hunter2")), "{faults:#?}");
    }

    #[tokio::test]
    async fn a_fault_of_a_feed_has_its_line_or_its_variable() {
        let toml = "[clusters.main]\nbootstrap.servers = 'a:1'\n[feeds]\n\
            listen = ['127.0.0.1:1', '0.0.0.0:2']\n[feeds.orders]\ncluster = 'mian'\n\
            topics = ['orders']\nentrypoints = ['webhook']\ngroup = ''\n\
            auto_offset_reset = 'foo'\n[feeds.'a.b']\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let args = Args {
            config: Some(file.path().to_owned()),
            listen: vec!["127.0.0.1:1".to_owned()],
            ..Args::default()
        };
        let environment = [
            ("HOST_BRIDGE_FEEDS__A.B__CLUSTER", "main"),
            ("HOST_BRIDGE_FEEDS__ORDERS__ISOLATION_LEVEL", "x"),
            ("HOST_BRIDGE_FEEDS__OTHER__TOPICS", "a, b"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (config, faults) = examine(&args, environment.into_iter());
        let topics = ["a", "b"].map(str::to_owned).to_vec();
        assert_eq!(config.unwrap().feeds.feeds["other"].topics, Topics::List(topics));
        for fault in [
            "line 4: feeds.listen: `0.0.0.0:2` is not a loopback address",
            "line 4: feeds.listen: `127.0.0.1:1` is in listen, too",
            "line 6: feeds.orders.cluster: there is no [clusters.mian]",
            "line 8: feeds.orders.entrypoints: `webhook` is not supported",
            "line 9: feeds.orders.group: consumer groups are not supported",
            "line 10: feeds.orders.auto_offset_reset: must be one of earliest, latest, none",
            "line 11: feeds.a.b.topics: is missing",
            "HOST_BRIDGE_FEEDS__ORDERS__ISOLATION_LEVEL: feeds.orders.isolation_level: must be",
            "line 3: feeds.other.cluster: there is no [clusters.default]",
        ] {
            assert!(faults.iter().any(|it| it.starts_with(fault)), "{fault}: {faults:#?}");
        }
        assert_eq!(faults.len(), 9, "{faults:#?}");
    }

    #[tokio::test]
    async fn each_section_has_its_fault_and_each_fault_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[clusters.a]\nbootstrap.servers = 'a:1'\nsecurity.protocol = 'SASL_SSL'\n\
            sasl.mechanism = 'PLAIN'\nsasl.jaas.config = 'A required awsRegion=x username=u \
            password=p;'\n[inline]\nssl.x = 1\n[certificates.c]\nssl.y = 1\n\
            [certificates.d]\nssl.z = 1\n";
        std::fs::write(file.path(), text).unwrap();
        let report = checked(file.path()).await.to_string();
        for place in [
            "line 5: clusters.a.sasl.jaas.config: `awsRegion` is not an option of PLAIN",
            "line 7: inline.ssl.x: ",
            "line 9: certificates.c.ssl.y: ",
            "line 11: certificates.d.ssl.z: ",
        ] {
            assert!(report.contains(place), "{place}: {report}");
        }
    }

    #[tokio::test]
    async fn a_fault_of_the_environment_is_not_looked_for_in_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[clusters.a]\nbootstrap.servers = 'a:1'\nacks = 1").unwrap();
        let args = Args { config: Some(file.path().to_owned()), listen: free(), ..Args::default() };
        let environment = [
            ("HOST_BRIDGE_CLUSTERS__A__ACKS".to_owned(), "7".to_owned()),
            ("HOST_BRIDGE_CLUSTERS__A__LINGER_MS".to_owned(), "-1".to_owned()),
            ("HOST_BRIDGE_INLINE__ACKS".to_owned(), "1".to_owned()),
            ("HOST_BRIDGE_LOG".to_owned(), "debgu".to_owned()),
        ];
        let report = check(&args, environment.into_iter(), &[]).await.to_string();
        for place in [
            "HOST_BRIDGE_CLUSTERS__A__ACKS: clusters.a.acks: ",
            "HOST_BRIDGE_CLUSTERS__A__LINGER_MS: clusters.a.linger.ms: ",
            "HOST_BRIDGE_INLINE__ACKS: inline.acks: ",
            "HOST_BRIDGE_LOG: `debgu` is not LEVEL or MODULE=LEVEL",
        ] {
            assert!(report.contains(place), "{place}: {report}");
        }
    }

    #[tokio::test]
    async fn certificates_are_told_where_the_way_ends_before_tls() {
        let dir = tempfile::tempdir().unwrap();
        let (config, trusted) = (dir.path().join("config"), dir.path().join("ca.pem"));
        let key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(&trusted, authority.self_signed(&key).unwrap().pem()).unwrap();
        let text = format!(
            "[clusters.a]\nbootstrap.servers = '127.0.0.1:1'\nsecurity.protocol = 'SASL_SSL'\n\
             sasl.mechanism = 'PLAIN'\nsasl.username = 'u'\nsasl.password.file = '/no/such'\n\
             ssl.truststore.location = '{}'\n",
            trusted.display()
        );
        std::fs::write(&config, text).unwrap();
        let report = checked(&config).await.to_string();
        assert!(report.contains("ok    truststore: ends in "), "{report}");
    }

    #[tokio::test]
    async fn a_file_that_can_be_read_once_is_checked_like_any_other() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"[clusters.a]\nlinger.ms = -1\n").unwrap();
        drop(writer);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let report = checked(path.as_ref()).await;
        assert!(report.has_failed(), "{report}");
        assert!(report.to_string().contains("line 2: clusters.a.linger.ms"), "{report}");
    }

    async fn report(toml: &str, environment: &[(&str, &str)], topics: &[&str]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let args = Args { config: Some(file.path().to_owned()), listen: free(), ..Args::default() };
        let environment = environment.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        let topics: Vec<_> = topics.iter().map(|topic| topic.to_string()).collect();
        let report = check(&args, environment, &topics).await;
        let shown = report.to_string().replace(file.path().to_str().unwrap(), "FILE");
        assert_eq!(report.has_failed(), shown.contains("FAIL"));
        shown
    }

    #[tokio::test]
    async fn each_fault_has_its_line_and_no_secret() {
        let toml = "token_file = '/no/such/file'\n[clusters.default]\nbootstrap.servers = 'a:1'\n\
            linger.millis = 5\nacks = 7\n[clusters.other]\nbootstrap.servers = 'b:1'\n\
            security.protocol = 'SASL_SSL'\nsasl.mechanism = 'PLAIN'\nsasl.username = 'u'\n\
            'sasl.password' = \"hunter2\\u0000\"\n[certificates.mine]\nacks = 1\n";
        assert_eq!(
            report(toml, &[], &[]).await,
            "  FAIL  configuration: line 13: certificates.mine.acks: only ssl.keystore.* or \
             ssl.key.* can stand here\n  \
             FAIL  configuration: line 5: clusters.default.acks: `acks` must be one of 0, 1, -1, \
             all, not `7`\n  \
             FAIL  configuration: line 4: clusters.default.linger.millis: unknown property \
             `linger.millis`, did you mean `linger.ms`?\n  \
             FAIL  configuration: line 11: clusters.other.sasl.password: `sasl.password` must be a \
             text without NUL, not `(secret)`\n  \
             FAIL  configuration: line 1: token_file: /no/such/file: No such file or directory \
             (os error 2)\n  \
             ok    listen 127.0.0.1:0: can be bound"
        );
    }

    #[tokio::test]
    async fn a_syntax_error_shows_its_place_and_not_the_line() {
        let toml = "[clusters.default]\nsasl.password = hunter2\n";
        let shown = report(toml, &[], &[]).await;
        assert!(shown.starts_with("  FAIL  configuration: FILE: line 2, column "), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[tokio::test]
    async fn without_a_cluster_nobody_may_think_that_a_broker_answered() {
        assert_eq!(
            report("", &[], &[]).await,
            "  ok    configuration: FILE\n  ok    listen 127.0.0.1:0: can be bound\n  note  no cluster is configured, so no broker was asked"
        );
    }

    #[tokio::test]
    async fn an_advertised_address_that_cannot_be_used_is_told_with_who_said_it() {
        let kafka = FakeCluster::new(FakeSettings { brokers: 3, ..FakeSettings::default() });
        kafka.listen().await.unwrap();
        let bootstrap = kafka.bootstrap().split(',').next().unwrap().to_owned();
        kafka.advertise(2, "no-such-host.invalid", 9092);
        kafka.advertise(3, "kafka", 0);
        let variable = ("HOST_BRIDGE_CLUSTERS__DEFAULT__BOOTSTRAP_SERVERS", &*bootstrap);
        let shown = report("", &[variable], &[]).await.replace(&bootstrap, "BOOTSTRAP");
        for part in [
            "  ok    BOOTSTRAP: name, tcp, handshake\n",
            "  FAIL  broker 2, no-such-host.invalid:9092: name: the host name has no address: ",
            "  FAIL  broker 3, kafka:0: name: broker 3 advertises `kafka:0`: that is not a host and \
             port; what does its advertised.listeners say? The address was advertised by BOOTSTRAP",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[tokio::test]
    async fn a_cluster_that_nobody_serves_says_at_which_step() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let servers = format!("no-such-host.invalid:1,{port}");
        let variable = ("HOST_BRIDGE_CLUSTERS__DEFAULT__BOOTSTRAP_SERVERS", &*servers);
        let shown = report("", &[variable], &["t", "other/t"]).await;
        let shown = shown.replace(&port.to_string(), "CLOSED");
        for part in [
            "  ok    configuration: FILE\n  ok    listen 127.0.0.1:0: can be bound\ncluster default\n",
            "  FAIL  no-such-host.invalid:1: name: the host name has no address: ",
            "  FAIL  CLOSED: name; tcp: no TCP connection: Connection refused (os error 111); does \
             a broker listen there, and is the network path to it open?\n",
            "  note  topic t: no broker could be asked\n",
            "  FAIL  topic t: there is no cluster other",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
    }
}
