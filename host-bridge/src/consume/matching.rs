//! The topics of a cluster that a feed's pattern matches.

use std::sync::{Arc, Mutex, PoisonError};

use super::hub::Listed;
use super::topics::{Topics, TopicsPattern};

/// A feed's pattern, and what it last matched: all readers of the feed ask for that.
pub(super) struct Matching {
    pattern: TopicsPattern,
    last: Mutex<Option<(Listed, Listed)>>,
}

impl Matching {
    /// None for the topics of a list.
    pub(super) fn new(topics: &Topics) -> Option<Self> {
        match topics {
            Topics::List(_) => None,
            Topics::Pattern(pattern) => {
                Some(Self { pattern: pattern.clone(), last: Mutex::default() })
            }
        }
    }

    /// Those of a listing that match. Each listing is looked through once.
    pub(super) fn among(&self, listed: &Listed) -> Listed {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, matching)) = &*last
            && Arc::ptr_eq(of, listed)
        {
            return Arc::clone(matching);
        }
        let names = listed.iter().filter(|name| self.pattern.matches(name));
        let matching: Listed = names.cloned().collect();
        *last = Some((Arc::clone(listed), Arc::clone(&matching)));
        matching
    }
}
