//! What a callout's end says about the batch that it carried.

use crate::limits::REPLY_BYTES_MAX;
use crate::outcome::{Code, Outcome, Reason};
use crate::wire;

/// How a callout to the bridge ended, as the host shows it.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// `:status`; none when there are no headers.
    pub status: Option<u16>,
    /// The value of the marker header, which only the bridge sends.
    pub marker: Option<&'a [u8]>,
    /// Whether Envoy says that its own overload protection answered.
    pub overloaded: bool,
    /// The body; none when it is longer than `REPLY_BYTES_MAX` or cannot be read.
    pub body: Option<&'a [u8]>,
}

/// What the outbox does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// One outcome per record, in order.
    Outcomes(Vec<Outcome>),
    /// The bridge does not know the profile: register it, then send the batch again.
    UnknownProfile,
    /// The frame is too large for the bridge: send its records in smaller ones.
    TooLarge,
    /// Nothing of the batch was written.
    NotWritten(Reason),
    /// The batch may have been written: send it again under its sequence, or say so.
    Unknown(Reason),
}

/// Classifies the end of a produce callout with `records` records, on Envoy.
#[must_use]
pub fn classify(ended: &Ended<'_>, records: usize) -> Verdict {
    if ended.marker != Some(wire::VERSION.as_bytes()) {
        return without_marker(ended);
    }
    match ended.status {
        Some(200) => outcomes(ended.body, records),
        Some(404) => Verdict::UnknownProfile,
        Some(413) => Verdict::TooLarge,
        status => Verdict::NotWritten(Reason::new(
            Code::BridgeRefused,
            format!("the bridge answered {}: {}", status.unwrap_or(0), text(ended.body)),
        )),
    }
}

/// Classifies the end of a profile's registration: the refusal, if it was not registered.
#[must_use]
pub fn classify_registration(ended: &Ended<'_>) -> Option<Reason> {
    let marked = ended.marker == Some(wire::VERSION.as_bytes());
    match ended.status {
        Some(200) if marked => None,
        Some(status) if marked => Some(Reason::new(
            Code::ProfileRefused,
            format!("the bridge answered {status}: {}", text(ended.body)),
        )),
        _ => Some(Reason::new(Code::BridgeUnreachable, text(ended.body))),
    }
}

fn outcomes(body: Option<&[u8]>, records: usize) -> Verdict {
    let bad = |why: String| Verdict::Unknown(Reason::new(Code::BadReply, why));
    let Some(body) = body else {
        return bad(format!("the reply is above {REPLY_BYTES_MAX} bytes or cannot be read"));
    };
    match wire::decode_outcomes(body) {
        Ok(outcomes) if outcomes.len() == records => Verdict::Outcomes(outcomes),
        Ok(outcomes) => bad(format!("{} outcomes for {records} records", outcomes.len())),
        Err(error) => bad(error.to_string()),
    }
}

/// A reply that is not the bridge's: Envoy's own, or a stranger's. Only what names a failure
/// before the request was sent proves that nothing was written.
fn without_marker(ended: &Ended<'_>) -> Verdict {
    let text = text(ended.body);
    let reset = text.starts_with(RESET) && UNSENT.iter().any(|reason| text.contains(reason));
    let unsent = ended.status == Some(503) && (ended.overloaded || reset || text == NO_HOST);
    if unsent {
        Verdict::NotWritten(Reason::new(Code::BridgeUnreachable, text))
    } else {
        Verdict::Unknown(Reason::new(Code::BadReply, text))
    }
}

fn text(body: Option<&[u8]>) -> String {
    let body = body.unwrap_or_default();
    String::from_utf8_lossy(body.get(..512).unwrap_or(body)).into_owned()
}

/// How Envoy's replies to a reset begin.
const RESET: &str = "upstream connect error or disconnect/reset before headers";
/// Envoy's reply for a cluster without hosts.
const NO_HOST: &str = "no healthy upstream";
/// Envoy's reset reasons for a request that never left.
const UNSENT: [&str; 5] = [
    "remote connection failure",
    "overflow",
    "local connection failure",
    "connection timeout",
    "remote refused stream reset",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode_outcomes;

    const NONE: Ended<'_> = Ended { status: None, marker: None, overloaded: false, body: None };
    const REFUSED: &[u8] = b"upstream connect error or disconnect/reset before headers. reset \
        reason: remote connection failure, transport failure reason: delayed connect error: 111";

    fn marked(status: u16, body: &[u8]) -> Ended<'_> {
        Ended { status: Some(status), marker: Some(b"1"), body: Some(body), ..NONE }
    }

    fn code(verdict: Verdict) -> (&'static str, Code) {
        match verdict {
            Verdict::NotWritten(reason) => ("not written", reason.code),
            Verdict::Unknown(reason) => ("unknown", reason.code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_bridge_says_what_became_of_a_record() {
        let outcome = Outcome::Written { partition: 0, offset: Some(1) };
        let body = encode_outcomes(std::slice::from_ref(&outcome)).unwrap();
        assert_eq!(classify(&marked(200, &body), 1), Verdict::Outcomes(vec![outcome]));
        assert_eq!(code(classify(&marked(200, &body), 2)), ("unknown", Code::BadReply));
        assert_eq!(code(classify(&marked(200, b"\xff"), 1)), ("unknown", Code::BadReply));
        let no_body = Ended { body: None, ..marked(200, b"") };
        assert_eq!(code(classify(&no_body, 1)), ("unknown", Code::BadReply));
        let unmarked = Ended { marker: None, ..marked(200, &body) };
        assert_eq!(code(classify(&unmarked, 1)), ("unknown", Code::BadReply));
        let other = Ended { marker: Some(b"2"), ..marked(200, &body) };
        assert_eq!(code(classify(&other, 1)), ("unknown", Code::BadReply));
    }

    #[test]
    fn a_refusal_by_the_bridge_writes_nothing() {
        assert_eq!(classify(&marked(404, b"{}"), 1), Verdict::UnknownProfile);
        assert_eq!(classify(&marked(413, b"{}"), 1), Verdict::TooLarge);
        for status in [400, 401, 403, 422, 429, 503] {
            let verdict = classify(&marked(status, b"no"), 1);
            assert_eq!(code(verdict), ("not written", Code::BridgeRefused), "{status}");
        }
    }

    #[test]
    fn a_reply_of_envoys_is_a_proof_only_when_the_request_never_left() {
        let envoy = |status, body| Ended { status: Some(status), body: Some(body), ..NONE };
        assert_eq!(code(classify(&envoy(503, REFUSED), 1)).0, "not written");
        assert_eq!(code(classify(&envoy(503, b"no healthy upstream"), 1)).0, "not written");
        let overloaded = Ended { overloaded: true, ..envoy(503, b"") };
        assert_eq!(code(classify(&overloaded, 1)).0, "not written");
        for (status, body) in [
            (504, &b"upstream request timeout"[..]),
            (
                503,
                b"upstream connect error or disconnect/reset before headers. reset reason: \
                connection termination",
            ),
            (502, b"protocol error"),
            (200, b"hello"),
            (503, b"who knows"),
            (503, b"integer overflow"),
        ] {
            assert_eq!(code(classify(&envoy(status, body), 1)).0, "unknown", "{status}");
        }
        assert_eq!(code(classify(&NONE, 1)).0, "unknown");
    }

    #[test]
    fn every_end_has_one_verdict_and_no_success_without_the_bridges_word() {
        for status in (0..700).map(Some).chain([None]) {
            for marker in [None, Some(&b"0"[..]), Some(b"1")] {
                for body in [None, Some(&b""[..]), Some(REFUSED)] {
                    let ended = Ended { status, marker, body, overloaded: false };
                    assert!(!matches!(classify(&ended, 1), Verdict::Outcomes(_)));
                    let registered = classify_registration(&ended).is_none();
                    assert_eq!(registered, status == Some(200) && marker == Some(b"1"));
                }
            }
        }
    }
}
