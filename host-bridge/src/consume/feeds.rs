//! `[feeds.NAME]`: which topics are read over HTTP, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_client::IsolationLevel;
use kafka_upstream_core::expression::RecordExpression;
use kafka_upstream_schema::PayloadEncoding;

use crate::config::{ConfigError, Listen, field};
use crate::limits::{CLIENT_CONNECTIONS, FEED_CONNECTIONS, FEEDS_CONNECTIONS};

use super::cursor::is_topic;
use super::delivery::Delivery;
use super::selection::{Deserializer, OnDecodeError, Selection};
use super::topics::{Topics, TopicsPattern};

use self::fields::{Choices, FALSE, Fields, NAME, TRUE};

pub(crate) use self::conversation::Conversation;
pub(crate) use self::fields::is_name;
pub(crate) use self::member::MemberOf;

mod conversation;
pub(crate) mod fields;
mod groups;
mod member;

/// What other sections of the configuration have, by name.
pub(crate) struct Known<'a> {
    pub(crate) clusters: BTreeSet<&'a str>,
    /// Also those with a fault, which is reported once, not again by each feed that names one.
    pub(crate) registries: BTreeSet<String>,
}

impl<'a> Known<'a> {
    pub(crate) fn new<T>(clusters: &'a BTreeMap<String, T>, registries: &toml::Table) -> Self {
        let clusters = clusters.keys().map(String::as_str).collect();
        Self { clusters, registries: registries.keys().cloned().collect() }
    }

    /// Without a registry.
    pub(crate) fn of_clusters(clusters: impl IntoIterator<Item = &'a str>) -> Self {
        Self { clusters: clusters.into_iter().collect(), registries: BTreeSet::new() }
    }
}

/// The configured feeds and where they are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feeds {
    /// Addresses of their own, so that readers take no connection from the writing half.
    pub(crate) listen: Vec<Listen>,
    /// Readers at a time, and those of one client.
    pub(crate) connections_max: usize,
    pub(crate) client_connections_max: usize,
    pub(crate) member: MemberOf,
    pub(crate) feeds: BTreeMap<String, Feed>,
}

/// A feed as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feed {
    /// The name of a `[clusters.NAME]`.
    pub(crate) cluster: String,
    /// Others that a gateway may say instead.
    pub(crate) cluster_override: Vec<String>,
    /// Whether it is read by a token that comes with each request, not by the cluster's credential.
    pub(crate) per_request_credential: bool,
    pub(crate) topics: Topics,
    /// Where a reader without a position starts, and one whose position is gone.
    pub(crate) reset: Reset,
    /// What a gateway may say instead.
    pub(crate) reset_override: Vec<Reset>,
    /// Whether cursors are written as base64; both forms are always read.
    pub(crate) encode_message_id: bool,
    /// Whether a topic that does not exist is refused, rather than waited for.
    pub(crate) check_topic_existence: bool,
    pub(crate) isolation_level: IsolationLevel,
    pub(crate) deserializer: Deserializer,
    pub(crate) key_deserializer: Deserializer,
    /// The name of a `[registries.NAME]`, if it has schemas of one.
    pub(crate) schema_registry: Option<String>,
    /// How JSON stands for Avro.
    pub(crate) payload_encoding: PayloadEncoding,
    /// Whether the 5 bytes of a schema registry's header are left out of values.
    pub(crate) remove_confluent_header: bool,
    /// Bytes of key, value and headers; a larger record is delivered as an error.
    pub(crate) record_bytes_max: usize,
    /// Readers at a time.
    pub(crate) connections_max: usize,
    /// By which ways it is read.
    pub(crate) entrypoints: BTreeSet<Entrypoint>,
    /// Sites whose pages may open a WebSocket; `*` stands for all.
    pub(crate) origins: Vec<String>,
    pub(crate) sse: Sse,
    /// Bytes of a reply of pubsub with records, unless one record alone has more.
    pub(crate) pubsub_reply_bytes: usize,
    pub(crate) conversation: Conversation,
    pub(crate) selection: Selection,
    pub(crate) delivery: Delivery,
}

impl Feed {
    /// Where a reader goes on whose position is gone.
    pub(crate) fn reset_of_lost(&self) -> Reset {
        match self.reset {
            Reset::Latest if self.delivery.loses_nothing() => Reset::Earliest,
            reset => reset,
        }
    }

    /// Whether a record may be delivered as an error because it cannot be decoded.
    pub(crate) fn has_error_items(&self) -> bool {
        self.selection.on_decode_error == OnDecodeError::ErrorItem
            && (self.selection.value_expression.is_some() || self.has_forms())
    }

    /// Whether clients may write.
    pub(crate) fn can_produce(&self) -> bool {
        !self.conversation.produce.is_empty()
    }

    /// Whether all of its readers get each record as it is.
    pub(crate) fn takes_all(&self) -> bool {
        self.selection.takes_all() && !self.has_forms()
    }

    /// Whether keys or values have to be something.
    fn has_forms(&self) -> bool {
        [self.deserializer, self.key_deserializer] != [Deserializer::Noop; 2]
    }
}

#[cfg(test)]
impl Feed {
    /// A feed of these topics that sets nothing else.
    pub(crate) fn of_topics(topics: &[&str]) -> Self {
        let names = topics.iter().map(|topic| toml::Value::from(*topic)).collect();
        let table = toml::Table::from_iter([("topics".to_owned(), toml::Value::Array(names))]);
        let mut faults = Vec::new();
        let fields = Fields { path: "feeds.test", table, faults: &mut faults };
        let feed = fields.feed(&Known::of_clusters(["default"]), None);
        assert!(faults.is_empty(), "{faults:?}");
        feed
    }
}

/// A way to read a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entrypoint {
    Get,
    Sse,
    /// A WebSocket of JSON, or of bare values.
    Websocket,
    /// APISIX's protocol, over a WebSocket.
    Pubsub,
}

impl Entrypoint {
    /// As it is configured.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Sse => "sse",
            Self::Websocket => "websocket",
            Self::Pubsub => "pubsub",
        }
    }
}

/// How records are sent as events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sse {
    /// After so long without an event there is a sign of life.
    pub(crate) heartbeat: Duration,
    pub(crate) data: Data,
    pub(crate) metadata_as_comment: bool,
    pub(crate) headers_as_comment: bool,
    /// Whether who cannot be served now gets a stream that ends, rather than 503: browsers never come
    /// again after that.
    pub(crate) overload_as_stream: bool,
}

/// What the data of an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// The record's value.
    Raw,
    Envelope,
}

/// `auto_offset_reset`, as Kafka's consumers have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    Earliest,
    Latest,
    None,
}

impl Reset {
    /// As it is configured.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Latest => "latest",
            Self::None => "none",
        }
    }
}

impl Default for Feeds {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            connections_max: FEEDS_CONNECTIONS,
            client_connections_max: CLIENT_CONNECTIONS,
            member: MemberOf::default(),
            feeds: BTreeMap::new(),
        }
    }
}

impl Feeds {
    /// Reads `[feeds]`. What is wrong is added to `faults`.
    pub(crate) fn read(raw: toml::Table, known: &Known<'_>, faults: &mut Vec<ConfigError>) -> Self {
        let mut fields = Fields { path: "feeds", table: raw, faults };
        let texts = fields.list("listen").unwrap_or_default();
        let connections_max = fields.number(CONNECTIONS, CONNECTIONS_RANGE, FEEDS_CONNECTIONS);
        let client_connections_max =
            fields.number("client_connections_max", CONNECTIONS_RANGE, CLIENT_CONNECTIONS);
        let member = MemberOf::read(&mut fields);
        let sections = fields.table;
        let listen = Listen::parse_all("feeds.listen", &texts, faults);
        let mut feeds = BTreeMap::new();
        for (name, table) in sections {
            let path = format!("feeds.{name}");
            let toml::Value::Table(table) = table else {
                faults.push(field(&path, "is no feed: a feed is a section, [feeds.NAME]"));
                continue;
            };
            if !is_name(&name) {
                faults.push(field(&path, &format!("the name {NAME}")));
            }
            let feed =
                Fields { path: &path, table, faults }.feed(known, member.instance.as_deref());
            feeds.insert(name, feed);
        }
        let is_served = feeds.values().any(|feed: &Feed| !feed.entrypoints.is_empty());
        if texts.is_empty() && is_served {
            faults.push(field("feeds.listen", "names no address: feeds are served on their own"));
        }
        Self { listen, connections_max, client_connections_max, member, feeds }
    }
}

impl Fields<'_> {
    fn feed(mut self, known: &Known<'_>, instance: Option<&str>) -> Feed {
        let clusters = &known.clusters;
        let cluster = self.text("cluster").unwrap_or_else(|| "default".to_owned());
        if !clusters.contains(&*cluster) {
            self.fault("cluster", &format!("there is no [clusters.{cluster}]"));
        }
        let cluster_override = self.list(OVERRIDE).unwrap_or_default();
        for other in cluster_override.iter().filter(|name| !clusters.contains(&***name)) {
            self.fault(OVERRIDE, &format!("there is no [clusters.{other}]"));
        }
        let entrypoints = self.entrypoints();
        let delivery = self.delivery(&entrypoints, instance);
        let sse = self.sse();
        let conversation =
            Conversation::read(&mut self, entrypoints.contains(&Entrypoint::Websocket));
        let topics = self.topics();
        let feed = Feed {
            cluster,
            cluster_override,
            per_request_credential: self.choice("credential", &CREDENTIALS),
            selection: self.selection(&topics),
            topics,
            reset: self.choice("auto_offset_reset", &RESETS),
            reset_override: self.resets("auto_offset_reset_override"),
            encode_message_id: self.choice("encode_message_id", &TRUE),
            check_topic_existence: self.choice("check_topic_existence", &TRUE),
            isolation_level: self.choice("isolation_level", &ISOLATION_LEVELS),
            deserializer: self.choice("deserializer", &DESERIALIZERS),
            key_deserializer: self.choice("key_deserializer", &DESERIALIZERS),
            schema_registry: self.text("schema_registry").filter(|name| !name.is_empty()),
            payload_encoding: self.choice("payload_encoding", &PAYLOAD_ENCODINGS),
            remove_confluent_header: self.choice("remove_confluent_header", &FALSE),
            record_bytes_max: self.number("record_bytes_max", RECORD_BYTES_RANGE, RECORD_BYTES),
            connections_max: self.number(CONNECTIONS, CONNECTIONS_RANGE, FEED_CONNECTIONS),
            entrypoints,
            origins: self.list("origins").unwrap_or_default(),
            sse,
            pubsub_reply_bytes: self.pubsub(),
            conversation,
            delivery,
        };
        self.check_registry(&feed, &known.registries);
        if feed.entrypoints.contains(&Entrypoint::Pubsub) && feed.has_error_items() {
            let reason = "must be skip, dlq or stop: pubsub has no way to deliver an error";
            self.fault("on_decode_error", reason);
        }
        let is_elsewhere = feed.per_request_credential || !feed.cluster_override.is_empty();
        let writes =
            [("dlq_topic", feed.selection.dlq_topic.is_some()), ("produce", feed.can_produce())];
        for (name, _) in writes.into_iter().filter(|(_, is_set)| is_elsewhere && *is_set) {
            let reason = "is written to by the credential of the feed's cluster, and the feed is \
                          read elsewhere (credential, cluster_override)";
            self.fault(name, reason);
        }
        for name in UNSUPPORTED_FIELDS {
            if self.table.remove(name).is_some() {
                self.fault(name, UNSUPPORTED);
            }
        }
        self.finish(&FIELDS);
        feed
    }

    fn check_registry(&mut self, feed: &Feed, registries: &BTreeSet<String>) {
        let has_schemas =
            [feed.deserializer, feed.key_deserializer].contains(&Deserializer::SchemaRegistry);
        match &feed.schema_registry {
            None if has_schemas => {
                self.fault(REGISTRY, "is missing: which registry has the schemas of the records?");
            }
            Some(name) if !registries.contains(name) => {
                self.fault(REGISTRY, &format!("there is no [registries.{name}]"));
            }
            Some(_) if !has_schemas => {
                let reason = "is not asked: neither deserializer nor key_deserializer is \
                              `schema-registry`";
                self.fault(REGISTRY, reason);
            }
            _ => {}
        }
        if feed.remove_confluent_header && feed.deserializer == Deserializer::SchemaRegistry {
            let reason = "cannot be: the header names the schema by which values are decoded";
            self.fault("remove_confluent_header", reason);
        }
    }

    fn sse(&mut self) -> Sse {
        let table = self.section("sse").unwrap_or_default();
        let path = format!("{}.sse", self.path);
        let mut fields = Fields { path: &path, table, faults: &mut *self.faults };
        let heartbeat = fields.number("heartbeat_ms", HEARTBEAT_MS_RANGE, HEARTBEAT_MS);
        let sse = Sse {
            heartbeat: Duration::from_millis(heartbeat as u64),
            data: fields.choice("data", &DATA),
            metadata_as_comment: fields.choice("metadata_as_comment", &FALSE),
            headers_as_comment: fields.choice("headers_as_comment", &FALSE),
            overload_as_stream: fields.choice("overload", &OVERLOAD),
        };
        fields.finish(&SSE_FIELDS);
        sse
    }

    fn pubsub(&mut self) -> usize {
        let table = self.section("pubsub").unwrap_or_default();
        let path = format!("{}.pubsub", self.path);
        let mut fields = Fields { path: &path, table, faults: &mut *self.faults };
        let bytes = fields.number("reply_bytes", REPLY_BYTES_RANGE, REPLY_BYTES);
        fields.finish(&["reply_bytes"]);
        bytes
    }

    fn selection(&mut self, topics: &Topics) -> Selection {
        let selection = Selection {
            filter: self.filter(),
            allow_client_filter: self.choice("allow_client_filter", &FALSE),
            value_expression: self.expression("value_expression"),
            on_decode_error: self.choice("on_decode_error", &ON_DECODE_ERROR),
            dlq_topic: self.text("dlq_topic").filter(|topic| !topic.is_empty()),
        };
        match &selection.dlq_topic {
            Some(topic) if !is_topic(topic) => {
                self.fault("dlq_topic", &format!("`{topic}` is not a topic's name"));
            }
            Some(topic) if topics.has(topic) => {
                self.fault(
                    "dlq_topic",
                    "is a topic of the feed, which would read its own failures",
                );
            }
            None if selection.on_decode_error == OnDecodeError::Dlq => {
                self.fault("dlq_topic", "is missing: on_decode_error is `dlq`");
            }
            _ => {}
        }
        selection
    }

    fn filter(&mut self) -> Option<RecordExpression> {
        let filter = self.expression("filter")?;
        if let Err(error) = filter.check_filter() {
            self.fault("filter", &error.reason);
        }
        Some(filter)
    }

    fn expression(&mut self, name: &'static str) -> Option<RecordExpression> {
        let source = self.text(name).filter(|source| !source.is_empty())?;
        match RecordExpression::compile(name, &source) {
            Ok(expression) => return Some(expression),
            Err(error) => self.fault(name, &error.reason),
        }
        None
    }

    fn topics(&mut self) -> Topics {
        match ["topics", PATTERN].map(|name| self.table.contains_key(name)) {
            [false, false] => self.fault("topics", "is missing: which topics does the feed read?"),
            [true, true] => {
                self.fault(PATTERN, "stands beside `topics`: a feed has one of the two")
            }
            _ => {}
        }
        let pattern = self.text(PATTERN).map(|source| TopicsPattern::new(&source));
        match (self.list("topics"), pattern) {
            (None, Some(Ok(pattern))) => return Topics::Pattern(pattern),
            (Some(topics), _) => return Topics::List(self.listed("topics", topics)),
            (None, Some(Err(reason))) => self.fault(PATTERN, &reason),
            (None, None) => {}
        }
        Topics::List(Vec::new())
    }

    fn entrypoints(&mut self) -> BTreeSet<Entrypoint> {
        let Some(names) = self.list("entrypoints") else {
            return [Entrypoint::Get, Entrypoint::Sse].into();
        };
        if names.is_empty() {
            self.fault("entrypoints", &format!("names none; {THERE_ARE}"));
        }
        let mut entrypoints = BTreeSet::new();
        for name in &names {
            let found = ENTRYPOINTS.iter().find(|entrypoint| entrypoint.name() == name);
            match (found, &**name) {
                (Some(entrypoint), _) => drop(entrypoints.insert(*entrypoint)),
                // Webhooks name their feed: one that has this alone is served nowhere.
                (None, "webhook") => {}
                (None, _) => {
                    let reason = format!("`{name}` is not known; {THERE_ARE}");
                    self.fault("entrypoints", &reason);
                }
            }
        }
        entrypoints
    }

    fn resets(&mut self, name: &str) -> Vec<Reset> {
        let mut resets = Vec::new();
        for text in self.list(name).unwrap_or_default() {
            match RESETS.accepted.iter().find(|(accepted, _)| *accepted == text) {
                Some((_, reset)) => resets.push(*reset),
                None => {
                    self.fault(name, &format!("`{text}` is none of earliest, latest, none"));
                }
            }
        }
        resets
    }
}

const UNSUPPORTED: &str = "is not supported";
/// Bytes of the largest record that is delivered by default, and of the largest that a batch of
/// Kafka may be decompressed to.
const RECORD_BYTES: usize = 16 * 1024 * 1024;
const RECORD_BYTES_RANGE: (usize, usize) = (1, 64 * 1024 * 1024);
const HEARTBEAT_MS: usize = 5000;
const HEARTBEAT_MS_RANGE: (usize, usize) = (2000, 300_000);
pub(crate) const ENTRYPOINTS: [Entrypoint; 4] =
    [Entrypoint::Get, Entrypoint::Sse, Entrypoint::Websocket, Entrypoint::Pubsub];
const THERE_ARE: &str = "there are get, sse, websocket, pubsub, webhook";
/// Below what clients of WebSockets take by default; and the largest reply that a record makes.
const REPLY_BYTES: usize = 1_000_000;
const REPLY_BYTES_RANGE: (usize, usize) = (1024, RECORD_BYTES);
const RESETS: Choices<Reset> = Choices {
    default: Reset::Latest,
    accepted: &[("earliest", Reset::Earliest), ("latest", Reset::Latest), ("none", Reset::None)],
    unsupported: &[],
};
const ISOLATION_LEVELS: Choices<IsolationLevel> = Choices {
    default: IsolationLevel::ReadCommitted,
    accepted: &[
        ("read_committed", IsolationLevel::ReadCommitted),
        ("read_uncommitted", IsolationLevel::ReadUncommitted),
    ],
    unsupported: &[],
};
const DESERIALIZERS: Choices<Deserializer> = Choices {
    default: Deserializer::Noop,
    accepted: &[
        ("noop", Deserializer::Noop),
        ("json", Deserializer::Json),
        ("schema-registry", Deserializer::SchemaRegistry),
    ],
    unsupported: &[],
};
const PAYLOAD_ENCODINGS: Choices<PayloadEncoding> = Choices {
    default: PayloadEncoding::SimpleJson,
    accepted: &[
        ("simple_json", PayloadEncoding::SimpleJson),
        ("avro_json", PayloadEncoding::AvroJson),
    ],
    unsupported: &[],
};
const CREDENTIALS: Choices<bool> = Choices {
    default: false,
    accepted: &[("cluster", false), ("per-request", true)],
    unsupported: &[],
};
const DATA: Choices<Data> = Choices {
    default: Data::Raw,
    accepted: &[("raw", Data::Raw), ("envelope", Data::Envelope)],
    unsupported: &[],
};
const OVERLOAD: Choices<bool> =
    Choices { default: false, accepted: &[("status", false), ("stream", true)], unsupported: &[] };
const ON_DECODE_ERROR: Choices<OnDecodeError> = Choices {
    default: OnDecodeError::ErrorItem,
    accepted: &[
        ("error-item", OnDecodeError::ErrorItem),
        ("skip", OnDecodeError::Skip),
        ("dlq", OnDecodeError::Dlq),
        ("stop", OnDecodeError::Stop),
    ],
    unsupported: &[],
};
const PATTERN: &str = "topics_pattern";
/// The field of [`Feed::cluster_override`].
pub(crate) const OVERRIDE: &str = "cluster_override";
const CONNECTIONS: &str = "connections_max";
/// As many as have a descriptor on any system.
const CONNECTIONS_RANGE: (usize, usize) = (1, 1_000_000);
const REGISTRY: &str = "schema_registry";
const FIELDS: [&str; 34] = [
    "cluster",
    OVERRIDE,
    "credential",
    "topics",
    PATTERN,
    "entrypoints",
    "qos",
    "group",
    "commit",
    "single_bridge",
    "auto_offset_reset",
    "auto_offset_reset_override",
    "encode_message_id",
    "check_topic_existence",
    "isolation_level",
    "deserializer",
    "key_deserializer",
    REGISTRY,
    "payload_encoding",
    "remove_confluent_header",
    "record_bytes_max",
    CONNECTIONS,
    "origins",
    "sse",
    "pubsub",
    "client_acks",
    "max_unacked",
    "ack_timeout_ms",
    "produce",
    "filter",
    "allow_client_filter",
    "value_expression",
    "on_decode_error",
    "dlq_topic",
];
const SSE_FIELDS: [&str; 5] =
    ["heartbeat_ms", "data", "metadata_as_comment", "headers_as_comment", "overload"];
/// Fields that are specified and would change what readers get.
const UNSUPPORTED_FIELDS: [&str; 1] = ["websocket"];

#[cfg(test)]
mod tests;
