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

    /// The value of a header that decides something, however often it is repeated, once
    /// `check_repeats` has found no other; `name` in lower case.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The values of a header in all its lines.
    pub fn values<'a, 'n>(
        &'a self,
        name: &'n [u8],
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let lines = self.headers.iter().filter(move |(n, _)| n == name);
        lines.flat_map(|(_, line)| joined(line, b","))
    }

    /// Checks the headers that decide something, and of which there is one: repeated by the client,
    /// or by a gateway in front, they count once if all their values are equal.
    ///
    /// # Errors
    /// Names the header whose values are not.
    pub fn check_repeats(&self) -> Result<(), DifferentValues> {
        for name in DECIDING {
            let mut values = self.values(name.as_bytes());
            let first = values.next();
            if values.any(|value| Some(value) != first) {
                return Err(DifferentValues(name));
            }
        }
        Ok(())
    }

    /// Whether it is gRPC by its content type. Envoy takes fewer for gRPC: `application/grpc` as it
    /// stands here, alone or with a `+` behind it; gRPC-Web and Connect are other protocols.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.values(b"content-type").any(|value| {
            let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let (kind, rest) = essence.split_at(essence.len().min(GRPC.len()));
            kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+'))
        })
    }

    /// The path without its query string.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.target.split(|byte| *byte == b'?').next().unwrap_or_default()
    }

    /// Whether its body ends only with its connection: CONNECT, and upgrades of HTTP/1.1. One to the
    /// same HTTP over HTTP/2 or TLS is none: Java's and Apache's clients offer it with any request, and
    /// a server may ignore it (RFC 9110, 7.8).
    #[must_use]
    pub fn opens_a_tunnel(&self) -> bool {
        let mut options = self.values(b"connection");
        let is_http = |protocol: &[u8]| {
            let begins = |name: &[u8]| {
                protocol.get(..name.len()).unwrap_or_default().eq_ignore_ascii_case(name)
            };
            begins(b"h2c") || begins(b"TLS/")
        };
        self.method == b"CONNECT"
            || (self.values(b"upgrade").any(|protocol| !is_http(protocol))
                && options.any(|option| option.eq_ignore_ascii_case(b"upgrade")))
    }

    /// The query string without its `?`, empty when there is none.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        let after_mark = self.target.iter().position(|byte| *byte == b'?').map(|mark| mark + 1);
        after_mark.and_then(|start| self.target.get(start..)).unwrap_or_default()
    }
}

/// The headers of which a request has one value, besides `content-length`, which is a number.
const DECIDING: [&str; 4] = ["content-type", "host", "content-encoding", "idempotency-key"];

/// What the content types of gRPC begin with.
const GRPC: &[u8] = b"application/grpc";

/// A header that decides something has values that differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header `{0}` has different values")]
pub struct DifferentValues(&'static str);

/// The values of a line in which a gateway may have joined several (RFC 9110, 5.3), but for empty
/// ones. What stands in quotes is of one value.
pub fn joined<'a>(line: &'a [u8], separator: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = line;
    let values = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (value, after) = rest.split_at(separator_at(rest, separator).unwrap_or(rest.len()));
        rest = after.get(separator.len()..).unwrap_or_default();
        Some(value.trim_ascii())
    });
    values.filter(|value| !value.is_empty())
}

/// Where the first separator is that stands in no quotes.
fn separator_at(line: &[u8], separator: &[u8]) -> Option<usize> {
    // Nearly every line is one value: that is found without a look at each byte.
    if !separator.first().is_some_and(|first| line.contains(first)) {
        return None;
    }
    let (mut quoted, mut escaped) = (false, false);
    line.iter().enumerate().position(|(at, byte)| {
        (quoted, escaped) = match byte {
            _ if escaped => (true, false),
            b'\\' if quoted => (true, true),
            b'"' => (!quoted, false),
            _ => (quoted, false),
        };
        !quoted && line.get(at..).is_some_and(|rest| rest.starts_with(separator))
    })
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
        assert!(opens(&[("upgrade", "a"), ("connection", "te"), ("connection", "upgrade")]));
        assert!(!opens(&[(":method", "GET"), ("connection", "keep-alive"), ("upgrade", "a")]));
        assert!(!opens(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c, TLS/1.2")]));
        assert!(opens(&[("connection", "upgrade"), ("upgrade", "h2c, websocket")]));
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let is = |kinds: &[&str]| {
            let pairs = kinds.iter().map(|kind| pair("content-type", kind)).collect();
            Request::from_host(pairs).is_grpc()
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; charset=utf-8",
            "Application/gRPC ;a",
            "application/grpc,application/grpc",
        ] {
            assert!(is(&[kind]), "{kind}");
        }
        assert!(is(&["text/plain", "application/grpc"]));
        for kind in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/connect+proto",
            "",
            "a",
        ] {
            assert!(!is(&[kind]), "{kind}");
        }
        assert!(!is(&[]));
    }

    #[test]
    fn a_line_holds_several_values_but_for_what_is_in_quotes() {
        let of = |line: &'static str, separator: &'static str| -> Vec<_> {
            let values = joined(line.as_bytes(), separator.as_bytes());
            values.map(|value| std::str::from_utf8(value).unwrap()).collect()
        };
        assert_eq!(of("a, b ,,c", ","), ["a", "b", "c"]);
        assert_eq!(of("a,b, c", ", "), ["a,b", "c"]);
        assert_eq!(of(r#"a="1,\"2,", b"#, ","), [r#"a="1,\"2,""#, "b"]);
        assert_eq!(of(r#"a="1,2"#, ","), [r#"a="1,2"#]);
        assert_eq!(of(" , ", ","), Vec::<&str>::new());
    }

    #[test]
    fn a_header_that_is_not_utf8_is_read_as_latin_1() {
        assert_eq!(header_text("Zürich".as_bytes()), "Zürich");
        assert_eq!(header_text(b"Z\xfcrich"), "Zürich");
    }
}
