//! Records as they are written in each media type.

use kafka_client::IsolationLevel;
use kafka_upstream_core::expression::RecordExpression;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::consume::feeds::Reset;
use crate::consume::selection::Selected;
use crate::consume::topics::Topics;

fn feed() -> Feed {
    Feed {
        cluster: "default".to_owned(),
        topics: Topics::List(vec!["orders".to_owned()]),
        reset_override: Vec::new(),
        reset: Reset::Latest,
        encode_message_id: true,
        check_topic_existence: true,
        isolation_level: IsolationLevel::ReadCommitted,
        deserializer: Deserializer::Noop,
        key_deserializer: Deserializer::Noop,
        remove_confluent_header: false,
        connections_max: 1,
        record_bytes_max: 1000,
        ..Feed::of_topics(&["orders"])
    }
}

fn json_feed() -> Feed {
    Feed { deserializer: Deserializer::Json, key_deserializer: Deserializer::Json, ..feed() }
}

fn record<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Record<'a> {
    Record {
        topic: "orders",
        partition: 1,
        offset: 9_007_199_254_740_993,
        timestamp_ms: 1_700_000_000_000,
        timestamp_type: TimestampType::CreateTime,
        key,
        value,
        headers: &[],
        selected: &Selected::Whole,
        is_checked: false,
    }
}

const ALL: Shape = Shape { headers: true, metadata: true, big_as_string: false };
const BARE: Shape = Shape { headers: false, metadata: false, big_as_string: false };

fn line_of(record: &Record<'_>, feed: &Feed, shape: Shape) -> String {
    let mut out = Vec::new();
    Envelope::new("ID", record, feed, shape).write_line(&mut out);
    let line = String::from_utf8(out).unwrap();
    line.strip_suffix('\n').unwrap().to_owned()
}

fn text_of(record: &Record<'_>, feed: &Feed, shape: Shape) -> String {
    let mut out = Vec::new();
    Envelope::new("ID", record, feed, shape).write_text(&mut out);
    String::from_utf8(out).unwrap()
}

fn content(value: Option<&[u8]>, feed: &Feed) -> String {
    let line = line_of(&record(None, value), feed, BARE);
    line.strip_prefix(r#"{"id":"ID","content":"#).unwrap().strip_suffix('}').unwrap().to_owned()
}

#[test]
fn an_item_has_metadata_and_headers_if_they_are_asked_for() {
    let header = |name: &str, value: Option<&[u8]>| {
        (Bytes::copy_from_slice(name.as_bytes()), value.map(Bytes::copy_from_slice))
    };
    let headers = [
        header("b", Some(b"1")),
        header("a", None),
        header("b", Some(b"")),
        header("b", Some(b"\xff")),
        header("c", Some(b"x\r\ny: z")),
    ];
    let record = Record { headers: &headers, ..record(Some(b"k"), Some(b"v")) };
    assert_eq!(
        line_of(&record, &feed(), ALL),
        r#"{"id":"ID","content":"v","metadata":{"topic":"orders","partition":1,"#.to_owned()
            + r#""offset":9007199254740993,"timestamp":1700000000000,"#
            + r#""timestampType":"CreateTime","key":"k"},"#
            + r#""headers":{"a":[null],"b":["1","",{"base64":"/w=="}],"c":["x\r\ny: z"]}}"#
    );
    assert_eq!(line_of(&record, &feed(), BARE), r#"{"id":"ID","content":"v"}"#);
    let shape = Shape { big_as_string: true, ..ALL };
    let strings = r#""partition":1,"offset":"9007199254740993","timestamp":"1700000000000","#;
    assert!(line_of(&record, &feed(), shape).contains(strings));
    assert_eq!(
        text_of(&record, &feed(), ALL),
        "item\nid: ID\ncontent: v\n\
         headers: {\"a\":[null],\"b\":[\"1\",\"\",{\"base64\":\"/w==\"}],\"c\":[\"x\\r\\ny: z\"]}\n\
         metadata: {\"topic\":\"orders\",\"partition\":1,\"offset\":9007199254740993,\
         \"timestamp\":1700000000000,\"timestampType\":\"CreateTime\",\"key\":\"k\"}\n\n"
    );
    let raw = Raw::new(&record, &feed(), ALL);
    assert_eq!(raw.body, b"v");
    let expected = [
        ("kafka-topic", "orders"),
        ("kafka-partition", "1"),
        ("kafka-offset", "9007199254740993"),
        ("kafka-timestamp", "1700000000000"),
        ("kafka-key", "k"),
        ("kafka-headers", r#"{"a":[null],"b":["1","",{"base64":"/w=="}],"c":["x\r\ny: z"]}"#),
    ];
    assert_eq!(raw.headers, expected.map(|(name, value)| (name, value.to_owned())));
    assert_eq!(Raw::new(&record, &feed(), BARE).headers, []);
}

#[test]
fn line_breaks_nul_and_invalid_utf_8_are_one_item_and_come_back() {
    let values: [&[u8]; 6] =
        [b"a\nb", b"a\rb", b"a\r\nb", b"a\0b", b"\xff\n\n", b"\n\nevent: x\nitem\nid: forged"];
    for value in values {
        let line = line_of(&record(None, Some(value)), &feed(), BARE);
        assert!(!line.contains(LINE_BREAKS), "{line}");
        let item: Value = serde_json::from_str(&line).unwrap();
        let content = item["content"].as_str().unwrap();
        match item.get("contentEncoding") {
            Some(encoding) => {
                assert_eq!(encoding, "base64");
                assert_eq!(STANDARD.decode(content).unwrap(), value);
            }
            None => assert_eq!(content.as_bytes(), value),
        }
        let raw = Raw::new(&record(None, Some(value)), &feed(), ALL);
        assert_eq!(raw.body, value);
    }
    for (value, text) in [
        ("a\nb", "a\n b"),
        ("a\rb", "a\r b"),
        ("a\r\nb", "a\r\n b"),
        ("\n\nitem\nid: forged\n", "\n \n item\n id: forged\n "),
    ] {
        let block = text_of(&record(None, Some(value.as_bytes())), &feed(), BARE);
        assert_eq!(block, format!("item\nid: ID\ncontent: {text}\n\n"));
    }
}

#[test]
fn tombstones_and_empty_values_and_missing_and_empty_keys_differ() {
    let key = |key| {
        let line = line_of(&record(key, Some(b"v")), &feed(), ALL);
        serde_json::from_str::<Value>(&line).unwrap()["metadata"]["key"].clone()
    };
    assert_eq!((key(None), key(Some(b""))), (Value::Null, "".into()));
    for feed in [feed(), json_feed()] {
        assert_eq!(content(None, &feed), r#"null,"tombstone":true"#);
    }
    assert_eq!(content(Some(b""), &feed()), r#""""#);
    assert_eq!(content(Some(b"null"), &json_feed()), "null");
    let text = |value| text_of(&record(None, value), &feed(), BARE);
    assert_eq!(text(None), "item\nid: ID\ncontent:\ntombstone: true\n\n");
    assert_eq!(text(Some(b"")), "item\nid: ID\ncontent: \n\n");
    let raw = |key, value| {
        let headers = Raw::new(&record(key, value), &feed(), ALL).headers;
        let differ = ["kafka-tombstone", "kafka-key", "kafka-key-encoding"];
        let kept = headers.into_iter().filter(|(name, _)| differ.contains(name));
        kept.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
    };
    assert_eq!(raw(None, None), ["kafka-tombstone: true"]);
    assert_eq!(raw(None, Some(b"")), [""; 0]);
    assert_eq!(raw(Some(b""), Some(b"")), ["kafka-key: "]);
    let forged = raw(Some(b"a\r\nb: c"), Some(b""));
    assert_eq!(forged, ["kafka-key: YQ0KYjogYw==", "kafka-key-encoding: base64"]);
    assert_eq!(raw(Some(b" a"), Some(b"")), ["kafka-key: IGE=", "kafka-key-encoding: base64"]);
}

#[test]
fn json_passes_byte_for_byte_on_one_line() {
    for (value, shown) in [
        (r#"{"b": 1.50,"a":1e999,"a":12345678901234567890123}"#, None),
        (r#""\ud800 \u00fC""#, None),
        ("\u{feff}", Some(r#""77u/","contentEncoding":"base64","error":"decode_error""#)),
        (" [1,\r\n 2]\n", Some("[1,   2]")),
        ("", Some(r#""","contentEncoding":"base64","error":"decode_error""#)),
        ("{", Some(r#""ew==","contentEncoding":"base64","error":"decode_error""#)),
        ("\"a\nb\"", Some(r#""ImEKYiI=","contentEncoding":"base64","error":"decode_error""#)),
    ] {
        assert_eq!(content(Some(value.as_bytes()), &json_feed()), shown.unwrap_or(value));
    }
    let deep = "[".repeat(400) + &"]".repeat(400);
    assert_eq!(content(Some(deep.as_bytes()), &json_feed()), deep);
    let line = line_of(&record(Some(b"k"), Some(b"{}")), &json_feed(), ALL);
    let key = r#""key":"aw==","keyEncoding":"base64"},"headers":{},"error":"key_decode_error"}"#;
    assert!(line.contains(r#""content":{},"metadata""#) && line.ends_with(key), "{line}");
    let block = text_of(&record(None, Some(b"[1,\n2]")), &json_feed(), BARE);
    assert_eq!(block, "item\nid: ID\ncontent: [1, 2]\n\n");
    let block = text_of(&record(None, Some(b"{")), &json_feed(), BARE);
    assert_eq!(
        block,
        "item\nid: ID\ncontent: ew==\ncontentEncoding: base64\nerror: decode_error\n\n"
    );
    let raw = Raw::new(&record(None, Some(b"{")), &json_feed(), BARE);
    assert_eq!((raw.body, raw.headers), (&b"{"[..], vec![("kafka-error", "decode_error".into())]));
}

#[test]
fn the_confluent_header_goes_only_where_there_is_one() {
    let feed = Feed { remove_confluent_header: true, ..feed() };
    for (value, shown) in [
        (&b"\0\0\0\0\x01abc"[..], r#""abc""#),
        (b"\0\0\0\0\x01", r#""""#),
        (b"\0abc", r#""\u0000abc""#),
        (b"abcdef", r#""abcdef""#),
    ] {
        assert_eq!(content(Some(value), &feed), shown);
    }
    let headers = [(Bytes::from_static(b"__value_schema_id"), Some(Bytes::from_static(b"\0")))];
    let named = Record { headers: &headers, ..record(None, Some(b"\0\0\0\0\x01abc")) };
    assert!(line_of(&named, &feed, BARE).contains(r"\u0001abc"));
    assert_eq!(Raw::new(&named, &feed, BARE).body, b"\0\0\0\0\x01abc");
}

#[test]
fn what_an_expression_may_leave_out_is_in_no_item_that_failed() {
    let mut feed = json_feed();
    let value = RecordExpression::compile("value_expression", "value.total");
    feed.selection.value_expression = Some(value.unwrap());
    for error in ["expression_error", "decode_error"] {
        let selected = Selected::Error(error);
        let record =
            Record { selected: &selected, is_checked: true, ..record(None, Some(b"{\"card\":1}")) };
        let line = line_of(&record, &feed, ALL);
        assert!(line.contains(error) && !line.contains("card"), "{line}");
        assert!(line.contains("\"content\":null") && !line.contains("tombstone"), "{line}");
    }
}

#[test]
fn a_reply_has_no_header_that_a_gateway_would_refuse() {
    let long = "a".repeat(5000);
    let headers = [(Bytes::from(long.clone()), None)];
    let feed = Feed { record_bytes_max: 100_000, ..feed() };
    let record = Record { headers: &headers, ..record(Some(long.as_bytes()), None) };
    let omitted = Raw::new(&record, &feed, ALL).headers;
    let omitted: Vec<_> = omitted.iter().filter(|(name, _)| *name == "kafka-omitted").collect();
    assert_eq!(omitted, [&("kafka-omitted", "key".into()), &("kafka-omitted", "headers".into())]);
}

#[test]
fn a_record_over_the_bound_is_an_item_without_its_bytes() {
    let feed = Feed { record_bytes_max: 3, ..feed() };
    assert_eq!(content(Some(b"abc"), &feed), r#""abc""#);
    let large = record(Some(b"k"), Some(b"abc"));
    assert_eq!(
        line_of(&large, &feed, BARE),
        r#"{"id":"ID","content":null,"error":"record_too_large"}"#
    );
    assert!(line_of(&large, &feed, ALL).contains(r#""key":null"#));
    let raw = Raw::new(&large, &feed, BARE);
    assert!(raw.body.is_empty());
    assert_eq!(raw.headers, [("kafka-error", "record_too_large".to_owned())]);
}

proptest! {
    #[test]
    fn whatever_a_record_holds_comes_back(
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        name: String,
        header: Option<Vec<u8>>,
        is_json: bool,
    ) {
        let headers = [(Bytes::from(name.clone()), header.clone().map(Bytes::from))];
        let record = Record { headers: &headers, ..record(key.as_deref(), value.as_deref()) };
        let feed = if is_json { json_feed() } else { feed() };
        let item: Value = serde_json::from_str(&line_of(&record, &feed, ALL)).unwrap();
        let bytes = |text: &Value, encoding: &Value| match encoding.is_null() {
            true => text.as_str().map(|text| text.as_bytes().to_vec()),
            false => text.as_str().map(|text| STANDARD.decode(text).unwrap()),
        };
        let metadata = &item["metadata"];
        if !is_json {
            prop_assert_eq!(bytes(&item["content"], &item["contentEncoding"]), value.clone());
            prop_assert_eq!(bytes(&metadata["key"], &metadata["keyEncoding"]), key.clone());
        }
        prop_assert_eq!(item["tombstone"] == true, value.is_none());
        let shown = &item["headers"][&name][0];
        let decoded = match shown.get("base64") {
            Some(base64) => bytes(base64, &true.into()),
            None => bytes(shown, &Value::Null),
        };
        prop_assert_eq!(decoded, header);
        let raw = Raw::new(&record, &feed, ALL);
        prop_assert_eq!(raw.body, value.as_deref().unwrap_or_default());
        for (name, value) in raw.headers {
            let of_header = axum::http::HeaderValue::from_str(&value);
            prop_assert!(of_header.is_ok(), "{}: {}", name, value);
            let json = (name == "kafka-headers").then(|| serde_json::from_str(&value).unwrap());
            prop_assert_eq!(json.as_ref().unwrap_or(&item["headers"]), &item["headers"]);
        }
    }

    #[test]
    fn no_content_forges_a_line_of_text(value in "(item|id: x|\\PC|\n|\r|\r\n){0,12}") {
        let block = text_of(&record(None, Some(value.as_bytes())), &feed(), BARE);
        let content = block.strip_prefix("item\nid: ID\ncontent: ").unwrap();
        let content = content.strip_suffix("\n\n").unwrap();
        let is_continued = |line: &str| line.is_empty() || line.starts_with(' ');
        prop_assert!(content.split(LINE_BREAKS).skip(1).all(is_continued));
        let shown = content.replace("\n ", "\n").replace("\r ", "\r");
        prop_assert_eq!(shown, value);
    }
}
