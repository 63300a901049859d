//! A webhook's membership in its group: partitions come, are sent, and are given back with what was
//! settled of them committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_client::{Assignor, GroupConfig, GroupEvent, MemberEvents};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::partition;
use super::place::Place;
use super::webhook::Webhook;
use crate::consume::topics::Topics;

/// The tasks of the partitions that are here.
struct Sending(BTreeMap<(Arc<str>, i32), (CancellationToken, JoinHandle<()>)>);

/// Sends until the process is to end. Then what is under way is awaited, for so long.
pub(super) async fn run(webhook: Arc<Webhook>, shutdown: CancellationToken, grace: Duration) {
    let config = GroupConfig::default().assignors(&[Assignor::CooperativeSticky]);
    let Topics::List(topics) = &webhook.reader.feed.topics else { return };
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    let name = &*webhook.name;
    loop {
        let (member, mut events) = webhook.group.join(&topics, &config);
        webhook.set_member(Some(member.clone()));
        let mut sending = Sending(BTreeMap::new());
        let ended = tokio::select! {
            () = follow(&webhook, &mut events, &mut sending) => false,
            () = commit(&webhook) => false,
            () = shutdown.cancelled() => true,
        };
        let until = Instant::now() + grace.saturating_sub(ENDING).min(STOPPING);
        // Nobody may commit for long: all offsets are kept from now on.
        webhook.renew();
        let all: Vec<_> = sending.0.keys().cloned().collect();
        sending.end(&webhook, &all, until).await;
        webhook.set_member(None);
        if ended {
            // While its events are there.
            return member.leave(LEAVING).await;
        }
        tracing::warn!(webhook = name, effect = "joined_again", "webhook_membership_over");
        tokio::select! {
            () = sleep(JOIN_AGAIN) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// What has happened to the member, until it is none.
async fn follow(webhook: &Arc<Webhook>, events: &mut MemberEvents, sending: &mut Sending) {
    while let Some(event) = events.next().await {
        match event {
            GroupEvent::Assigned(partitions) => {
                for (topic, partition) in partitions {
                    sending.begin(webhook, topic, partition);
                }
            }
            GroupEvent::Revoked(revocation) => {
                let until = revocation.until.min(Instant::now() + STOPPING);
                sending.end(webhook, &revocation.partitions, until).await;
                drop(revocation);
            }
            GroupEvent::Lost(partitions) => sending.lose(webhook, &partitions),
            GroupEvent::Failed(error) => {
                let (webhook, group) = (&*webhook.name, webhook.group.id());
                tracing::warn!(webhook, group, %error, "webhook_left_out_of_its_group");
            }
            _ => {}
        }
    }
}

/// Commits from time to time.
async fn commit(webhook: &Webhook) {
    let (mut often, mut renewed) = (interval(COMMIT_EVERY), Instant::now());
    loop {
        often.tick().await;
        if renewed.elapsed() >= RENEW_EVERY {
            renewed = Instant::now();
            webhook.renew();
        }
        webhook.commit().await;
        webhook.measure();
    }
}

impl Sending {
    fn begin(&mut self, webhook: &Arc<Webhook>, topic: Arc<str>, partition: i32) {
        let place = Place::new(webhook.reader.hub.topic(&topic), partition);
        let (place, stop) = (Arc::new(place), CancellationToken::new());
        let key = (topic, partition);
        webhook.places().insert(key.clone(), Arc::clone(&place));
        let task = tokio::spawn(partition::run(Arc::clone(webhook), place, stop.clone()));
        self.0.insert(key, (stop, task));
    }

    /// Awaits what is under way, until a time, and commits.
    async fn end(&mut self, webhook: &Webhook, partitions: &[(Arc<str>, i32)], until: Instant) {
        let tasks: Vec<_> = partitions.iter().filter_map(|key| self.0.remove(key)).collect();
        tasks.iter().for_each(|(stop, _)| stop.cancel());
        let ending = tasks.into_iter().map(async |(_, mut task)| {
            if timeout_at(until, &mut task).await.is_err() {
                task.abort();
            }
        });
        join_all(ending).await;
        webhook.commit().await;
        webhook.places().retain(|key, _| !partitions.contains(key));
        webhook.measure();
    }

    /// Others have them already.
    fn lose(&mut self, webhook: &Webhook, partitions: &[(Arc<str>, i32)]) {
        for key in partitions {
            if let Some((_, task)) = self.0.remove(key) {
                task.abort();
            }
            webhook.places().remove(key);
        }
        webhook.measure();
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.values().for_each(|(_, task)| task.abort());
    }
}

/// How long requests that are under way are awaited before their partitions go.
const STOPPING: Duration = Duration::from_secs(15);
/// Of the time that the process has for its end so much is for the last commit and for leaving the group.
const ENDING: Duration = Duration::from_secs(3);
/// How long the group may take to let the bridge go.
const LEAVING: Duration = Duration::from_secs(2);
/// Pause before the group is joined again.
const JOIN_AGAIN: Duration = Duration::from_secs(5);
/// How often what is settled is committed: so much is sent again after a crash.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How often all of it is: brokers forget offsets that have not been committed for 7 days.
const RENEW_EVERY: Duration = Duration::from_secs(3600);
