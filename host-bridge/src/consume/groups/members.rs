//! Groups that are read by streams: the bridge is one member of each, and its streams share what it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_client::GroupConfig;
use ring::digest::{SHA256, digest};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answers::committed_of;
use super::committed::all;
use super::written::written;
use crate::consume::cursor::{Cursor, is_same_topic};
use crate::consume::feeds::MemberOf;
use crate::consume::query::Query;
use crate::consume::reader::FeedReader;
use crate::consume::refusal::{Code, Refusal};
use crate::consume::source::Source;
use crate::consume::start::{Given, KnownTopic};
use crate::consume::topics::Topics;
use crate::limits::{FEED_GRACE, FEED_KNOWN, FEED_MEMBERS, FEED_PATIENCE};
use keeper::Keeper;
use membership::Membership;
use memberships::{Key, Memberships};
use share::Share;

mod keeper;
pub(super) mod membership;
mod memberships;
pub(crate) mod share;
pub(crate) mod shares;

/// The groups of which the bridge is a member, by what they are of, id and topics.
#[derive(Default)]
pub(super) struct Members {
    all: Memberships,
    member: MemberOf,
    tasks: TaskTracker,
}

impl Members {
    pub(super) fn of_bridge(member: &MemberOf) -> Self {
        Self { member: member.clone(), ..Self::default() }
    }

    /// A reader of a group gets its share from now on.
    ///
    /// # Errors
    /// What is wrong with where it wants to start; [`Code::Overloaded`]; or Kafka does not say.
    pub(super) async fn join(
        &self,
        reader: &Arc<FeedReader>,
        id: &str,
        query: &Query,
        shutdown: &CancellationToken,
    ) -> Result<Share, Refusal> {
        let topics = query.topics.as_deref();
        let known = reader.partitions(&query.start, topics, FEED_KNOWN, FEED_PATIENCE).await?;
        let group = reader.hub.client.group(id);
        // Who is refused later has a stream already, and its status.
        let start = committed_of(&group, all(&known).collect(), FEED_PATIENCE).await?;
        let start = start.start(&query.start, &known, &reader.feed)?;
        let _found = reader.open(&start.given, topics, FEED_PATIENCE).await?;
        let acked = acknowledged(reader, &query.start, &known).await;
        let names = match &reader.feed.topics {
            Topics::List(list) => list.iter(),
            // The configuration was checked.
            Topics::Pattern(_) => return Err(Code::Internal.because("a pattern has no members")),
        };
        let mut names: Vec<String> =
            names.filter(|name| topics.is_none_or(|asked| asked.contains(name))).cloned().collect();
        names.sort();
        let key = ((*reader.source).clone(), id.to_owned(), names);
        let mut all = self.all.lock();
        let has_room = all.len() < FEED_MEMBERS;
        let found = all.get(&key).and_then(|found| Share::of(found, reader, query, &acked));
        if let Some(share) = found {
            return Ok(share);
        }
        if !has_room && !all.contains_key(&key) {
            let message =
                format!("the bridge is a member of {FEED_MEMBERS} groups, as many as may be");
            return Err(Code::Overloaded.because(message));
        }
        let (membership, events) = Membership::join(group, &self.config(&key), &key.2, reader);
        let share = Share::of(&membership, reader, query, &acked);
        all.insert(key.clone(), Arc::clone(&membership));
        let keeper = Keeper::new(membership, events, (self.all.clone(), key));
        self.tasks.spawn(keeper.keep(shutdown.clone()));
        share.ok_or_else(|| Code::Internal.because("a membership ended as it began"))
    }

    /// The memberships of a group.
    pub(super) fn of(&self, source: &Source, id: &str) -> Vec<Arc<Membership>> {
        let all = self.all.lock();
        let of_group = all.iter().filter(|((of, group, _), _)| (of, &**group) == (source, id));
        of_group.map(|(_, membership)| Arc::clone(membership)).collect()
    }

    /// Waits until the bridge has left its groups, once it is to end.
    pub(super) async fn close(&self) {
        self.tasks.close();
        let _in_time = timeout(FEED_GRACE + LEAVING, self.tasks.wait()).await;
    }

    /// A static member where the protocol has that: other subscriptions of the bridge are others.
    fn config(&self, (source, _, topics): &Key) -> GroupConfig {
        let MemberOf { instance, session } = &self.member;
        let config = GroupConfig::default().session_timeout(*session);
        let Some(instance) = instance else { return config };
        let mut subscription = format!("{}\0{}", source.cluster, topics.join("\0")).into_bytes();
        subscription.extend(source.credential.iter().flatten());
        let hash = digest(&SHA256, &subscription);
        let hash: String =
            hash.as_ref().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
        config.instance_id(&format!("{instance}-{hash}"))
    }
}

/// What a client has, by the cursor with which it comes: nothing of a topic that is not there any more.
async fn acknowledged(
    reader: &FeedReader,
    asked: &Given,
    known: &BTreeMap<String, KnownTopic>,
) -> Cursor {
    let Given::Cursor(cursor) = asked else { return Cursor::default() };
    let mut acked = cursor.clone();
    acked.topics.retain(|topic, positions| {
        let tag = known.get(topic).and_then(|known| known.tag);
        is_same_topic(positions.tag, tag)
    });
    written(reader, &acked, FEED_GRACE).await
}

/// How long leaving a group may take.
const LEAVING: Duration = Duration::from_secs(1);
/// So much of a hash tells the subscriptions of a bridge apart.
const HASH_BYTES: usize = 8;

#[cfg(test)]
mod tests;
