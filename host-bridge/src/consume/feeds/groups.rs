//! How `qos`, `group`, `commit` and `single_bridge` of a feed are read.

use std::collections::BTreeSet;

use super::fields::{Choices, FALSE, Fields};
use super::{Entrypoint, PATTERN, UNSUPPORTED};
use crate::consume::delivery::{Affixes, Commit, Delivery, GroupMode, Qos};

impl Fields<'_> {
    /// `qos`, `group`, `commit` and `single_bridge`; `instance` is the bridge's own name.
    pub(super) fn delivery(
        &mut self,
        entrypoints: &BTreeSet<Entrypoint>,
        instance: Option<&str>,
    ) -> Delivery {
        let qos = self.choice("qos", &QOS);
        let group = self.group(instance);
        let has_pattern = self.table.contains_key(PATTERN);
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
        if in_group && entrypoints.contains(&Entrypoint::Pubsub) {
            fault("group", "a feed with a group is not read by `pubsub`, which names partitions");
        }
        let streams = [Entrypoint::Sse, Entrypoint::Websocket];
        if in_group && streams.iter().any(|stream| entrypoints.contains(stream)) {
            if instance.is_none() {
                let reason = "needs `instance_id` of [feeds] where streams are read: the bridge is \
                              a member of the group";
                fault("group", reason);
            }
            if has_pattern {
                let reason = "needs `topics`, not a pattern, where streams are read: members name \
                              their topics";
                fault("group", reason);
            }
        }
        Delivery { qos, commit, group }
    }

    fn group(&mut self, instance: Option<&str>) -> GroupMode {
        let Some(table) = self.section("group") else { return GroupMode::None };
        let path = format!("{}.group", self.path);
        let mut fields = Fields { path: &path, table, faults: &mut *self.faults };
        if !fields.table.is_empty() && !fields.table.contains_key("mode") {
            fields.fault("mode", "is missing: manual, client, authenticated, random or none");
            return GroupMode::None;
        }
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
