//! What a callout's end says about the batch that it carried. Whatever does not prove that nothing
//! was written leaves it unknown: a client that is told "not written" sends the message again.

use crate::gateway::Gateway;
use crate::limits::REPLY_BYTES_MAX;
use crate::outcome::{Code, Outcome, Reason};
use crate::wire;

/// How a callout to the bridge ended, as the host shows it.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The gateway that made it.
    pub gateway: Gateway,
    /// `:dispatch_status`, in which WasmX says how far it came.
    pub dispatch_status: Option<&'a [u8]>,
    /// `:status`; none when there are no headers.
    pub status: Option<u16>,
    /// The value of the marker header, which only the bridge sends.
    pub marker: Option<&'a [u8]>,
    /// Whether Envoy says that its own overload protection answered.
    pub overloaded: bool,
    /// The body; none when it is longer than `REPLY_BYTES_MAX` or cannot be read.
    pub body: Option<&'a [u8]>,
}

impl Ended<'_> {
    /// The reply is the bridge's, and complete.
    fn is_the_bridges(&self) -> bool {
        let whole = self.gateway != Gateway::Wasmx || self.dispatch_status == Some(b"ok");
        whole && self.marker == Some(wire::VERSION.as_bytes())
    }
}

/// What the outbox does about a callout's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classified {
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

/// Classifies the end of a produce callout with `records` records.
#[must_use]
pub fn classify(ended: &Ended<'_>, records: usize) -> Classified {
    if !ended.is_the_bridges() {
        return match is_unsent(ended) {
            true => Classified::NotWritten(Reason::new(Code::BridgeUnreachable, why(ended))),
            false => Classified::Unknown(Reason::new(Code::BadReply, why(ended))),
        };
    }
    match ended.status {
        Some(200) => outcomes(ended.body, records),
        Some(404) => Classified::UnknownProfile,
        Some(413) => Classified::TooLarge,
        // The bridge failed, or has not finished: only 503 says that it has not begun.
        Some(status) if status >= 500 && status != 503 => {
            Classified::Unknown(Reason::new(Code::BadReply, answered(status, ended)))
        }
        status => Classified::NotWritten(Reason::new(
            refused(status),
            answered(status.unwrap_or(0), ended),
        )),
    }
}

/// What a refusal of the bridge means that writes nothing.
fn refused(status: Option<u16>) -> Code {
    match status {
        Some(401 | 403) => Code::BridgeUnauthorized,
        _ => Code::BridgeRefused,
    }
}

fn answered(status: u16, ended: &Ended<'_>) -> String {
    format!("the bridge answered {status}: {}", text(ended.body))
}

/// Classifies the end of a profile's registration: the refusal, if it was not registered.
#[must_use]
pub fn classify_registration(ended: &Ended<'_>) -> Option<Reason> {
    match ended.status {
        Some(200) if ended.is_the_bridges() => None,
        Some(status) if ended.is_the_bridges() => {
            let code = if status == 422 { Code::ProfileRefused } else { refused(Some(status)) };
            Some(Reason::new(code, answered(status, ended)))
        }
        _ => Some(Reason::new(Code::BridgeUnreachable, why(ended))),
    }
}

/// Whether a probe was answered by a bridge that works.
#[must_use]
pub fn is_alive(ended: &Ended<'_>) -> bool {
    ended.is_the_bridges() && ended.status == Some(200)
}

fn outcomes(body: Option<&[u8]>, records: usize) -> Classified {
    let bad = |why: String| Classified::Unknown(Reason::new(Code::BadReply, why));
    let Some(body) = body else {
        return bad(format!("the reply is above {REPLY_BYTES_MAX} bytes or cannot be read"));
    };
    match wire::decode_outcomes(body) {
        Ok(outcomes) if outcomes.len() == records => Classified::Outcomes(outcomes),
        Ok(outcomes) => bad(format!("{} outcomes for {records} records", outcomes.len())),
        Err(error) => bad(error.to_string()),
    }
}

/// Whether the bridge works and asks for the profile.
#[must_use]
pub fn knows_no_profile(ended: &Ended<'_>) -> bool {
    ended.is_the_bridges() && ended.status == Some(404)
}

/// Whether what is not the bridge's reply proves that nothing was sent to it: only what names a
/// failure before that does.
fn is_unsent(ended: &Ended<'_>) -> bool {
    match ended.gateway {
        Gateway::Envoy => {
            let text = text(ended.body);
            let reset = text.strip_prefix(RESET);
            let unsent = reset.is_some_and(|why| UNSENT.iter().any(|known| why.starts_with(known)));
            // An attempt before a retry may have been written.
            let once = !text.contains(RETRIED);
            let overloaded = ended.overloaded && once;
            ended.status == Some(503) && (overloaded || unsent || text == NO_HOST)
        }
        // "broken connection" stands for both a refused and a reset one.
        Gateway::Wasmx => {
            ended.dispatch_status.is_some_and(|status| WASMX_UNSENT.contains(&status))
        }
        // Every failure looks the same: no headers.
        Gateway::Apisix => false,
    }
}

/// A failed callout's description, for logs.
#[must_use]
pub fn why(ended: &Ended<'_>) -> String {
    let said = match ended.dispatch_status {
        Some(status) if status != b"ok" => text(Some(status)),
        _ => text(ended.body),
    };
    match (ended.status, said.is_empty()) {
        (None, true) => "no reply".to_owned(),
        (None, false) => said,
        (Some(status), true) => format!("a reply with status {status}"),
        (Some(status), false) => format!("a reply with status {status}: {said}"),
    }
}

/// What an operator can check when no connection to the bridge can be made. Gateways report a
/// socket that does not exist and one that their user may not open alike.
#[must_use]
pub fn hint(why: &str) -> Option<&'static str> {
    why.contains("connection failure").then_some(UNREACHABLE)
}

fn text(body: Option<&[u8]>) -> String {
    let body = body.unwrap_or_default();
    String::from_utf8_lossy(body.get(..512).unwrap_or(body)).into_owned()
}

const UNREACHABLE: &str = "either host-bridge does not listen there, or it does on a unix socket \
    that the gateway's user may not open: set mode and group in its [unix_socket]";

/// How Envoy's replies to a reset of a first attempt begin; the reason follows.
const RESET: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";
/// What stands in them after a retry.
const RETRIED: &str = "retried and the latest reset reason";
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

/// How WasmX names what failed before anything was sent.
const WASMX_UNSENT: [&[u8]; 3] = [b"resolver failure", b"tls handshake failure", b"bad argument"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode_outcomes;

    const NONE: Ended<'_> = Ended {
        gateway: Gateway::Envoy,
        dispatch_status: None,
        status: None,
        marker: None,
        overloaded: false,
        body: None,
    };
    const REFUSED: &[u8] = b"upstream connect error or disconnect/reset before headers. reset \
        reason: remote connection failure, transport failure reason: delayed connect error: 111";

    fn marked(status: u16, body: &[u8]) -> Ended<'_> {
        Ended { status: Some(status), marker: Some(b"1"), body: Some(body), ..NONE }
    }

    fn code(verdict: Classified) -> (&'static str, Code) {
        match verdict {
            Classified::NotWritten(reason) => ("not written", reason.code),
            Classified::Unknown(reason) => ("unknown", reason.code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_bridge_says_what_became_of_a_record() {
        let outcome = Outcome::Written { partition: 0, offset: Some(1) };
        let body = encode_outcomes(std::slice::from_ref(&outcome)).unwrap();
        assert_eq!(classify(&marked(200, &body), 1), Classified::Outcomes(vec![outcome]));
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
        assert_eq!(classify(&marked(404, b"{}"), 1), Classified::UnknownProfile);
        assert_eq!(classify(&marked(413, b"{}"), 1), Classified::TooLarge);
        for (status, expected) in [
            (400, Code::BridgeRefused),
            (401, Code::BridgeUnauthorized),
            (403, Code::BridgeUnauthorized),
            (422, Code::BridgeRefused),
            (429, Code::BridgeRefused),
            (503, Code::BridgeRefused),
        ] {
            let verdict = classify(&marked(status, b"no"), 1);
            assert_eq!(code(verdict), ("not written", expected), "{status}");
        }
    }

    #[test]
    fn only_422_refuses_a_profile() {
        for (status, expected) in [
            (422, Code::ProfileRefused),
            (401, Code::BridgeUnauthorized),
            (403, Code::BridgeUnauthorized),
            (404, Code::BridgeRefused),
            (413, Code::BridgeRefused),
            (500, Code::BridgeRefused),
            (503, Code::BridgeRefused),
        ] {
            let refusal = classify_registration(&marked(status, b"no")).unwrap();
            assert_eq!(refusal.code, expected, "{status}");
        }
        assert_eq!(classify_registration(&NONE).unwrap().code, Code::BridgeUnreachable);
    }

    #[test]
    fn a_bridge_that_failed_proves_nothing() {
        for status in [500, 501, 502, 504, 599] {
            let verdict = classify(&marked(status, b"no"), 1);
            assert_eq!(code(verdict), ("unknown", Code::BadReply), "{status}");
        }
    }

    #[test]
    fn a_reply_of_envoys_is_a_proof_only_when_the_request_never_left() {
        let envoy = |status, body| Ended { status: Some(status), body: Some(body), ..NONE };
        assert_eq!(code(classify(&envoy(503, REFUSED), 1)).0, "not written");
        assert_eq!(code(classify(&envoy(503, b"no healthy upstream"), 1)).0, "not written");
        let overloaded = Ended { overloaded: true, ..envoy(503, b"") };
        assert_eq!(code(classify(&overloaded, 1)).0, "not written");
        let retried = b"upstream connect error or disconnect/reset before headers. retried and \
            the latest reset reason: overflow";
        let retried = Ended { overloaded: true, ..envoy(503, retried) };
        assert_eq!(code(classify(&retried, 1)).0, "unknown");
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
            (
                503,
                b"upstream connect error or disconnect/reset before headers. retried and the \
                latest reset reason: remote connection failure",
            ),
            (
                503,
                b"upstream connect error or disconnect/reset before headers. reset reason: \
                connection termination, transport failure reason: overflow",
            ),
            (503, b"integer overflow"),
        ] {
            assert_eq!(code(classify(&envoy(status, body), 1)).0, "unknown", "{status}");
        }
        assert_eq!(code(classify(&NONE, 1)).0, "unknown");
    }

    #[test]
    fn wasmx_says_how_far_a_callout_came() {
        let wasmx = |said: &'static [u8], ended| {
            let gateway = Gateway::Wasmx;
            classify(&Ended { gateway, dispatch_status: Some(said), ..ended }, 1)
        };
        for said in [&b"resolver failure"[..], b"tls handshake failure", b"bad argument"] {
            assert_eq!(code(wasmx(said, NONE)), ("not written", Code::BridgeUnreachable));
        }
        let body = encode_outcomes(&[Outcome::Queued]).unwrap();
        let whole = marked(200, &body);
        let unknown: [&[u8]; 7] = [
            b"broken connection",
            b"timeout",
            b"reader failure",
            b"internal failure",
            b"unknown error",
            b"",
            b"OK",
        ];
        for said in unknown {
            assert_eq!(code(wasmx(said, whole)).0, "unknown", "a reply may be cut");
        }
        assert_eq!(code(wasmx(b"ok", NONE)).0, "unknown");
        assert_eq!(wasmx(b"ok", whole), Classified::Outcomes(vec![Outcome::Queued]));
        // What proves something on Envoy proves nothing elsewhere.
        let refused = Ended { status: Some(503), body: Some(REFUSED), ..NONE };
        assert_eq!(code(wasmx(b"ok", refused)).0, "unknown");
        let apisix = Ended { gateway: Gateway::Apisix, ..refused };
        assert_eq!(code(classify(&apisix, 1)).0, "unknown");
    }

    #[test]
    fn every_end_has_one_verdict_and_no_success_without_the_bridges_word() {
        let one = encode_outcomes(&[Outcome::Queued]).unwrap();
        let said = [None, Some(&b"ok"[..]), Some(b"timeout"), Some(b"bad argument")];
        for status in (0..700).map(Some).chain([None]) {
            for gateway in [Gateway::Envoy, Gateway::Wasmx, Gateway::Apisix] {
                for marker in [None, Some(&b"0"[..]), Some(b"1")] {
                    for body in [None, Some(&b""[..]), Some(REFUSED), Some(&one)] {
                        for dispatch_status in said {
                            let ended =
                                Ended { gateway, dispatch_status, status, marker, body, ..NONE };
                            let whole = gateway != Gateway::Wasmx || dispatch_status == Some(b"ok");
                            let word = status == Some(200) && marker == Some(b"1") && whole;
                            let success = matches!(classify(&ended, 1), Classified::Outcomes(_));
                            assert_eq!(success, word && body == Some(&one));
                            assert_eq!(classify_registration(&ended).is_none(), word);
                            assert_eq!(is_alive(&ended), word);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_bridge_that_cannot_be_connected_to_has_both_causes_named() {
        let body = format!("{RESET}remote connection failure");
        let hint = hint(&why(&Ended { body: Some(body.as_bytes()), ..NONE })).unwrap();
        assert!(hint.contains("does not listen") && hint.contains("mode and group"), "{hint}");
        assert_eq!(super::hint("a reply with status 503: overflow"), None);
    }
}
