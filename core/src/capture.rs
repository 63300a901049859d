//! From a complete request to an encoded record.

use crate::config::Settings;
use crate::format::kong;
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
    let value = kong::encode(request, settings.forward)
        .map_err(|error| Reply::refused(Code::BadRequest, &error.to_string()))?;
    let record = Record {
        topic: &settings.topic,
        partition: None,
        timestamp_ms,
        key: None,
        value: Some(&value),
        headers: Vec::new(),
    };
    wire::encode_record(&record)
        .map_err(|error| Reply::refused(Code::BadRequest, &error.to_string()))
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
