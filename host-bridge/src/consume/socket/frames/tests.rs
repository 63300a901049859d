//! Frames that clients may send, and those that they may not.

use super::*;
use crate::consume::selection::Deserializer as Of;

fn parse_for(feed: &Feed, text: &str) -> Result<Command, (String, Option<String>)> {
    Command::parse(text, feed).map_err(|Fault { refusal, reference }| {
        assert_eq!(refusal.code, Code::InvalidParameter);
        (refusal.message, reference.map(|reference| reference.get().to_owned()))
    })
}

fn parse(text: &str) -> Result<Command, (String, Option<String>)> {
    parse_for(&Feed::of_topics(&["orders"]), text)
}

fn produce(feed: &Feed, fields: &str) -> Produce {
    let frame = format!(r#"{{"type":"produce","ref":1,{fields}}}"#);
    match parse_for(feed, &frame) {
        Ok(Command::Produce(record)) => *record,
        other => panic!("{fields}: {other:?}"),
    }
}

#[test]
fn what_a_client_says_is_understood() {
    let place = r#""topic":"orders","partition":1,"offset""#;
    for (text, expected) in [
        (r#"{"type":"ack","id":"b3JkZXJz"}"#.to_owned(), r#"Ack("b3JkZXJz")"#),
        (
            format!(r#"{{"type":"ack",{place}:9007199254740993}}"#),
            r#"AckUpTo(Place { topic: "orders", partition: 1, offset: 9007199254740993 })"#,
        ),
        (
            format!(r#"{{{place}:"7","type":"nack","reason":"no"}}"#),
            r#"Nack(Place { topic: "orders", partition: 1, offset: 7 }, "no")"#,
        ),
        (
            format!(r#"{{{place}:7,"type":"nack"}}"#),
            r#"Nack(Place { topic: "orders", partition: 1, offset: 7 }, "")"#,
        ),
        (r#" {"type":"pause"} "#.to_owned(), "Pause"),
        (r#"{"type":"\u0072esume","more":1}"#.to_owned(), "Resume"),
        (r#"{"type":"ping","state":{"a":[1.0]}}"#.to_owned(), r#"Ping(Some(({"a":[1.0]})))"#),
        (r#"{"type":"ping"}"#.to_owned(), "Ping(None)"),
    ] {
        let command = parse(&text).map(|command| format!("{command:?}").replace("RawValue", ""));
        assert_eq!(command.as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_record_is_written_as_it_was_read() {
    let (plain, mut of_json) = (Feed::of_topics(&["a"]), Feed::of_topics(&["a"]));
    (of_json.deserializer, of_json.key_deserializer) = (Of::Json, Of::Json);
    for (fields, plain_value, json_value) in [
        (r#""content":"a\nb""#, Some("a\nb"), Some(r#""a\nb""#)),
        (r#""content":{"n": 1.00}"#, Some(r#"{"n": 1.00}"#), Some(r#"{"n": 1.00}"#)),
        (r#""content":12345678901234567890"#, Some("12345678901234567890"), None),
        (r#""content":"aGk=","contentEncoding":"base64""#, Some("hi"), Some("hi")),
        (r#""content":"""#, Some(""), Some(r#""""#)),
    ] {
        let text = |value: Option<&str>| value.map(|value| value.as_bytes().to_vec());
        assert_eq!(produce(&plain, fields).value, text(plain_value), "{fields}");
        let json_value = json_value.or(plain_value);
        assert_eq!(produce(&of_json, fields).value, text(json_value), "{fields}");
    }
    assert_eq!(produce(&of_json, r#""content":null"#).value, None);
    let record = produce(
        &plain,
        r#""content":"v","topic":"t","key":"aw==","keyEncoding":"base64","partition":3,
        "timestamp":"1700000000000","headers":{"b":"1","a":["x",null,{"base64":"AP8="}],"b":[]}"#,
    );
    let headers = [("b", Some(&b"1"[..])), ("a", Some(b"x")), ("a", None), ("a", Some(b"\0\xff"))];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
    assert_eq!(record.headers, headers);
    assert_eq!((record.topic.as_deref(), record.partition), (Some("t"), Some(3)));
    assert_eq!(
        (record.key.as_deref(), record.timestamp_ms),
        (Some(&b"k"[..]), Some(1700000000000))
    );
    assert_eq!(record.reference.unwrap().get(), "1");
}

#[test]
fn what_cannot_be_meant_is_named() {
    let of_ref = |fields: &str| format!(r#"{{"type":"produce","ref":"r",{fields}}}"#);
    for (text, message, has_ref) in [
        ("".to_owned(), "a frame must be a JSON object", false),
        ("{".to_owned(), "a frame: EOF", false),
        (r#"["ack"]"#.to_owned(), "a frame must be a JSON object", false),
        ("hello".to_owned(), "a frame must be a JSON object", false),
        ("{}".to_owned(), "a frame: missing field `type`", false),
        (r#"{"type":5}"#.to_owned(), "a frame: invalid type: integer `5`", false),
        (r#"{"type":"a"} {}"#.to_owned(), "a frame: trailing characters", false),
        (r#"{"type":"subscribe"}"#.to_owned(), "type: there are ack, nack, produce, pause", false),
        (r#"{"type":"ack"}"#.to_owned(), "ack: give an id, or topic, partition", false),
        (r#"{"type":"ack","id":"a","offset":1}"#.to_owned(), "ack: give an id, or", false),
        (r#"{"type":"ack","offset":1.5}"#.to_owned(), "ack: offset must be an integer", false),
        (r#"{"type":"ack","ids":"a"}"#.to_owned(), "ack: unknown field `ids`", false),
        (r#"{"type":"nack","topic":"a","partition":0}"#.to_owned(), "nack: missing field", false),
        (r#"{"type":"produce","content":"a"}"#.to_owned(), "produce: missing field `ref`", false),
        (r#"{"type":"produce","ref":1}"#.to_owned(), "produce: missing field `content`", true),
        (r#"{"type":"produce","ref":{},"content":1}"#.to_owned(), "produce: ref must be", false),
        (of_ref(r#""content":1,"vlaue":2"#), "produce: unknown field `vlaue`", true),
        (of_ref(r#""content":1,"content":2"#), "produce: duplicate field", true),
        (of_ref(r#""content":1,"partition":-1"#), "produce: partition must be a number", true),
        (of_ref(r#""content":1,"timestamp":-1"#), "produce: timestamp must be", true),
        (of_ref(r#""content":1,"timestamp":"now""#), "produce: timestamp must be an int", true),
        (of_ref(r#""content":"?","contentEncoding":"base64""#), "produce: content is not", true),
        (of_ref(r#""content":1,"contentEncoding":"base64""#), "produce: content is not", true),
        (
            of_ref(r#""content":"a","contentEncoding":"hex""#),
            "produce: contentEncoding must be",
            true,
        ),
        (of_ref(r#""content":1,"key":"?","keyEncoding":"base64""#), "produce: key is not", true),
        (
            of_ref(r#""content":1,"headers":{"a":{"base64":"?"}}"#),
            "produce: a value in headers",
            true,
        ),
        (of_ref(r#""content":1,"headers":{"a":1}"#), "produce: a value in headers must be", true),
    ] {
        let (told, reference) = parse(&text).unwrap_err();
        assert!(told.starts_with(message), "{text}: {told}");
        assert_eq!(reference.is_some(), has_ref, "{text}");
    }
    let long = format!(r#"{{"type":"produce","ref":"{}","content":1}}"#, "x".repeat(255));
    assert!(parse(&long).unwrap_err().0.starts_with("produce: ref must be"));
    let deep = format!(r#"{{"type":"ping","state":{}{}}}"#, "[".repeat(9999), "]".repeat(9999));
    assert!(matches!(parse(&deep), Ok(Command::Ping(Some(_)))));
}

#[test]
fn headers_take_no_more_memory_than_a_message_may_have() {
    let frame = |name: usize, values: usize| {
        let (name, values) = ("n".repeat(name), vec!["null"; values].join(","));
        format!(r#"{{"type":"produce","ref":1,"content":1,"headers":{{"{name}":[{values}]}}}}"#)
    };
    // Of 64 KiB, and 200 MB as a record.
    for (name, values) in [(32_000, 6000), (1, 20_000)] {
        let told = parse(&frame(name, values)).unwrap_err().0;
        assert!(told.starts_with("produce: headers take more than 1 MiB"), "{told}");
    }
    assert!(parse(&frame(1000, 900)).is_ok());
}
