//! What the load generator sends: the bytes of request number n.

use std::fmt;
use std::sync::Arc;

type Write = dyn Fn(u64, &mut Vec<u8>) + Send + Sync;

/// Builds each request from its number.
#[derive(Clone)]
pub struct Requests(Arc<Write>);

impl Requests {
    /// POSTs to one path; `body` gets the request's number.
    #[must_use]
    pub fn post<B>(path: &str, content_type: &str, body: B) -> Self
    where
        B: Fn(u64) -> Vec<u8> + Send + Sync + 'static,
    {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: load\r\ncontent-type: {content_type}\r\ncontent-length: "
        );
        Self::raw(move |number, out| {
            let body = body(number);
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(body.len().to_string().as_bytes());
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(&body);
        })
    }

    /// Any bytes; `write` appends the whole HTTP/1.1 request to an empty buffer.
    #[must_use]
    pub fn raw<W>(write: W) -> Self
    where
        W: Fn(u64, &mut Vec<u8>) + Send + Sync + 'static,
    {
        Self(Arc::new(write))
    }

    pub(super) fn write(&self, number: u64, out: &mut Vec<u8>) {
        (self.0)(number, out);
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Requests")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_announces_its_length() {
        let mut out = Vec::new();
        Requests::post("/a", "text/plain", |number| format!("n{number}").into_bytes())
            .write(42, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /a HTTP/1.1\r\n"));
        assert!(text.ends_with("content-length: 3\r\n\r\nn42"));
    }
}
