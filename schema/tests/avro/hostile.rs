//! Schemas, documents and payloads that were made to do harm: an error in bounded memory and time.

use std::time::{Duration, Instant};

use kafka_upstream_schema::limits::OUTPUT_BYTES_MAX;
use kafka_upstream_schema::{PayloadEncoding, Schema};

use super::memory::peak;
use super::{AvroJson, SimpleJson, document, record, schema};

const MIB: usize = 1024 * 1024;

/// For a build without optimization, on a machine that does other things.
const LONGEST: Duration = Duration::from_secs(30);

/// What `work` gives, within `bytes` and the longest time.
#[track_caller]
fn bounded<T>(what: &str, bytes: usize, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let (result, held) = peak(work);
    let took = start.elapsed();
    println!("{what}: {} KiB, {} ms", held / 1024, took.as_millis());
    assert!(held <= bytes, "{what}: {held} bytes");
    assert!(took < LONGEST, "{what}: {took:?}");
    result
}

/// The reason for which a document is refused.
#[track_caller]
fn refused(what: &str, schema: &Schema, json: &str, encoding: PayloadEncoding) -> String {
    let bytes = 64 * json.len() + 4 * OUTPUT_BYTES_MAX;
    let refused = bounded(what, bytes, || schema.encode(json.as_bytes(), encoding));
    refused.unwrap_err().reason
}

/// The reason for which a payload is refused.
#[track_caller]
fn undecodable(what: &str, schema: &Schema, payload: &[u8]) -> String {
    let bytes = 64 * payload.len() + 4 * OUTPUT_BYTES_MAX;
    bounded(what, bytes, || schema.decode(None, payload, SimpleJson)).unwrap_err().reason
}

/// `before` and `after` around each other.
fn nested(levels: usize, before: &str, inside: &str, after: &str) -> String {
    before.repeat(levels) + inside + &after.repeat(levels)
}

/// `item` as often as a mebibyte holds it.
fn many(item: impl Fn(usize) -> String) -> String {
    let (mut text, mut number) = (String::new(), 0);
    while text.len() < MIB - 4096 {
        if number > 0 {
            text.push(',');
        }
        text += &item(number);
        number += 1;
    }
    text
}

#[test]
fn schemas_take_bounded_memory() {
    let array = r#"{"type":"array","items":"#;
    let field = |number: usize| format!(r#"{{"name":"f{number}","type":"int","default":0}}"#);
    for (what, text, expected) in [
        ("brackets", "[".repeat(MIB), Some("levels")),
        ("arrays", nested(40_000, array, "\"int\"", "}"), Some("levels")),
        ("arrays, 65 levels", nested(64, array, "\"int\"", "}"), Some("levels")),
        ("arrays, 64 levels", nested(63, array, "\"int\"", "}"), None),
        ("types in types", nested(65, "{\"type\":", "\"int\"", "}"), Some("levels")),
        ("fields", record(&many(field)), None),
        ("fields without an end", record(&many(field))[..MIB / 2].to_owned(), Some("no JSON")),
        ("branches", format!("[{}]", many(|_| "\"int\"".to_owned())), Some("twice")),
        (
            "symbols",
            format!(r#"{{"type":"enum","name":"E","symbols":[{}]}}"#, many(|n| format!("\"{n}\""))),
            None,
        ),
        ("members", format!("{{{}}}", many(|_| "\"a\":0".to_owned())), Some("no `type`")),
        ("beyond 1 MiB", " ".repeat(MIB) + "\"int\"", Some("larger than 1 MiB")),
    ] {
        let parsed = bounded(what, 96 * MIB, || Schema::parse(&document(&text, &[])));
        match (parsed, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{what}: {error}");
                assert!(error.to_string().len() < 1024, "{what}");
            }
            (parsed, _) => panic!("{what}: {parsed:?}"),
        }
    }
    let name = "n".repeat(MIB / 2);
    let error = Schema::parse(&document(&format!("\"{name}\""), &[])).unwrap_err();
    assert!(error.to_string().len() < 1024);
}

#[test]
fn records_at_every_level_are_held_once() {
    let fields = (0..20_000).map(|n| format!(r#"{{"name":"f{n}","type":"int"}}"#));
    let mut text = record(&fields.collect::<Vec<_>>().join(","));
    for level in 0..60 {
        text = format!(
            r#"{{"type":"record","name":"L{level}","fields":[{{"name":"a","type":{text}}}]}}"#
        );
    }
    bounded("records", 64 * MIB, || Schema::parse(&document(&text, &[]))).unwrap();
}

#[test]
fn schemas_that_refer_to_themselves_end() {
    let endless = schema(&record(r#"{"name":"a","type":"R"}"#));
    assert_eq!(undecodable("endless", &endless, &[]), "the document has too many levels");
    assert!(refused("endless", &endless, "{}", SimpleJson).contains("missing"));
    let defaults = schema(&record(r#"{"name":"a","type":"R","default":{}}"#));
    assert!(refused("its own default", &defaults, "{}", SimpleJson).contains("levels"));
    let list = schema(&record(r#"{"name":"a","type":["null","R"]}"#));
    let json = |levels| nested(levels, r#"{"a":"#, "null", "}");
    assert!(refused("list", &list, &json(65), SimpleJson).contains("levels"));
    assert!(refused("list", &list, &json(100_000), SimpleJson).contains("levels"));
    let payload = [vec![2; 63], vec![0]].concat();
    let encoded = list.encode(json(64).as_bytes(), SimpleJson).unwrap().bytes;
    assert_eq!(encoded, payload);
    let tagged = list.decode(None, &payload, AvroJson).unwrap();
    assert_eq!(list.encode(&tagged, AvroJson).unwrap().bytes, payload);
    assert!(undecodable("list", &list, &vec![2; MIB]).contains("levels"));
}

#[test]
fn a_decimal_of_many_bytes_is_refused() {
    for size in [1_u64 << 31, 1 << 40, i64::MAX as u64, u64::MAX] {
        let decimal = schema(&format!(
            r#"{{"type":"fixed","name":"F","size":{size},"logicalType":"decimal","precision":4}}"#
        ));
        let reason = refused("decimal", &decimal, "1", SimpleJson);
        assert_eq!(reason, "its payload is larger than 16 MiB");
    }
}

#[test]
fn defaults_that_double_at_each_level_end() {
    let mut text = r#"{"type":"record","name":"L0","fields":[
        {"name":"a","type":"string","default":"many"}]}"#
        .to_owned();
    for level in 1..40 {
        let inner = level - 1;
        text = format!(
            r#"{{"type":"record","name":"L{level}","fields":[{{"name":"a","type":{text},"default":{{}}}},
                {{"name":"b","type":"L{inner}","default":{{}}}}]}}"#
        );
    }
    let reason = refused("doubling defaults", &schema(&text), "{}", SimpleJson);
    assert!(reason.contains("too many values"), "{reason}");
    let default = "x".repeat(500_000);
    let fields = format!(r#"{{"name":"a","type":"string","default":"{default}"}}"#);
    let array = schema(&format!(r#"{{"type":"array","items":{}}}"#, record(&fields)));
    let reason =
        refused("large defaults", &array, &format!("[{}]", many(|_| "{}".into())), SimpleJson);
    assert_eq!(reason, "its payload is larger than 16 MiB");
}

#[test]
fn records_of_many_fields_cost_what_they_have() {
    let fields: Vec<_> =
        (0..20_000).map(|n| format!(r#"{{"name":"f{n}","type":"null"}}"#)).collect();
    let array = schema(&format!(r#"{{"type":"array","items":{}}}"#, record(&fields.join(","))));
    let reason =
        refused("null fields", &array, &format!("[{}]", many(|_| "{}".into())), SimpleJson);
    assert!(reason.contains("too many values"), "{reason}");
}

#[test]
fn unions_that_fail_at_their_innermost_end() {
    let fields =
        r#"{"name":"n","type":["null","A","B","C"]},{"name":"x","type":"boolean","default":true}"#;
    let branch = |name| format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#);
    let text = branch("A").replace("\"B\"", &branch("B").replace("\"C\"", &branch("C")));
    let json = nested(60, r#"{"n":"#, r#"{"x":0}"#, "}");
    let reason = refused("unions", &schema(&text), &json, SimpleJson);
    assert!(reason.contains("too many values"), "{reason}");
    let names: Vec<_> =
        (0..10_000).map(|n| format!(r#"{{"type":"fixed","name":"F{n}","size":9}}"#)).collect();
    let array = schema(&format!(r#"{{"type":"array","items":[{}]}}"#, names.join(",")));
    let json = format!("[{}]", many(|_| "0".into()));
    assert!(refused("branches", &array, &json, SimpleJson).starts_with("fits no branch"));
    assert!(refused("branches", &array, &json, AvroJson).starts_with("must be an object"));
    let enums = schema(&format!(
        r#"{{"type":"array","items":[{{"type":"enum","name":"E","symbols":[{}]}},"int"]}}"#,
        (0..10_000).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(",")
    ));
    bounded("symbols", 128 * MIB, || enums.encode(json.as_bytes(), SimpleJson)).unwrap();
}

#[test]
fn branches_that_read_long_texts_again_end() {
    let branch = |n: usize| {
        let fields = r#"{"name":"a","type":"bytes"},{"name":"b","type":"int"}"#;
        format!(r#"{{"type":"record","name":"R{n}","fields":[{fields}]}}"#)
    };
    let branches: Vec<_> = (0..10_000).map(branch).collect();
    let union = schema(&format!("[{}]", branches.join(",")));
    let text = "AAAA".repeat(MIB / 4);
    for (what, json) in [
        ("long texts", format!(r#"{{"a":"{text}","b":""}}"#)),
        ("long names", format!(r#"{{"{text}":0}}"#)),
        ("long numbers", format!(r#"{{"a":"","b":{}.0}}"#, "1".repeat(MIB))),
    ] {
        let reason = refused(what, &union, &json, SimpleJson);
        assert!(reason.contains("too many values"), "{what}: {reason}");
    }
    let map = r#"{"type":"map","values":["null","R"]}"#;
    let list = schema(
        &record(&format!(r#"{{"name":"x","type":{map}}}"#))
            .replace("[\"null\",\"R\"]", &format!("[\"null\",\"R\",{map}]")),
    );
    let key = "k".repeat(MIB / 64);
    let json = nested(30, &format!(r#"{{"x":{{"{key}":"#), "0", "}}");
    refused("long keys", &list, &json, SimpleJson);
}

#[test]
fn documents_take_bounded_memory() {
    let numbers = schema(r#"{"type":"array","items":"long"}"#);
    let json = format!("[{}]", many(|_| "1".into()));
    bounded("numbers", 64 * MIB, || numbers.encode(json.as_bytes(), SimpleJson)).unwrap();
    let map = schema(r#"{"type":"map","values":"null"}"#);
    let json = format!("{{{}}}", many(|n| format!("\"{n:x}\":null")));
    bounded("members", 64 * MIB, || map.encode(json.as_bytes(), SimpleJson)).unwrap();
    let json = format!("{{{}}}", many(|_| "\"\":null".into()));
    assert_eq!(refused("repeated", &map, &json, SimpleJson), "it comes twice");
    assert!(refused("brackets", &map, &"[".repeat(MIB), SimpleJson).contains("levels"));
    let reason = refused("members", &map, &nested(100_000, "{\"\":", "0", "}"), SimpleJson);
    assert!(reason.contains("levels"));
    let escapes = schema(r#""string""#);
    let json = format!("\"{}\"", "\\u0000".repeat(MIB / 6));
    bounded("escapes", 64 * MIB, || escapes.encode(json.as_bytes(), SimpleJson)).unwrap();
    let key = "k".repeat(MIB);
    let fault = map.encode(format!("{{\"{key}\":1}}").as_bytes(), SimpleJson).unwrap_err();
    assert!(fault.to_string().len() < 1024);
}

#[test]
fn decimals_of_many_digits_are_refused() {
    let decimal =
        schema(r#"{"type":"bytes","logicalType":"decimal","precision":1000,"scale":500}"#);
    for (what, json) in [
        ("digits", "9".repeat(8 * MIB)),
        ("exponent", "1e999999999".to_owned()),
        ("exponent", "1e-99999999999999999999".to_owned()),
        ("fraction", format!("0.{}1", "0".repeat(8 * MIB))),
    ] {
        assert!(refused(what, &decimal, &json, SimpleJson).starts_with("it has more than"));
    }
    let largest = format!("{0}.{0}", "9".repeat(500));
    let payload = decimal.encode(largest.as_bytes(), SimpleJson).unwrap().bytes;
    assert_eq!(decimal.decode(None, &payload, SimpleJson).unwrap(), largest.as_bytes());
    let mut payload = vec![0x80, 0x80, 0x80, 1];
    payload.extend(vec![0x55; MIB]);
    assert_eq!(undecodable("bytes", &decimal, &payload), "it has too many digits for a decimal");
}

#[test]
fn counts_of_payloads_size_nothing() {
    let most = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
    for (what, text, expected) in [
        ("string", r#""string""#.to_owned(), "the payload ends early"),
        ("bytes", r#""bytes""#.to_owned(), "the payload ends early"),
        ("longs", r#"{"type":"array","items":"long"}"#.to_owned(), "the payload ends early"),
        ("map", r#"{"type":"map","values":"long"}"#.to_owned(), "the payload ends early"),
        ("nulls", r#"{"type":"array","items":"null"}"#.to_owned(), "too many values"),
        ("records", format!(r#"{{"type":"array","items":{}}}"#, record("")), "too many values"),
        (
            "fixed",
            r#"{"type":"fixed","name":"F","size":18446744073709551615}"#.to_owned(),
            "the payload ends early",
        ),
    ] {
        assert!(undecodable(what, &schema(&text), &most).contains(expected), "{what}");
        if text.contains("array") {
            assert!(undecodable(what, &schema(&text), &least).contains(expected), "{what}");
        }
    }
    let name = "n".repeat(MIB / 2);
    let fields = format!(r#"{{"name":"{name}","type":"null"}}"#);
    let names = schema(&format!(r#"{{"type":"array","items":{}}}"#, record(&fields)));
    let reason = undecodable("names", &names, &[0xc0, 0x84, 0x3d]);
    assert_eq!(reason, "its JSON is larger than 16 MiB");
}
