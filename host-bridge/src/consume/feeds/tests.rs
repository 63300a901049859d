//! `[feeds]` in files that are right, and in files that are not.

use super::*;
use crate::consume::delivery::{Commit, GroupMode, Qos};

/// The feeds and the faults of this text, with a cluster `default` and one `main`.
fn read(text: &str) -> (Feeds, Vec<String>) {
    let mut table: toml::Table = toml::from_str(text).unwrap();
    let Some(toml::Value::Table(raw)) = table.remove("feeds") else { panic!("{table}") };
    let mut faults = Vec::new();
    let known =
        Known { clusters: ["default", "main"].into(), registries: ["main".to_owned()].into() };
    let feeds = Feeds::read(raw, &known, &mut faults);
    (feeds, faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_feed_has_the_defaults_that_it_does_not_set() {
    let (feeds, faults) = read(
        "[feeds]\nlisten = ['127.0.0.1:9290']\nclient_connections_max = 3\n[feeds.orders]\ntopics = ['orders']\n\
         [feeds.'a.b']\ncluster = 'main'\ntopics = ['a', 'b']\nentrypoints = ['websocket']\n origins = ['https://a.example']\n\
         qos = 'at-best'\nauto_offset_reset = 'none'\n\
         auto_offset_reset_override = ['latest', 'earliest']\nencode_message_id = false\n\
         check_topic_existence = false\nisolation_level = 'read_uncommitted'\n\
         deserializer = 'json'\nkey_deserializer = 'schema-registry'\nschema_registry = 'main'\n\
         payload_encoding = 'avro_json'\nremove_confluent_header = true\n\
         record_bytes_max = 5\nconnections_max = 7\nfilter = 'key != null'\nallow_client_filter = true\n\
 value_expression = 'value.a'\non_decode_error = 'dlq'\ndlq_topic = 'dead'\n\
         client_acks = true\nmax_unacked = 5\nack_timeout_ms = 1000\n\
         produce = { enabled = true, topics = ['c', 'a'] }\npubsub = { reply_bytes = 65535 }\n\
         sse = { heartbeat_ms = 300000, data = 'envelope', metadata_as_comment = true,\
         headers_as_comment = true, overload = 'stream' }\n",
    );
    assert_eq!(faults, [""; 0]);
    assert_eq!(feeds.listen, [Listen::Tcp("127.0.0.1:9290".parse().unwrap())]);
    assert_eq!((feeds.connections_max, feeds.client_connections_max), (20_000, 3));
    let orders = Feed {
        cluster: "default".to_owned(),
        cluster_override: Vec::new(),
        per_request_credential: false,
        topics: Topics::List(vec!["orders".to_owned()]),
        reset: Reset::Latest,
        reset_override: Vec::new(),
        encode_message_id: true,
        check_topic_existence: true,
        isolation_level: IsolationLevel::ReadCommitted,
        deserializer: Deserializer::Noop,
        key_deserializer: Deserializer::Noop,
        schema_registry: None,
        payload_encoding: PayloadEncoding::SimpleJson,
        remove_confluent_header: false,
        record_bytes_max: 16 * 1024 * 1024,
        connections_max: 10_000,
        entrypoints: [Entrypoint::Get, Entrypoint::Sse].into(),
        origins: Vec::new(),
        sse: Sse {
            heartbeat: Duration::from_secs(5),
            data: Data::Raw,
            metadata_as_comment: false,
            headers_as_comment: false,
            overload_as_stream: false,
        },
        pubsub_reply_bytes: 1_000_000,
        conversation: Conversation {
            client_acks: false,
            max_unacked: 1000,
            ack_timeout: Duration::from_secs(60),
            produce: Vec::new(),
        },
        selection: Selection::default(),
        delivery: Delivery { qos: Qos::AtBest, commit: Commit::Auto, group: GroupMode::None },
    };
    assert_eq!(feeds.feeds["orders"], orders);
    let other = Feed {
        cluster: "main".to_owned(),
        cluster_override: Vec::new(),
        per_request_credential: false,
        topics: Topics::List(vec!["a".to_owned(), "b".to_owned()]),
        reset: Reset::None,
        reset_override: vec![Reset::Latest, Reset::Earliest],
        encode_message_id: false,
        check_topic_existence: false,
        isolation_level: IsolationLevel::ReadUncommitted,
        deserializer: Deserializer::Json,
        key_deserializer: Deserializer::SchemaRegistry,
        schema_registry: Some("main".to_owned()),
        payload_encoding: PayloadEncoding::AvroJson,
        remove_confluent_header: true,
        record_bytes_max: 5,
        connections_max: 7,
        entrypoints: [Entrypoint::Websocket].into(),
        origins: vec!["https://a.example".to_owned()],
        sse: Sse {
            heartbeat: Duration::from_secs(300),
            data: Data::Envelope,
            metadata_as_comment: true,
            headers_as_comment: true,
            overload_as_stream: true,
        },
        pubsub_reply_bytes: 65_535,
        conversation: Conversation {
            client_acks: true,
            max_unacked: 5,
            ack_timeout: Duration::from_secs(1),
            produce: vec!["c".to_owned(), "a".to_owned()],
        },
        selection: Selection {
            filter: RecordExpression::compile("filter", "key != null").ok(),
            allow_client_filter: true,
            value_expression: RecordExpression::compile("value_expression", "value.a").ok(),
            on_decode_error: OnDecodeError::Dlq,
            dlq_topic: Some("dead".to_owned()),
        },
        delivery: Delivery { qos: Qos::AtBest, commit: Commit::Auto, group: GroupMode::None },
    };
    assert_eq!(feeds.feeds["a.b"], other);
}

#[test]
fn a_pattern_stands_for_the_topics_of_the_cluster() {
    let (feeds, faults) = read(
        "[feeds]\nlisten = ['unix:/s']\n[feeds.all]\ntopics_pattern = 'orders.*'\n\
         dlq_topic = 'dead'\n",
    );
    assert_eq!(faults, [""; 0]);
    let pattern = TopicsPattern::new("orders.*").unwrap();
    assert_eq!(feeds.feeds["all"].topics, Topics::Pattern(pattern));
}

const GROUP: &str = "group = { mode = 'manual', id = 'g' }\n";

fn grouped(text: &str) -> (Feeds, Vec<String>) {
    let start = "[feeds]\nlisten = ['unix:/s']\n[feeds.orders]\ntopics = ['t']\n";
    let polled = if text.contains("entrypoints") { "" } else { "entrypoints = ['get']\n" };
    read(&format!("{start}{polled}{text}"))
}

#[test]
fn a_feed_in_a_group_commits_as_its_qos_says() {
    for (text, qos, commit) in [
        ("", Qos::AtBest, Commit::Auto),
        ("qos = 'auto'", Qos::AtBest, Commit::Auto),
        ("qos = 'at-best'\ncommit = 'client'", Qos::AtBest, Commit::Client),
        ("qos = 'balanced'", Qos::Balanced, Commit::Auto),
        ("qos = 'at-least-once'", Qos::AtLeastOnce, Commit::Client),
        ("qos = 'at-least-once'\ncommit = 'off'", Qos::AtLeastOnce, Commit::Off),
        ("qos = 'at-most-once'\nsingle_bridge = true", Qos::AtMostOnce, Commit::Auto),
    ] {
        let (feeds, faults) = grouped(&format!("{GROUP}{text}"));
        assert_eq!(faults, [""; 0], "{text}");
        let Delivery { qos: read, commit: committed, .. } = feeds.feeds["orders"].delivery;
        assert_eq!((read, committed), (qos, commit), "{text}");
    }
    let streamed = "entrypoints = ['sse']\nqos = 'none'";
    assert!(!grouped(streamed).0.feeds["orders"].delivery.has_cursors());
}

#[test]
fn what_a_group_and_its_qos_cannot_be_is_named() {
    let manual = "mode = \"manual\" only";
    for (text, fault) in [
        ("qos = 'none'", "qos: `none` gives no cursor, and GET needs one".to_owned()),
        (
            &format!("{GROUP}entrypoints = ['sse']\nqos = 'none'"),
            "qos: `none` goes on from nowhere: it has no group".to_owned(),
        ),
        ("qos = 'balanced'", "qos: `balanced` needs a `group`, which has the position".to_owned()),
        (
            "qos = 'at-most-once'\nsingle_bridge = true",
            "qos: `at-most-once` needs a `group` where pages are read".to_owned(),
        ),
        ("commit = 'client'", "commit: has a meaning with a `group` only".to_owned()),
        (
            &format!("{GROUP}qos = 'at-least-once'\ncommit = 'auto'"),
            "commit: `auto` does not go with qos `at-least-once`".to_owned(),
        ),
        (
            &format!("{GROUP}qos = 'balanced'\ncommit = 'client'"),
            "commit: `client` does not go with qos `balanced`".to_owned(),
        ),
        ("group = 'g'", "group: must be a table".to_owned()),
        (
            "group = { mode = 'share' }",
            "group.mode: `share` is not supported; there is none, client, authenticated, manual, \
             random"
                .to_owned(),
        ),
        (
            "group = { mode = 'manual' }",
            "group.id: is missing: which group? Or `allowed`, if the gateway names it".to_owned(),
        ),
        ("group = { mode = 'client', id = 'g' }", format!("group.id: has a meaning with {manual}")),
        (
            "group = { id = 'g' }",
            "group.mode: is missing: manual, client, authenticated, random or none".to_owned(),
        ),
        (
            "group = { mode = 'random', allowed = ['g'] }",
            format!("group.allowed: has a meaning with {manual}"),
        ),
        (
            "group = { mode = 'manual', id = 'g', prefix = 'p' }",
            "group.prefix: has a meaning with mode client or authenticated only".to_owned(),
        ),
        (
            "group = { mode = 'client', node_suffix = true }",
            "group.node_suffix: needs `instance_id` of [feeds]".to_owned(),
        ),
        (
            "group = { mode = 'client', names = 1 }",
            "group.names: unknown field; there are mode, id, prefix, allowed, node_suffix"
                .to_owned(),
        ),
    ] {
        let (_, faults) = grouped(text);
        let expected = format!("feeds.orders.{fault}");
        assert!(faults.contains(&expected), "{text}: {faults:?}");
    }
    for (text, fault) in [
        ("entrypoints = ['sse']\n", "needs `instance_id` of [feeds]"),
        ("entrypoints = ['websocket']\n", "needs `instance_id` of [feeds]"),
        ("entrypoints = ['get', 'pubsub']\n", "a feed with a group is not read by `pubsub`"),
    ] {
        let faults = grouped(&format!("{text}{GROUP}")).1;
        assert!(faults[0].starts_with(&format!("feeds.orders.group: {fault}")), "{faults:?}");
    }
    let named = "[feeds]\nlisten = ['unix:/s']\ninstance_id = 'b1'\nsession_timeout_ms = 6000\n";
    let (feeds, faults) = read(&format!("{named}[feeds.orders]\ntopics = ['t']\n{GROUP}"));
    assert_eq!((faults.len(), feeds.member.session), (0, Duration::from_secs(6)), "{faults:?}");
    let faults = read(&format!("{named}[feeds.orders]\ntopics_pattern = 't.*'\n{GROUP}")).1;
    assert!(faults[0].starts_with("feeds.orders.group: needs `topics`"), "{faults:?}");
    let single = grouped(&format!("{GROUP}qos = 'at-most-once'")).1;
    assert!(single[0].starts_with("feeds.orders.single_bridge: must be true"), "{single:?}");
}

#[test]
fn without_feeds_nothing_listens() {
    assert_eq!(read("[feeds]\n"), (Feeds::default(), Vec::new()));
}

#[test]
fn each_fault_names_its_field() {
    let accepted = format!("unknown field; there are {}", FIELDS.join(", "));
    for (text, fault) in [
        ("cluster = 'x'", "cluster: there is no [clusters.x]"),
        ("cluster = 5", "cluster: must be a string"),
        ("topics = []", "topics: must name 1 to 100 topics"),
        ("topics = ['a', 'a']", "topics: `a` is named twice"),
        ("topics = ['a b']", "topics: `a b` is not a topic's name"),
        ("topics = [1]", "topics: must be a list of strings"),
        (
            "topics_pattern = 'a.*'\ntopics = ['a']",
            "topics_pattern: stands beside `topics`: a feed has one of the two",
        ),
        ("topics_pattern = '(?!dead).*'", "topics_pattern: look-around is not supported"),
        ("topics_pattern = '(a)\\1'", "topics_pattern: backreferences are not supported"),
        ("topics_pattern = ''", "topics_pattern: must have 1 to 512 bytes"),
        ("topics_pattern = 5", "topics_pattern: must be a string"),
        (
            "topics_pattern = 'orders.*'\ndlq_topic = 'orders.dead'",
            "dlq_topic: is a topic of the feed, which would read its own failures",
        ),
        (
            "entrypoints = []",
            "entrypoints: names none; there are get, sse, websocket, pubsub, webhook",
        ),
        (
            "entrypoints = ['post']",
            "entrypoints: `post` is not known; there are get, sse, websocket, pubsub, webhook",
        ),
        ("max_unacked = 0", "max_unacked: must be a number from 1 to 10000"),
        ("ack_timeout_ms = 999", "ack_timeout_ms: must be a number from 1000 to 3600000"),
        ("client_acks = 1", "client_acks: must be a string"),
        ("produce = true", "produce: must be a table"),
        (
            "entrypoints = ['websocket']\nproduce.enabled = true",
            "produce.topics: is missing: which topics may clients write to?",
        ),
        ("produce.topics = ['a b']", "produce.topics: `a b` is not a topic's name"),
        ("produce.topic = 'a'", "produce.topic: unknown field, did you mean `topics`?"),
        (
            "produce = { enabled = true, topics = ['a'] }",
            "produce.enabled: needs the entrypoint `websocket`: nothing else writes",
        ),
        (
            "entrypoints = ['get', 'pubsub']\ndeserializer = 'json'",
            "on_decode_error: must be skip, dlq or stop: pubsub has no way to deliver an error",
        ),
        (
            "entrypoints = ['pubsub']\nvalue_expression = 'value'",
            "on_decode_error: must be skip, dlq or stop: pubsub has no way to deliver an error",
        ),
        ("sse = 'x'", "sse: must be a table"),
        ("sse.heartbeat_ms = 1999", "sse.heartbeat_ms: must be a number from 2000 to 300000"),
        ("sse.data = 'json'", "sse.data: must be one of raw, envelope, not `json`"),
        ("sse.overload = 1", "sse.overload: must be a string"),
        (
            "sse.retry = 1",
            "sse.retry: unknown field; there are heartbeat_ms, data, metadata_as_comment, \
             headers_as_comment, overload",
        ),
        (
            "auto_offset_reset = 'foo'",
            "auto_offset_reset: must be one of earliest, latest, none, not `foo`",
        ),
        (
            "auto_offset_reset_override = ['latest', 'foo']",
            "auto_offset_reset_override: `foo` is none of earliest, latest, none",
        ),
        ("filter = '1'", "filter: must be true or false, is int"),
        ("filter = 'value.'", "filter: line 1, column 7: expected identifier after '.'"),
        (
            "filter = 'request.path'",
            "filter: line 1, column 1: `request` is unknown: there are `topic`, `partition`, `offset`, \
             `timestamp`, `key`, `value`, `headers` and `client`",
        ),
        ("on_decode_error = 'dlq'", "dlq_topic: is missing: on_decode_error is `dlq`"),
        ("dlq_topic = 't'", "dlq_topic: is a topic of the feed, which would read its own failures"),
        ("dlq_topic = 'a b'", "dlq_topic: `a b` is not a topic's name"),
        (
            "on_decode_error = 'retry'",
            "on_decode_error: must be one of error-item, skip, dlq, stop, not `retry`",
        ),
        ("encode_message_id = 'yes'", "encode_message_id: must be one of true, false, not `yes`"),
        (
            "deserializer = 'schema-registry'",
            "schema_registry: is missing: which registry has the schemas of the records?",
        ),
        (
            "key_deserializer = 'schema-registry'\nschema_registry = 'other'",
            "schema_registry: there is no [registries.other]",
        ),
        (
            "schema_registry = 'main'",
            "schema_registry: is not asked: neither deserializer nor key_deserializer is \
             `schema-registry`",
        ),
        (
            "deserializer = 'schema-registry'\nschema_registry = 'main'\n\
             remove_confluent_header = true",
            "remove_confluent_header: cannot be: the header names the schema by which values are \
             decoded",
        ),
        (
            "payload_encoding = 'avro'",
            "payload_encoding: must be one of simple_json, avro_json, not `avro`",
        ),
        ("cluster_override = ['us']", "cluster_override: there is no [clusters.us]"),
        ("credential = 'token'", "credential: must be one of cluster, per-request, not `token`"),
        (
            "credential = 'per-request'\ndlq_topic = 'dead'",
            "dlq_topic: is written to by the credential of the feed's cluster, and the feed is read \
             elsewhere (credential, cluster_override)",
        ),
        ("record_bytes_max = 0", "record_bytes_max: must be a number from 1 to 67108864"),
        ("record_bytes_max = 1.5", "record_bytes_max: must be a number from 1 to 67108864"),
        ("topic = 'a'", "topic: unknown field, did you mean `topics`?"),
        ("mode = 'a'", &format!("mode: {accepted}")),
    ] {
        let topics = if text.starts_with("topics") { "" } else { "topics = ['t']\n" };
        let (_, faults) =
            read(&format!("[feeds]\nlisten = ['unix:/s']\n[feeds.orders]\n{topics}{text}\n"));
        assert_eq!(faults, [format!("feeds.orders.{fault}")], "{text}");
    }
    for unsupported in UNSUPPORTED_FIELDS {
        let (_, faults) = read(&format!(
            "[feeds]\nlisten = ['unix:/s']\n[feeds.orders]\ntopics = ['t']\n{unsupported} = ''"
        ));
        assert_eq!(faults, [format!("feeds.orders.{unsupported}: is not supported")]);
    }
    for (text, fault) in [
        (
            "orders = {topics = ['t']}",
            "feeds.listen: names no address: feeds are served on their own",
        ),
        (
            "listen = ['h:1']",
            "feeds.listen: `h:1` is neither IP:PORT nor tls:IP:PORT nor unix:/PATH",
        ),
        ("listen = 5", "feeds.listen: must be a list of strings"),
        (
            "listen = ['unix:/s']\nconnections_max = 0",
            "feeds.connections_max: must be a number from 1 to 1000000",
        ),
        (
            "listen = ['unix:/s']\norders = 5",
            "feeds.orders: is no feed: a feed is a section, [feeds.NAME]",
        ),
        (
            "listen = ['unix:/s']\n'a/b' = {topics = ['t']}",
            "feeds.a/b: the name must be 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`",
        ),
        (
            "listen = ['unix:/s']\norders = {}",
            "feeds.orders.topics: is missing: which topics does the feed read?",
        ),
    ] {
        assert_eq!(read(&format!("[feeds]\n{text}\n")).1, [fault], "{text}");
    }
}
