//! What becomes of profiles: properties, refusals, and clients that are shared.

use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use tracing::instrument::WithSubscriber as _;

use super::*;
use crate::logging::tests::Capture;

fn properties(cluster: &str, profile: &[(&str, &str)]) -> Result<Properties, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("[clusters.default]\n{cluster}")).unwrap();
    let args = crate::Args { config: Some(file.path().to_owned()), ..Default::default() };
    let config = Config::load(&args, std::iter::empty()).unwrap();
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let properties = profile.iter().map(owned).collect();
    let profile = Profile { properties, ..Profile::default() };
    let clusters = Clusters::new(&config).unwrap();
    let checked = clusters.for_profile(&profile).map_err(|refusal| refusal.to_string());
    checked.map(|_| clusters.properties(&profile).unwrap().1)
}

const SERVER: &str = "bootstrap.servers = '127.0.0.1:1'\n";

#[tokio::test]
async fn the_plugin_wins_over_the_cluster_and_that_over_kongs_defaults() {
    let cluster = format!("{SERVER}acks = 'all'\nlinger.ms = 7\nretries = 99");
    let properties = properties(&cluster, &[("linger.ms", "3")]).unwrap();
    let value = |name: &str| properties[name].as_str();
    assert_eq!((value("acks"), value("linger.ms"), value("retries")), ("all", "3", "99"));
    assert_eq!(value("request.timeout.ms"), "2000");
}

#[tokio::test]
async fn what_the_plugin_may_not_ask_for_is_named() {
    let error = properties(SERVER, &[("bootstrap.servers", "10.0.0.1:1")]).unwrap_err();
    assert_eq!(error, "properties: a profile cannot set `bootstrap.servers`");
    let idempotent = format!("{SERVER}enable.idempotence = true");
    assert_eq!(properties(&idempotent, &[]).unwrap().get("acks"), None);
    let error = properties(&idempotent, &[("acks", "1")]).unwrap_err();
    assert_eq!(error, "`enable.idempotence=true` is not supported: it needs acks=all");
}

#[tokio::test]
async fn a_cluster_says_at_the_start_who_it_is_or_at_which_stage_it_fails() {
    let kafka = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
    kafka.listen().await.unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let environment = [
        ("HOST_BRIDGE_CLUSTERS__AWAY__BOOTSTRAP_SERVERS", closed.to_string()),
        ("HOST_BRIDGE_CLUSTERS__THERE__BOOTSTRAP_SERVERS", kafka.bootstrap()),
    ];
    let owned = environment.map(|(name, value)| (name.to_owned(), value));
    let config = Config::load(&crate::Args::default(), owned.into_iter()).unwrap();
    let clusters = Clusters::new(&config).unwrap();
    let is_ready = || clusters.readiness().map(|(_, is_ready)| is_ready).collect::<Vec<_>>();
    assert_eq!(is_ready(), [false, false], "nobody has been asked");
    let log = Capture::start();
    let watching = tokio::spawn(clusters.watch().with_subscriber(log.subscriber()));
    let line = log.line("connected").await;
    let who =
        format!("event=connected cluster=there cluster_id=fake brokers={} ", kafka.bootstrap());
    assert!(line.contains(&who), "{line}");
    let line = log.line("not_connected").await;
    assert!(line.contains("event=not_connected cluster=away stage=tcp fault="), "{line}");
    assert!(line.contains(&closed.to_string()), "{line}");
    assert_eq!(is_ready(), [false, true]);
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_named_cluster_is_never_forgotten() {
    let environment = [("HOST_BRIDGE_CLUSTERS__DEFAULT__BOOTSTRAP_SERVERS", "127.0.0.1:1")];
    let owned = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(&crate::Args::default(), owned.into_iter()).unwrap();
    let clusters = Clusters::new(&config).unwrap();
    for linger in 1..=PIPELINES_MAX {
        let properties = Properties::from([("linger.ms".to_owned(), linger.to_string())]);
        let profile = Profile { properties, ..Profile::default() };
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        clusters.for_profile(&profile).unwrap();
    }
    assert_eq!(clusters.made().pipelines.len(), PIPELINES_MAX);
    let named = &clusters.named["default"];
    assert!(clusters.made().pipelines.values().any(|one| Arc::ptr_eq(one, named)));
}

#[tokio::test]
async fn a_larger_batch_or_pause_raises_the_bound_that_it_would_break() {
    let asked = [("batch.size", "8000000"), ("retry.backoff.ms", "5000")];
    let raised = properties(SERVER, &asked).unwrap();
    assert_eq!(raised["max.request.size"], "8000000");
    assert_eq!(raised["retry.backoff.max.ms"], "5000");
    let small = properties(SERVER, &[("batch.size", "1000")]).unwrap();
    assert_eq!(small.get("max.request.size"), None);
}

fn clusters() -> Clusters {
    let servers = Some("127.0.0.1:1".to_owned());
    let args = crate::Args { bootstrap_servers: servers, ..Default::default() };
    Clusters::new(&Config::load(&args, std::iter::empty()).unwrap()).unwrap()
}

#[tokio::test]
async fn filters_with_equal_names_and_settings_share_a_producer() {
    let clusters = clusters();
    let shared = |name: Option<&str>, linger: &str| {
        let properties = BTreeMap::from([("linger.ms".to_owned(), linger.to_owned())]);
        let cluster_name = name.map(str::to_owned);
        let profile = Profile { cluster_name, properties, ..Profile::default() };
        clusters.for_profile(&profile).unwrap()
    };
    assert!(Arc::ptr_eq(&shared(Some("a"), "1"), &shared(Some("a"), "1")));
    assert!(Arc::ptr_eq(&shared(None, "1"), &shared(None, "1")));
    assert!(!Arc::ptr_eq(&shared(Some("a"), "1"), &shared(Some("a"), "2")));
    assert!(!Arc::ptr_eq(&shared(Some("a"), "1"), &shared(Some("b"), "1")));
    assert!(!Arc::ptr_eq(&shared(Some("a"), "1"), &shared(None, "1")));
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_told_without_its_password() {
    let clusters = clusters();
    let oauth = r#"{"token_endpoint_url":"https://me:hunter2@idp/t?key=hunter2"}"#;
    let authentication = format!(r#"{{"mechanism":"OAUTHBEARER","oauthbearer":{oauth}}}"#);
    for (fields, told) in [
        (
            format!(r#""bootstrap_servers":[],"authentication":{authentication}"#),
            "token_endpoint_url: `idp/t` is neither loopback nor in inline_token_endpoints",
        ),
        (
            r#""bootstrap_servers":["me:hunter2@b:1"]"#.to_owned(),
            "bootstrap_servers: `b:1` is neither loopback nor in inline_bootstrap_servers",
        ),
        (
            r#""bootstrap_servers":["me:hun?ter2@b:1"]"#.to_owned(),
            "bootstrap_servers: `b:1` is neither loopback nor in inline_bootstrap_servers",
        ),
        (
            r#""bootstrap_servers":["b:1#key=hunter2"]"#.to_owned(),
            "bootstrap_servers: `b:1` is neither loopback nor in inline_bootstrap_servers",
        ),
    ] {
        let document = format!(r#"{{"properties":{{}},{fields}}}"#);
        let profile: Profile = serde_json::from_str(&document).unwrap();
        let error = clusters.for_profile(&profile).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, told);
    }
}

#[tokio::test]
async fn clusters_with_equal_properties_are_told_apart() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let cluster = |name| format!("[clusters.{name}]\n{SERVER}");
    std::fs::write(file.path(), cluster("a") + &cluster("b")).unwrap();
    let args = crate::Args { config: Some(file.path().to_owned()), ..Default::default() };
    let clusters = Clusters::new(&Config::load(&args, std::iter::empty()).unwrap()).unwrap();
    let mut names: Vec<_> = clusters.clients().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn a_registry_is_asked_where_the_bridge_allows_it() {
    let clusters = clusters();
    let refused = |fields: &str| {
        let document = format!(
            r#"{{"bootstrap_servers":[],"properties":{{}},"schema_registry":{{"confluent":{{
                "value_schema":{{"subject_name":"s","schema_version":1}},{fields}}}}}}}"#
        );
        let profile: Profile = serde_json::from_str(&document).unwrap();
        clusters.for_profile(&profile).map(|_| ()).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(refused(r#""url":"http://localhost:1,http://127.0.0.1:2/a""#), Ok(()));
    let elsewhere = refused(r#""url":"http://localhost:1, http://r:2""#).unwrap_err();
    let why = "`http://r:2` is neither loopback nor in inline_schema_registries";
    assert_eq!(elsewhere, format!("schema_registry.confluent.url: {why}"));
    let with = |oauth2: &str, client: &str| {
        refused(&format!(
            r#""url":"http://localhost:1","authentication":{{"mode":"oauth2",
                "oauth2":{{{oauth2}}},"oauth2_client":{{{client}}}}}"#
        ))
    };
    let endpoint = with(r#""token_endpoint":"http://idp/t?key=hunter2""#, "").unwrap_err();
    let why = "`http://idp/t` is neither loopback nor in inline_token_endpoints";
    assert_eq!(endpoint, format!("{REGISTRY_ENDPOINT}: {why}"));
    let proxy = with(r#""token_endpoint":"http://localhost/t""#, r#""http_proxy":"http://p""#);
    assert!(proxy.unwrap_err().ends_with(
        "http_proxy: the bridge cannot do that, it asks token \
        endpoints directly"
    ));
}
