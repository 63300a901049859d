//! Host names become addresses on every connect, in every spelling of IPv6.

use std::fmt;
use std::net::SocketAddr;

/// A broker's address as configured or advertised: a name or an IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What a broker advertises: an address, or else the text that is none.
pub(crate) type Advertised = Result<Endpoint, String>;

/// Longest host name, bytes (RFC 1035).
pub(crate) const HOST_BYTES: usize = 255;
/// Characters that are shown of a host that is none; at 4 bytes each they take no more than one.
const SHOWN_CHARS: usize = 60;

impl Endpoint {
    /// Reads `host:port`, `[ipv6]:port` or `ipv6:port`, with an optional `protocol://` before it,
    /// as Kafka's own clients do.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.trim().split_once("://").map_or(text.trim(), |(_, rest)| rest);
        let (host, port) = rest.rsplit_once(':')?;
        Self::new(host, port.parse::<u16>().ok()?.into())
    }

    /// A host, with or without brackets, and a port in 1–65535.
    pub(crate) fn new(host: &str, port: i32) -> Option<Self> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let clean = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        (!bare.is_empty() && bare.len() <= HOST_BYTES && bare.chars().all(clean))
            .then(|| Self { host: bare.to_owned(), port })
    }

    /// What a broker says of its own address, or of another's.
    pub(crate) fn advertised(host: &str, port: i32) -> Advertised {
        Self::new(host, port).ok_or_else(|| {
            let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
            let host: String = host.chars().take(SHOWN_CHARS).map(shown).collect();
            format!("{host}:{port}")
        })
    }

    /// All addresses of the host, in the resolver's order. Asked on every connect, because names
    /// move between addresses (KIP-302).
    pub(crate) async fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_hosts_in_every_spelling() {
        for spelling in ["[::1]:9092", "::1:9092", "PLAINTEXT://[::1]:9092", " [::1]:9092 "] {
            let endpoint = Endpoint::parse(spelling).unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 9092), "{spelling}");
            assert_eq!(endpoint.to_string(), "[::1]:9092");
        }
        for advertised in ["::1", "[::1]", "fe80::1%eth0"] {
            assert!(Endpoint::new(advertised, 9092).is_some(), "{advertised}");
        }
    }

    #[test]
    fn names_are_kept_as_written() {
        assert_eq!(Endpoint::parse("kafka-1.internal:9092").unwrap().host, "kafka-1.internal");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "host", "host:", ":9092", "host:0", "host:65536", "ho st:1", "h/x:1"] {
            assert_eq!(Endpoint::parse(text), None, "{text:?}");
        }
        assert_eq!(Endpoint::new("host", -1), None);
        assert_eq!(Endpoint::advertised("", 9092), Err(":9092".to_owned()));
        let long = Endpoint::advertised(&"ü\n".repeat(9000), 0).unwrap_err();
        assert!(long.len() <= HOST_BYTES && !long.contains('\n'), "{long}");
    }
}
