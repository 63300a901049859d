//! What a feed promises its readers: `qos`, its consumer group, and what is committed to that and when.

use ring::digest::{SHA256, digest};

use super::globs;
use super::refusal::{Code, Refusal};
use super::selection::Identity;

/// How often a reader gets each record, whose group it reads in, and what that commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) qos: Qos,
    pub(crate) commit: Commit,
    pub(crate) group: GroupMode,
}

/// `qos`, by Gravitee's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qos {
    /// Each connection starts anew.
    None,
    /// The group has the position.
    Balanced,
    /// The cursor has it, or the group where there is no cursor; also `auto`.
    AtBest,
    AtMostOnce,
    AtLeastOnce,
}

/// When the position of a group is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commit {
    /// By the bridge, as records are sent.
    Auto,
    /// When the client has acknowledged them.
    Client,
    Off,
}

/// `group`: in whose name positions are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupMode {
    None,
    /// A group for each client of each consumer.
    Client(Affixes),
    /// A group for each consumer.
    Authenticated(Affixes),
    /// The group of the configuration, or one that the gateway names.
    Manual {
        id: Option<String>,
        allowed: Vec<String>,
        suffix: String,
    },
    /// A group for each reader, under a name that says nothing.
    Random {
        suffix: String,
    },
}

/// What stands before the name of a reader, and behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Affixes {
    pub(crate) prefix: String,
    pub(crate) suffix: String,
}

impl Delivery {
    /// Whether readers get cursors, and may give them.
    pub(crate) fn has_cursors(&self) -> bool {
        !matches!(self.qos, Qos::None | Qos::Balanced)
    }

    /// Whether a position that is gone is gone on from at the log start, whatever the reset policy.
    pub(crate) fn loses_nothing(&self) -> bool {
        self.qos == Qos::AtLeastOnce
    }

    /// Whether who reads decides over the group.
    pub(crate) fn needs_gateway(&self) -> bool {
        match &self.group {
            GroupMode::None => false,
            GroupMode::Manual { allowed, .. } => !allowed.is_empty(),
            GroupMode::Client(_) | GroupMode::Authenticated(_) | GroupMode::Random { .. } => true,
        }
    }

    /// The group in which a reader of the feed of this name reads; `named` is what the gateway says.
    ///
    /// # Errors
    /// [`Code::IdentityRequired`], [`Code::Forbidden`], [`Code::InvalidParameter`].
    pub(crate) fn group_id(
        &self,
        feed: &str,
        identity: &Identity,
        named: Option<&str>,
    ) -> Result<Option<String>, Refusal> {
        let is_named_by_gateway =
            matches!(&self.group, GroupMode::Manual { allowed, .. } if !allowed.is_empty());
        if named.is_some() && !is_named_by_gateway {
            let message = "kafka-upstream-group: the feed's group is not for a gateway to name";
            return Err(Code::InvalidParameter.because(message));
        }
        let (consumer, client) = (identity.consumer.as_deref(), identity.id.as_deref());
        let of = |affixes: &Affixes, name: &str| [&affixes.prefix, name, &affixes.suffix].concat();
        let id = match &self.group {
            GroupMode::None => return Ok(None),
            GroupMode::Client(affixes) => {
                let client = client.ok_or_else(|| missing("which client reads", "client-id"))?;
                let consumer = consumer.map_or_else(|| ANONYMOUS.to_owned(), unmistakable);
                of(affixes, &format!("{consumer}.{client}"))
            }
            GroupMode::Authenticated(affixes) => {
                of(affixes, consumer.ok_or_else(|| missing("who reads", "consumer"))?)
            }
            GroupMode::Manual { id, allowed, suffix } => {
                if let Some(named) = named.filter(|named| !globs::is_any(allowed, named)) {
                    let message = format!("the group `{}` may not be used", named.escape_debug());
                    return Err(Code::Forbidden.because(message));
                }
                let id = named.or(id.as_deref());
                id.ok_or_else(|| missing("which group", "group"))?.to_owned() + suffix
            }
            GroupMode::Random { suffix } => {
                let who = consumer.or(client);
                let who = who.ok_or_else(|| missing("who reads", "consumer or client-id"))?;
                let hash = digest(&SHA256, format!("{feed}\0{who}").as_bytes());
                let hash = hash.as_ref().iter().take(HASH_BYTES);
                let hash: String = hash.map(|byte| format!("{byte:02x}")).collect();
                format!("kafka-upstream.{hash}{suffix}")
            }
        };
        Ok(Some(id))
    }
}

fn missing(what: &str, header: &str) -> Refusal {
    let message = format!("the gateway does not say {what} (kafka-upstream-{header})");
    Code::IdentityRequired.because(message)
}

/// So that no two consumers' clients have one group: what follows the first `.` is the client's id.
fn unmistakable(consumer: &str) -> String {
    match consumer {
        ANONYMOUS => "%61non".to_owned(),
        consumer => consumer.replace('%', "%25").replace('.', "%2E"),
    }
}

/// Stands for a consumer that the gateway does not name.
const ANONYMOUS: &str = "anon";
/// So much of a hash tells readers apart.
const HASH_BYTES: usize = 16;

impl Qos {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Balanced => "balanced",
            Self::AtBest => "at-best",
            Self::AtMostOnce => "at-most-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }

    /// What is committed unless the feed says otherwise.
    pub(crate) fn commit(self) -> Commit {
        match self {
            Self::None => Commit::Off,
            Self::Balanced | Self::AtBest | Self::AtMostOnce => Commit::Auto,
            Self::AtLeastOnce => Commit::Client,
        }
    }

    /// What else may be.
    pub(crate) fn goes_with(self, commit: Commit) -> bool {
        let may_be_clients = matches!(self, Self::AtBest | Self::AtLeastOnce);
        match commit {
            Commit::Off => true,
            Commit::Client => may_be_clients,
            Commit::Auto => self.commit() == Commit::Auto,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Who = (&'static str, &'static str);

    fn id(group: GroupMode, (consumer, client): Who, named: &str) -> Result<String, &'static str> {
        let delivery = Delivery { qos: Qos::AtBest, commit: Commit::Auto, group };
        let set = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let identity = Identity { id: set(client), consumer: set(consumer), attrs: None };
        let id = delivery.group_id("f", &identity, Some(named).filter(|named| !named.is_empty()));
        id.map(Option::unwrap_or_default).map_err(|refusal| refusal.code.name())
    }

    fn affixes(prefix: &str, suffix: &str) -> Affixes {
        Affixes { prefix: prefix.to_owned(), suffix: suffix.to_owned() }
    }

    fn manual(id: &str, allowed: &[&str]) -> GroupMode {
        let id = Some(id.to_owned()).filter(|id| !id.is_empty());
        let allowed = allowed.iter().map(ToString::to_string).collect();
        GroupMode::Manual { id, allowed, suffix: String::new() }
    }

    fn random() -> GroupMode {
        GroupMode::Random { suffix: String::new() }
    }

    #[test]
    fn a_group_is_named_by_its_mode() {
        let (nobody, alice) = (("", ""), ("alice", "phone"));
        let client = |prefix, suffix| GroupMode::Client(affixes(prefix, suffix));
        let authenticated = |prefix| GroupMode::Authenticated(affixes(prefix, ""));
        for (group, who, named, expected) in [
            (GroupMode::None, alice, "", Ok("")),
            (client("p-", ""), alice, "", Ok("p-alice.phone")),
            (client("", ".b1"), alice, "", Ok("alice.phone.b1")),
            (client("", ""), ("", "phone"), "", Ok("anon.phone")),
            (client("", ""), ("alice", ""), "", Err("identity_required")),
            (authenticated("p-"), ("alice", ""), "", Ok("p-alice")),
            (authenticated(""), ("", "phone"), "", Err("identity_required")),
            (manual("g", &[]), nobody, "", Ok("g")),
            (manual("g", &[]), alice, "h", Err("invalid_parameter")),
            (manual("g", &["h*"]), alice, "hh", Ok("hh")),
            (manual("g", &["h*"]), alice, "", Ok("g")),
            (manual("", &["h*"]), alice, "", Err("identity_required")),
            (manual("", &["h*"]), alice, "g", Err("forbidden")),
            (random(), nobody, "", Err("identity_required")),
        ] {
            let shown = format!("{group:?} {who:?} {named}");
            assert_eq!(id(group, who, named), expected.map(str::to_owned), "{shown}");
        }
    }

    #[test]
    fn two_readers_have_one_group_only_where_they_are_one() {
        let client = |who| id(GroupMode::Client(Affixes::default()), who, "").unwrap();
        assert_ne!(client(("a.b", "c")), client(("a", "b.c")));
        assert_ne!(client(("anon", "c")), client(("", "c")));
        assert_eq!(client(("a.b@c%", "d")), "a%2Eb@c%25.d");
        let random = |who| id(random(), who, "").unwrap();
        assert_eq!(random(("alice", "phone")), random(("alice", "")));
        assert_ne!(random(("alice", "")), random(("bob", "")));
        assert_eq!(random(("alice", "")).len(), "kafka-upstream.".len() + 2 * HASH_BYTES);
    }
}
