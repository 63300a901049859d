//! The HTTP request as the formats see it: bytes as they arrived, nothing decoded yet.

use std::borrow::Cow;

/// One request, complete.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method, as sent.
    pub method: Vec<u8>,
    /// The path with its query string, as sent.
    pub target: Vec<u8>,
    /// The scheme, as the host tells it; empty where it does not.
    pub scheme: Vec<u8>,
    /// Address and port of the client's connection; empty unless it was asked for.
    pub source_address: Vec<u8>,
    /// Headers in order of arrival, without pseudo-headers; `host` holds the authority.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// Takes a host's header map apart: pseudo-headers into their fields, `:authority` to `host`.
    #[must_use]
    pub fn from_host(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut request = Self::default();
        let mut authority = None;
        for (mut name, value) in pairs {
            match name.as_slice() {
                b":method" => request.method = value,
                b":path" => request.target = value,
                b":scheme" => request.scheme = value,
                b":authority" => authority = Some(value),
                _ if name.starts_with(b":") => {}
                _ => {
                    name.make_ascii_lowercase();
                    request.headers.push((name, value));
                }
            }
        }
        if let Some(authority) = authority.filter(|_| request.header(b"host").is_none()) {
            request.headers.push((b"host".to_vec(), authority));
        }
        request
    }

    /// The first value of a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// The path without its query string.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.target.split(|byte| *byte == b'?').next().unwrap_or_default()
    }

    /// Whether its body ends only with its connection: CONNECT, and upgrades of HTTP/1.1.
    #[must_use]
    pub fn opens_a_tunnel(&self) -> bool {
        let asks = |value: &[u8]| {
            let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        };
        self.method == b"CONNECT"
            || (self.header(b"upgrade").is_some() && self.header(b"connection").is_some_and(asks))
    }

    /// The query string without its `?`, empty when there is none.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        let after_mark = self.target.iter().position(|byte| *byte == b'?').map(|mark| mark + 1);
        after_mark.and_then(|start| self.target.get(start..)).unwrap_or_default()
    }
}

/// A header as text: UTF-8 where it is, else byte for byte as ISO-8859-1, the charset in which
/// HTTP once defined header values (RFC 9110, 5.5), so that no byte is lost.
#[must_use]
pub fn header_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (name.into(), value.into())
    }

    #[test]
    fn pseudo_headers_become_fields_and_the_authority_becomes_host() {
        let request = Request::from_host(vec![
            pair(":method", "POST"),
            pair(":path", "/a?b=c?d"),
            pair(":authority", "example.org"),
            pair(":scheme", "http"),
            pair("X-One", "1"),
        ]);
        assert_eq!(request.method, b"POST");
        assert_eq!((request.path(), request.query()), (&b"/a"[..], &b"b=c?d"[..]));
        assert_eq!(request.scheme, b"http");
        assert_eq!(request.headers, [pair("x-one", "1"), pair("host", "example.org")]);
    }

    #[test]
    fn a_tunnel_is_known_by_its_method_or_its_upgrade() {
        let opens = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| pair(name, value)).collect();
            Request::from_host(pairs).opens_a_tunnel()
        };
        assert!(opens(&[(":method", "CONNECT")]));
        assert!(opens(&[("Upgrade", "websocket"), ("connection", "keep-alive, Upgrade")]));
        assert!(!opens(&[(":method", "GET"), ("connection", "keep-alive"), ("upgrade", "h2c")]));
    }

    #[test]
    fn a_header_that_is_not_utf8_is_read_as_latin_1() {
        assert_eq!(header_text("Zürich".as_bytes()), "Zürich");
        assert_eq!(header_text(b"Z\xfcrich"), "Zürich");
    }
}
