//! What gateways say, what rules allow, and what a configuration may ask for.

use axum::http::HeaderValue;

use super::*;
use crate::consume::feeds::{Known, Reset};
use crate::consume::topics::Topics;

const NOW_MS: i64 = 1_700_000_000_000;

/// A configuration with the feeds `orders` (of `orders`, `orders-eu`) and `audit`.
fn read(text: &str) -> (Authorization, Feeds, Vec<String>) {
    let mut table: toml::Table = toml::from_str(text).unwrap();
    let Some(toml::Value::Table(mut raw)) = table.remove("feeds") else { panic!("{table}") };
    for feed in [
        "orders = { topics = ['orders', 'orders-eu'], auto_offset_reset_override = \
                  ['earliest'] }",
        "audit = { topics = ['audit'] }",
    ] {
        raw.extend(toml::from_str::<toml::Table>(feed).unwrap());
    }
    let rules = table.remove("authorization").map(|rules| rules.try_into().unwrap());
    let (known, mut faults) = (Known::of_clusters(["default", "eu"]), Vec::new());
    let authorization = Authorization::read(&mut raw, rules.unwrap_or_default(), &mut faults);
    let feeds = Feeds::read(raw, &known, &mut faults);
    authorization.check(&feeds, None, &mut faults);
    (authorization, feeds, faults.iter().map(ToString::to_string).collect())
}

/// With these rules, or none.
fn behind_a_gateway(rules: &str) -> (Authorization, Feeds) {
    let feeds = "[feeds]\nlisten = ['unix:/s']\ngateway = 'unix'\n";
    let (authorization, feeds, faults) = read(&format!("{feeds}{rules}"));
    assert_eq!(faults, [""; 0], "{rules}");
    (authorization, feeds)
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(format!("{PREFIX}{name}").as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn admit(
    (authorization, feeds): &(Authorization, Feeds),
    feed: &str,
    lines: &[(&str, &str)],
) -> Result<Granted, (Code, String)> {
    let found = feeds.feeds.get(feed);
    let admitted = authorization.admit(&headers(lines), feed, found, NOW_MS);
    // Who it is has a test of its own.
    let admitted = admitted.map(|granted| Granted { identity: NOBODY, ..granted });
    admitted.map_err(|refusal| (refusal.code, refusal.message))
}

const NOBODY: Identity = Identity { id: None, consumer: None, attrs: None };
const ALL: Granted = Granted {
    feed: None,
    identity: NOBODY,
    group: None,
    cluster: None,
    token: None,
    expires_in: None,
    produce: Vec::new(),
};

/// `orders`, held to these topics.
fn held_to(topics: &[&str], change: impl FnOnce(&mut Feed)) -> Granted {
    let (_, mut feeds) = behind_a_gateway("");
    let mut feed = feeds.feeds.remove("orders").unwrap();
    feed.topics = Topics::List(topics.iter().map(ToString::to_string).collect());
    change(&mut feed);
    Granted { feed: Some(feed), ..ALL }
}

#[test]
fn without_a_gateway_nobody_is_believed() {
    let (authorization, feeds, faults) = read("[feeds]\nlisten = ['unix:/s']\n");
    assert_eq!(faults, [""; 0]);
    let open = (authorization, feeds);
    assert_eq!(admit(&open, "orders", &[]), Ok(ALL));
    for name in ["consumer", "client-id", "topics", "gateway-token", "anything"] {
        let (code, message) = admit(&open, "orders", &[(name, "x")]).unwrap_err();
        assert_eq!(code, Code::GatewayUnauthenticated);
        assert!(message.starts_with(&format!("{PREFIX}{name}: only a gateway")), "{message}");
    }
}

#[test]
fn a_gateway_says_who_reads() {
    let (authorization, feeds) = behind_a_gateway("");
    let lines = [("consumer", "a"), ("client-id", "A.b_9-"), ("attrs", r#"{"plan":"gold"}"#)];
    let feed = feeds.feeds.get("orders");
    let granted = authorization.admit(&headers(&lines), "orders", feed, NOW_MS).unwrap();
    let [consumer, id, attrs] = lines.map(|(_, said)| Some(said.to_owned()));
    assert_eq!(granted.identity, Identity { id, consumer, attrs });
    let (code, message) =
        admit(&(authorization, feeds), "orders", &[("attrs", "gold")]).unwrap_err();
    assert_eq!((code, &*message), (Code::InvalidParameter, "kafka-upstream-attrs: must be JSON"));
}

#[test]
fn a_gateway_narrows_a_feed_and_chooses_among_its_resets() {
    let gateway = behind_a_gateway("");
    for (lines, granted) in [
        (&[][..], ALL),
        (&[("consumer", "a"), ("client-id", "A.b_9-"), ("attrs", "{}")], ALL),
        (&[("topics", "orders, orders-eu")], ALL),
        (&[("topics", "orders-eu")], held_to(&["orders-eu"], |_| {})),
        (
            &[("auto-offset-reset", "earliest"), ("expires", "1700000007")],
            Granted {
                expires_in: Some(Duration::from_secs(7)),
                ..held_to(&["orders", "orders-eu"], |feed| feed.reset = Reset::Earliest)
            },
        ),
        (
            &[("expires", "9223372036854775807")],
            Granted { expires_in: Some(millis(i64::MAX - NOW_MS)), ..ALL },
        ),
    ] {
        assert_eq!(admit(&gateway, "orders", lines), Ok(granted), "{lines:?}");
    }
    for (lines, code, message) in [
        (&[("expires", "1700000000")][..], Code::AuthExpired, "has expired"),
        (&[("expires", "-1")], Code::AuthExpired, "has expired"),
        (
            &[("expires", "soon")],
            Code::InvalidParameter,
            "kafka-upstream-expires: must be seconds since 1970",
        ),
        (
            &[("topic", "orders-eu")],
            Code::InvalidParameter,
            "kafka-upstream-topic: is not known; there are attrs, auto-offset-reset, ",
        ),
        (
            &[("client-id", "a b")],
            Code::InvalidParameter,
            "kafka-upstream-client-id: must be 1 to 128 of",
        ),
        (
            &[("client-id", "")],
            Code::InvalidParameter,
            "kafka-upstream-client-id: must be 1 to 128 of",
        ),
        (&[("consumer", "")], Code::InvalidParameter, "kafka-upstream-consumer: must be a name"),
        (
            &[("consumer", "a"), ("consumer", "b")],
            Code::InvalidParameter,
            "kafka-upstream-consumer: is given twice",
        ),
        (
            &[("auto-offset-reset", "latest")],
            Code::InvalidParameter,
            "kafka-upstream-auto-offset-reset: must be one of auto_offset_reset_override",
        ),
        (&[("topics", "orders,audit")], Code::TopicNotAllowed, "`audit` is not in this feed"),
        (&[("topics", "")], Code::TopicNotAllowed, "`` is not in this feed"),
        (
            &[("token", "x")],
            Code::InvalidParameter,
            "kafka-upstream-token: the feed's `credential` is not `per-request`",
        ),
        (
            &[("cluster", "us")],
            Code::InvalidParameter,
            "kafka-upstream-cluster: must be one of cluster_override",
        ),
        (
            &[("group", "x")],
            Code::InvalidParameter,
            "kafka-upstream-group: the feed's group is not for a gateway to name",
        ),
    ] {
        let (refused, told) = admit(&gateway, "orders", lines).unwrap_err();
        assert!(refused == code && told.contains(message), "{lines:?}: {told}");
    }
    let (code, _) = admit(&gateway, "nowhere", &[]).unwrap_err();
    assert_eq!(code, Code::FeedNotFound);
}

#[test]
fn with_a_rule_what_none_allows_is_refused() {
    let rules = behind_a_gateway(
        "[[authorization]]\nconsumer = 'team-*'\nfeeds = ['orders']\ntopics = ['*-eu']\n\
         [[authorization]]\nconsumer = 'team-a'\nfeeds = ['o*']\ntopics = ['orders']\n\
         [[authorization]]\nconsumer = 'root'\nfeeds = ['*']\noperations = ['read']\n\
         [[authorization]]\nconsumer = 'lost'\nfeeds = ['orders']\ntopics = ['payments']\n",
    );
    let eu = held_to(&["orders-eu"], |_| {});
    for (consumer, feed, expected) in [
        ("team-a", "orders", Ok(ALL)),
        ("team-b", "orders", Ok(eu)),
        ("team-a", "audit", Err(Code::Forbidden)),
        ("root", "audit", Ok(ALL)),
        ("lost", "orders", Err(Code::Forbidden)),
        ("Team-a", "orders", Err(Code::Forbidden)),
        // Whether a feed is there is told only to those who could read it.
        ("team-a", "audits", Err(Code::Forbidden)),
        ("root", "audits", Err(Code::FeedNotFound)),
    ] {
        let admitted = admit(&rules, feed, &[("consumer", consumer)]).map_err(|(code, _)| code);
        assert_eq!(admitted, expected, "{consumer} {feed}");
    }
    assert_eq!(admit(&rules, "orders", &[]).unwrap_err().0, Code::IdentityRequired);
    let foreign = |topic| {
        let lines = [("consumer", "team-b"), ("topics", topic)];
        admit(&rules, "orders", &lines).unwrap_err()
    };
    let (code, told) = foreign("orders");
    assert_eq!((code, told.replace("orders", "never")), foreign("never"));
}

#[test]
fn who_may_write_is_said_apart() {
    let produce = "[feeds.talk]\ntopics = ['talk']\nentrypoints = ['websocket']\n\
                   produce = { enabled = true, topics = ['talk', 'orders'] }\n";
    let writes = |rules: &str, consumer: &str| {
        let gateway = behind_a_gateway(&format!("{produce}{rules}"));
        admit(&gateway, "talk", &[("consumer", consumer)]).map(|granted| granted.produce)
    };
    assert_eq!(writes("", "a"), Ok(vec!["talk".to_owned(), "orders".to_owned()]));
    let rules = "[[authorization]]\nconsumer = 'a'\nfeeds = ['*']\ntopics = ['orders', 'talk']\n\
                 [[authorization]]\nconsumer = 'b'\nfeeds = ['talk']\n\
                 [[authorization]]\nconsumer = 'b'\nfeeds = ['talk']\ntopics = ['ord*']\n\
                 operations = ['produce']\n\
                 [[authorization]]\nconsumer = 'c'\nfeeds = ['talk']\noperations = ['produce']\n";
    assert_eq!(writes(rules, "a"), Ok(Vec::new()));
    assert_eq!(writes(rules, "b"), Ok(vec!["orders".to_owned()]));
    // A socket is read, too.
    assert_eq!(writes(rules, "c").unwrap_err().0, Code::Forbidden);
}

#[test]
fn each_fault_names_its_field() {
    let rule =
        |more: &str| format!("listen = ['unix:/s']\ngateway = 'unix'\n[[authorization]]\n{more}");
    for (text, expected) in [
        ("listen = ['unix:/s']\ngateway = 5", "feeds.gateway: must be a string"),
        (
            "listen = ['unix:/s']\ngateway = 'jwt'",
            "feeds.gateway: must be one of token, mtls, unix, none, not `jwt`",
        ),
        (
            "listen = ['unix:/s']\ngateway = 'token'",
            "feeds.gateway_token_file: is missing: where are its tokens?",
        ),
        (
            "listen = ['unix:/s']\ngateway = 'none'\ngateway_token_file = '/t'",
            "feeds.gateway_token_file: has a meaning with gateway = \"token\" only",
        ),
        (
            "listen = ['unix:/s']\ngateway = 'unix'\ngateway_names = ['a']",
            "feeds.gateway_names: has a meaning with gateway = \"mtls\" only",
        ),
        (
            "listen = ['unix:/s']\ngateway = 'mtls'\ngateway_names = ['a b']",
            "feeds.gateway_names: must be a list of names of DNS or IP addresses",
        ),
        (
            "listen = ['127.0.0.1:1']\ngateway = 'unix'",
            "feeds.gateway: `127.0.0.1:1` is no unix socket",
        ),
        ("listen = ['127.0.0.1:1']\ngateway = 'mtls'", "feeds.gateway: `127.0.0.1:1` has no TLS"),
        (
            "listen = ['tls:127.0.0.1:1']\ngateway = 'mtls'",
            "feeds.gateway: `tls:127.0.0.1:1` needs tls.client_ca_file",
        ),
        (
            "listen = ['tls:10.0.0.1:1']\ngateway = 'none'",
            "feeds.gateway: `tls:10.0.0.1:1` is not a loopback address: whoever reaches it would be \
             believed",
        ),
        (
            "listen = ['unix:/s']\n[[authorization]]\nconsumer = 'a'\nfeeds = ['*']",
            "feeds.gateway: is missing: without it nobody's name is believed, and no rule applies",
        ),
        (
            "listen = ['unix:/s']\n[feeds.own]\ntopics = ['own']\nfilter = 'client.id == key'",
            "feeds.own.filter: names `client`, and without `gateway` of [feeds] nobody says who reads",
        ),
        (
            &rule("consumer = 'a'\nfeeds = ['nowhere']"),
            "authorization[1].feeds: there is no [feeds.nowhere]",
        ),
        (&rule("consumer = 'a'\nfeeds = []"), "authorization[1].feeds: names none; `*` is all"),
        (
            &rule("consumer = 'a'\nfeeds = ['*']\ntopics = []"),
            "authorization[1].topics: names none; `*` is all",
        ),
        (
            &rule("consumer = ''\nfeeds = ['*']"),
            "authorization[1].consumer: names nobody; `*` is everybody",
        ),
        (
            &rule("consumer = 'a'\nfeeds = ['*']\noperations = ['read', 'write']"),
            "authorization[1].operations: `write` is not known; there are read, produce",
        ),
    ] {
        assert_eq!(read(&format!("[feeds]\n{text}\n")).2, [expected], "{text}");
    }
}

#[test]
fn a_gateway_names_a_cluster_and_a_token_where_the_feed_lets_it() {
    let (_, _, faults) = read(
        "[feeds]\nlisten = ['unix:/s']\nelsewhere = { topics = ['t'], \
        credential = 'per-request' }\nabroad = { topics = ['t'], cluster_override = ['eu'] }\n",
    );
    let reason = "is for a gateway, and there is no `gateway` of [feeds]";
    let fields = ["feeds.abroad.cluster_override", "feeds.elsewhere.credential"];
    assert_eq!(faults, fields.map(|field| format!("{field}: {reason}")));
    let (authorization, mut feeds) = behind_a_gateway("");
    let orders = feeds.feeds.get_mut("orders").unwrap();
    orders.cluster_override = vec!["eu".to_owned()];
    orders.per_request_credential = true;
    let gateway = (authorization, feeds);
    let token = || Some(Secret::new("a.b-c_d~e+f/g=="));
    let asked = |lines: &[(&str, &str)]| admit(&gateway, "orders", lines);
    let own = Granted { token: token(), ..ALL };
    let line = ("token", "a.b-c_d~e+f/g==");
    assert_eq!(asked(&[line]), Ok(own.clone()));
    assert_eq!(asked(&[line, ("cluster", "default")]), Ok(own.clone()));
    let eu = Granted { cluster: Some("eu".to_owned()), ..own };
    assert_eq!(asked(&[line, ("cluster", "eu")]), Ok(eu));
    assert_eq!(asked(&[]).unwrap_err().0, Code::IdentityRequired);
    let long = "x".repeat(TOKEN_BYTES + 1);
    for wrong in ["", "=", "a b", "a=b", "ä", &long] {
        assert_eq!(asked(&[("token", wrong)]).unwrap_err().0, Code::InvalidParameter, "{wrong}");
    }
}
