//! From a complete request to an encoded record, or one for each topic that the client named.

use crate::config::Settings;
use crate::format;
use crate::limits;
use crate::outcome::{Code, Reply};
use crate::record::Record;
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

impl From<Vec<u8>> for Captured {
    fn from(first: Vec<u8>) -> Self {
        Self { first, more: Vec::new() }
    }
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
    let kong_message = format::kong_message(settings, request).map_err(bad_request)?;
    let message = format::encode(settings, request, kong_message.as_deref(), timestamp_ms)
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
                        "application/(json|cloudevents\\+json|x-www-form-urlencoded)|1\\.0|%41"
                            .prop_map(String::into_bytes),
                    ],
                ),
                0..8,
            ),
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                "[\\[\\]{}\",:0-9a-z\\\\%&=]{0,40}".prop_map(String::into_bytes),
            ],
        ) {
            let mut request = Request { method, target, body, ..Request::default() };
            request.headers.push((b"ce-specversion".to_vec(), b"1.0".to_vec()));
            request.headers.extend(headers.into_iter().map(|(n, v)| (n.into_bytes(), v)));
            for (at, settings) in formats().iter().enumerate() {
                match capture(settings, &request, 7) {
                    Ok(record) => {
                        let head = wire::Head {
                            profile: [0; 32],
                            vm: [0; 16],
                            sequence: 0,
                            delivery: wire::Delivery::Acked,
                            budget_ms: 1,
                            settled_below: 0,
                        };
                        let one = [record.first.as_slice()];
                        let frame = wire::encode_frame(&head, one.into_iter()).unwrap();
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
