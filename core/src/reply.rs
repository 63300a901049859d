//! The one HTTP reply of a request: what became of its record, or of all its records.

use serde::Serialize;

use crate::limits::RETRY_AFTER_SECONDS;
use crate::outcome::{Code, Outcome, Reason};

/// A complete HTTP reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Why it is not a success; none where it is.
    pub code: Option<Code>,
    /// Headers in order.
    pub headers: Vec<(&'static str, String)>,
    /// The body; a JSON document unless the configuration has another for successes.
    pub body: Vec<u8>,
}

/// How a filter answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replies {
    /// The reply to a request whose record is accepted under the delivery mode.
    pub success: Success,
    /// Whether replies tell the real reason of a failure.
    pub reveal: bool,
}

/// `success_response`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// HTTP status, 200 to 299.
    pub status: u16,
    /// `content-type`; none where there is no body.
    pub content_type: Option<String>,
    /// The body.
    pub body: String,
}

impl Default for Success {
    fn default() -> Self {
        let body = r#"{"message":"message sent"}"#.to_owned();
        Self { status: 200, content_type: Some(JSON.to_owned()), body }
    }
}

impl Replies {
    /// The reply for a record that is accepted, without its partition and offset.
    #[must_use]
    pub fn sent(&self) -> Reply {
        let Success { status, content_type, body } = &self.success;
        let content_type = content_type.iter().map(|kind| ("content-type", kind.clone()));
        let (headers, body) = (content_type.collect(), body.clone().into());
        Reply { status: *status, code: None, headers, body }
    }

    /// The reply for what became of a record of `topic`.
    #[must_use]
    pub fn of(&self, outcome: &Outcome, topic: &str) -> Reply {
        match outcome {
            Outcome::Written { partition, offset } => {
                let mut reply = self.sent();
                reply.headers.push(("kafka-topic", topic.to_owned()));
                reply.headers.push(("kafka-partition", partition.to_string()));
                if let Some(offset) = offset {
                    reply.headers.push(("kafka-offset", offset.to_string()));
                }
                reply
            }
            Outcome::Queued => self.sent(),
            Outcome::NotWritten(reason) | Outcome::Unknown(reason) => {
                Reply::failure(status(outcome), reason.code, self.shown(reason), &[])
            }
        }
    }

    /// The reply for a request with a record for each of several topics: a success only when all
    /// are written, else the worst of them. Where one record is written and another may be sent
    /// again, that is 504 and not 503, which says that nothing was written.
    #[must_use]
    pub fn of_several(&self, outcomes: &[(&str, Outcome)]) -> Reply {
        let failed = outcomes.iter().filter(|(_, outcome)| status(outcome) != 200);
        let worst = failed.max_by_key(|(_, outcome)| severity(status(outcome)));
        let Some((_, worst)) = worst else { return self.sent() };
        let (Outcome::NotWritten(reason) | Outcome::Unknown(reason)) = worst else {
            return self.sent();
        };
        let any_written = outcomes.iter().any(|(_, outcome)| status(outcome) == 200);
        let code = match status(worst) {
            503 if any_written => 504,
            other => other,
        };
        let lines: Vec<_> = outcomes.iter().map(|(topic, outcome)| line(topic, outcome)).collect();
        let lines = if self.reveal { lines.as_slice() } else { &[] };
        Reply::failure(code, reason.code, self.shown(reason), lines)
    }

    /// What does not fit a schema is the client's to mend, and its reason quotes no value.
    fn shown<'a>(&self, reason: &'a Reason) -> Option<&'a str> {
        let is_shown = self.reveal || reason.code == Code::SchemaMismatch;
        (is_shown && !reason.detail.is_empty()).then_some(&reason.detail)
    }
}

impl Reply {
    /// The same without its body, for a host that would send an empty reply instead.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.headers.retain(|(name, _)| *name != "content-type");
        self.body.clear();
        self
    }

    /// A request that was refused before a record was made of it. `error` describes
    /// the request alone, so it is always shown.
    #[must_use]
    pub fn refused(code: Code, error: &str) -> Self {
        Self::failure(code.status(), code, Some(error), &[])
    }

    /// What a client gets instead of the response of what stands behind the filter to a request
    /// whose body is not complete. None for 4xx: there the gateway refuses the request itself, as
    /// too large, too slow or malformed.
    #[must_use]
    pub fn instead_of(status: &[u8], is_bridges: bool) -> Option<Self> {
        match status {
            [b'4', ..] => None,
            b"503" => Some(Self::refused(Code::BridgeUnreachable, NOT_HELD)),
            _ if is_bridges => Some(Self::refused(Code::BridgeUnreachable, NOT_HELD)),
            _ => {
                Some(Self::refused(Code::HostMismatch, "the gateway routes the request elsewhere"))
            }
        }
    }

    /// The refusal of a gRPC request (gRPC over HTTP/2, Trailers-Only): its status is in headers,
    /// and it has no body. Envoy makes HTTP 200 of it, as of every reply to such a request.
    #[must_use]
    pub fn grpc_unsupported() -> Self {
        let code = Code::GrpcUnsupported;
        let headers = vec![
            ("content-type", "application/grpc".to_owned()),
            ("grpc-status", GRPC_UNIMPLEMENTED.to_string()),
            ("grpc-message", "gRPC requests are not supported".to_owned()),
            ("kafka-error", code.name().to_owned()),
        ];
        Self { status: code.status(), code: Some(code), headers, body: Vec::new() }
    }

    /// The status that a gRPC client gets where Envoy makes HTTP 200 of this reply: the client
    /// sends again on 14 alone, as others do on 503. -1 leaves it to Envoy.
    #[must_use]
    pub const fn grpc_status(&self) -> i32 {
        match self.status {
            200..=299 => -1,
            // INVALID_ARGUMENT
            400 | 413 | 422 | 431 => 3,
            // DEADLINE_EXCEEDED: it may have been done.
            408 | 504 => 4,
            415 => GRPC_UNIMPLEMENTED,
            // UNAVAILABLE
            503 => 14,
            // INTERNAL
            _ => 13,
        }
    }

    fn failure(status: u16, code: Code, error: Option<&str>, topics: &[Line<'_>]) -> Self {
        let message = match status {
            400 => "Bad Request",
            408 => "Request Timeout",
            413 => "Payload Too Large",
            415 => "Unsupported Media Type",
            422 => "Unprocessable Entity",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "Gateway Timeout",
        };
        let error = error.or(match status {
            413 => Some("the record is larger than the topic, the producer or a batch allows"),
            500 => Some("the gateway is not configured for this"),
            502 => Some("could not send message to topic"),
            503 => Some("the message was not written and can be sent again"),
            504 => Some("the message may have been written"),
            _ => None,
        });
        let mut headers =
            vec![("content-type", JSON.to_owned()), ("kafka-error", code.name().to_owned())];
        if status == 503 {
            headers.push(("retry-after", RETRY_AFTER_SECONDS.to_string()));
        }
        let body = Failure { message, error: error.unwrap_or(code.name()), topics };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        Self { status, code: Some(code), headers, body }
    }
}

/// The status of one record's outcome.
#[must_use]
pub fn status(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Written { .. } | Outcome::Queued => 200,
        Outcome::NotWritten(reason) => reason.code.status(),
        Outcome::Unknown(_) => 504,
    }
}

/// Which of two failures is worse: what may be written, then what will never be, then what can be
/// sent again.
const fn severity(status: u16) -> u8 {
    match status {
        504 => 3,
        503 => 0,
        500 | 502 => 2,
        _ => 1,
    }
}

/// The body of a reply that is not a success, in Kong's order.
#[derive(Serialize)]
struct Failure<'a> {
    message: &'static str,
    error: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    topics: &'a [Line<'a>],
}

/// What became of the record of one of several topics.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

fn line<'a>(topic: &'a str, outcome: &'a Outcome) -> Line<'a> {
    let status = status(outcome);
    let place = Line { topic, status, partition: None, offset: None, code: None, error: None };
    match outcome {
        Outcome::Written { partition, offset } => {
            Line { partition: Some(*partition), offset: *offset, ..place }
        }
        Outcome::Queued => place,
        Outcome::NotWritten(reason) | Outcome::Unknown(reason) => {
            Line { code: Some(reason.code.name()), error: Some(&reason.detail), ..place }
        }
    }
}

/// UNIMPLEMENTED, by its number in gRPC.
const GRPC_UNIMPLEMENTED: i32 = 12;
const NOT_HELD: &str = "the bridge did not hold the request until its end: send it again later";
const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn only_a_written_record_is_a_200() {
        let replies = Replies::default();
        let written = Outcome::Written { partition: 3, offset: Some(42) };
        let reply = replies.of(&written, "orders");
        assert_eq!((reply.status, &reply.body[..]), (200, &br#"{"message":"message sent"}"#[..]));
        assert_eq!(header(&reply, "kafka-offset"), Some("42"));
        for code in Code::ALL {
            let reason = Reason::new(*code, "why");
            let not = replies.of(&Outcome::NotWritten(reason.clone()), "orders");
            assert!(
                matches!(not.status, 400 | 408 | 413 | 415 | 422 | 431 | 500 | 502 | 503 | 504),
                "{code:?}"
            );
            assert_eq!(header(&not, "retry-after").is_some(), not.status == 503);
            assert_eq!(replies.of(&Outcome::Unknown(reason), "orders").status, 504);
            assert_eq!(header(&not, "kafka-error"), Some(code.name()));
        }
    }

    #[test]
    fn a_client_of_grpc_sends_again_only_what_was_not_written() {
        for code in Code::ALL {
            let reply = Reply::refused(*code, "");
            assert_eq!(reply.grpc_status() == 14, reply.status == 503, "{code:?}");
            assert!(reply.grpc_status() > 0, "{code:?} would be a success");
        }
        let refusal = Reply::grpc_unsupported();
        assert_eq!((header(&refusal, "grpc-status"), refusal.grpc_status()), (Some("12"), 12));
        assert!(refusal.body.is_empty());
    }

    #[test]
    fn what_stands_behind_the_filter_answers_nobody_but_for_what_is_wrong_with_the_request() {
        let code = |status: &[u8], is_bridges| {
            Reply::instead_of(status, is_bridges).map(|reply| (reply.status, reply.code.unwrap()))
        };
        for status in ["400", "404", "408", "413", "429"] {
            assert_eq!(code(status.as_bytes(), false), None, "{status}");
        }
        for status in ["", "200", "204", "302", "500", "502", "504"] {
            let told = Some((500, Code::HostMismatch));
            assert_eq!(code(status.as_bytes(), false), told, "{status}");
        }
        let away = Some((503, Code::BridgeUnreachable));
        assert_eq!((code(b"503", false), code(b"504", true)), (away, away));
    }

    #[test]
    fn the_reason_is_told_only_when_asked_for() {
        let replies = Replies::default();
        let revealing = Replies { reveal: true, ..Replies::default() };
        let reason = Reason::new(Code::Rejected, "broker 10.0.0.1 said no");
        let hidden = replies.of(&Outcome::NotWritten(reason.clone()), "orders");
        assert_eq!(
            String::from_utf8(hidden.body).unwrap(),
            r#"{"message":"Bad Gateway","error":"could not send message to topic"}"#
        );
        let reply = revealing.of(&Outcome::NotWritten(reason), "orders");
        assert!(String::from_utf8(reply.body).unwrap().contains("10.0.0.1"));
        let reason = Reason::new(Code::SchemaMismatch, "orders-value version 3: $.id: is missing");
        let reply = replies.of(&Outcome::NotWritten(reason), "orders");
        assert_eq!(
            String::from_utf8(reply.body).unwrap(),
            concat!(
                r#"{"message":"Unprocessable Entity","#,
                r#""error":"orders-value version 3: $.id: is missing"}"#
            )
        );
    }

    fn status_and_body(outcomes: &[(&str, Outcome)], reveal: bool) -> (u16, String) {
        let reply = Replies { reveal, ..Replies::default() }.of_several(outcomes);
        (reply.status, String::from_utf8(reply.body).unwrap())
    }

    #[test]
    fn several_records_have_one_reply_a_success_only_when_all_are_written() {
        let written = || Outcome::Written { partition: 1, offset: Some(7) };
        let not = |code| Outcome::NotWritten(Reason::new(code, "why"));
        let unknown = Outcome::Unknown(Reason::new(Code::BadReply, "who knows"));
        let status = |outcomes: &[Outcome]| {
            let named: Vec<_> = outcomes.iter().map(|outcome| ("t", outcome.clone())).collect();
            status_and_body(&named, false).0
        };
        assert_eq!(status(&[written(), written()]), 200);
        let (later, never) = (not(Code::KafkaUnreachable), not(Code::UnknownTopic));
        assert_eq!(status(&[later.clone(), later.clone()]), 503);
        assert_eq!(status(&[written(), later.clone()]), 504, "503 would say: nothing is written");
        assert_eq!(status(&[written(), never.clone()]), 502);
        assert_eq!(status(&[later, never.clone()]), 502);
        assert_eq!(status(&[not(Code::RecordTooLarge), written()]), 413);
        assert_eq!(status(&[never.clone(), unknown]), 504);
        let (_, body) = status_and_body(&[("a", written()), ("b", never.clone())], true);
        assert_eq!(
            body,
            concat!(
                r#"{"message":"Bad Gateway","error":"why","topics":["#,
                r#"{"topic":"a","status":200,"partition":1,"offset":7},"#,
                r#"{"topic":"b","status":502,"code":"unknown_topic","error":"why"}]}"#
            )
        );
        assert!(!status_and_body(&[("a", written()), ("b", never)], false).1.contains("topics"));
    }

    #[test]
    fn a_success_is_told_as_the_configuration_says() {
        let success = Success { status: 202, content_type: None, body: "ok".to_owned() };
        let replies = Replies { success, reveal: false };
        let reply = replies.of(&Outcome::Written { partition: 0, offset: None }, "orders");
        assert_eq!((reply.status, &reply.body[..]), (202, &b"ok"[..]));
        assert_eq!(header(&reply, "content-type"), None);
        assert_eq!(header(&reply, "kafka-topic"), Some("orders"));
    }
}
