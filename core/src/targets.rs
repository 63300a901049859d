//! Which topics a request's record goes to, and with which key, where the client may choose.

use std::borrow::Cow;

use crate::outcome::Code;
use crate::query;
use crate::reply::Reply;

/// What of a record's place the query string decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// The argument with a list of topics.
    pub topics_arg: Option<String>,
    /// The topics that it may name, besides the default.
    pub allowed: Vec<String>,
    /// The argument with the record's key.
    pub key_arg: Option<String>,
}

/// One topic, and more where the client named several; each is there once.
#[derive(Debug, PartialEq, Eq)]
pub struct Topics<'a> {
    /// The first.
    pub first: &'a str,
    /// The others, in the client's order.
    pub more: Vec<&'a str>,
}

impl Targets {
    /// The topics that a query string names, or `default`.
    ///
    /// # Errors
    /// 502, as Kong answers, when one of them is not allowed.
    pub fn topics<'a>(&'a self, default: &'a str, query: &[u8]) -> Result<Topics<'a>, Reply> {
        let one = |first| Topics { first, more: Vec::new() };
        let Some(argument) = &self.topics_arg else { return Ok(one(default)) };
        let mut topics: Option<Topics<'a>> = None;
        for list in query::values(query, argument) {
            let names = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            for name in names.filter(|name| !name.is_empty()) {
                let allowed = self.allowed(default, name).ok_or_else(not_allowed)?;
                match &mut topics {
                    None => topics = Some(one(allowed)),
                    Some(known) if known.contains(allowed) => {}
                    Some(known) => known.more.push(allowed),
                }
            }
        }
        Ok(topics.unwrap_or_else(|| one(default)))
    }

    /// A topic that something other than the query string names.
    ///
    /// # Errors
    /// As `topics`.
    pub fn one_topic<'a>(&'a self, default: &'a str, name: &str) -> Result<Topics<'a>, Reply> {
        let first = self.allowed(default, name.as_bytes()).ok_or_else(not_allowed)?;
        Ok(Topics { first, more: Vec::new() })
    }

    /// The key that a query string gives; the first, where it gives several.
    #[must_use]
    pub fn key<'a>(&'a self, query: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        query::values(query, self.key_arg.as_ref()?).next()
    }

    fn allowed<'a>(&'a self, default: &'a str, name: &[u8]) -> Option<&'a str> {
        let mut known = std::iter::once(default).chain(self.allowed.iter().map(String::as_str));
        known.find(|topic| topic.as_bytes() == name)
    }
}

impl Topics<'_> {
    fn contains(&self, topic: &str) -> bool {
        self.first == topic || self.more.contains(&topic)
    }
}

fn not_allowed() -> Reply {
    let error = "one or more target topics are not in the allowed topics list";
    Reply::refused(Code::TopicNotAllowed, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Targets {
        let text = |text: &str| Some(text.to_owned());
        let allowed = vec!["a".to_owned(), "b".to_owned(), "x".to_owned()];
        Targets { topics_arg: text("to"), allowed, key_arg: text("key") }
    }

    #[test]
    fn every_topic_must_be_allowed_and_the_default_always_is() {
        let targets = targets();
        let topics = |query: &str| {
            let named = targets.topics("x", query.as_bytes());
            named.map(|topics| [vec![topics.first], topics.more].concat())
        };
        assert_eq!(topics(""), Ok(vec!["x"]));
        assert_eq!(topics("to=&to"), Ok(vec!["x"]));
        assert_eq!(topics("to=b,x,+a,,b&to=a"), Ok(vec!["b", "x", "a"]));
        let refused = topics("to=a,c").unwrap_err();
        assert_eq!(
            (refused.status, String::from_utf8(refused.body).unwrap().as_str()),
            (
                502,
                r#"{"message":"Bad Gateway","error":"one or more target topics are not in the allowed topics list"}"#
            )
        );
        let closed = Targets { allowed: Vec::new(), ..targets.clone() };
        assert!(closed.topics("x", b"to=x").is_ok());
        assert!(closed.topics("x", b"to=a").is_err());
    }

    #[test]
    fn without_an_argument_in_the_configuration_the_client_chooses_nothing() {
        let none = Targets::default();
        assert_eq!(none.topics("x", b"to=a"), Ok(Topics { first: "x", more: vec![] }));
        assert_eq!(none.key(b"key=1"), None);
        assert_eq!(targets().key(b"a=1"), None);
        assert_eq!(targets().key(b"key=%C3%BC&key=2").as_deref(), Some("ü".as_bytes()));
    }
}
