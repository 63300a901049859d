//! Events in both content modes, and what is no event.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use proptest::prelude::*;

use super::*;

fn request(headers: &[(&str, &str)], body: &[u8]) -> Request {
    let headers =
        headers.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
    Request {
        method: b"POST".into(),
        headers: headers.collect(),
        body: body.into(),
        ..Request::default()
    }
}

const REQUIRED: [(&str, &str); 4] =
    [("ce-id", "1"), ("ce-source", "/shop"), ("ce-specversion", "1.0"), ("ce-type", "order.made")];

/// A binary event with some headers more, or with others in place of the required ones.
fn binary(more: &[(&str, &str)], body: &[u8]) -> Request {
    let kept = REQUIRED.iter().filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
    request(&kept.chain(more).copied().collect::<Vec<_>>(), body)
}

fn structured(content_type: &str, body: &str) -> Request {
    request(&[("content-type", content_type)], body.as_bytes())
}

const JSON: &str = "application/cloudevents+json";

fn headers(message: &Message<'_>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs = message.headers.iter();
    pairs.map(|(name, value)| (text(name), text(value.as_deref().unwrap()))).collect()
}

fn fault(request: &Request) -> String {
    encode(request).unwrap_err().to_string()
}

#[test]
fn a_binary_event_becomes_headers_and_its_data_the_value() {
    let more = [
        ("content-type", "application/avro"),
        ("ce-time", "2018-04-05T17:31:00Z"),
        ("ce-subject", "Euro%20%E2%82%AC%20%f0%9f%98%80"),
        ("ce-partitionkey", "\"a \\\"b\\\"\""),
        ("ce-custom1", ""),
        ("x-other", "y"),
    ];
    let request = binary(&more, b"\x00\xff");
    let message = encode(&request).unwrap();
    let expected = [
        ("ce_custom1", ""),
        ("ce_id", "1"),
        ("ce_partitionkey", "a \"b\""),
        ("ce_source", "/shop"),
        ("ce_specversion", "1.0"),
        ("ce_subject", "Euro € 😀"),
        ("ce_time", "2018-04-05T17:31:00Z"),
        ("ce_type", "order.made"),
        ("content-type", "application/avro"),
    ];
    assert_eq!(headers(&message), expected.map(|(name, value)| (name.into(), value.into())));
    assert_eq!(message.key.as_deref(), Some(&b"a \"b\""[..]));
    assert_eq!(message.value.as_deref(), Some(&b"\x00\xff"[..]));
}

#[test]
fn a_binary_event_without_data_has_no_value() {
    let request = binary(&[], b"");
    let message = encode(&request).unwrap();
    assert_eq!((message.value, message.key), (None, None));
}

#[test]
fn a_structured_event_is_passed_on_as_it_came() {
    let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    let body = format!(
        r#" {{"id":"1", "source":"/s", "specversion":"1.0", "type":"t", "subject":null,
        "number":-7, "flag":true, "partitionkey":"k\u00e9y", "data":{deep}}}"#
    );
    let request = structured("Application/CloudEvents+JSON; charset=UTF-8", &body);
    let message = encode(&request).unwrap();
    assert_eq!(message.value.as_deref(), Some(body.as_bytes()));
    assert_eq!(message.key.as_deref(), Some("kéy".as_bytes()));
    let content_type = "Application/CloudEvents+JSON; charset=UTF-8";
    assert_eq!(headers(&message), [("content-type".into(), content_type.into())]);
}

#[test]
fn an_invalid_binary_event_names_its_attribute() {
    for (name, _) in REQUIRED {
        let rest: Vec<_> = REQUIRED.into_iter().filter(|(other, _)| *other != name).collect();
        let error = fault(&request(&rest, b""));
        assert_eq!(error, format!("the attribute `{}` is missing", &name[3..]));
    }
    for (name, value, error) in [
        ("ce-specversion", "0.3", "the attribute `specversion` is not 1.0"),
        ("ce-id", "", "the attribute `id` is empty"),
        ("ce-id", "a%2", "the attribute `id` has a `%` without two hexadecimal digits"),
        ("ce-id", "100%", "the attribute `id` has a `%` without two hexadecimal digits"),
        ("ce-id", "%C0%A0", "the attribute `id` is not valid UTF-8 when it is decoded"),
        ("ce-id", "a%00", "the attribute `id` has a control character or a noncharacter"),
        ("ce-id", "%EF%BF%BE", "the attribute `id` has a control character or a noncharacter"),
        ("ce-id", "\"a", "the attribute `id` has an unterminated quoted string"),
        ("ce-id", "\"a\"b", "the attribute `id` has an unterminated quoted string"),
        ("ce-source", "a%20b", "the attribute `source` is not a URI"),
        ("ce-time", "yesterday", "the attribute `time` is not a timestamp of RFC 3339"),
        ("ce-partitionkey", "", "the attribute `partitionkey` is empty"),
        ("ce-my_ext", "1", "`my_ext` is not the name of an attribute, which has only a-z and 0-9"),
        ("ce-", "1", "`` is not the name of an attribute, which has only a-z and 0-9"),
        (
            "ce-datacontenttype",
            "text/plain",
            "the attribute `datacontenttype` is the header content-type in binary mode",
        ),
    ] {
        assert_eq!(fault(&binary(&[(name, value)], b"")), error, "{name}: {value}");
    }
    let twice = fault(&binary(&[("ce-a", "1"), ("ce-a", "2")], b""));
    assert_eq!(twice, "the attribute `a` has different values");
    assert!(encode(&binary(&[("ce-a", "1"), ("ce-a", "%31")], b"")).is_ok());
}

#[test]
fn an_invalid_structured_event_names_its_attribute() {
    let event = |fields: &str| {
        let body = format!(r#"{{"id":"1","source":"/s","specversion":"1.0","type":"t"{fields}}}"#);
        encode(&structured(JSON, &body)).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(event(""), Ok(()));
    for (fields, error) in [
        (r#","id":null"#, "the attribute `id` is missing"),
        (r#","id":7"#, "the attribute `id` is not a string"),
        (r#","id":"""#, "the attribute `id` is empty"),
        (r#","time":"12:00""#, "the attribute `time` is not a timestamp of RFC 3339"),
        (r#","Ext":"1""#, "`Ext` is not the name of an attribute, which has only a-z and 0-9"),
        (r#","ext":{}"#, "the attribute `ext` is not a string, a bool or an integer of 32 bits"),
        (r#","ext":1.5"#, "the attribute `ext` is not a string, a bool or an integer of 32 bits"),
        (r#","ext":"\ud800""#, "the attribute `ext` is not valid Unicode"),
        (r#","data_base64":"?""#, "the attribute `data_base64` is not base64"),
        (r#","data_base64":1"#, "the attribute `data_base64` is not a string"),
        (
            r#","data":1,"data_base64":"AA==""#,
            "the attribute `data_base64` is not allowed together with `data`",
        ),
    ] {
        assert_eq!(event(fields), Err(error.to_owned()), "{fields}");
    }
    assert!(fault(&structured(JSON, "[]")).starts_with("the body is not a JSON event: "));
    assert!(fault(&structured(JSON, "")).starts_with("the body is not a JSON event: "));
    let batched = structured("application/cloudevents-batch+json", "[]");
    assert_eq!(encode(&batched), Err(EventError::Batched));
    let avro = structured("application/cloudevents+avro", "");
    assert_eq!(encode(&avro), Err(EventError::Format("application/cloudevents+avro".into())));
}

/// What the HTTP binding says must be encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

proptest! {
    #[test]
    fn what_is_encoded_by_the_binding_is_decoded(
        value in "[^\\p{C}\u{fffe}\u{ffff}]{1,12}", name in "x[a-z0-9]{0,9}", body in ".{1,8}",
    ) {
        let encoded = utf8_percent_encode(&value, ENCODED).to_string();
        let header = format!("ce-{name}");
        let event = binary(&[(header.as_str(), encoded.as_str())], body.as_bytes());
        let message = encode(&event).unwrap();
        let carried = headers(&message).contains(&(format!("ce_{name}"), value.clone()));
        prop_assert!(carried);
        prop_assert_eq!(message.value.as_deref(), Some(body.as_bytes()));

        let json = serde_json::json!({
            "id": "1", "source": "/", "specversion": "1.0", "type": "t",
            name: value, "partitionkey": value, "data": body,
        });
        let event = structured(JSON, &json.to_string());
        let message = encode(&event).unwrap();
        prop_assert_eq!(message.key.as_deref(), Some(value.as_bytes()));
    }

    #[test]
    fn arbitrary_headers_and_bodies_never_panic(
        name in "ce-[ -~]{0,6}",
        value in prop::collection::vec(any::<u8>(), 0..24),
        content_type in "application/cloudevents(|\\+json|-batch|\\+xml|;)",
        body in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut event = binary(&[], &body);
        event.headers.push((name.into_bytes(), value));
        let _ = encode(&event);
        event.headers.push((b"content-type".into(), content_type.into_bytes()));
        let _ = encode(&event);
    }
}
