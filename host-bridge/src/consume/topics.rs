//! Which topics a feed has: those of a list, or all whose names match a pattern.

use regex_lite::{Regex, RegexBuilder};

use super::cursor::is_topic;
use super::globs;

/// The topics of a feed as configured, or as one of its readers may read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topics {
    List(Vec<String>),
    /// Those that the cluster has now, and those that are created later.
    Pattern(TopicsPattern),
}

/// A regular expression for whole names. It takes time linear in a name's length.
#[derive(Debug, Clone)]
pub(crate) struct TopicsPattern {
    regex: Regex,
    /// Of these patterns of rules one is for the name, too; none is asked where all names are allowed.
    held_to: Option<Vec<String>>,
}

impl PartialEq for TopicsPattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.held_to == other.held_to
    }
}

impl Eq for TopicsPattern {}

impl Topics {
    /// Whether a topic of this name is one of these, if it exists.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::List(list) => list.iter().any(|listed| listed == name),
            Self::Pattern(pattern) => pattern.matches(name),
        }
    }

    /// Whether none can be read, whatever is created.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::List(list) if list.is_empty())
    }

    /// Those for which one of these patterns of rules is.
    pub(crate) fn held_to(&mut self, rules: Vec<String>) {
        match self {
            Self::List(list) => list.retain(|topic| globs::is_any(&rules, topic)),
            Self::Pattern(_) if rules.iter().any(|rule| rule == "*") => {}
            Self::Pattern(pattern) => pattern.held_to = Some(rules),
        }
    }

    /// Those of them that are named. Of a pattern, too, they are a list then.
    pub(crate) fn narrow(&mut self, names: &[&str]) {
        match self {
            Self::List(list) => list.retain(|topic| names.contains(&topic.as_str())),
            Self::Pattern(_) => {
                let mut list: Vec<_> = names.iter().map(ToString::to_string).collect();
                list.sort_unstable();
                list.dedup();
                *self = Self::List(list);
            }
        }
    }
}

impl TopicsPattern {
    /// # Errors
    /// What is wrong with the expression: its syntax has what takes linear time, so neither look-around
    /// nor back-references.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        if source.is_empty() || source.len() > SOURCE_BYTES {
            return Err(format!("must have 1 to {SOURCE_BYTES} bytes"));
        }
        // By itself first: `a)|(b` is none, but would be one between the brackets.
        let build = |text: &str| RegexBuilder::new(text).size_limit(REGEX_BYTES).build();
        let whole = build(source).and_then(|_| build(&format!("^(?:{source})$")));
        let regex = whole.map_err(|error| error.to_string())?;
        Ok(Self { regex, held_to: None })
    }

    /// Kafka's own topics, and others whose names begin so, never match.
    pub(crate) fn matches(&self, name: &str) -> bool {
        !name.starts_with("__")
            && is_topic(name)
            && self.regex.is_match(name)
            && self.held_to.as_ref().is_none_or(|rules| globs::is_any(rules, name))
    }
}

/// Bytes of an expression.
const SOURCE_BYTES: usize = 512;
/// Bytes of what it is compiled to: repetitions multiply, and each name of a cluster is tried with all
/// of it.
const REGEX_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(source: &str) -> Result<TopicsPattern, String> {
        TopicsPattern::new(source)
    }

    #[test]
    fn a_pattern_is_for_whole_names_and_never_for_kafkas_own() {
        for (source, matching, others) in [
            ("orders-.*", &["orders-", "orders-eu"][..], &["orders", "my-orders-eu", ""][..]),
            ("a|b", &["a", "b"], &["ab", "a\n", "aa"]),
            (".*", &["a", "_a", "a.b"], &["__consumer_offsets", "__a", "", "..", "a b", "ü"]),
            ("_.*", &["_schemas"], &["__transaction_state"]),
            ("(?i)ORDERS", &["orders", "Orders"], &["order"]),
        ] {
            let pattern = pattern(source).unwrap();
            assert!(matching.iter().all(|name| pattern.matches(name)), "{source}");
            assert!(!others.iter().any(|name| pattern.matches(name)), "{source}");
        }
        assert!(!pattern(".*").unwrap().matches(&"a".repeat(250)), "no topic's name");
    }

    #[test]
    fn what_is_not_linear_or_too_large_is_refused() {
        for (source, reason) in [
            ("(?!dead).*", "look-around is not supported"),
            ("(?=a)a", "look-around is not supported"),
            ("(?<=a)b", "look-around is not supported"),
            (r"(a)\1", "backreferences are not supported"),
            ("", "must have 1 to 512 bytes"),
            (&"a".repeat(513), "must have 1 to 512 bytes"),
        ] {
            assert_eq!(pattern(source).err().as_deref(), Some(reason), "{source}");
        }
        for source in ["(", "a)|(b", "[a", "((a{100}){100}){100}"] {
            assert!(pattern(source).is_err(), "{source}");
        }
        assert!(pattern(&"a".repeat(512)).is_ok());
    }

    #[test]
    fn a_gateway_and_rules_leave_less_of_it() {
        let mut topics = Topics::Pattern(pattern("orders-.*").unwrap());
        let all = topics.clone();
        topics.held_to(vec!["audit".to_owned(), "*".to_owned()]);
        assert_eq!(topics, all);
        topics.held_to(vec!["*-eu".to_owned(), "audit".to_owned()]);
        assert_ne!(topics, all);
        assert!(topics.has("orders-eu") && !topics.has("orders-us") && !topics.has("audit"));
        topics.narrow(&["orders-eu", "orders-eu"]);
        assert_eq!(topics, Topics::List(vec!["orders-eu".to_owned()]));
        topics.held_to(vec!["audit".to_owned()]);
        assert!(topics.is_empty() && !all.is_empty());
    }
}
