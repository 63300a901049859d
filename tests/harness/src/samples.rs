//! Sample requests, and the Kafka record that each must become.

mod compare;
mod forms;
mod texts;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::http::{Address, Request, Response};
use crate::record::ReadRecord;

pub use compare::differences;

/// The header that tells which sample a record comes from.
pub const NAME_HEADER: &str = "x-sample";

/// A request with the record's value that it must become with all four `forward_*` flags.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it shows, in a few words; also the value of [`NAME_HEADER`].
    pub name: &'static str,
    /// The method.
    pub method: &'static str,
    /// Path and query.
    pub target: &'static str,
    /// Headers besides `host`, `content-length` and [`NAME_HEADER`].
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body; none for a request without one.
    pub body: Option<Bytes>,
    /// The value; its `headers` may have more in the record.
    pub expected: Value,
}

/// All samples.
#[must_use]
pub fn all() -> Vec<Sample> {
    let mut samples = vec![without_body(), repeated_arguments()];
    samples.extend(forms::samples());
    samples.extend(texts::samples());
    samples
}

impl Sample {
    /// Sends it, and returns the reply.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn send(&self, to: impl Into<Address>) -> anyhow::Result<Response> {
        let mut request = match &self.body {
            Some(body) => Request::post(self.target, body.clone()).method(self.method),
            None => Request::new(self.method, self.target),
        };
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request = request.header(NAME_HEADER, self.name);
        request.send(to).await.with_context(|| format!("sample \"{}\"", self.name))
    }

    /// Its record, if it is among these.
    #[must_use]
    pub fn find<'a>(&self, records: &'a [ReadRecord]) -> Option<&'a ReadRecord> {
        records.iter().find(|record| {
            record.json().is_ok_and(|value| {
                let header = value.get("headers").and_then(|headers| headers.get(NAME_HEADER));
                header.and_then(Value::as_str) == Some(self.name)
            })
        })
    }

    /// What a record's value has otherwise than expected; empty when all is as it must be.
    #[must_use]
    pub fn check(&self, record: &ReadRecord) -> Vec<String> {
        match record.json() {
            Ok(value) => differences(&self.expected, &value),
            Err(error) => vec![format!("{error:#}")],
        }
    }
}

/// A sample that POSTs a body to `/kafka`; `body` and `body_args` are what the record has.
fn post(
    name: &'static str,
    content_type: Option<&'static str>,
    bytes: &'static [u8],
    body_args: Value,
) -> Sample {
    let headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
    let mut expected = json!({
        "method": "POST",
        "headers": {NAME_HEADER: name},
        "uri": "/kafka",
        "uri_args": {},
        "body_args": body_args,
    });
    if let Some(content_type) = content_type {
        insert(&mut expected, "headers", json!({"content-type": content_type, NAME_HEADER: name}));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => insert(&mut expected, "body", json!(text)),
        Err(_) => encode(&mut expected, bytes),
    }
    let body = Some(Bytes::from_static(bytes));
    Sample { name, method: "POST", target: "/kafka", headers, body, expected }
}

/// As [`post`] for a type that is always carried as base64.
fn post_encoded(
    name: &'static str,
    content_type: Option<&'static str>,
    bytes: &'static [u8],
) -> Sample {
    let mut sample = post(name, content_type, bytes, json!({}));
    encode(&mut sample.expected, bytes);
    sample
}

fn encode(expected: &mut Value, bytes: &[u8]) {
    insert(expected, "body", json!(STANDARD.encode(bytes)));
    insert(expected, "body_base64", json!(true));
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

fn without_body() -> Sample {
    let name = "GET without a body";
    let expected = json!({
        "method": "GET",
        "headers": {NAME_HEADER: name, "x-tag": ["a", "b"]},
        "uri": "/kafka",
        "uri_args": {},
        "body": "",
        "body_args": {},
        "body_base64": true,
    });
    let headers = vec![("x-tag", "a"), ("x-tag", "b")];
    Sample { name, method: "GET", target: "/kafka", headers, body: None, expected }
}

fn repeated_arguments() -> Sample {
    let name = "query with repeated arguments";
    let target = "/kafka?color=red&color=deep%20blue&empty=&flag";
    let expected = json!({
        "method": "DELETE",
        "headers": {NAME_HEADER: name},
        "uri": target,
        "uri_args": {"color": ["red", "deep blue"], "empty": "", "flag": true},
        "body": "",
        "body_args": {},
        "body_base64": true,
    });
    Sample { name, method: "DELETE", target, headers: Vec::new(), body: None, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_samples_apart() {
        let samples = all();
        let names: std::collections::BTreeSet<_> = samples.iter().map(|one| one.name).collect();
        assert_eq!(names.len(), samples.len());
        assert!(samples.len() >= 12);
    }

    #[test]
    fn bytes_that_are_no_text_are_expected_as_base64() {
        let sample = post("x", Some("text/plain"), b"\xff", json!({}));
        assert_eq!(sample.expected["body"], "/w==");
        assert_eq!(sample.expected["body_base64"], true);
    }
}
