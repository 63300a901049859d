//! A webhook's membership in its group: partitions come, are sent, and are given back with what was
//! settled of them committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_client::{GroupEvent, MemberEvents};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::partition;
use super::place::Place;
use super::webhook::Webhook;
use crate::limits::FEED_LOOK_AGAIN;

/// The tasks of the partitions that are here.
struct Sending(BTreeMap<(Arc<str>, i32), (CancellationToken, JoinHandle<()>)>);

/// Why a membership is over.
enum Over {
    /// The process is to end.
    Ending,
    /// There are other topics.
    Topics,
    /// The group has given it up.
    Lost,
}

/// Sends until the process is to end. Then what is under way is awaited, for so long.
pub(super) async fn run(webhook: Arc<Webhook>, shutdown: CancellationToken, grace: Duration) {
    loop {
        let topics = tokio::select! {
            topics = topics(&webhook) => topics,
            () = shutdown.cancelled() => return,
        };
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        let (member, mut events) = webhook.group.join(&names, &webhook.membership_config);
        webhook.begin(topics.clone(), member.clone());
        let mut sending = Sending(BTreeMap::new());
        let over = tokio::select! {
            () = follow(&webhook, &mut events, &mut sending) => Over::Lost,
            () = commit(&webhook) => Over::Lost,
            () = changed(&webhook, &topics) => Over::Topics,
            () = shutdown.cancelled() => Over::Ending,
        };
        let until = Instant::now() + grace.saturating_sub(ENDING).min(STOPPING);
        // Nobody may commit for long: all offsets are kept from now on.
        webhook.renew();
        let all: Vec<_> = sending.0.keys().cloned().collect();
        sending.end(&webhook, &all, until).await;
        webhook.end();
        // While its events are there.
        match over {
            Over::Ending => return member.leave(LEAVING).await,
            Over::Topics => member.leave(LEAVING).await,
            Over::Lost => {
                let (webhook, effect) = (&*webhook.name, "joined_again");
                tracing::warn!(webhook, effect, "webhook_membership_over");
                let _ending = shutdown.run_until_cancelled(sleep(JOIN_AGAIN)).await;
            }
        }
    }
}

/// The topics that are read, once there are any.
async fn topics(webhook: &Webhook) -> BTreeSet<String> {
    loop {
        if let Ok(topics) = webhook.reader.topics().await
            && !topics.is_empty()
        {
            return topics;
        }
        sleep(JOIN_AGAIN).await;
    }
}

/// Waits until a pattern has other topics than these.
async fn changed(webhook: &Webhook, topics: &BTreeSet<String>) {
    while webhook.reader.has_pattern() {
        sleep(FEED_LOOK_AGAIN).await;
        if webhook.reader.topics().await.is_ok_and(|now| now != *topics) {
            return;
        }
    }
    std::future::pending().await
}

/// What has happened to the member, until it is none.
async fn follow(webhook: &Arc<Webhook>, events: &mut MemberEvents, sending: &mut Sending) {
    while let Some(event) = events.next().await {
        match event {
            GroupEvent::Assigned(partitions) => {
                webhook.set_group_error(None);
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
                webhook.set_group_error(Some(error.to_string()));
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

#[cfg(test)]
mod tests {
    use kafka_client::ClusterConfig;
    use kafka_client::fake_broker::{FakeCluster, FakeSettings};

    use super::*;
    use crate::consume::feed_metrics::FeedFamilies;
    use crate::consume::feeds::{Feed, MemberOf};
    use crate::consume::hub::{Hub, Resources};
    use crate::consume::memory::Memory;
    use crate::consume::reader::FeedReader;
    use crate::consume::topics::{Topics, TopicsPattern};
    use crate::webhooks::config::WebhookConfig;
    use crate::webhooks::metrics::WebhookFamilies;

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_is_created_is_noticed_if_it_matches_the_pattern() {
        let cluster = FakeCluster::new(FakeSettings::default());
        let client = cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into());
        let mut feed = Feed::of_topics(&["a"]);
        feed.topics = Topics::Pattern(TopicsPattern::new("orders.*").unwrap());
        let resources = Resources::new(1024 * 1024);
        let hub = Hub::new(client, feed.isolation_level, &resources);
        let reader = FeedReader::new(feed, 0, hub, None, FeedFamilies::default().of("test"));
        let (config, memory) = (WebhookConfig::of_url("http://a"), Memory::new(1024));
        let metrics = WebhookFamilies::default().of("test");
        let webhook =
            Webhook::new("test", &config, Arc::new(reader), metrics, memory, &MemberOf::default());
        let webhook = Arc::new(webhook.map_err(|fault| panic!("{fault}")).unwrap());
        let own = Arc::clone(&webhook);
        let first = tokio::spawn(async move { topics(&own).await });
        sleep(Duration::from_secs(60)).await;
        assert!(!first.is_finished());
        cluster.create_topic("orders", &[1]);
        let first = first.await.unwrap();
        assert_eq!(first, ["orders".to_owned()].into());
        let another = tokio::spawn(async move { changed(&webhook, &first).await });
        cluster.create_topic("payments", &[1]);
        sleep(Duration::from_secs(60)).await;
        assert!(!another.is_finished());
        cluster.create_topic("orders-eu", &[1]);
        another.await.unwrap();
    }
}
