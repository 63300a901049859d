//! Records by the schemas of a registry: what readers get, and what holds them.

use std::time::Duration;

use kafka_client::Record;
use kafka_upstream_core::expression::RecordExpression;
use kafka_upstream_schema::{Document, Schema, SchemaType};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::consume::envelope::{Envelope, Shape};
use crate::consume::fixture::{Fixture, WITHIN};
use crate::consume::follow::Follower;
use crate::consume::page::Page;
use crate::consume::query::Query;
use crate::consume::reader::FeedReader;
use crate::consume::selection::{OnDecodeError, Selected};
use crate::consume::start::{Given, Start};
use crate::registry::fixture::FakeRegistry;

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"note","type":["null","string"]}]}"#;
const KEY: &str = r#"{"type":"object","properties":{"id":{"type":"integer"}}}"#;
const NESTED: &str = "syntax = \"proto3\"; message A { message B { int64 n = 1; } }";
const GUID: [u8; 16] = [7; 16];

struct Registered {
    fixture: Fixture,
    fake: FakeRegistry,
    registry: Arc<Registry>,
}

impl Registered {
    /// Avro has id 1, JSON Schema 2 and a GUID, Protobuf 3.
    async fn start() -> Self {
        Self::with_memory(1 << 30).await
    }

    async fn with_memory(bytes: usize) -> Self {
        let fake = FakeRegistry::start().await;
        let put = |path: &str, kind: &str, schema: &str| {
            fake.put(path, 200, &json!({ "schemaType": kind, "schema": schema }).to_string());
        };
        put("/schemas/ids/1", "AVRO", ORDER);
        put("/schemas/ids/2", "JSON", KEY);
        put("/schemas/guids/07070707-0707-0707-0707-070707070707", "JSON", KEY);
        put("/schemas/ids/3", "PROTOBUF", NESTED);
        put("/schemas/ids/4", "AVRO", r#"{"type":"array","items":"null"}"#);
        put("/schemas/ids/5", "AVRO", "no schema");
        let registry = Arc::new(Registry::new("main".to_owned(), &fake.connection()));
        let fixture = Fixture::new(&[1], bytes);
        fixture.cluster.create_topic("dead", &[1]);
        Self { fixture, fake, registry }
    }

    fn reader(&self, change: impl FnOnce(&mut Feed)) -> Arc<FeedReader> {
        let reader = self.fixture.reader(|feed| {
            feed.deserializer = Deserializer::SchemaRegistry;
            change(feed);
        });
        let reader = Arc::unwrap_or_clone(reader);
        Arc::new(reader.decoding(Some(Arc::clone(&self.registry))))
    }
}

/// An order in Avro, without the id in front.
fn order(json: &str) -> Vec<u8> {
    let (schema_type, text) = (SchemaType::Avro, ORDER.to_owned());
    let schema = Schema::parse(&Document { schema_type, text, references: Vec::new() }).unwrap();
    schema.encode(json.as_bytes(), PayloadEncoding::SimpleJson).unwrap().bytes
}

fn framed(id: u32, payload: &[u8]) -> Vec<u8> {
    wire::prefixed(id, &[], payload)
}

/// A page from the log start: its items, and why there are no more.
async fn page(
    reader: &Arc<FeedReader>,
    query: &str,
) -> Result<(Vec<Value>, Option<Code>), Refusal> {
    let query = Query::parse(&format!("from=earliest&{query}"), None).unwrap();
    let page = Page::read(reader, &query, None, &CancellationToken::new()).await?;
    let shape = Shape { headers: false, metadata: true, big_as_string: false };
    let mut items = Vec::new();
    for place in 0..page.len() {
        page.look_at(place, |id, record| {
            let mut json = Vec::new();
            Envelope::new(id, &record, &reader.feed, shape).write(&mut json);
            items.push(serde_json::from_slice::<Value>(&json).unwrap());
        });
    }
    Ok((items, page.error.map(|refusal| refusal.code)))
}

fn part<'a>(items: &'a [Value], pointer: &str) -> Vec<&'a Value> {
    items.iter().map(|item| item.pointer(pointer).unwrap_or(&Value::Null)).collect()
}

#[tokio::test]
async fn keys_and_values_are_the_json_of_their_schemas() {
    let it = Registered::start().await;
    let large = order(r#"{"id":9007199254740993,"note":"ü"}"#);
    let order_header = wire::header(wire::SchemaId::Number(1), &[]);
    let (key_header, nested) = (wire::header(wire::SchemaId::Guid(GUID), &[]), [4, 0, 0, 8, 2]);
    let index_header = wire::header(wire::SchemaId::Number(3), &[4, 0, 0]);
    let of = |header: &'static str, value| [(header.as_bytes(), Some(value))];
    let framed_key = framed(2, b"{\"id\": 1}");
    for (key, value, headers) in [
        (&framed_key[..], Some(framed(1, &large)), &[][..]),
        (b"{\"id\":2}", Some(framed(1, &large)), &of(KEY_HEADER, &*key_header)),
        (&framed_key, Some(large), &of(VALUE_HEADER, &*order_header)),
        (&framed_key, Some(framed(3, &nested)), &[]),
        (&framed_key, Some(vec![8, 2]), &of(VALUE_HEADER, &*index_header)),
        (&framed_key, None, &[]),
    ] {
        let record =
            Record { key: Some(key), value: value.as_deref(), headers, ..Record::new(b"") };
        it.fixture.send(record).await;
    }
    it.fixture.write(0, &framed(1, &order(r#"{"id":1,"note":null}"#))).await;
    let reader = it.reader(|feed| feed.key_deserializer = Deserializer::SchemaRegistry);
    let (items, error) = page(&reader, "min=7").await.unwrap();
    assert_eq!(error, None);
    assert!(items.iter().all(|item| item.get("error").is_none()), "{items:?}");
    let exact: Value = serde_json::from_str(r#"{"id":9007199254740993,"note":"ü"}"#).unwrap();
    let (n, null) = (json!({ "n": "2" }), Value::Null);
    let last = json!({ "id": 1, "note": null });
    assert_eq!(part(&items, "/content"), [&exact, &exact, &exact, &n, &n, &null, &last]);
    let (one, two) = (json!({ "id": 1 }), json!({ "id": 2 }));
    assert_eq!(part(&items, "/metadata/key"), [&one, &two, &one, &one, &one, &one, &null]);
    assert_eq!(part(&items, "/tombstone")[5], true);
    let (items, _) =
        page(&it.reader(|feed| feed.deserializer = Deserializer::Noop), "").await.unwrap();
    assert_eq!(items[0]["contentEncoding"], "base64", "nobody decodes it");
}

#[tokio::test]
async fn expressions_see_what_is_decoded_and_each_record_is_decoded_once() {
    let it = Registered::start().await;
    for id in 0..3 {
        let value = framed(1, &order(&format!(r#"{{"id":{id},"note":"a"}}"#)));
        let key = framed(2, format!("{{\"id\":{id}}}").as_bytes());
        it.fixture.send(Record { key: Some(&key), ..Record::new(&value) }).await;
    }
    let expression = |source| RecordExpression::compile("filter", source).ok();
    let per_client = it.reader(|feed| {
        feed.key_deserializer = Deserializer::SchemaRegistry;
        feed.selection.filter = expression("value.id == 1 && key.id == 1 && client != null");
    });
    let mut pointers = Vec::new();
    for _ in 0..2 {
        let reader = per_client.held_to(None, crate::consume::selection::Identity::default());
        let start = Given::From(Start::Earliest);
        let mut follower = Follower::open(reader, &start, None, WITHIN).await.unwrap();
        let until = tokio::time::Instant::now() + WITHIN;
        let before = pointers.len();
        while pointers.len() == before {
            let portions = follower.more(until, WITHIN).await.unwrap();
            let taken = follower.take(portions, |taken| {
                let Selected::Changed { value: Some(value), .. } = taken.selected else {
                    panic!("{:?}", taken.selected)
                };
                pointers.push(value.bytes.unwrap().as_ptr());
                false
            });
            taken.unwrap();
        }
    }
    assert_eq!(pointers[0], pointers[1], "by one reader for all");
    let changed = it.reader(|feed| {
        feed.selection.value_expression = expression("{'twice': value.id * 2}");
    });
    let (items, _) = page(&changed, "min=3").await.unwrap();
    assert_eq!(part(&items, "/content/twice"), [0, 2, 4]);
}

#[tokio::test]
async fn what_cannot_be_decoded_goes_the_way_of_on_decode_error() {
    let it = Registered::start().await;
    let bomb = [&[0x80, 0x89, 0x7a][..], &[0]].concat();
    let bad = [
        &b"{}"[..],
        b"\0\0\0",
        &framed(1, b"\xff"),
        &framed(3, &[4, 0, 9, 8, 2]),
        &framed(5, b""),
        &framed(4, &bomb),
        &framed(2, b"{\"id\":"),
    ];
    for value in bad {
        it.fixture.write(0, value).await;
    }
    let good = framed(1, &order(r#"{"id":1,"note":null}"#));
    it.fixture.write(0, &good).await;
    let reader = |on_decode_error, change: fn(&mut Feed)| {
        it.reader(|feed| {
            feed.record_bytes_max = 1_000_000;
            feed.selection.on_decode_error = on_decode_error;
            feed.selection.dlq_topic = Some("dead".to_owned());
            change(feed);
        })
    };
    let (items, _) = page(&reader(OnDecodeError::ErrorItem, |_| ()), "min=8").await.unwrap();
    assert_eq!(part(&items, "/error")[..7], ["decode_error"; 7]);
    assert_eq!(part(&items, "/contentEncoding")[..7], ["base64"; 7]);
    assert_eq!((&items[0]["content"], &items[7]["content"]["id"]), (&json!("e30="), &json!(1)));
    let (items, _) = page(&reader(OnDecodeError::Skip, |_| ()), "").await.unwrap();
    assert_eq!(part(&items, "/metadata/offset"), [7]);
    let refusal = page(&reader(OnDecodeError::Stop, |_| ()), "").await.unwrap_err();
    assert_eq!(refusal.code, Code::DecodeError);
    assert!(refusal.message.ends_with("offset 0: the value cannot be decoded"), "{refusal}");
    let (items, _) = page(&reader(OnDecodeError::Dlq, |_| ()), "").await.unwrap();
    assert_eq!(part(&items, "/metadata/offset"), [7]);
    let dead = it.fixture.cluster.log("dead", 0);
    let dead: Vec<_> = dead.iter().map(|record| record.value.as_deref().unwrap()).collect();
    assert_eq!(dead, bad, "as they are");
    // A key that fails is an error, too, and the value of such an item is sent as it is.
    it.fixture.send(Record { key: Some(b"raw"), ..Record::new(&good) }).await;
    let keys = reader(OnDecodeError::ErrorItem, |feed| {
        feed.key_deserializer = Deserializer::SchemaRegistry;
    });
    let (items, _) = page(&keys, "min=9").await.unwrap();
    assert_eq!(
        (&items[8]["error"], &items[8]["metadata"]["key"]),
        (&json!("key_decode_error"), &json!("cmF3"))
    );
}

#[tokio::test]
async fn a_registry_that_is_away_holds_the_position() {
    let it = Registered::start().await;
    for id in [1, 2] {
        it.fixture.write(0, &framed(id, &order(r#"{"id":1,"note":null}"#)[..1])).await;
    }
    it.fake.put("/schemas/ids/1", 200, &json!({ "schema": "\"long\"" }).to_string());
    it.fake.put("/schemas/ids/2", 503, "");
    let reader = it.reader(|_| {});
    let (items, error) = page(&reader, "timeout=300&min=2").await.unwrap();
    assert_eq!((items.len(), error), (1, Some(Code::RegistryUnavailable)));
    it.fake.answer_all(Some((401, "")));
    let other = Arc::new(Registry::new("other".to_owned(), &it.fake.connection()));
    let refused = Arc::new(Arc::unwrap_or_clone(it.reader(|_| {})).decoding(Some(other)));
    let refusal = page(&refused, "timeout=300").await.unwrap_err();
    assert_eq!(refusal.code, Code::RegistryUnavailable);
    assert_eq!(
        refusal.message,
        "the schema registry `other` does not give the schema of a record now"
    );
    it.fake.answer_all(None);
    // A reader that waited goes on, with the answer or at the next try.
    let start = Given::From(Start::Earliest);
    let mut follower = Follower::open(reader, &start, None, WITHIN).await.unwrap();
    assert_eq!(follower.next_records(WITHIN).await.len(), 1);
    assert_eq!(follower.next_records(Duration::from_millis(300)).await, []);
    it.fake.put("/schemas/ids/2", 200, &json!({ "schema": "\"long\"" }).to_string());
    assert_eq!(follower.next_records(WITHIN).await.len(), 1);
}

#[tokio::test]
async fn small_records_that_are_large_texts_are_decoded_as_they_are_needed() {
    let it = Registered::start().await;
    let value = framed(4, &[0x80, 0x89, 0x7a, 0]);
    for _ in 0..20 {
        it.fixture.write(0, &value).await;
    }
    let reader = it.reader(|_| {});
    let start = Given::From(Start::Earliest);
    let mut follower = Follower::open(reader, &start, None, WITHIN).await.unwrap();
    let before = it.fixture.resources.memory.used();
    let portions = loop {
        let until = tokio::time::Instant::now() + WITHIN;
        let portions = follower.more(until, WITHIN).await.unwrap();
        if !portions.is_empty() {
            break portions;
        }
    };
    let mut count = 0;
    follower
        .take(portions, |_| {
            count += 1;
            false
        })
        .unwrap();
    assert_eq!(count, 1);
    let held = it.fixture.resources.memory.used() - before;
    assert!((5_000_000..6_000_000).contains(&held), "{held}");
}

#[tokio::test]
async fn many_small_records_that_are_large_texts_take_no_more_memory_than_readers_have() {
    const MEMORY: usize = 4 << 20;
    let it = Registered::with_memory(MEMORY).await;
    // 100,000 nulls, some 500 KB of JSON.
    let value = framed(4, &[0xc0, 0x9a, 0x0c, 0]);
    for _ in 0..60 {
        it.fixture.write(0, &value).await;
    }
    let reader = it.reader(|_| {});
    let (mut start, mut count) = ("from=earliest".to_owned(), 0);
    while count < 60 {
        let query = Query::parse(&format!("{start}&max_bytes=1000000"), None).unwrap();
        let page = Page::read(&reader, &query, None, &CancellationToken::new()).await.unwrap();
        assert!(page.len() > 0, "after {count}: {:?}", page.error);
        count += page.len();
        let used = it.fixture.resources.memory.used();
        assert!(used < MEMORY + (1 << 20), "{used} after {count}");
        start = format!("cursor={}", page.cursor.replace('=', "%3D").replace('+', "%2B"));
    }
}
