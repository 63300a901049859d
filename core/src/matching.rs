//! Whether a request is one of those that a rule is for.

use regex_lite::{Regex, RegexBuilder};

use crate::limits::REGEX_BYTES_MAX;

/// What a rule names; all of it must fit.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// How the path must look.
    pub path: PathCondition,
    /// Methods, one of which must be the request's; none stand for every method.
    pub methods: Vec<String>,
    /// Hosts in lower case, one of which must be the request's; none stand for every host.
    pub hosts: Vec<HostPattern>,
}

/// How a path must look.
#[derive(Debug, Clone, Default)]
pub enum PathCondition {
    /// However.
    #[default]
    Any,
    /// This, as a whole.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// As a whole it fits this.
    Regex(Regex),
}

/// A host name, or every name below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// Every name that ends with this, which begins with a dot.
    Below(String),
}

impl PathCondition {
    /// A regular expression for a whole path. Matching takes time linear in the path's length.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn regex(text: &str) -> Result<Self, String> {
        // By itself first: `a)|(b` is none, but would be one between the brackets.
        let build = |text: &str| RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
        let whole = build(text).and_then(|_| build(&format!("^(?:{text})$")));
        whole.map(Self::Regex).map_err(|error| error.to_string())
    }

    fn fits(&self, target: &[u8]) -> bool {
        let path = match self {
            Self::Any => return true,
            _ => target.split(|byte| *byte == b'?').next().unwrap_or_default(),
        };
        match self {
            Self::Any => true,
            Self::Exact(whole) => path == whole.as_bytes(),
            Self::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            Self::Regex(regex) => std::str::from_utf8(path).is_ok_and(|path| regex.is_match(path)),
        }
    }
}

impl HostPattern {
    /// A name, or `*.` and a name.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(below) => Self::Below(below.to_owned()),
            None => Self::Exact(text),
        }
    }

    /// Whether a text is one that some request's host can fit.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let in_brackets = name.starts_with('[') && name.ends_with(']');
        let part = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '/' | '@' | '?' | '#');
        !name.is_empty() && name.chars().all(part) && (in_brackets || !name.contains(':'))
    }

    fn fits(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Self::Below(name) => {
                let start = host.len().checked_sub(name.len()).filter(|start| *start > 0);
                let end = start.and_then(|start| host.get(start..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes()))
            }
        }
    }
}

impl Condition {
    /// Whether a request fits: its method, its target with the query string, its authority.
    #[must_use]
    pub fn fits(&self, method: &[u8], target: &[u8], authority: &[u8]) -> bool {
        let method_fits = || self.methods.iter().any(|listed| listed.as_bytes() == method);
        let host_fits = || {
            let host = without_port(authority);
            self.hosts.iter().any(|pattern| pattern.fits(host))
        };
        self.path.fits(target)
            && (self.methods.is_empty() || method_fits())
            && (self.hosts.is_empty() || host_fits())
    }
}

fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    match colon.map(|colon| authority.split_at(colon)) {
        Some((host, port)) if port.iter().skip(1).all(u8::is_ascii_digit) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(condition: &Condition, method: &str, target: &str, host: &str) -> bool {
        condition.fits(method.as_bytes(), target.as_bytes(), host.as_bytes())
    }

    #[test]
    fn a_path_fits_as_a_whole_or_by_its_beginning_without_the_query() {
        let path = |path| Condition { path, ..Condition::default() };
        let exact = path(PathCondition::Exact("/a".to_owned()));
        assert!(fits(&exact, "GET", "/a?b=/c", "h"));
        assert!(!fits(&exact, "GET", "/a/", "h") && !fits(&exact, "GET", "/A", "h"));
        let prefix = path(PathCondition::Prefix("/a".to_owned()));
        assert!(fits(&prefix, "GET", "/ab/c", "h") && !fits(&prefix, "GET", "/b?/a", "h"));
        let regex = path(PathCondition::regex("/a|/b/[0-9]+").unwrap());
        assert!(fits(&regex, "GET", "/b/12?x", "h") && fits(&regex, "GET", "/a", "h"));
        assert!(!fits(&regex, "GET", "/ab", "h") && !fits(&regex, "GET", "/b/12/", "h"));
        assert!(!regex.fits(b"GET", b"/b/\xff", b"h"));
        assert!(PathCondition::regex("(").is_err() && PathCondition::regex("a)|(b").is_err());
    }

    #[test]
    fn methods_and_hosts_must_fit_too() {
        let condition = Condition {
            path: PathCondition::Any,
            methods: vec!["POST".to_owned(), "PUT".to_owned()],
            hosts: vec![HostPattern::new("Api.example.com"), HostPattern::new("*.example.org")],
        };
        assert!(fits(&condition, "PUT", "/", "api.EXAMPLE.com:8080"));
        assert!(fits(&condition, "POST", "/", "a.b.example.org"));
        for (method, host) in [
            ("GET", "api.example.com"),
            ("PUT", "example.org"),
            ("PUT", ".example.org"),
            ("PUT", ""),
        ] {
            assert!(!fits(&condition, method, "/", host), "{method} {host}");
        }
        assert!(fits(&Condition::default(), "", "", ""));
        let v6 = Condition { hosts: vec![HostPattern::new("[::1]")], ..Condition::default() };
        assert!(fits(&v6, "GET", "/", "[::1]:80") && fits(&v6, "GET", "/", "[::1]"));
    }

    #[test]
    fn a_regular_expression_takes_linear_time() {
        let evil = PathCondition::regex("(/a*)*b").unwrap();
        assert!(!evil.fits(&[b"/".as_slice(), &[b'a'; 20_000]].concat()));
        // Each byte of a path is tried with each of its states.
        assert!(PathCondition::regex("(a{0,1000}){0,100}").is_err());
        assert!(PathCondition::regex("/v[0-9]{1,9}/[a-z0-9-]{1,64}(/items)?").is_ok());
    }
}
