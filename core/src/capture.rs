//! From a complete request to an encoded record, or one for each topic that the client named.

use crate::body::Announced;
use crate::config::{Mode, Settings};
use crate::format::{self, MessageFormat, kong};
use crate::limits;
use crate::outcome::Code;
use crate::record::Record;
use crate::reply::Reply;
use crate::request::Request;
use crate::wire;

/// The encoded records of a request: one, and more where it goes to several topics.
#[derive(Debug, PartialEq, Eq)]
pub struct Captured {
    /// The first.
    pub first: Vec<u8>,
    /// The others, in the client's order.
    pub more: Vec<Vec<u8>>,
}

impl Captured {
    /// The topics in the client's order; none where there is one.
    #[must_use]
    pub fn several_topics(&self) -> Option<Vec<String>> {
        let topic = |record: &Vec<u8>| wire::topic(record).to_owned();
        let all = || std::iter::once(&self.first).chain(&self.more);
        (!self.more.is_empty()).then(|| all().map(topic).collect())
    }
}

impl From<Vec<u8>> for Captured {
    fn from(first: Vec<u8>) -> Self {
        Self { first, more: Vec::new() }
    }
}

/// Whether a request may become a record, by its headers alone; and what they say of its body.
///
/// # Errors
/// The reply for a request that may not.
pub fn admit(settings: &Settings, request: &Request) -> Result<Announced, Reply> {
    if request.opens_a_tunnel() {
        return Err(Reply::refused(
            Code::BadRequest,
            "CONNECT and upgrade requests cannot be captured",
        ));
    }
    if settings.mode == Mode::Terminate && request.is_grpc() {
        return Err(Reply::grpc_unsupported());
    }
    let lengths = request.headers.iter().filter(|(name, _)| name == b"content-length");
    Announced::read(lengths.map(|(_, value)| value.as_slice()), settings.max_body_bytes)
}

/// Captures a request as encoded records. `timestamp_ms` is now, in ms since 1970-01-01 UTC.
///
/// # Errors
/// The reply for a request that cannot become a message, or names a topic that is not allowed.
pub fn capture(
    settings: &Settings,
    request: &Request,
    timestamp_ms: i64,
) -> Result<Captured, Reply> {
    request.check_repeats().map_err(bad_request)?;
    let message_format = settings.message_format;
    let needs_kong = message_format == MessageFormat::Kong || settings.expressions.use_message();
    let kong_message = needs_kong.then(|| kong::encode(request, settings.forward));
    let kong_message = kong_message.transpose().map_err(bad_request)?;
    let kong_message = kong_message.as_deref();
    let message =
        format::encode(message_format, &settings.expressions, request, kong_message, timestamp_ms)
            .map_err(bad_request)?;
    let targets = &settings.targets;
    let topics = match message.topic.as_deref() {
        Some(topic) => targets.one_topic(&settings.topic, topic)?,
        None => targets.topics(&settings.topic, request.query())?,
    };
    let key = if message.key.is_none() { targets.key(request.query()) } else { None };
    let taken = settings.record_headers.of(request);
    let taken = taken.iter().map(|(name, value)| (*name, Some(value.as_ref())));
    let own = message.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
    let mut record = Record {
        topic: topics.first,
        partition: message.partition,
        timestamp_ms,
        key: message.key.as_deref().or(key.as_deref()),
        value: message.value.as_deref(),
        headers: taken.chain(own).collect(),
    };
    let first = wire::encode_record(&record).map_err(bad_request)?;
    // A queue that is empty takes every request, and so bounds none: a client that names every
    // topic with a large body would take the worker's memory.
    let most = settings.queue.bytes.max(limits::RECORD_BYTES_MAX);
    if !topics.more.is_empty() && first.len().saturating_mul(1 + topics.more.len()) > most {
        let error = "the message, once for each topic, is larger than the queue";
        return Err(Reply::refused(Code::RecordTooLarge, error));
    }
    let mut captured = Captured { first, more: Vec::new() };
    for topic in topics.more {
        record.topic = topic;
        captured.more.push(wire::encode_record(&record).map_err(bad_request)?);
    }
    Ok(captured)
}

fn bad_request(error: impl std::fmt::Display) -> Reply {
    Reply::refused(Code::BadRequest, &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_becomes_a_record_of_the_configured_topic() {
        let settings = Settings::parse(br#"{"bridge":"b","topic":"orders"}"#).unwrap();
        let mut request = Request { body: b"{}".to_vec(), ..Request::default() };
        request.headers.push((b"content-type".to_vec(), b"application/json".to_vec()));
        let expected = Record {
            topic: "orders",
            partition: None,
            timestamp_ms: 7,
            key: None,
            value: Some(br#"{"body_args":{},"body":"{}"}"#),
            headers: vec![],
        };
        let record = capture(&settings, &request, 7).unwrap();
        let first = wire::encode_record(&expected).unwrap();
        assert_eq!(record, Captured { first, more: vec![] });
        request.body = b"{".to_vec();
        let reply = capture(&settings, &request, 7).unwrap_err();
        assert_eq!(reply.status, 400);
        assert!(String::from_utf8(reply.body).unwrap().contains("column 1"));
    }

    fn frame(record: &[u8]) -> Vec<u8> {
        let head = wire::Head {
            profile: [0; 32],
            vm: [0; 16],
            sequence: 0,
            delivery: wire::Delivery::Acked,
            budget_ms: 1,
            settled_below: 0,
        };
        wire::encode_frame(&head, std::iter::once(record)).unwrap()
    }

    /// What a request becomes: its value, or the error for its client.
    fn message_of(fields: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> String {
        let config = format!(r#"{{"bridge":"b","topic":"orders",{fields}}}"#);
        let settings = Settings::parse(config.as_bytes()).unwrap();
        let pairs = headers.iter().map(|(name, value)| (name.as_bytes().into(), value.to_vec()));
        let headers = pairs.collect();
        let (target, body) = (target.as_bytes().to_vec(), body.to_vec());
        let request = Request { target, headers, body, ..Request::default() };
        match capture(&settings, &request, 7) {
            Ok(captured) => {
                let frame = frame(&captured.first);
                let batch = wire::decode_frame(&frame).unwrap();
                String::from_utf8(batch.records[0].value.unwrap_or_default().to_vec()).unwrap()
            }
            Err(reply) => {
                let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
                format!("{} {}", reply.status, body["error"].as_str().unwrap())
            }
        }
    }

    const BODY: &str = r#""forward_body":true"#;
    const URI: &str = r#""forward_body":false,"forward_uri":true"#;

    #[test]
    fn only_a_tap_copies_grpc() {
        let admitted = |mode: &str, kind: &str| {
            let config = format!(r#"{{"bridge":"b","topic":"t","mode":"{mode}"}}"#);
            let settings = Settings::parse(config.as_bytes()).unwrap();
            let headers = vec![(b"content-type".to_vec(), kind.into())];
            let admitted = admit(&settings, &Request { headers, ..Request::default() });
            admitted.map(|_| ()).map_err(|reply| (reply.status, reply.grpc_status()))
        };
        assert_eq!(admitted("terminate", "application/grpc+proto"), Err((415, 12)));
        assert_eq!(admitted("tap", "application/grpc+proto"), Ok(()));
        assert_eq!(admitted("terminate", "application/grpc-web"), Ok(()));
    }

    #[test]
    fn a_header_that_decides_counts_once_when_it_is_repeated_with_one_value() {
        let json = |headers: &[(&str, &[u8])]| message_of(BODY, "/", headers, b"[1]");
        let parsed = r#"{"body_args":[1],"body":"[1]"}"#;
        let one: &[u8] = b"application/json";
        assert_eq!(json(&[("content-type", one), ("content-type", one)]), parsed);
        assert_eq!(json(&[("content-type", b"application/json, application/json")]), parsed);
        assert_eq!(json(&[("content-type", b"application/json,application/json,")]), parsed);
        for name in ["content-type", "host", "content-encoding", "idempotency-key"] {
            let error = format!("400 the header `{name}` has different values");
            assert_eq!(json(&[(name, b"a/b"), (name, b"c/d")]), error);
            assert_eq!(json(&[(name, b"a/b, c/d")]), error);
        }
        let quoted = b"multipart/form-data; boundary=\"a,\\\"b\"";
        let body = b"--a,\"b--";
        assert!(
            message_of(BODY, "/", &[("content-type", quoted)], body).contains(r#""body_args":{}"#)
        );
    }

    #[test]
    fn arguments_that_are_not_utf8_are_read_by_their_charset() {
        let form = |charset: &str, body: &[u8]| {
            let kind = format!("application/x-www-form-urlencoded{charset}");
            message_of(BODY, "/", &[("content-type", kind.as_bytes())], body)
        };
        assert_eq!(form("", b"a=%E9"), r#"{"body_args":{"a":"é"},"body":"a=%E9"}"#);
        assert_eq!(form("", b"a=%80"), "{\"body_args\":{\"a\":\"\u{80}\"},\"body\":\"a=%80\"}");
        let western = r#"{"body_args":{"€":"é"},"body":"%80=%E9"}"#;
        assert_eq!(form("; charset=Windows-1252", b"%80=%E9"), western);
        assert_eq!(form("; charset=\"cp1252\"", b"%80=%E9"), western);
        let utf8 = r#"{"body_args":{"a":"é"},"body":"a=%C3%A9"}"#;
        assert_eq!(form("; charset=iso-8859-1", b"a=%C3%A9"), utf8);
        let raw = r#"{"body_base64":true,"body_args":{"a":"é","b":"ü"},"body":"YT3pJmI9JUMzJUJD"}"#;
        assert_eq!(form("", b"a=\xe9&b=%C3%BC"), raw);
        let query = r#"{"uri_args":{"a":"é"},"uri":"/?a=%E9"}"#;
        assert_eq!(message_of(URI, "/?a=%E9", &[], b""), query);
    }

    #[test]
    fn json_must_be_utf8_and_may_have_a_byte_order_mark() {
        let json =
            |body: &[u8]| message_of(BODY, "/", &[("content-type", b"application/json")], body);
        let error = "400 the body is not valid JSON: it is not UTF-8 at byte 6";
        assert_eq!(json(b"{\"a\":\"\xff\"}"), error);
        let marked = json(b"\xef\xbb\xbf{\"a\":1}");
        assert_eq!(marked, "{\"body_args\":{\"a\":1},\"body\":\"\u{feff}{\\\"a\\\":1}\"}");
        assert_eq!(json(b"\xef\xbb\xbf"), "{\"body_args\":{},\"body\":\"\u{feff}\"}");
    }

    #[test]
    fn a_picture_in_a_form_leaves_its_texts_in_the_arguments() {
        let head = "content-disposition: form-data; name";
        let body = [
            format!("--b\r\n{head}=a\r\n\r\n1\r\n").as_bytes(),
            format!("--b\r\n{head}=f; filename=\"p,1.png\"\r\ncontent-type: image/png\r\n")
                .as_bytes(),
            b"\r\n\x89PNG\xff\r\n",
            format!("--b\r\n{head}=f\r\n\r\n").as_bytes(),
            b"\xe9t\xe9\r\n--b--",
        ]
        .concat();
        let value =
            message_of(BODY, "/", &[("content-type", b"multipart/form-data; boundary=b")], &body);
        let value: serde_json::Value = serde_json::from_str(&value).unwrap();
        let picture = r#"{"filename":"p,1.png","content_type":"image/png","bytes":5}"#;
        let args = format!(r#"{{"a":"1","f":[{picture},{{"bytes":3}}]}}"#);
        assert_eq!(value["body_args"], serde_json::from_str::<serde_json::Value>(&args).unwrap());
        assert_eq!(value["body_base64"], true);
    }

    #[test]
    fn an_attribute_of_an_event_counts_once_when_it_is_repeated_with_one_value() {
        let event = |more: &[(&str, &[u8])]| {
            let own: [(&str, &[u8]); 4] = [
                ("ce-id", b"1"),
                ("ce-source", b"/s"),
                ("ce-specversion", b"1.0"),
                ("ce-type", b"t"),
            ];
            let headers = own.iter().filter(|(name, _)| !more.iter().any(|(n, _)| n == name));
            let headers: Vec<_> = headers.chain(more).copied().collect();
            message_of(r#""message_format":"cloudevents""#, "/", &headers, b"x")
        };
        let error = |name| {
            let event = "400 the request is not a valid CloudEvent";
            format!("{event}: the attribute `{name}` has different values")
        };
        assert_eq!(event(&[("ce-id", b"1"), ("ce-id", b"1")]), "x");
        assert_eq!(event(&[("ce-id", b"1, 1"), ("ce-specversion", b"1.0,1.0")]), "x");
        assert_eq!(event(&[("ce-id", b"1"), ("ce-id", b"2")]), error("id"));
        assert_eq!(event(&[("ce-a", b"1, 2")]), error("a"));
        let time = b"2018-04-05T17:31:00Z,2018-04-05T17:31:01Z";
        assert_eq!(event(&[("ce-time", time)]), error("time"));
        // A comma needs no encoding in an attribute, a space does.
        assert_eq!(event(&[("ce-subject", b"a,b"), ("ce-source", b"/s?a,b")]), "x");
        assert_eq!(event(&[("ce-subject", b"\"a, b\"")]), "x");
    }

    /// A configuration of each format, and one with every expression.
    fn formats() -> Vec<Settings> {
        [
            r#""forward_uri":true,"forward_headers":true,"forward_method":true"#,
            r#""message_format":"body""#,
            r#""message_format":"cloudevents""#,
            r#""message_expression":"request.body_bytes","key_expression":"request.uri",
               "topic_expression":"'orders'","partition_expression":"size(request.query)",
               "record_headers_expression":"{'h':request.headers.map(k,k),'m':request.path}""#,
            r#""message_expression":"message","key_expression":"has(message.body)?source.address:null""#,
        ]
        .map(|fields| format!(r#"{{"bridge":"b","topic":"orders",{fields}}}"#))
        .iter()
        .map(|config| Settings::parse(config.as_bytes()).unwrap())
        .collect()
    }

    proptest! {
        #[test]
        fn a_header_that_is_repeated_with_one_value_changes_nothing(
            kind in prop::sample::select(vec![
                "application/json", "multipart/form-data; boundary=\"b,c\"", "text/plain",
                "application/x-www-form-urlencoded; charset=windows-1252",
            ]),
            id in "[!#$&-~]{1,8}",
            (lines, times) in (1..4_usize, 1..4_usize),
            body in "(\\[1\\]|a=%80|--b,c--|)",
        ) {
            let repeated = |value: &str| vec![vec![value; times].join(", ").into_bytes(); lines];
            for (fields, name, value) in [
                (BODY, "content-type", kind),
                (r#""message_format":"body""#, "content-type", kind),
                (r#""message_format":"cloudevents""#, "ce-id", &id),
            ] {
                let capture = |values: &[Vec<u8>]| {
                    let own: [(&str, &[u8]); 3] =
                        [("ce-source", b"/s"), ("ce-specversion", b"1.0"), ("ce-type", b"t")];
                    let values = values.iter().map(|value| (name, value.as_slice()));
                    let headers: Vec<_> = own.into_iter().chain(values).collect();
                    message_of(fields, "/", &headers, body.as_bytes())
                };
                prop_assert_eq!(capture(&repeated(value)), capture(&[value.into()]));
            }
        }

        #[test]
        fn no_form_and_no_query_is_refused(
            query in prop::collection::vec(any::<u8>(), 0..32),
            body in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let kind = b"application/x-www-form-urlencoded".to_vec();
            let request = Request {
                target: [b"/?".to_vec(), query].concat(),
                headers: vec![(b"content-type".to_vec(), kind)],
                body,
                ..Request::default()
            };
            for settings in formats().iter().filter(|it| it.expressions.topic.is_none()) {
                if settings.message_format != format::MessageFormat::CloudEvents {
                    prop_assert!(capture(settings, &request, 7).is_ok());
                }
            }
        }

        #[test]
        fn any_request_becomes_a_record_or_a_400_in_every_format(
            method in prop::collection::vec(any::<u8>(), 0..8),
            target in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..32),
                "/[a-z]{0,3}\\?([a-z%&=f0]{0,3}=?[a-z%&+]{0,3}&?){0,5}".prop_map(String::into_bytes),
            ],
            headers in prop::collection::vec(
                (
                    "ce-[a-z]{0,3}|content-type|ce-id|ce-source|ce-type|x-[a-z]{0,3}|host",
                    prop_oneof![
                        prop::collection::vec(any::<u8>(), 0..16),
                        "application/(json|cloudevents\\+json|x-www-form-urlencoded)|1\\.0|%41|\
                         multipart/form-data; boundary=[b\"]"
                            .prop_map(String::into_bytes),
                    ],
                ),
                0..8,
            ),
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                "[\\[\\]{}\",:0-9a-z\\\\%&=]{0,40}".prop_map(String::into_bytes),
                "--b\r\ncontent-disposition: form-data; name=[a\"é]\r\n\r\n.{0,9}(\r\n--b--)?"
                    .prop_map(String::into_bytes),
            ],
        ) {
            let mut request = Request { method, target, body, ..Request::default() };
            request.headers.push((b"ce-specversion".to_vec(), b"1.0".to_vec()));
            request.headers.extend(headers.into_iter().map(|(n, v)| (n.into_bytes(), v)));
            for (at, settings) in formats().iter().enumerate() {
                match capture(settings, &request, 7) {
                    Ok(record) => {
                        let frame = frame(&record.first);
                        let batch = wire::decode_frame(&frame).unwrap();
                        let record = &batch.records[0];
                        prop_assert_eq!((record.topic, record.timestamp_ms), ("orders", 7));
                        if (1..=3).contains(&at) {
                            prop_assert_eq!(record.value.unwrap_or_default(), &request.body);
                        }
                    }
                    Err(reply) => {
                        prop_assert_eq!(reply.status, 400);
                        prop_assert!(reply.body.len() < 2000);
                    }
                }
            }
        }
    }

    #[test]
    fn each_topic_that_the_client_names_gets_the_record_with_its_key_and_headers() {
        let settings = Settings::parse(
            br#"{"bridge":"b","topic":"orders","topics_query_arg":"to","allowed_topics":["a"],
                "key_query_arg":"key","headers":{"include_headers":["x-tag"]}}"#,
        );
        let request = Request {
            target: b"/?to=a,orders&key=k%201".to_vec(),
            headers: vec![(b"x-tag".to_vec(), b"1".to_vec())],
            ..Request::default()
        };
        let captured = capture(&settings.unwrap(), &request, 7).unwrap();
        let mut expected = Record {
            topic: "a",
            partition: None,
            timestamp_ms: 7,
            key: Some(b"k 1"),
            value: Some(br#"{"body_base64":true,"body_args":{},"body":""}"#),
            headers: vec![(b"x-tag", Some(b"1"))],
        };
        assert_eq!(captured.first, wire::encode_record(&expected).unwrap());
        expected.topic = "orders";
        assert_eq!(captured.more, [wire::encode_record(&expected).unwrap()]);
    }

    #[test]
    fn a_large_body_for_many_topics_is_refused_before_it_is_copied() {
        let topics: Vec<_> = (0..70).map(|at| format!("\"t{at}\"")).collect();
        let config = format!(
            r#"{{"bridge":"b","topic":"orders","topics_query_arg":"to","message_format":"body",
                "allowed_topics":[{}]}}"#,
            topics.join(",")
        );
        let settings = Settings::parse(config.as_bytes()).unwrap();
        let to = |count| topics[..count].join(",").replace('"', "");
        let status = |count| {
            let request = Request {
                target: format!("/?to={}", to(count)).into_bytes(),
                body: vec![b'x'; 1 << 20],
                ..Request::default()
            };
            capture(&settings, &request, 7).map_err(|reply| reply.status).err()
        };
        assert_eq!((status(60), status(70)), (None, Some(413)));
    }
}
