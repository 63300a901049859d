//! What stands for each type in JSON, and its bytes.

use super::{AvroJson, SimpleJson, decode, encode, record, schema};

/// What a schema's value is in both encodings, and its bytes: each becomes the others.
#[track_caller]
fn check(text: &str, avro: &str, simple: &str, bytes: &[u8]) {
    let schema = schema(text);
    for (encoding, json) in [(AvroJson, avro), (SimpleJson, simple)] {
        assert_eq!(encode(&schema, json, encoding).as_deref(), Ok(bytes), "{text}: {json}");
        assert_eq!(decode(&schema, bytes, encoding).as_deref(), Ok(json), "{text}: {bytes:x?}");
    }
}

/// As [`check`], of a form that both encodings share.
#[track_caller]
fn check_both(text: &str, json: &str, bytes: &[u8]) {
    check(text, json, json, bytes);
}

/// What is read as plain JSON, too.
#[track_caller]
fn check_read(text: &str, simple: &str, bytes: &[u8]) {
    assert_eq!(encode(&schema(text), simple, SimpleJson).as_deref(), Ok(bytes), "{simple}");
}

#[test]
fn primitives() {
    check_both(r#""null""#, "null", &[]);
    check_both(r#""boolean""#, "true", &[1]);
    check_both(r#""int""#, "-2147483648", &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    check_both(r#""long""#, "9007199254740993", &[0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
    let most = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    check_both(r#""long""#, "9223372036854775807", &most);
    check_both(r#""float""#, "0.1", &0.1_f32.to_le_bytes());
    check_both(r#""double""#, "-0.0", &(-0.0_f64).to_le_bytes());
    check_both(r#""double""#, "\"Infinity\"", &f64::INFINITY.to_le_bytes());
    check_both(r#""float""#, "\"-Infinity\"", &f32::NEG_INFINITY.to_le_bytes());
    check_both(r#""double""#, "\"NaN\"", &f64::NAN.to_le_bytes());
    check_both(r#""string""#, r#""a\"\n\u0001ä😀""#, "\x14a\"\n\u{1}ä😀".as_bytes());
    check(r#""bytes""#, "\"\\u0000aÿ\"", "\"AGH/\"", &[6, 0, b'a', 0xff]);
    check_both(r#"{"type":"long"}"#, "1", &[2]);
    check_both(r#"{"type":{"type":"long"}}"#, "1", &[2]);
}

#[test]
fn numbers_that_are_integers_may_be_written_otherwise() {
    check_read(r#""long""#, "1.0", &[2]);
    check_read(r#""int""#, "-12e1", &[0xef, 1]);
    check_read(
        r#""long""#,
        "-9223372036854775808.0",
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    );
    check_read(r#""double""#, "1", &1_f64.to_le_bytes());
}

#[test]
fn named_types_arrays_and_maps() {
    check_both(r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, "\"B\"", &[2]);
    check(r#"{"type":"fixed","name":"F","size":2}"#, "\"\\u0001é\"", "\"Aek=\"", &[1, 0xe9]);
    check_both(r#"{"type":"array","items":"int"}"#, "[]", &[0]);
    check_both(r#"{"type":"array","items":"int"}"#, "[1,-1]", &[4, 2, 1, 0]);
    check_both(
        r#"{"type":"map","values":"int"}"#,
        r#"{"z":1,"a ":2}"#,
        &[4, 2, b'z', 2, 4, b'a', b' ', 4, 0],
    );
    let fields = r#"{"name":"b","type":"int"},{"name":"a","type":"string"}"#;
    check_both(&record(fields), r#"{"b":1,"a":"x"}"#, &[2, 2, b'x']);
    check_read(&record(fields), r#"{"\u0061":"x","b":1}"#, &[2, 2, b'x']);
}

#[test]
fn arrays_in_several_blocks_and_blocks_with_a_size_are_read() {
    let ints = schema(r#"{"type":"array","items":"int"}"#);
    assert_eq!(decode(&ints, &[2, 2, 3, 4, 4, 6, 0], SimpleJson).unwrap(), "[1,2,3]");
    let map = schema(r#"{"type":"map","values":"int"}"#);
    let bytes = [1, 6, 2, b'a', 2, 2, 2, b'b', 4, 0];
    assert_eq!(decode(&map, &bytes, SimpleJson).unwrap(), r#"{"a":1,"b":2}"#);
}

#[test]
fn unions() {
    let union = r#"["null","int","string"]"#;
    check(union, "null", "null", &[0]);
    check(union, r#"{"int":1}"#, "1", &[2, 2]);
    check(union, r#"{"string":"x"}"#, "\"x\"", &[4, 2, b'x']);
    let named = r#"["null",{"type":"enum","name":"E","namespace":"com.acme","symbols":["A"]},
        {"type":"map","values":"int"}]"#;
    check(named, r#"{"com.acme.E":"A"}"#, "\"A\"", &[2, 0]);
    check(named, r#"{"map":{"x":1}}"#, r#"{"x":1}"#, &[4, 2, 2, b'x', 2, 0]);
}

#[test]
fn of_several_branches_that_fit_the_first_is_taken() {
    for (union, json, bytes) in [
        // Beyond 32 bits an integer is a long.
        (r#"["int","long"]"#, "2147483648", [vec![2], vec![0x80, 0x80, 0x80, 0x80, 0x10]].concat()),
        (r#"["long","int"]"#, "1", vec![0, 2]),
        (r#"["int","double"]"#, "1.0", [vec![2], 1_f64.to_le_bytes().to_vec()].concat()),
        (r#"["double","long"]"#, "1", [vec![0], 1_f64.to_le_bytes().to_vec()].concat()),
        // What a double would round is a long.
        (
            r#"["double","long"]"#,
            "9007199254740993",
            [vec![2, 0x82], vec![0x80; 6], vec![0x20]].concat(),
        ),
        (r#"["bytes","string"]"#, "\"YWI=\"", vec![0, 4, b'a', b'b']),
        (r#"["bytes","string"]"#, "\"a?\"", vec![2, 4, b'a', b'?']),
        (r#"["string","bytes"]"#, "\"YWI=\"", [vec![0, 8], b"YWI=".to_vec()].concat()),
        (r#"[{"type":"enum","name":"E","symbols":["A"]},"string"]"#, "\"B\"", vec![2, 2, b'B']),
    ] {
        assert_eq!(encode(&schema(union), json, SimpleJson), Ok(bytes), "{union}: {json}");
    }
    let records = r#"[
        {"type":"record","name":"A","fields":[{"name":"x","type":{"type":"array","items":"int"}}]},
        {"type":"record","name":"B","fields":[{"name":"x","type":{"type":"array","items":"string"}}]}
    ]"#;
    let bytes = encode(&schema(records), r#"{"x":["a","b"]}"#, SimpleJson);
    assert_eq!(bytes, Ok(vec![2, 4, 2, b'a', 2, b'b', 0]), "what is inside decides");
}

#[test]
fn what_is_missing_is_its_default_or_null() {
    let fields = r#"{"name":"a","type":["null","int"]},
        {"name":"b","type":["string","null"],"default":"é"},
        {"name":"c","type":"bytes","default":"\u00ff"},
        {"name":"d","type":{"type":"array","items":["null","long"]},"default":[1,null]},
        {"name":"e","type":"null"},
        {"name":"f","type":["int","null"]},
        {"name":"g","type":"double","default":"NaN"},
        {"name":"h","type":["null","string"],"default":"second"}"#;
    let schema = schema(&record(fields));
    let expected =
        r#"{"a":null,"b":"é","c":"/w==","d":[1,null],"e":null,"f":null,"g":"NaN","h":"second"}"#;
    for encoding in [AvroJson, SimpleJson] {
        let bytes = encode(&schema, "{}", encoding).unwrap();
        assert_eq!(decode(&schema, &bytes, SimpleJson).unwrap(), expected);
    }
    let inner = r#"{"name":"r","type":{"type":"record","name":"I","fields":[
        {"name":"x","type":"int","default":7},{"name":"y","type":"int"}]},"default":{"y":8}}"#;
    let nested = super::schema(&record(inner));
    assert_eq!(encode(&nested, "{}", SimpleJson), Ok(vec![14, 16]));
}

#[test]
fn lists_that_refer_to_themselves() {
    let fields = r#"{"name":"value","type":"int"},{"name":"next","type":["null","R"]}"#;
    let simple = r#"{"value":1,"next":{"value":2,"next":null}}"#;
    let avro = r#"{"value":1,"next":{"R":{"value":2,"next":null}}}"#;
    check(&record(fields), avro, simple, &[2, 2, 4, 0]);
    check_read(&record(fields), r#"{"next":{"value":2},"value":1}"#, &[2, 2, 4, 0]);
}

#[test]
fn decimals() {
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}"#;
    check(decimal, "\"\\u0004Ò\"", "12.34", &[4, 4, 0xd2]);
    check(decimal, "\"ÿ\"", "-0.01", &[2, 0xff]);
    check_read(decimal, "\"12.34\"", &[4, 4, 0xd2]);
    check_read(decimal, "1.234e1", &[4, 4, 0xd2]);
    let digits = "123456789012345678.91";
    let schema = schema(decimal);
    let bytes = encode(&schema, digits, SimpleJson).unwrap();
    assert_eq!(decode(&schema, &bytes, SimpleJson).unwrap(), digits);
    let fixed =
        r#"{"type":{"type":"fixed","name":"F","size":4},"logicalType":"decimal","precision":9}"#;
    check(fixed, "\"ÿÿÿÿ\"", "\"/////w==\"", &[0xff; 4]);
    let fixed = r#"{"type":"fixed","name":"F","size":4,"logicalType":"decimal","precision":9}"#;
    check(fixed, "\"ÿÿÿÿ\"", "-1", &[0xff; 4]);
    check(fixed, "\"\\u0000\\u0000\\u0001\\u0000\"", "256", &[0, 0, 1, 0]);
}

#[test]
fn dates_and_times_are_their_numbers_and_read_as_rfc_3339() {
    for (kind, name, number, text) in [
        ("int", "date", "20787", "2026-11-30"),
        ("int", "time-millis", "45000500", "12:30:00.5"),
        ("long", "time-micros", "45000000001", "12:30:00.000001"),
        ("long", "timestamp-millis", "1796043600000", "2026-11-30T14:00:00+01:00"),
        ("long", "timestamp-micros", "-1", "1969-12-31T23:59:59.999999Z"),
        ("long", "timestamp-nanos", "1", "1970-01-01T00:00:00.000000001Z"),
        ("long", "local-timestamp-millis", "1796047200000", "2026-11-30T14:00:00"),
        ("long", "local-timestamp-micros", "1", "1970-01-01T00:00:00.000001"),
        ("long", "local-timestamp-nanos", "1", "1970-01-01T00:00:00.000000001"),
    ] {
        let logical = schema(&format!(r#"{{"type":"{kind}","logicalType":"{name}"}}"#));
        let bytes = encode(&schema(&format!("\"{kind}\"")), number, SimpleJson).unwrap();
        for encoding in [AvroJson, SimpleJson] {
            assert_eq!(encode(&logical, number, encoding).as_ref(), Ok(&bytes), "{name}");
            assert_eq!(decode(&logical, &bytes, encoding).unwrap(), number, "{name}");
        }
        let text = format!("\"{text}\"");
        assert_eq!(encode(&logical, &text, SimpleJson).as_ref(), Ok(&bytes), "{name}: {text}");
        assert!(encode(&logical, &text, AvroJson).is_err(), "{name}: {text}");
    }
}

#[test]
fn uuids_and_durations() {
    let uuid = "\"6f9619ff-8b86-d011-b42d-00c04fc964ff\"";
    let text = schema(r#"{"type":"string","logicalType":"uuid"}"#);
    let bytes = [vec![72], uuid.trim_matches('"').as_bytes().to_vec()].concat();
    assert_eq!(encode(&text, uuid, SimpleJson).as_ref(), Ok(&bytes));
    assert_eq!(decode(&text, &bytes, SimpleJson).unwrap(), uuid);
    let fixed = r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#;
    let bytes: Vec<u8> = (0..16).collect();
    let avro = "\"\\u0000\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\b\\t\\n\\u000b\\f\\r\\u000e\\u000f\"";
    check(fixed, avro, "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"", &bytes);
    let duration = r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#;
    let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0];
    let avro =
        "\"\\u0001\\u0000\\u0000\\u0000\\u0002\\u0000\\u0000\\u0000\\u0000\\u0001\\u0000\\u0000\"";
    check(duration, avro, r#"{"months":1,"days":2,"millis":256}"#, &bytes);
}

#[test]
fn logical_types_that_do_not_fit_mean_nothing() {
    for (text, simple, bytes) in [
        (r#"{"type":"string","logicalType":"date"}"#, "\"x\"", vec![2, b'x']),
        (r#"{"type":"int","logicalType":"timestamp-millis"}"#, "1", vec![2]),
        (r#"{"type":"bytes","logicalType":"decimal","scale":2}"#, "\"YQ==\"", vec![2, b'a']),
        (r#"{"type":"bytes","logicalType":"decimal","precision":2,"scale":3}"#, "\"\"", vec![0]),
        (r#"{"type":"fixed","name":"F","size":1,"logicalType":"uuid"}"#, "\"YQ==\"", vec![b'a']),
        (r#"{"type":"long","logicalType":7}"#, "1", vec![2]),
        (r#"{"type":"long","logicalType":"of-our-own"}"#, "1", vec![2]),
    ] {
        check_read(text, simple, &bytes);
    }
}
