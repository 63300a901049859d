//! Kong's message: a JSON object with a group of fields for each `forward_*` flag.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::args::Args;
use super::charset::Charset;
use super::error::FormatError;
use super::media::{Kind, kind};
use super::message::json_text;
use super::multipart;
use crate::request::{Request, header_text};

/// Which groups a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// `method`.
    pub method: bool,
    /// `uri` and `uri_args`.
    pub uri: bool,
    /// `headers`.
    pub headers: bool,
    /// `body`, `body_args` and `body_base64`.
    pub body: bool,
}

/// The message in the order of Kong's documented example; names within a group are sorted.
#[derive(Serialize)]
struct KongMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Args<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri_args: Option<Args<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_args: Option<BodyArgs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<Cow<'a, str>>,
}

/// The parsed body. JSON goes in as its own text, so that no number or order is changed.
#[derive(Serialize)]
#[serde(untagged)]
enum BodyArgs<'a> {
    Args(Args<'a>),
    Json(&'a RawValue),
}

/// Encodes the message.
///
/// # Errors
/// A body that cannot be parsed; its place is named.
pub fn encode(request: &Request, forward: Forward) -> Result<Vec<u8>, FormatError> {
    let content_type = request.value(b"content-type").map(header_text);
    let charset = Charset::of(content_type.as_deref());
    let mut message = KongMessage {
        body_base64: None,
        headers: forward.headers.then(|| header_args(request)),
        uri_args: None,
        uri: None,
        body_args: None,
        body: None,
        method: forward.method.then(|| header_text(&request.method)),
    };
    if forward.uri {
        message.uri = Some(header_text(&request.target));
        message.uri_args = Some(Args::parse(request.query(), charset));
    }
    if forward.body {
        put_body(&mut message, request, content_type.as_deref(), charset)?;
    }
    // Room for a body of plain text twice, as itself and as its arguments, and for its headers.
    let mut text = Vec::with_capacity(2 * request.body.len() + MESSAGE_BYTES);
    let written = serde_json::to_writer(&mut text, &message);
    written.map(|()| text).map_err(|error| FormatError::Encode(error.to_string()))
}

fn header_args(request: &Request) -> Args<'_> {
    let mut args = Args::default();
    for (name, value) in &request.headers {
        args.insert(header_text(name), header_text(value));
    }
    args
}

/// What is not UTF-8 goes in as base64, and is parsed all the same.
fn put_body<'a>(
    message: &mut KongMessage<'a>,
    request: &'a Request,
    content_type: Option<&str>,
    charset: Charset,
) -> Result<(), FormatError> {
    let (kind, body) = (kind(content_type), request.body.as_slice());
    message.body_args = Some(match kind {
        Kind::Json => json_args(body)?,
        Kind::Form => BodyArgs::Args(Args::parse(body, charset)),
        Kind::Multipart if !body.is_empty() => {
            BodyArgs::Args(part_args(content_type.unwrap_or_default(), body)?)
        }
        Kind::Multipart | Kind::Text | Kind::Binary => BodyArgs::Args(Args::default()),
    });
    message.body = Some(match std::str::from_utf8(body) {
        Ok(text) if kind != Kind::Binary => Cow::Borrowed(text),
        _ => {
            message.body_base64 = Some(true);
            Cow::Owned(STANDARD.encode(body))
        }
    });
    Ok(())
}

/// Checks the JSON without building it: deep nesting costs no stack.
fn json_args(body: &[u8]) -> Result<BodyArgs<'_>, FormatError> {
    match json_text(body).map_err(FormatError::Json)? {
        "" => Ok(BodyArgs::Args(Args::default())),
        text => serde_json::from_str(text)
            .map(BodyArgs::Json)
            .map_err(|error| FormatError::Json(error.to_string())),
    }
}

fn part_args<'a>(content_type: &str, body: &'a [u8]) -> Result<Args<'a>, FormatError> {
    let mut args = Args::default();
    multipart::parse(content_type, body)?.into_iter().for_each(|part| args.insert_part(part));
    Ok(args)
}

/// Bytes of a message without its body: method, path and a dozen headers.
const MESSAGE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Forward = Forward { method: true, uri: true, headers: true, body: true };
    const BODY: Forward = Forward { method: false, uri: false, headers: false, body: true };

    fn request(content_type: Option<&str>, body: &[u8]) -> Request {
        let headers = content_type.map(|value| (b"content-type".to_vec(), value.into()));
        Request {
            method: b"POST".to_vec(),
            target: b"/kafka?a=1&a=2&b".to_vec(),
            headers: headers.into_iter().collect(),
            body: body.to_vec(),
            ..Request::default()
        }
    }

    fn body(content_type: &str, body: &[u8]) -> Result<String, FormatError> {
        let message = encode(&request(Some(content_type), body), BODY)?;
        Ok(String::from_utf8(message).unwrap())
    }

    #[test]
    fn a_request_without_a_body_gives_kongs_documented_message() {
        let request = Request {
            method: b"GET".to_vec(),
            target: b"/kafka".to_vec(),
            headers: vec![(b"host".to_vec(), b"h".to_vec())],
            ..Request::default()
        };
        let expected = concat!(
            r#"{"body_base64":true,"headers":{"host":"h"},"uri_args":{},"uri":"/kafka","#,
            r#""body_args":{},"body":"","method":"GET"}"#
        );
        assert_eq!(String::from_utf8(encode(&request, ALL).unwrap()).unwrap(), expected);
    }

    #[test]
    fn each_flag_brings_its_own_fields() {
        let none = Forward { method: false, uri: false, headers: false, body: false };
        let get = |forward| {
            String::from_utf8(encode(&request(Some("text/plain"), b"x"), forward).unwrap()).unwrap()
        };
        assert_eq!(get(Forward { method: true, ..none }), r#"{"method":"POST"}"#);
        assert_eq!(
            get(Forward { uri: true, ..none }),
            r#"{"uri_args":{"a":["1","2"],"b":true},"uri":"/kafka?a=1&a=2&b"}"#
        );
        assert_eq!(
            get(Forward { headers: true, ..none }),
            r#"{"headers":{"content-type":"text/plain"}}"#
        );
        assert_eq!(get(BODY), r#"{"body_args":{},"body":"x"}"#);
    }

    #[test]
    fn each_content_type_has_its_own_body() {
        let form = body("application/x-www-form-urlencoded", b"a=1&a=2&b").unwrap();
        assert_eq!(form, r#"{"body_args":{"a":["1","2"],"b":true},"body":"a=1&a=2&b"}"#);
        let json = body("application/json", b" {\"n\": 1e400} ").unwrap();
        assert_eq!(json, r#"{"body_args":{"n": 1e400},"body":" {\"n\": 1e400} "}"#);
        let part = b"--b\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--b--";
        let multipart = body("multipart/form-data; boundary=b", part).unwrap();
        assert!(multipart.starts_with(r#"{"body_args":{"a":"1"},"body":"--b\r\n"#));
        let binary = body("application/octet-stream", b"\x00\xff").unwrap();
        assert_eq!(binary, r#"{"body_base64":true,"body_args":{},"body":"AP8="}"#);
        assert_eq!(body("text/plain", b"\xff").unwrap(), body("image/png", b"\xff").unwrap());
        assert_eq!(body("application/json", b"").unwrap(), r#"{"body_args":{},"body":""}"#);
    }

    #[test]
    fn a_body_that_does_not_parse_is_refused() {
        assert!(body("application/json", b"{\"a\":").unwrap_err().to_string().contains("line 1"));
        assert!(body("application/json", b"1 2").is_err());
        assert!(body("multipart/form-data; boundary=b", b"--c").is_err());
        assert!(body("multipart/form-data; boundary=b", b"\xff").is_err());
    }

    #[test]
    fn deeply_nested_json_is_passed_on() {
        let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
        assert!(body("application/json", deep.as_bytes()).unwrap().contains(&deep));
    }

    proptest! {
        #[test]
        fn any_request_gives_json_or_an_error(
            kind in prop::sample::select(vec![
                "application/json", "text/plain", "multipart/form-data; boundary=b", "x",
                "application/x-www-form-urlencoded",
            ]),
            content in prop::collection::vec(any::<u8>(), 0..64),
            target in prop::collection::vec(any::<u8>(), 0..32),
            header in prop::collection::vec(any::<u8>(), 0..16),
        ) {
            let mut request = request(Some(kind), &content);
            request.target = target;
            request.headers.push((header.clone(), header));
            if let Ok(message) = encode(&request, ALL) {
                let value: serde_json::Value = serde_json::from_slice(&message).unwrap();
                if value["body_base64"] == true {
                    let body = STANDARD.decode(value["body"].as_str().unwrap()).unwrap();
                    prop_assert_eq!(body, content);
                } else {
                    prop_assert_eq!(value["body"].as_str().unwrap().as_bytes(), content);
                }
            }
        }
    }
}
