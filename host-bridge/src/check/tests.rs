//! What `check` says of configurations and of clusters, right and wrong.

use std::io::Write as _;

use kafka_client::fake_broker::{FakeCluster, FakeSettings};

use super::*;
use crate::consume::topics::Topics;
use crate::{config, connection};

mod registries;

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
    let toml = format!("listen = ['{taken}', 'unix:{}', 'unix:/no/such/s']\n", socket.display());
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
        topics = ['orders']\nentrypoints = ['push']\ngroup = ''\n\
        auto_offset_reset = 'foo'\n[feeds.'a.b']\n[webhooks.hook]\nfeed = 'orders'\n";
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
        "line 8: feeds.orders.entrypoints: `push` is not known",
        "line 9: feeds.orders.group: must be a table",
        "line 10: feeds.orders.auto_offset_reset: must be one of earliest, latest, none",
        "line 11: feeds.a.b.topics: is missing",
        "line 12: webhooks.hook.url: is missing",
        "HOST_BRIDGE_FEEDS__ORDERS__ISOLATION_LEVEL: feeds.orders.isolation_level: must be",
        "line 3: feeds.other.cluster: there is no [clusters.default]",
    ] {
        assert!(faults.iter().any(|it| it.starts_with(fault)), "{fault}: {faults:#?}");
    }
    assert_eq!(faults.len(), 10, "{faults:#?}");
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

#[tokio::test]
async fn topics_of_feeds_and_their_dead_letter_topics_are_asked_for() {
    let kafka = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
    for topic in ["orders", "orders-eu", "orders-us", "failed"] {
        kafka.create_topic(topic, &[1]);
    }
    kafka.listen().await.unwrap();
    let toml = format!(
        "[clusters.default]\nbootstrap.servers = '{}'\n[feeds]\nlisten = ['127.0.0.1:0']\n\
         [feeds.a]\ntopics = ['orders', 'gone']\ndlq_topic = 'failed'\n\
         [feeds.b]\ntopics_pattern = 'orders-.*'\ndlq_topic = 'nowhere'\n\
         [feeds.c]\ntopics_pattern = 'other'\n\
         [feeds.d]\ntopics = ['later']\ncheck_topic_existence = false\n\
         entrypoints = ['websocket']\nproduce = {{ enabled = true, topics = ['orders', 'no'] }}\n",
        kafka.bootstrap()
    );
    let shown = report(&toml, &[], &[]).await;
    let (_, shown) = shown.split_once("answer a producer\n").unwrap();
    assert_eq!(
        shown,
        "  ok    feed a, topic orders: may be read\n  \
         FAIL  feed a, topic gone: authorization: the topic does not exist\n  \
         ok    feed a, dlq_topic failed: may be written to\n  \
         ok    feed b, topic orders-eu: may be read\n  \
         ok    feed b, topic orders-us: may be read\n  \
         FAIL  feed b, dlq_topic nowhere: authorization: the topic does not exist\n  \
         note  feed c: no topic matches its pattern now\n  \
         note  feed d, topic later: does not exist, or is not visible: it is waited for\n  \
         ok    feed d, produce orders: may be written to\n  \
         FAIL  feed d, produce no: authorization: the topic does not exist"
    );
}

#[tokio::test]
async fn topics_of_capture_routes_are_asked_for() {
    let kafka = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
    kafka.create_topic("orders", &[1]);
    kafka.listen().await.unwrap();
    let toml = format!(
        "[clusters.default]\nbootstrap.servers = '{}'\n\
         [captures.a]\ntopic = 'orders'\nallowed_topics = ['unused']\n\
         [[captures.a.match]]\nconfig = {{ topic = 'gone' }}\n\
         [captures.b]\ntopic = 'orders'\ntopics_query_arg = 't'\nallowed_topics = ['no']\n\
         [captures.c]\ntopic = 'orders'\nbootstrap_servers = [{{ host = '127.0.0.1', port = 1 }}]\n",
        kafka.bootstrap()
    );
    let shown = report(&toml, &[], &[]).await;
    assert!(
        shown.contains("  note  capture c: brokers and credentials of its own are not tried\n")
    );
    let (_, shown) = shown.split_once("answer a producer\n").unwrap();
    assert_eq!(
        shown,
        "  FAIL  capture a, topic gone: authorization: the topic does not exist\n  \
         FAIL  capture b, topic no: authorization: the topic does not exist\n  \
         ok    capture b, topic orders: may be written to"
    );
}

#[tokio::test]
async fn a_capture_route_whose_cluster_is_missing_is_reported() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[captures.orders]\ntopic = 'orders'\ncluster = 'b'").unwrap();
    let report = checked(file.path()).await;
    let fault = "captures.orders: cluster: `b` is not in the bridge's configuration";
    assert!(report.has_failed() && report.to_string().contains(fault), "{report}");
}
