//! What a feed promises its readers: `qos`, its consumer group, and what is committed to that and when.

use std::collections::BTreeSet;

use ring::digest::{SHA256, digest};

use super::{Choices, Entrypoint, FALSE, Fields, UNSUPPORTED};
use crate::consume::globs;
use crate::consume::refusal::{Code, Refusal};
use crate::consume::selection::Identity;

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
    prefix: String,
    suffix: String,
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
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Balanced => "balanced",
            Self::AtBest => "at-best",
            Self::AtMostOnce => "at-most-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }

    /// What is committed unless the feed says otherwise.
    fn commit(self) -> Commit {
        match self {
            Self::None => Commit::Off,
            Self::Balanced | Self::AtBest | Self::AtMostOnce => Commit::Auto,
            Self::AtLeastOnce => Commit::Client,
        }
    }

    /// What else may be.
    fn goes_with(self, commit: Commit) -> bool {
        let may_be_clients = matches!(self, Self::AtBest | Self::AtLeastOnce);
        match commit {
            Commit::Off => true,
            Commit::Client => may_be_clients,
            Commit::Auto => self.commit() == Commit::Auto,
        }
    }
}

impl Fields<'_> {
    /// `qos`, `group`, `commit` and `single_bridge`; `instance` is the bridge's own name.
    pub(super) fn delivery(
        &mut self,
        entrypoints: &BTreeSet<Entrypoint>,
        instance: Option<&str>,
    ) -> Delivery {
        let qos = self.choice("qos", &QOS);
        let group = self.group(instance);
        let has_commit = self.table.contains_key("commit");
        let commit = self.choice("commit", &COMMIT).unwrap_or_else(|| qos.commit());
        let is_single = self.choice("single_bridge", &FALSE);
        let (in_group, is_polled) =
            (group != GroupMode::None, entrypoints.contains(&Entrypoint::Get));
        let mut fault = |name: &str, reason: &str| self.fault(name, reason);
        match qos {
            Qos::None if is_polled => fault("qos", "`none` gives no cursor, and GET needs one"),
            Qos::None if in_group => fault("qos", "`none` goes on from nowhere: it has no group"),
            Qos::Balanced if !in_group => {
                fault("qos", "`balanced` needs a `group`, which has the position");
            }
            Qos::AtMostOnce if is_polled && !in_group => {
                fault("qos", "`at-most-once` needs a `group` where pages are read");
            }
            Qos::AtMostOnce if is_polled && !is_single => {
                let reason = "must be true with `at-most-once` where pages are read: the order in \
                              which they are committed is known within one bridge only";
                fault("single_bridge", reason);
            }
            _ => {}
        }
        if has_commit && !in_group {
            fault("commit", "has a meaning with a `group` only");
        } else if !qos.goes_with(commit) {
            let name = if commit == Commit::Auto { "auto" } else { "client" };
            fault("commit", &format!("`{name}` does not go with qos `{}`", qos.name()));
        }
        let elsewhere = entrypoints.iter().find(|entrypoint| **entrypoint != Entrypoint::Get);
        if let Some(elsewhere) = elsewhere.filter(|_| in_group) {
            let reason = format!("a feed with a group is not read by `{}`", elsewhere.name());
            fault("group", &reason);
        }
        Delivery { qos, commit, group }
    }

    fn group(&mut self, instance: Option<&str>) -> GroupMode {
        let Some(table) = self.section("group") else { return GroupMode::None };
        let path = format!("{}.group", self.path);
        let mut fields = Fields { path: &path, table, faults: &mut *self.faults };
        let mode = fields.choice("mode", &MODES);
        let set =
            |name: &str, fields: &mut Fields<'_>| fields.text(name).filter(|text| !text.is_empty());
        let (id, prefix) = (set("id", &mut fields), set("prefix", &mut fields));
        let allowed = fields.list("allowed").unwrap_or_default();
        let is_suffixed = fields.choice("node_suffix", &FALSE);
        let suffix = match (is_suffixed, instance) {
            (false, _) => String::new(),
            (true, Some(instance)) => format!(".{instance}"),
            (true, None) => {
                fields.fault("node_suffix", "needs `instance_id` of [feeds]");
                String::new()
            }
        };
        if mode != Mode::Manual {
            let given = [("id", id.is_some()), ("allowed", !allowed.is_empty())];
            for (name, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
                fields.fault(name, "has a meaning with mode = \"manual\" only");
            }
        } else if id.is_none() && allowed.is_empty() {
            fields.fault("id", "is missing: which group? Or `allowed`, if the gateway names it");
        }
        if prefix.is_some() && !matches!(mode, Mode::Client | Mode::Authenticated) {
            fields.fault("prefix", "has a meaning with mode client or authenticated only");
        }
        fields.finish(&GROUP_FIELDS);
        let affixes = Affixes { prefix: prefix.unwrap_or_default(), suffix: suffix.clone() };
        match mode {
            Mode::None => GroupMode::None,
            Mode::Client => GroupMode::Client(affixes),
            Mode::Authenticated => GroupMode::Authenticated(affixes),
            Mode::Manual => GroupMode::Manual { id, allowed, suffix },
            Mode::Random => GroupMode::Random { suffix },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    Client,
    Authenticated,
    Manual,
    Random,
}

const MODES: Choices<Mode> = Choices {
    default: Mode::None,
    accepted: &[
        ("none", Mode::None),
        ("client", Mode::Client),
        ("authenticated", Mode::Authenticated),
        ("manual", Mode::Manual),
        ("random", Mode::Random),
    ],
    unsupported: &[("share", UNSUPPORTED)],
};
/// `auto` and `at-best` mean the same.
const QOS: Choices<Qos> = Choices {
    default: Qos::AtBest,
    accepted: &[
        ("auto", Qos::AtBest),
        ("none", Qos::None),
        ("balanced", Qos::Balanced),
        ("at-best", Qos::AtBest),
        ("at-most-once", Qos::AtMostOnce),
        ("at-least-once", Qos::AtLeastOnce),
    ],
    unsupported: &[],
};
const COMMIT: Choices<Option<Commit>> = Choices {
    default: None,
    accepted: &[
        ("auto", Some(Commit::Auto)),
        ("client", Some(Commit::Client)),
        ("off", Some(Commit::Off)),
    ],
    unsupported: &[],
};
const GROUP_FIELDS: [&str; 5] = ["mode", "id", "prefix", "allowed", "node_suffix"];

#[cfg(test)]
mod tests {
    use super::*;

    fn id(
        group: &str,
        (consumer, client): (&str, &str),
        named: &str,
    ) -> Result<String, &'static str> {
        let table = toml::from_str(&format!("entrypoints = ['get']\ngroup = {group}")).unwrap();
        let mut faults = Vec::new();
        let mut fields = Fields { path: "feeds.f", table, faults: &mut faults };
        let delivery = fields.delivery(&[Entrypoint::Get].into(), Some("b1"));
        assert!(faults.is_empty(), "{faults:?}");
        let set = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let identity = Identity { id: set(client), consumer: set(consumer), attrs: None };
        let id = delivery.group_id("f", &identity, Some(named).filter(|named| !named.is_empty()));
        id.map(Option::unwrap_or_default).map_err(|refusal| refusal.code.name())
    }

    #[test]
    fn a_group_is_named_by_its_mode() {
        let (nobody, alice) = (("", ""), ("alice", "phone"));
        for (group, who, named, expected) in [
            ("{}", alice, "", Ok("")),
            ("{ mode = 'client', prefix = 'p-' }", alice, "", Ok("p-alice.phone")),
            ("{ mode = 'client', node_suffix = true }", alice, "", Ok("alice.phone.b1")),
            ("{ mode = 'client' }", ("", "phone"), "", Ok("anon.phone")),
            ("{ mode = 'client' }", ("alice", ""), "", Err("identity_required")),
            ("{ mode = 'authenticated', prefix = 'p-' }", ("alice", ""), "", Ok("p-alice")),
            ("{ mode = 'authenticated' }", ("", "phone"), "", Err("identity_required")),
            ("{ mode = 'manual', id = 'g' }", nobody, "", Ok("g")),
            ("{ mode = 'manual', id = 'g' }", alice, "h", Err("invalid_parameter")),
            ("{ mode = 'manual', id = 'g', allowed = ['h*'] }", alice, "hh", Ok("hh")),
            ("{ mode = 'manual', id = 'g', allowed = ['h*'] }", alice, "", Ok("g")),
            ("{ mode = 'manual', allowed = ['h*'] }", alice, "", Err("identity_required")),
            ("{ mode = 'manual', allowed = ['h*'] }", alice, "g", Err("forbidden")),
            ("{ mode = 'random' }", nobody, "", Err("identity_required")),
        ] {
            assert_eq!(id(group, who, named).as_deref(), expected.as_ref().copied(), "{group}");
        }
    }

    #[test]
    fn two_readers_have_one_group_only_where_they_are_one() {
        let client = |who| id("{ mode = 'client' }", who, "").unwrap();
        assert_ne!(client(("a.b", "c")), client(("a", "b.c")));
        assert_ne!(client(("anon", "c")), client(("", "c")));
        assert_eq!(client(("a.b@c%", "d")), "a%2Eb@c%25.d");
        let random = |who| id("{ mode = 'random' }", who, "").unwrap();
        assert_eq!(random(("alice", "phone")), random(("alice", "")));
        assert_ne!(random(("alice", "")), random(("bob", "")));
        assert_eq!(random(("alice", "")).len(), "kafka-upstream.".len() + 2 * HASH_BYTES);
    }
}
