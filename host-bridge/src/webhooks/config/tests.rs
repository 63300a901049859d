//! `[webhooks]` in files that are right, and in files that are not.

use super::*;
use crate::consume::feeds::Known;

/// The webhooks and the faults of this text, beside some feeds.
fn read_text(text: &str) -> (BTreeMap<String, WebhookConfig>, Vec<String>) {
    let feeds = "listen = ['127.0.0.1:1']\n[orders]\ntopics = ['a']\n[dead]\ntopics = ['a']\n\
        dlq_topic = 'd'\n[mine]\ntopics = ['a']\n\
        filter = 'key == client.id'\n[nowhere]\ntopics = ['a']\nentrypoints = ['webhook']\n\
        [pages]\ntopics = ['a']\nentrypoints = ['get']\ngroup = { mode = 'manual', id = 'pages' }\n";
    let mut faults = Vec::new();
    let known = Known::of_clusters(["default"]);
    let feeds = Feeds::read(toml::from_str(feeds).unwrap(), &known, &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    let webhooks = read(toml::from_str(text).unwrap(), &feeds, &mut faults);
    (webhooks, faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_webhook_has_the_defaults_that_it_does_not_set() {
    let (webhooks, faults) = read_text("[a]\nfeed = 'orders'\nurl = 'https://a.example/b'\n");
    assert_eq!(faults, [""; 0]);
    let expected = WebhookConfig {
        feed: "orders".to_owned(),
        group_id: "webhook.a".to_owned(),
        url: "https://a.example/b".to_owned(),
        qos: Qos::AtLeastOnce,
        attributes: Attributes {
            source: "/webhooks/a".to_owned(),
            r#type: "org.apache.kafka.record".to_owned(),
        },
        origin: None,
        format: Format::Envelope,
        batch_max: 1,
        ordering: Ordering::Partition,
        concurrency: 8,
        auth: Auth::None,
        secrets: None,
        retry: Retry {
            initial: Duration::from_secs(1),
            most: Duration::from_secs(3600),
            attempts: 0,
            give_up_after: None,
        },
        on_failure: OnFailure::Stop,
        headers: HeaderMap::new(),
        connect_timeout: Duration::from_secs(3),
        timeout: Duration::from_secs(15),
        trust: HttpsTrust::System,
        allow_link_local: false,
    };
    assert_eq!(webhooks["a"], expected);
}

#[test]
fn a_webhook_has_what_it_sets() {
    let (webhooks, faults) = read_text(
        "[a]\nfeed = 'dead'\nurl = 'http://169.254.1.1/'\ngroup_id = 'g'\nqos = 'at-least-once'\n\
         batch_max = 500\nordering = 'key'\nconcurrency = 1\nauth = 'basic'\nusername = 'u'\n\
         password_file = '/p'\nsecrets_file = '/s'\nheaders = { X-A = 'b' }\nca_file = '/c'\n\
         retry = { initial_ms = 1, max_ms = 2, attempts = 3, give_up_after_s = 4 }\n\
         connect_timeout_ms = 5\ntimeout_ms = 6\nallow_link_local = true\n\
         [b]\nfeed = 'nowhere'\nurl = 'http://b'\nformat = 'raw'\nauth = 'bearer'\ntoken = 't'\n\
         secrets = 'whsec_1,whsec_2'\non_failure = 'skip'\nordering = 'none'\n",
    );
    assert_eq!(faults, [""; 0]);
    let (a, b) = (&webhooks["a"], &webhooks["b"]);
    let file = |path: &str| SecretSource::File(path.into());
    let auth = Auth::Basic { username: "u".to_owned(), password: file("/p") };
    assert_eq!((&a.auth, &a.secrets), (&auth, &Some(Secrets::File(file("/s")))));
    assert_eq!((a.on_failure, a.headers["x-a"].to_str().unwrap()), (OnFailure::Dlq, "b"));
    assert_eq!((a.batch_max, a.ordering, a.concurrency), (500, Ordering::Key, 1));
    let retry = Retry {
        initial: Duration::from_millis(1),
        most: Duration::from_millis(2),
        attempts: 3,
        give_up_after: Some(Duration::from_secs(4)),
    };
    assert_eq!((&a.retry, &a.trust), (&retry, &HttpsTrust::Authorities(file("/c"))));
    assert_eq!([a.connect_timeout, a.timeout].map(|it| it.as_millis()), [5, 6]);
    assert_eq!(
        (b.format, b.on_failure, b.ordering),
        (Format::Raw, OnFailure::Skip, Ordering::None)
    );
    let secrets = Secrets::Given(vec![Secret::new("whsec_1"), Secret::new("whsec_2")]);
    assert_eq!(b.secrets, Some(secrets));
    assert!(!format!("{b:?}").contains("whsec_"));
}

#[test]
fn each_fault_names_its_field() {
    for (text, fault) in [
        ("url = 'http://a'", "feed: is missing: what is sent?"),
        ("feed = 'x'\nurl = 'http://a'", "feed: there is no [feeds.x]"),
        ("feed = 'mine'", "feed: has an expression with `client`: nobody says who a webhook is"),
        ("feed = 'orders'", "url: is missing: where are records sent?"),
        ("url = 'a.example/b'", "url: must be https://HOST/PATH or http://HOST/PATH"),
        ("url = 'ftp://a.example/b'", "url: must be https://HOST/PATH or http://HOST/PATH"),
        ("url = 'http://a/#b'", "url: must be https://HOST/PATH or http://HOST/PATH"),
        ("url = 'http://u:p@a/'", "url: has a user: set auth = \"basic\""),
        (
            "url = 'http://169.254.169.254/latest'",
            "url: is a link-local address or one of a metadata service; \
             allow_link_local = true allows it",
        ),
        (
            "url = 'http://[fe80::1]:80/'",
            "url: is a link-local address or one of a metadata service; \
             allow_link_local = true allows it",
        ),
        ("group_id = ''", "group_id: must have 1 to 255 bytes"),
        ("group_id = 'pages'", "group_id: [feeds.pages] has the group `pages`"),
        (
            "qos = 'exactly-once'",
            "qos: must be one of at-least-once, at-most-once, none, not `exactly-once`",
        ),
        ("format = 'raw'\nbatch_max = 2", "batch_max: must be 1: a raw request has one value"),
        ("batch_max = 501", "batch_max: must be a number from 1 to 500"),
        ("auth = 'hmac'", "secrets: or secrets_file is missing: auth is `hmac`"),
        (
            "auth = 'basic'\npassword = 'p'",
            "username: must be there, without a colon: auth is `basic`",
        ),
        ("auth = 'bearer'", "token_file: or `token` is missing"),
        (
            "auth = 'bearer'\ntoken = 'a'\ntoken_file = 'b'",
            "token_file: stands beside `token`: one of the two",
        ),
        ("token = 'a'", "token: has a meaning with auth = \"bearer\" only"),
        (
            "secrets = []\nsecrets_file = 'b'",
            "secrets_file: stands beside `secrets`: one of the two",
        ),
        ("on_failure = 'dlq'", "on_failure: is `dlq`, and the feed has no dlq_topic"),
        (
            "qos = 'at-most-once'\nordering = 'key'",
            "ordering: must be partition: qos is `at-most-once`",
        ),
        (
            "qos = 'at-most-once'\non_failure = 'stop'",
            "on_failure: must be skip or dlq: qos is `at-most-once`",
        ),
        ("auth = 'mtls'\ncertificate_file = '/c'", "key_file: is missing: auth is `mtls`"),
        (
            "auth = 'oauth2'\noauth2 = { client_id = 'a', client_secret = 'b' }",
            "oauth2.token_endpoint: is missing: auth is `oauth2`",
        ),
        ("cloudevents = {}", "cloudevents: is there, and format is not `cloudevents`"),
        (
            "format = 'cloudevents'\ncloudevents = { origin = \"a\\u0007\" }",
            "cloudevents.origin: is no name of a host",
        ),
        ("retry = 5", "retry: must be a table"),
        ("retry = { max_ms = 5 }", "retry.max_ms: is less than initial_ms"),
        ("retry = { max = 5 }", "retry.max: unknown field; there are initial_ms"),
        ("headers = { 'a b' = 'c' }", "headers: `a b` is no header with a text"),
        ("headers = { a = 5 }", "headers: `a` is no header with a text"),
        ("headers = { Webhook-Id = 'c' }", "headers: `Webhook-Id` is set by the bridge"),
        ("headers = { host = 'c' }", "headers: `host` is set by the bridge"),
    ] {
        let mut table: toml::Table = toml::from_str(text).unwrap();
        if !fault.starts_with("feed") {
            table.entry("feed").or_insert_with(|| "orders".into());
        }
        if !fault.starts_with("url") {
            table.entry("url").or_insert_with(|| "http://a".into());
        }
        let mut sections = toml::Table::new();
        sections.insert("hook".to_owned(), table.into());
        let (_, faults) = read_text(&sections.to_string());
        let expected = format!("webhooks.hook.{fault}");
        assert!(faults.len() == 1 && faults[0].starts_with(&expected), "{text}: {faults:?}");
    }
    let (_, faults) = read_text(
        "a = 5\n[b]\nfeed = 'orders'\nurl = 'http://b'\ngroup_id = 'g'\n\
         ['c d']\nfeed = 'orders'\nurl = 'http://b'\ngroup_id = 'g'\n",
    );
    assert_eq!(
        faults,
        [
            "webhooks.a: is no webhook: a webhook is a section, [webhooks.NAME]",
            "webhooks.c d: the name must be 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`",
            "webhooks.c d.group_id: another webhook has the group `g`",
        ]
    );
}
