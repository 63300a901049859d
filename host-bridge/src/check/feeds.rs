//! `host-bridge check`: whether the topics of feeds may be read, and dead-letter topics and those of
//! `produce` written to.

use std::collections::BTreeSet;

use kafka_client::{Client, TopicOperation};

use super::{PATIENCE, Report};
use crate::consume::feeds::Feed;
use crate::consume::topics::Topics;

impl Report {
    pub(super) async fn feed(&mut self, client: &Client, name: &str, feed: &Feed) {
        let name = format!("feed {name}");
        if feed.per_request_credential {
            self.note(&format!("{name}: is read by the token of each request, and none is here"));
            return;
        }
        match client.topics(PATIENCE).await {
            Ok(listed) => {
                let listed = listed.into_iter().map(|topic| topic.name).collect();
                self.topics(client, &name, feed, &listed).await;
            }
            Err(reason) => self.fail(&name, &format!("the topics cannot be listed: {reason}")),
        }
        if let Some(topic) = &feed.selection.dlq_topic {
            let what = format!("{name}, dlq_topic {topic}");
            self.topic(client, &what, TopicOperation::Write, topic).await;
        }
        for topic in &feed.conversation.produce {
            let what = format!("{name}, produce {topic}");
            self.topic(client, &what, TopicOperation::Write, topic).await;
        }
    }

    /// `listed` are those that the cluster has and that we may see.
    async fn topics(
        &mut self,
        client: &Client,
        name: &str,
        feed: &Feed,
        listed: &BTreeSet<String>,
    ) {
        let topics: Vec<_> = match &feed.topics {
            Topics::List(list) => list.iter().collect(),
            Topics::Pattern(pattern) => listed.iter().filter(|it| pattern.matches(it)).collect(),
        };
        if topics.is_empty() && matches!(feed.topics, Topics::Pattern(_)) {
            // More may be created.
            self.note(&format!("{name}: no topic matches its pattern now"));
        }
        for topic in topics {
            let what = format!("{name}, topic {topic}");
            if feed.check_topic_existence || listed.contains(topic) {
                self.topic(client, &what, TopicOperation::Read, topic).await;
            } else {
                self.note(&format!("{what}: does not exist, or is not visible: it is waited for"));
            }
        }
    }
}
