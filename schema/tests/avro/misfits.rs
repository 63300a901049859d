//! Documents and payloads that do not fit: where and why, and nothing of what they say.

use super::{AvroJson, SimpleJson, decode, encode, record, schema};

const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"com.acme","fields":[
    {"name":"id","type":"long"},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["NEW","OLD"]},"default":"NEW"},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"count","type":"int"},
        {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":2},
         "default":"\u0000"},
        {"name":"note","type":["null","string"]}]}},"default":[]},
    {"name":"tags","type":{"type":"map","values":"boolean"},"default":{}},
    {"name":"next","type":["null","Order"]},
    {"name":"paid","type":["null","boolean","Kind","Line"]},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":0},
    {"name":"hash","type":{"type":"fixed","name":"Hash","size":4},"default":"0000"}]}"#;

#[test]
fn faults_of_plain_json_have_path_and_reason() {
    for (json, expected) in [
        ("", "$: no JSON: it is empty"),
        ("{\"id\":1", "$: no JSON: byte 7"),
        ("[]", "$: must be an object"),
        ("{}", "$.id: it is missing, and has no default"),
        (r#"{"id":"secret"}"#, "$.id: must be an integer of 64 bits"),
        (r#"{"id":9223372036854775808}"#, "$.id: must be an integer of 64 bits"),
        (r#"{"id":1.5}"#, "$.id: must be an integer of 64 bits"),
        (r#"{"id":null}"#, "$.id: must be an integer of 64 bits"),
        (r#"{"id":1,"id":2}"#, "$.id: it comes twice"),
        (r#"{"id":1,"other":2}"#, "$.other: no such field"),
        (r#"{"id":1,"kind":"secret"}"#, "$.kind: must be one of the symbols `NEW`, `OLD`"),
        (r#"{"id":1,"kind":1}"#, "$.kind: must be one of the symbols `NEW`, `OLD`"),
        (r#"{"id":1,"lines":{}}"#, "$.lines: must be an array"),
        (
            r#"{"id":1,"lines":[{"count":1},{"count":2147483648}]}"#,
            "$.lines[1].count: must be an integer of 32 bits",
        ),
        (
            r#"{"id":1,"lines":[{"count":1,"price":0.001}]}"#,
            "$.lines[0].price: it has more than 2 digits behind the point",
        ),
        (
            r#"{"id":1,"lines":[{"count":1,"price":"100"}]}"#,
            "$.lines[0].price: it has more than 4 digits",
        ),
        (
            r#"{"id":1,"lines":[{"count":1,"price":"secret"}]}"#,
            "$.lines[0].price: must be a number, or a string that is written as one",
        ),
        (
            r#"{"id":1,"lines":[{"count":1,"note":7}]}"#,
            "$.lines[0].note: fits no branch of `null`, `string`",
        ),
        (r#"{"id":1,"tags":{"a b":1}}"#, "$.tags['a b']: must be true or false"),
        (r#"{"id":1,"tags":{"a":true,"a":true}}"#, "$.tags.a: it comes twice"),
        (
            r#"{"id":1,"next":{"id":1,"next":{"id":""}}}"#,
            "$.next.next.id: must be an integer of 64 bits",
        ),
        (r#"{"id":1,"paid":{"count":""}}"#, "$.paid.count: must be an integer of 32 bits"),
        (
            r#"{"id":1,"paid":"secret"}"#,
            "$.paid: fits no branch of `null`, `boolean`, `com.acme.Kind`, `com.acme.Line`",
        ),
        (r#"{"id":1,"at":"secret"}"#, "$.at: must be a number, or a date and time as in RFC 3339"),
        (r#"{"id":1,"at":"2026-11-30T14:00:00.0001Z"}"#, "$.at: it is finer than milliseconds"),
        (r#"{"id":1,"hash":"MDA="}"#, "$.hash: must be 4 bytes in base64"),
    ] {
        let fault = encode(&schema(ORDER), json, SimpleJson).unwrap_err();
        assert_eq!(fault.to_string(), expected, "{json}");
    }
}

#[test]
fn faults_of_avro_json_have_path_and_reason() {
    for (json, expected) in [
        (
            r#"{"id":1,"next":{"id":1}}"#,
            "$.next: must be an object whose one member names its branch, of `null`, `com.acme.Order`",
        ),
        (
            r#"{"id":1,"paid":true}"#,
            "$.paid: must be an object whose one member names its branch, of \
             `null`, `boolean`, `com.acme.Kind`, `com.acme.Line`",
        ),
        (
            r#"{"id":1,"paid":{"Line":{"count":1}}}"#,
            "$.paid: must be an object whose one member names its branch, of \
             `null`, `boolean`, `com.acme.Kind`, `com.acme.Line`",
        ),
        (
            r#"{"id":1,"paid":{"com.acme.Line":{"count":""}}}"#,
            "$.paid['com.acme.Line'].count: must be an integer of 32 bits",
        ),
        (
            r#"{"id":1,"lines":[{"count":1,"price":1.5}]}"#,
            "$.lines[0].price: must be bytes as a string of characters below U+0100",
        ),
        (
            r#"{"id":1,"hash":"000Ā"}"#,
            "$.hash: must be 4 bytes as a string of characters below U+0100",
        ),
        (r#"{"id":1,"at":"2026-11-30T14:00:00Z"}"#, "$.at: must be an integer of 64 bits"),
    ] {
        let fault = encode(&schema(ORDER), json, AvroJson).unwrap_err();
        assert_eq!(fault.to_string(), expected, "{json}");
    }
}

#[test]
fn numbers_beyond_their_type_are_refused() {
    for (kind, json) in [
        ("double", "1e400"),
        ("float", "1e39"),
        ("int", "2147483648"),
        ("int", "1e400"),
        ("long", "-9223372036854775809"),
        ("long", "1e99999999999999999999"),
        ("double", "\"nan\""),
        ("boolean", "1"),
        ("null", "0"),
        ("string", "1"),
    ] {
        let fault = encode(&schema(&format!("\"{kind}\"")), json, SimpleJson);
        assert_eq!(fault.unwrap_err().path, "$", "{kind}: {json}");
    }
}

#[test]
fn defaults_that_do_not_fit_are_told_when_they_are_needed() {
    let schema =
        schema(&record(r#"{"name":"a","type":{"type":"array","items":"int"},"default":["x"]}"#));
    assert_eq!(encode(&schema, r#"{"a":[1]}"#, SimpleJson), Ok(vec![2, 2, 0]));
    assert_eq!(
        encode(&schema, "{}", SimpleJson).unwrap_err().to_string(),
        "$.a[0]: its default does not fit: must be an integer of 32 bits"
    );
}

#[test]
fn malformed_payloads_are_refused() {
    let long = [0xff; 10];
    for (text, bytes, expected) in [
        (r#""int""#, &[][..], "$: the payload ends early"),
        (r#""int""#, &[2, 0], "$: 1 bytes follow the value"),
        (r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x1f], "$: an int is longer than 32 bits"),
        (r#""long""#, &long, "$: a number is longer than 64 bits"),
        (r#""boolean""#, &[2], "$: a boolean is neither 0 nor 1"),
        (r#""string""#, &[1], "$: a length is negative"),
        (r#""string""#, &[4, b'a'], "$: the payload ends early"),
        (r#""string""#, &[2, 0xff], "$: a string is not UTF-8"),
        (r#"["null","int"]"#, &[4], "$: a union has no such branch"),
        (r#"["null","int"]"#, &[1], "$: a union has no such branch"),
        (r#"[]"#, &[0], "$: a union has no such branch"),
        (r#"{"type":"enum","name":"E","symbols":["A"]}"#, &[2], "$: no such symbol"),
        (r#"{"type":"array","items":"int"}"#, &[4, 2], "$[1]: the payload ends early"),
        (r#"{"type":"map","values":"int"}"#, &[2, 2, b'a'], "$.a: the payload ends early"),
        (r#"{"type":"fixed","name":"F","size":2}"#, &[0], "$: the payload ends early"),
    ] {
        let fault = decode(&schema(text), bytes, SimpleJson).unwrap_err();
        assert_eq!(fault.to_string(), expected, "{text} {bytes:x?}");
    }
}

#[test]
fn an_empty_union_takes_nothing() {
    for encoding in [AvroJson, SimpleJson] {
        assert!(encode(&schema("[]"), "null", encoding).unwrap_err().reason.ends_with("of none"));
    }
}
