//! The streams that are paused until all their records have their outcomes.

use std::collections::{HashMap, HashSet};

use crate::outbox::{Settled, StreamId};
use crate::reply::{Replies, Reply};

/// The paused streams, and the outcomes so far of those that have several records.
#[derive(Debug, Default)]
pub struct PausedStreams {
    streams: HashSet<StreamId>,
    several: HashMap<StreamId, PartialReply>,
}

/// What is known of the reply to a request with a record for each of several topics.
#[derive(Debug)]
struct PartialReply {
    /// In the client's order, each once.
    topics: Vec<String>,
    settled: Vec<Settled>,
}

/// What a settled record means for its stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Completion {
    /// The stream has ended, or none waited.
    Gone,
    /// The stream waits for more of its records.
    Pending,
    /// The stream has all its outcomes.
    Complete(StreamId, Reply),
}

impl PausedStreams {
    /// A stream waits for one record, or for a record of each of several topics.
    pub fn insert(&mut self, stream: StreamId, several: Option<Vec<String>>) {
        self.streams.insert(stream);
        if let Some(topics) = several {
            self.several.insert(stream, PartialReply { topics, settled: Vec::new() });
        }
    }

    /// A stream waits no longer; whether it did.
    pub fn remove(&mut self, stream: StreamId) -> bool {
        if !self.several.is_empty() {
            self.several.remove(&stream);
        }
        self.streams.remove(&stream)
    }

    /// Whether a stream waits.
    #[must_use]
    pub fn contains(&self, stream: StreamId) -> bool {
        self.streams.contains(&stream)
    }

    /// How many streams wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// A record is settled: its stream, if that waits for no other record, is complete. A stream is
    /// removed by that: Envoy takes a second reply without an error, and sends that one.
    pub fn settle(&mut self, settled: Settled, replies: &Replies) -> Completion {
        let waits = settled.stream.filter(|stream| self.streams.contains(stream));
        let Some(stream) = waits else { return Completion::Gone };
        let Some(several) = self.several.get_mut(&stream) else {
            self.streams.remove(&stream);
            return Completion::Complete(stream, replies.of(&settled.outcome, settled.topic()));
        };
        several.settled.push(settled);
        if several.settled.len() < several.topics.len() {
            return Completion::Pending;
        }
        let (mut all, topics) =
            (std::mem::take(&mut several.settled), std::mem::take(&mut several.topics));
        self.remove(stream);
        all.sort_by_key(|one| topics.iter().position(|topic| topic == one.topic()));
        let outcomes: Vec<_> = all.iter().map(|one| (one.topic(), one.outcome.clone())).collect();
        Completion::Complete(stream, replies.of_several(&outcomes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Code, Outcome, Reason};
    use crate::record::Record;
    use crate::wire;

    fn settled(stream: Option<StreamId>, topic: &str, outcome: Outcome) -> Settled {
        let record = Record {
            topic,
            partition: None,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: vec![],
        };
        Settled { stream, outcome, record: wire::encode_record(&record).unwrap() }
    }

    fn written() -> Outcome {
        Outcome::Written { partition: 0, offset: Some(1) }
    }

    fn several() -> Option<Vec<String>> {
        Some(vec!["a".to_owned(), "b".to_owned()])
    }

    fn reply(completion: Completion) -> (StreamId, u16, bool) {
        match completion {
            Completion::Complete(stream, reply) => (stream, reply.status, reply.code.is_none()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stream_is_answered_once_when_all_its_records_are_settled() {
        let (mut paused, replies) = (PausedStreams::default(), Replies::default());
        paused.insert(1, None);
        paused.insert(2, several());
        let first = paused.settle(settled(Some(2), "a", written()), &replies);
        assert_eq!(first, Completion::Pending);
        let one = paused.settle(settled(Some(1), "t", written()), &replies);
        assert_eq!(reply(one), (1, 200, true));
        let not = Outcome::NotWritten(Reason::new(Code::UnknownTopic, ""));
        let second = paused.settle(settled(Some(2), "b", not), &replies);
        assert_eq!(reply(second), (2, 502, false));
        assert!(paused.is_empty() && paused.several.is_empty());
        let late = paused.settle(settled(Some(2), "b", written()), &replies);
        assert_eq!(late, Completion::Gone);
    }

    #[test]
    fn the_topics_of_a_reply_stand_in_the_clients_order() {
        let (mut paused, replies) =
            (PausedStreams::default(), Replies { reveal: true, ..Replies::default() });
        paused.insert(2, several());
        let not = Outcome::NotWritten(Reason::new(Code::UnknownTopic, ""));
        assert_eq!(paused.settle(settled(Some(2), "b", not), &replies), Completion::Pending);
        let last = paused.settle(settled(Some(2), "a", written()), &replies);
        let Completion::Complete(_, reply) = last else { panic!("{last:?}") };
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            (&body["topics"][0]["topic"], &body["topics"][1]["topic"]),
            (&"a".into(), &"b".into())
        );
    }

    #[test]
    fn a_stream_that_ended_is_not_answered_and_leaves_nothing_behind() {
        let (mut paused, replies) = (PausedStreams::default(), Replies::default());
        paused.insert(2, several());
        paused.settle(settled(Some(2), "a", written()), &replies);
        assert!(paused.remove(2) && !paused.remove(2));
        let late = paused.settle(settled(Some(2), "b", written()), &replies);
        assert_eq!(late, Completion::Gone);
        assert_eq!(paused.settle(settled(None, "b", written()), &replies), Completion::Gone);
        assert!(paused.is_empty() && paused.several.is_empty());
    }
}
