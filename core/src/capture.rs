//! From a complete request to an encoded record.

use crate::config::Settings;
use crate::format::{self, Message};
use crate::outcome::{Code, Reply};
use crate::record::Record;
use crate::request::Request;
use crate::wire;

/// Captures a request as an encoded record. `timestamp_ms` is now, in ms since 1970-01-01 UTC.
///
/// # Errors
/// The reply for a request that cannot become a message.
pub fn capture(
    settings: &Settings,
    request: &Request,
    timestamp_ms: i64,
) -> Result<Vec<u8>, Reply> {
    let kong_message = format::kong_message(settings, request).map_err(bad_request)?;
    let message = format::encode(settings, request, kong_message.as_deref(), timestamp_ms)
        .map_err(bad_request)?;
    let headers = message.headers.iter();
    let record = Record {
        topic: topic(settings, &message)?,
        partition: message.partition,
        timestamp_ms,
        key: message.key.as_deref(),
        value: message.value.as_deref(),
        headers: headers.map(|(name, value)| (&**name, value.as_deref())).collect(),
    };
    wire::encode_record(&record).map_err(bad_request)
}

/// The topic of a message. What a request can choose must be allowed.
fn topic<'a>(settings: &'a Settings, message: &'a Message<'_>) -> Result<&'a str, Reply> {
    match message.topic.as_deref() {
        Some(topic) if topic != settings.topic => {
            let error = "one or more target topics are not in the allowed topics list";
            Err(Reply::refused(Code::TopicNotAllowed, error))
        }
        _ => Ok(&settings.topic),
    }
}

fn bad_request(error: impl std::fmt::Display) -> Reply {
    Reply::refused(Code::BadRequest, &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(record, wire::encode_record(&expected).unwrap());
        request.body = b"{".to_vec();
        let reply = capture(&settings, &request, 7).unwrap_err();
        assert_eq!(reply.status, 400);
        assert!(String::from_utf8(reply.body).unwrap().contains("column 1"));
    }
}
