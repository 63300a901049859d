//! Samples whose body is carried as it is: text as text, everything else as base64.

use serde_json::json;

use super::{Sample, post, post_encoded};

const ENVELOPE: &[u8] =
    b"<e:Envelope xmlns:e=\"http://www.w3.org/2003/05/soap-envelope\"><e:Body/></e:Envelope>";

pub(super) fn samples() -> Vec<Sample> {
    let text = |name, content_type, body| post(name, Some(content_type), body, json!({}));
    vec![
        text("plain text", "text/plain", b"12 degrees, light rain"),
        text("plain text with a charset", "text/plain; charset=utf-8", "naïve ☕".as_bytes()),
        text("HTML", "text/html", b"<p>Hello, <b>\"you\"</b></p>"),
        text("XML", "application/xml", b"<?xml version=\"1.0\"?><a b=\"1\">x</a>"),
        text("XML as text", "text/xml", b"<a>\n\t&amp;</a>"),
        text("a SOAP envelope", "application/soap+xml", ENVELOPE),
        text("text that is not UTF-8", "text/plain", b"caf\xe9 \xff"),
        post_encoded("bytes", Some("application/octet-stream"), b"\x00\x01\xfe\xff"),
        post_encoded("a body without a type", None, b"who knows what this is"),
    ]
}
