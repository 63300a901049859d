//! The streams that are paused until the bridge has spoken of all their records.

use std::collections::{HashMap, HashSet};

use crate::outbox::{Settled, StreamId};
use crate::reply::{Replies, Reply};

/// Who waits, and what is known of those that wait for several records.
#[derive(Debug, Default)]
pub struct Waiting {
    streams: HashSet<StreamId>,
    several: HashMap<StreamId, Several>,
}

#[derive(Debug)]
struct Several {
    /// In the client's order, each once.
    topics: Vec<String>,
    settled: Vec<Settled>,
}

/// What a settled record means for its stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nobody waits for it.
    Nobody,
    /// The stream waits for more.
    NotYet,
    /// This.
    Now {
        /// The stream.
        stream: StreamId,
        /// What it is told.
        reply: Reply,
        /// Whether what the delivery mode promises holds for all of its records.
        kept: bool,
    },
}

impl Waiting {
    /// A stream waits for one record, or for a record of each of several topics.
    pub fn insert(&mut self, stream: StreamId, several: Option<Vec<String>>) {
        self.streams.insert(stream);
        if let Some(topics) = several {
            self.several.insert(stream, Several { topics, settled: Vec::new() });
        }
    }

    /// A stream waits no longer; whether it did.
    pub fn remove(&mut self, stream: StreamId) -> bool {
        if !self.several.is_empty() {
            self.several.remove(&stream);
        }
        self.streams.remove(&stream)
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

    /// A record is settled: whom that answers, and how.
    pub fn settle(&mut self, settled: Settled, replies: &Replies) -> Answer {
        let waits = settled.stream.filter(|stream| self.streams.contains(stream));
        let Some(stream) = waits else { return Answer::Nobody };
        let Some(several) = self.several.get_mut(&stream) else {
            self.streams.remove(&stream);
            let kept = is_kept(&settled);
            let reply = replies.of(&settled.outcome, settled.topic());
            return Answer::Now { stream, reply, kept };
        };
        several.settled.push(settled);
        if several.settled.len() < several.topics.len() {
            return Answer::NotYet;
        }
        let (mut all, topics) =
            (std::mem::take(&mut several.settled), std::mem::take(&mut several.topics));
        self.remove(stream);
        all.sort_by_key(|one| topics.iter().position(|topic| topic == one.topic()));
        let kept = all.iter().all(is_kept);
        let outcomes: Vec<_> = all.iter().map(|one| (one.topic(), one.outcome.clone())).collect();
        Answer::Now { stream, reply: replies.of_several(&outcomes), kept }
    }
}

fn is_kept(settled: &Settled) -> bool {
    settled.outcome.is_kept()
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

    fn told(answer: Answer) -> (StreamId, u16, bool) {
        match answer {
            Answer::Now { stream, reply, kept } => (stream, reply.status, kept),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stream_is_answered_once_when_all_its_records_are_settled() {
        let (mut waiting, replies) = (Waiting::default(), Replies::default());
        waiting.insert(1, None);
        waiting.insert(2, several());
        let first = waiting.settle(settled(Some(2), "a", written()), &replies);
        assert_eq!(first, Answer::NotYet);
        let one = waiting.settle(settled(Some(1), "t", written()), &replies);
        assert_eq!(told(one), (1, 200, true));
        let not = Outcome::NotWritten(Reason::new(Code::UnknownTopic, ""));
        let second = waiting.settle(settled(Some(2), "b", not), &replies);
        assert_eq!(told(second), (2, 502, false));
        assert!(waiting.is_empty() && waiting.several.is_empty());
        let late = waiting.settle(settled(Some(2), "b", written()), &replies);
        assert_eq!(late, Answer::Nobody);
    }

    #[test]
    fn the_topics_of_a_reply_stand_in_the_clients_order() {
        let (mut waiting, replies) =
            (Waiting::default(), Replies { reveal: true, ..Replies::default() });
        waiting.insert(2, several());
        let not = Outcome::NotWritten(Reason::new(Code::UnknownTopic, ""));
        assert_eq!(waiting.settle(settled(Some(2), "b", not), &replies), Answer::NotYet);
        let last = waiting.settle(settled(Some(2), "a", written()), &replies);
        let Answer::Now { reply, .. } = last else { panic!("{last:?}") };
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            (&body["topics"][0]["topic"], &body["topics"][1]["topic"]),
            (&"a".into(), &"b".into())
        );
    }

    #[test]
    fn who_has_gone_is_not_answered_and_leaves_nothing_behind() {
        let (mut waiting, replies) = (Waiting::default(), Replies::default());
        waiting.insert(2, several());
        waiting.settle(settled(Some(2), "a", written()), &replies);
        assert!(waiting.remove(2) && !waiting.remove(2));
        let late = waiting.settle(settled(Some(2), "b", written()), &replies);
        assert_eq!(late, Answer::Nobody);
        assert_eq!(waiting.settle(settled(None, "b", written()), &replies), Answer::Nobody);
        assert!(waiting.is_empty() && waiting.several.is_empty());
    }
}
