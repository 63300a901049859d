//! Protobuf there and back, and what is refused.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

use super::*;
use crate::{Reference, SchemaType};

const ORDER: &str = r#"
    syntax = "proto3";
    package acme;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    message Order {
      enum State { UNKNOWN = 0; PAID = 1; }
      message Line { string sku = 1; sint32 count = 2; repeated Line parts = 3; }
      string order_id = 1;
      int64 total = 2;
      repeated Line lines = 3;
      map<string, int64> stock = 4;
      map<bool, Line> by_flag = 5;
      State state = 6;
      bytes data = 7;
      repeated double ratios = 8;
      float ratio = 9;
      optional uint32 count = 10;
      oneof how { string card = 11; fixed64 cash = 12; }
      google.protobuf.Timestamp at = 13;
      google.protobuf.Duration took = 14;
      google.protobuf.Struct extra = 15;
      google.protobuf.Value value = 16;
      google.protobuf.Int64Value wrapped = 17;
      google.protobuf.FieldMask mask = 18;
      google.protobuf.Any any = 19;
      repeated State states = 20;
      google.protobuf.NullValue nothing = 21;
      bool paid = 22;
    }
    message Other { uint64 id = 1; }
"#;

fn parse(text: &str) -> Schema {
    try_parse(text, &[]).unwrap()
}

fn try_parse(text: &str, references: &[(&str, &str)]) -> Result<Schema, SchemaError> {
    let references = references
        .iter()
        .map(|(name, text)| Reference { name: (*name).to_owned(), text: (*text).to_owned() });
    Schema::parse(&Document {
        schema_type: SchemaType::Protobuf,
        text: text.to_owned(),
        references: references.collect(),
    })
}

/// The JSON of what a document becomes, without fields that have their default value.
fn there_and_back(schema: &Schema, document: &Value) -> Value {
    let payload = schema.encode(document.to_string().as_bytes()).unwrap();
    let json = schema.decode(Some(&payload.message_index), &payload.bytes).unwrap();
    let mut json: Value = serde_json::from_slice(&json).unwrap();
    let is_default = |value: &Value| {
        [json!(""), json!([]), json!({}), json!("0"), json!(0.0), json!(false), json!("UNKNOWN")]
            .contains(value)
    };
    json.as_object_mut().unwrap().retain(|name, value| {
        document.get(name).is_some() || (!is_default(value) && *value != Value::Null)
    });
    json
}

fn refusal(schema: &Schema, document: &Value) -> String {
    schema.encode(document.to_string().as_bytes()).unwrap_err().to_string()
}

#[test]
fn every_type_has_its_json() {
    let schema = parse(ORDER);
    let document = json!({
        "orderId": "o-1 \u{1F600}",
        "total": "9007199254740993",
        "lines": [{"sku": "a", "count": -3, "parts": [{"sku": "b", "count": 0, "parts": []}]}],
        "stock": {"": "1", "x y": "-9223372036854775808"},
        "byFlag": {"true": {"sku": "t", "count": 1, "parts": []}},
        "state": "PAID",
        "data": "AP8+",
        "ratios": [0.1, -1e300, "NaN", "-Infinity"],
        "ratio": 0.1,
        "count": 0,
        "cash": "18446744073709551615",
        "at": "2026-11-30T04:05:06.070Z",
        "took": "-1.500s",
        "extra": {"a": [null, true, 1.5, {"b": "c"}]},
        "value": null,
        "wrapped": "0",
        "mask": "user.displayName,photo",
        "any": {"@type": "type.googleapis.com/acme.Other", "id": "7"},
        "states": ["PAID", "UNKNOWN", 7],
        "paid": true,
    });
    assert_eq!(there_and_back(&schema, &document), document);
}

#[test]
fn the_first_of_several_names_of_an_enum_is_read() {
    let schema = parse(
        "message M { required E e = 1; }
        enum E { option allow_alias = true; Z = 0; B = 1; C = 1; A = 1; }",
    );
    let payload = schema.encode(br#"{"e":"A"}"#).unwrap();
    assert_eq!(schema.decode(Some(&[0]), &payload.bytes).unwrap(), br#"{"e":"B"}"#);
}

#[test]
fn numbers_are_packed_as_their_field_says() {
    let packed: &[u8] = &[10, 2, 1, 2];
    let apart: &[u8] = &[8, 1, 8, 2];
    for (syntax, option, expected) in [
        ("proto2", "", apart),
        ("proto2", "[packed = true]", packed),
        ("proto3", "", packed),
        ("proto3", "[deprecated = true]", packed),
        ("proto3", "[packed = false]", apart),
    ] {
        let text = format!("syntax = '{syntax}'; message M {{ repeated int32 a = 1 {option}; }}");
        let payload = parse(&text).encode(br#"{"a":[1,2]}"#).unwrap();
        assert_eq!(payload.bytes, expected, "{text}");
    }
}

#[test]
fn a_number_that_is_a_key_has_one_text() {
    let schema = parse("message A { map<int64, string> m = 1; }");
    for key in ["1.0", "1e0", "01", "-0", "+1", " 1"] {
        let reason = refusal(&schema, &json!({"m": {"1": "a", key: "b"}}));
        assert!(reason.ends_with("it must be an int64"), "{reason}");
    }
}

#[test]
fn public_imports_of_public_imports_are_imported() {
    let references = [
        ("c", "message C { optional int32 c = 1; }"),
        ("b", "import public \"c\";"),
        ("a", "import \"google/protobuf/any.proto\"; import public \"b\";"),
    ];
    let schema = try_parse("import \"a\"; message M { required C c = 1; }", &references).unwrap();
    assert_eq!(schema.encode(br#"{"c":{"c":5}}"#).unwrap().bytes, [10, 2, 8, 5]);
}

#[test]
fn fields_without_presence_are_always_read() {
    let schema = parse("message A { repeated int32 a = 2; } message B {}");
    assert_eq!(schema.decode(None, &[0]).unwrap(), br#"{"a":[]}"#);
    let schema = parse(
        r#"syntax = "proto3"; message A { int64 a = 1; optional int64 b = 2; A c = 3;
           map<string, A> d = 4; oneof o { int32 e = 5; } bytes f = 6; }"#,
    );
    assert_eq!(schema.decode(None, &[0]).unwrap(), br#"{"a":"0","d":{},"f":""}"#);
}

#[test]
fn other_forms_of_json_are_taken() {
    let schema = parse(ORDER);
    for (given, read) in [
        (json!({"order_id": "a"}), json!({"orderId": "a"})),
        (json!({"total": 12}), json!({"total": "12"})),
        (json!({"total": 1e3}), json!({"total": "1000"})),
        (json!({"total": "1.0"}), json!({"total": "1"})),
        (json!({"state": 1}), json!({"state": "PAID"})),
        (json!({"data": "-_8"}), json!({"data": "+/8="})),
        (json!({"ratio": "1.5"}), json!({"ratio": 1.5})),
        (json!({"at": "1970-01-01T01:00:00+01:00"}), json!({"at": "1970-01-01T00:00:00Z"})),
        (json!({"at": null, "wrapped": null}), json!({})),
        (json!({"orderId": null, "lines": null}), json!({"orderId": "", "lines": []})),
        (json!({"any": {}}), json!({"any": {}})),
        (
            json!({"any": {"value": "1.5s", "@type": "x/google.protobuf.Duration"}}),
            json!({"any": {"@type": "x/google.protobuf.Duration", "value": "1.500s"}}),
        ),
    ] {
        assert_eq!(there_and_back(&schema, &given), read, "{given}");
    }
}

#[test]
fn a_document_that_does_not_fit_is_refused_with_its_place() {
    let schema = parse(ORDER);
    for (document, refused) in [
        (json!([]), "$: it must be an object of acme.Order"),
        (json!({"lines": [{"secret": 1}]}), "$.lines[0].secret: acme.Order.Line has no such field"),
        (json!({"lines": {}}), "$.lines: it must be an array"),
        (json!({"lines": [null]}), "$.lines[0]: it must be an object of acme.Order.Line"),
        (json!({"orderId": 7}), "$.orderId: it must be a string"),
        (json!({"orderId": "a", "order_id": "b"}), "$.order_id: it comes twice"),
        (json!({"card": "a", "cash": 1}), "$.cash: another field of its oneof is set"),
        (json!({"total": 1.5}), "$.total: it must be an int64"),
        (json!({"total": "9007199254740993.5"}), "$.total: it must be an int64"),
        (json!({"total": 9_223_372_036_854_775_808_u64}), "$.total: it must be an int64"),
        (json!({"total": "1x"}), "$.total: it must be an int64"),
        (json!({"total": ""}), "$.total: it must be an int64"),
        (json!({"total": " 1"}), "$.total: it must be an int64"),
        (json!({"count": -1}), "$.count: it must be an uint32"),
        (json!({"count": 4_294_967_296_u64}), "$.count: it must be an uint32"),
        (json!({"ratio": 1e39}), "$.ratio: it must be a float"),
        (json!({"ratios": [0, "inf"]}), "$.ratios[1]: it must be a double"),
        (json!({"stock": {"a": true}}), "$.stock.a: it must be an int64"),
        (json!({"byFlag": {"yes": {}}}), "$.byFlag.yes: it must be a boolean"),
        (json!({"state": "GONE"}), "$.state: it must be a value of its enum"),
        (json!({"data": "?"}), "$.data: it must be a string in base64"),
        (json!({"took": "1"}), well_known_refusal("took", well_known::DURATION).as_str()),
        (json!({"at": 5}), well_known_refusal("at", well_known::TIMESTAMP).as_str()),
        (json!({"mask": "a_b"}), well_known_refusal("mask", well_known::FIELD_MASK).as_str()),
        (json!({"any": {"id": 1}}), "$.any: it must have an @type"),
        (
            json!({"any": {"@type": "type.googleapis.com/acme.Secret"}}),
            "$.any['@type']: it must end with a / and a type of the schema",
        ),
        (json!({"any": {"@type": "/acme.Other", "id": "x"}}), "$.any.id: it must be an uint64"),
        (
            json!({"any": {"@type": "/google.protobuf.Duration"}}),
            "$.any: beside @type it must have a value, and nothing else",
        ),
    ] {
        assert_eq!(refusal(&schema, &document), refused, "{document}");
    }
}

fn well_known_refusal(name: &str, reason: &str) -> String {
    format!("$.{name}: {reason}")
}

#[test]
fn proto2_has_required_fields_groups_and_extensions() {
    let schema = parse(
        r#"syntax = "proto2";
        message A {
          required int32 id = 1;
          optional group Inner = 2 { optional string text = 1; }
          repeated group Many = 3 { optional int32 n = 1; }
          extensions 100 to 200;
          optional E e = 4 [default = TWO];
          message Nested { }
          repeated int32 packed = 5 [packed = true];
        }
        enum E { ONE = 1; TWO = 2; }
        extend A { optional int64 more = 100; }"#,
    );
    let document = json!({
        "id": 0,
        "inner": {"text": "a"},
        "many": [{"n": 1}, {}],
        "[more]": "5",
        "packed": [1, 300],
    });
    assert_eq!(there_and_back(&schema, &document), document);
    assert_eq!(refusal(&schema, &json!({})), "$: the field id is missing");
    assert_eq!(refusal(&schema, &json!({"id": 1, "e": 3})), "$.e: it must be a value of its enum");
    let missing = schema.decode(None, &[0]).unwrap_err().to_string();
    assert_eq!(missing, "$: the field id is missing");
    // A group is no message of the index.
    assert_eq!(schema.decode(None, &[4, 0, 0]).unwrap(), b"{}");
    let missing = schema.decode(None, &[4, 0, 2]).unwrap_err().to_string();
    assert_eq!(missing, "$: its message index is of no message");
}

#[test]
fn the_index_names_the_message() {
    let schema = parse(ORDER);
    let payload = schema.encode(b"{}").unwrap();
    assert_eq!((payload.message_index, payload.bytes), (vec![0], vec![]));
    assert_eq!(schema.decode(None, &[2, 2, 8, 1]).unwrap(), br#"{"id":"1"}"#);
    assert_eq!(schema.decode(Some(&[2, 2]), &[8, 1]).unwrap(), br#"{"id":"1"}"#);
    let line = schema.decode(None, &[4, 0, 0, 16, 1]).unwrap();
    assert_eq!(line, br#"{"sku":"","count":-1,"parts":[]}"#);
    for (index, bytes, why) in [
        (None, &[][..], "cut off, or no number"),
        (None, &[2, 4], "of no message"),
        (None, &[6, 0, 0, 0], "of no message"),
        (Some(&[0, 0][..]), &[], "longer than it says"),
        (Some(&[1]), &[], "negative"),
    ] {
        let refused = schema.decode(index, bytes).unwrap_err().to_string();
        assert_eq!(refused, format!("$: its message index is {why}"));
    }
}

#[test]
fn a_malformed_payload_is_refused_with_its_byte() {
    let schema = parse(ORDER);
    for (bytes, refused) in [
        (&[0x0a, 5, b'a'][..], "$: a value is cut off at byte 1"),
        (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], "$: a value is cut off at byte 1"),
        (&[0x10], "$: a value is cut off, or no number at byte 1"),
        (&[0x00, 1], "$: a tag has no valid field number at byte 0"),
        (&[0x0f, 1], "$: a tag has no valid wire type at byte 1"),
        (&[0x0c], "$: a group ends that did not begin at byte 1"),
        (&[0x0b], "$: a tag is cut off, or no number at byte 1"),
        (&[0x0a, 1, 0xff], "$.orderId: a string is no UTF-8 at byte 2"),
        (&[0x1a, 3, 0x0a, 1, 0xff], "$.lines[0].sku: a string is no UTF-8 at byte 4"),
        (&[0x1a, 2, 0x0a, 9], "$.lines[0]: a value is cut off at byte 3"),
        (&[0x08, 1], "$.orderId: its type on the wire is another one than in the schema"),
        (&[0x42, 3, 0, 0, 0], "$.ratios: a value is cut off at byte 2"),
        (
            &[
                0x6a, 2, 0x10, 0x01, 0x6a, 11, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                0xff, 0x7f, 0,
            ],
            "$.at: a tag has no valid field number at byte 16",
        ),
        (&[0x9a, 1, 3, 0x0a, 1, b'x'], "$.any: it is of a type that is not in the schema"),
        (&[0x82, 1, 0], "$.value: it has no value"),
    ] {
        let mut payload = vec![0];
        payload.extend(bytes);
        let invalid = schema.decode(None, &payload).unwrap_err().to_string();
        assert_eq!(invalid, refused, "{bytes:?}");
    }
}

#[test]
fn what_comes_in_pieces_is_merged_and_the_last_value_counts() {
    let schema = parse(
        r#"syntax = "proto3"; message A { int32 n = 1; A a = 2; repeated int32 l = 3;
           map<int32, int32> m = 4; oneof o { int32 x = 5; int32 y = 6; } optional int32 z = 7; }"#,
    );
    let read = |bytes: &[u8]| String::from_utf8(schema.decode(Some(&[0]), bytes).unwrap()).unwrap();
    assert_eq!(read(&[8, 1, 8, 2]), r#"{"n":2,"l":[],"m":{}}"#);
    assert_eq!(
        read(&[0x12, 2, 0x38, 1, 0x12, 2, 8, 5]),
        r#"{"n":0,"a":{"n":5,"l":[],"m":{},"z":1},"l":[],"m":{}}"#
    );
    // Packed and not.
    assert_eq!(read(&[0x18, 1, 0x1a, 2, 2, 3]), r#"{"n":0,"l":[1,2,3],"m":{}}"#);
    let entries = [0x22, 4, 8, 1, 0x10, 1, 0x22, 4, 0x10, 2, 8, 1, 0x22, 0];
    assert_eq!(read(&entries), r#"{"n":0,"l":[],"m":{"0":0,"1":2}}"#);
    assert_eq!(read(&[0x30, 1, 0x28, 2]), r#"{"n":0,"l":[],"m":{},"x":2}"#);
    assert_eq!(read(&[0x28, 2, 0x30, 1]), r#"{"n":0,"l":[],"m":{},"y":1}"#);
    // What the schema does not know, a group among it.
    assert_eq!(read(&[0x78, 1, 0x7b, 0x7b, 8, 1, 0x7c, 0x7c]), r#"{"n":0,"l":[],"m":{}}"#);
}

#[test]
fn a_schema_that_cannot_be_used_is_refused() {
    let imports = "import \"b.proto\"; message A { optional B b = 1; }";
    let b = ("b.proto", "message B {}");
    assert!(try_parse(imports, &[b]).is_ok());
    assert!(try_parse("import \"confluent/meta.proto\"; message A { option (confluent.message_meta).doc = \"x\"; }", &[]).is_ok());
    for (text, references, refused) in [
        ("", &[][..], "it has no message"),
        ("enum E { A = 1; }", &[], "it has no message"),
        ("message A {", &[], ""),
        ("edition = \"2023\"; message A {}", &[], ""),
        (imports, &[], "import 'b.proto' not found"),
        (imports, &[("b.proto", "import \"c.proto\"; message B {}")], ""),
        (imports, &[("b.proto", "import \"b.proto\"; message B {}")], ""),
        ("message A { optional B b = 1; }", &[b], ""),
        ("message A { option x = \"\n\"; }", &[], "a string has no end"),
        ("/* /* */", &[], "a comment is in a comment"),
        ("/* ", &[], "a comment has no end"),
    ] {
        let SchemaError(why) = try_parse(text, references).unwrap_err();
        println!("{text}: {why}");
        assert!(!why.is_empty() && !why.contains('\n') && why.contains(refused), "{text}: {why}");
    }
}

/// With as many digits as a float has.
fn of_float(value: f32) -> Value {
    serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap()
}

/// JSON that fits `ORDER`, in the form in which it is read.
fn documents() -> impl Strategy<Value = Value> {
    let line = ("[a-z]{0,5}", any::<i32>())
        .prop_map(|(sku, count)| json!({"sku": sku, "count": count, "parts": []}));
    let lines = prop::collection::vec(line, 0..4);
    let stock = prop::collection::btree_map("\\PC{0,6}", any::<i64>(), 0..4);
    let ratios = prop::collection::vec(any::<f64>(), 0..4);
    let data = prop::collection::vec(any::<u8>(), 0..9);
    let seconds = (-62_135_596_800_i64..=253_402_300_799, 0..1_000_000_000);
    let scalars = ("\\PC{0,9}", any::<i64>(), any::<f32>(), any::<Option<u32>>(), any::<u64>());
    (lines, stock, ratios, data, seconds, scalars).prop_map(
        |(lines, stock, ratios, data, seconds, (id, total, ratio, count, cash))| {
            let stock: serde_json::Map<_, _> =
                stock.into_iter().map(|(key, n)| (key, json!(n.to_string()))).collect();
            let data = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, data);
            let mut document = json!({
                "orderId": id, "total": total.to_string(), "lines": lines, "stock": stock,
                "ratios": ratios, "data": data, "cash": cash.to_string(),
                "at": well_known::timestamp(seconds), "ratio": of_float(ratio),
                "extra": {"total": total.to_string(), "ratios": ratios, "lines": lines},
            });
            if let Some(count) = count {
                document["count"] = json!(count);
            }
            document
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(document in documents()) {
        let schema = parse(ORDER);
        let read = there_and_back(&schema, &document);
        // Numbers inside a Struct are doubles.
        prop_assert_eq!(read["orderId"].clone(), document["orderId"].clone());
        for (name, value) in document.as_object().unwrap().iter().filter(|(n, _)| *n != "extra") {
            prop_assert_eq!(&read[name], value, "{}", name);
        }
    }

    #[test]
    fn another_implementation_reads_the_same(document in documents()) {
        let file = source::compile(&Document {
            schema_type: SchemaType::Protobuf,
            text: ORDER.to_owned(),
            references: Vec::new(),
        }).unwrap();
        let schema = parse(ORDER);
        let payload = schema.encode(document.to_string().as_bytes()).unwrap().bytes;
        let described = file.messages().next().unwrap();
        let message = DynamicMessage::decode(described.clone(), payload.as_slice()).unwrap();
        let options = SerializeOptions::new().skip_default_fields(false);
        let mut theirs = Vec::new();
        let mut output = serde_json::Serializer::new(&mut theirs);
        message.serialize_with_options(&mut output, &options).unwrap();
        let theirs: Value = serde_json::from_slice(&theirs).unwrap();
        let ours = schema.decode(Some(&[0]), &payload).unwrap();
        let ours: Value = serde_json::from_slice(&ours).unwrap();
        prop_assert_eq!(&ours, &theirs);
        let text = document.to_string();
        let mut input = serde_json::Deserializer::from_str(&text);
        let message = DynamicMessage::deserialize(described, &mut input).unwrap();
        let read = schema.decode(Some(&[0]), &message.encode_to_vec()).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(&read).unwrap(), ours);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let schema = parse(ORDER);
        if let Ok(json) = schema.decode(None, &bytes) {
            prop_assert!(serde_json::from_slice::<Value>(&json).is_ok());
        }
        let _ = schema.decode(Some(&[0]), &bytes);
        let _ = schema.encode(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-zA-Z0-9 {}<>\\[\\]()=;\"'./*\\\\\n]{0,80}") {
        let _ = try_parse(&format!("message A {{ {text} }} {text}"), &[]);
        let _ = try_parse(&text, &[]);
    }
}

#[test]
fn a_file_may_be_its_descriptor_in_base64() {
    let text = "syntax = \"proto3\"; message A { message B { int64 large_n = 1; } B b = 1; }";
    let imported = "syntax = \"proto3\"; message Other { bytes id = 1; }";
    let described = |text: &str, change: fn(&mut FileDescriptorProto)| {
        let file = protox::file::File::from_source("own.proto", text).unwrap();
        let mut file = file.file_descriptor_proto().clone();
        change(&mut file);
        BASE64_STANDARD.encode(file.encode_to_vec())
    };
    let schema = parse(&described(text, |_| {}));
    assert_eq!(schema.decode(Some(&[4, 0, 0]), &[8, 2]).unwrap(), br#"{"largeN":"2"}"#);
    let with_import = "syntax = \"proto3\"; import \"o.proto\"; message A { Other o = 1; }";
    let references = [("o.proto", described(imported, |_| {}))];
    let references = references.each_ref().map(|(name, text)| (*name, text.as_str()));
    let schema = try_parse(&described(with_import, |_| {}), &references).unwrap();
    assert_eq!(schema.decode(Some(&[0]), &[10, 0]).unwrap(), br#"{"o":{"id":""}}"#);
    // What no compiler writes is refused.
    let missing =
        described(text, |file| file.message_type[0].field[0].type_name = Some(".C".into()));
    let imports_itself = described(text, |file| file.dependency.push("own.proto".into()));
    let edition = described(text, |file| file.syntax = Some("editions".into()));
    for hostile in [&missing, &imports_itself, &edition, "AAAA", "/////w==", ""] {
        assert!(try_parse(hostile, &[]).is_err(), "{hostile}");
    }
}
