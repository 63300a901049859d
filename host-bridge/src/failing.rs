//! Topics whose records cannot be written now: for the log, `/v1/status`, `/readyz` and the metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kafka_upstream_core::limits::TOPIC_BYTES_MAX;
use kafka_upstream_core::outcome::{Code, Outcome, Reason, Scope};
use kafka_upstream_core::record::Record;
use kafka_upstream_core::wire::Delivery;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::limits::{FAILING_KEPT, FAILING_LOGGED, FAILING_TOPICS, FAILING_TOPICS_LOGGED};

/// The failing topics of all clusters.
#[derive(Default)]
pub(crate) struct Failing {
    topics: Mutex<Known>,
    /// Whether there are any: a batch that was written looks no further.
    any: AtomicBool,
}

#[derive(Default)]
struct Known {
    by_name: BTreeMap<(String, String), Trouble>,
    /// Those that are written again, until a line has told what they dropped.
    recovered: BTreeMap<(String, String), Trouble>,
    /// Failures, and records dropped, since the last line of topics that are too many to be
    /// remembered.
    others: (usize, usize),
    logged: Option<Instant>,
}

/// The topics of a batch's records in their order, with the number of neighbours that share one.
pub(crate) struct Topics(Vec<(String, usize)>);

impl Topics {
    pub(crate) fn of(records: &[Record<'_>]) -> Self {
        let runs = records.chunk_by(|one, next| one.topic == next.topic);
        let named = |run: &[Record<'_>]| {
            let topic = run.first().map_or("", |record| record.topic);
            (shown(topic).to_owned(), run.len())
        };
        Self(runs.map(named).collect())
    }

    pub(crate) fn runs(&self) -> &[(String, usize)] {
        &self.0
    }
}

/// What is shown of a name, which may be any text of a client's.
pub(crate) fn shown(topic: &str) -> &str {
    topic.get(..topic.floor_char_boundary(TOPIC_BYTES_MAX)).unwrap_or_default()
}

struct Trouble {
    reason: Reason,
    since: Instant,
    last: Instant,
    /// Records that failed since the last line, at each attempt.
    failures: usize,
    /// Those of them that memory mode will not send again.
    dropped: usize,
}

impl Failing {
    /// A batch was settled.
    pub(crate) fn settled(
        &self,
        cluster: &str,
        delivery: Delivery,
        topics: &Topics,
        outcomes: &[Outcome],
    ) {
        if !self.any.load(Relaxed) && outcomes.iter().all(Outcome::is_kept) {
            return;
        }
        let mut rest = outcomes;
        for (topic, count) in topics.runs() {
            let (run, left) = rest.split_at_checked(*count).unwrap_or((rest, &[]));
            rest = left;
            let failures = || run.iter().filter_map(|one| failure(one, delivery));
            match failures().next() {
                Some(reason) => {
                    let dropped = failures().filter(|reason| reason.code.is_permanent()).count();
                    self.note(cluster, topic, reason, failures().count(), dropped);
                }
                None if run.iter().any(Outcome::is_kept) => self.clear(cluster, topic),
                None => {}
            }
        }
    }

    /// A batch is under way for long.
    pub(crate) fn slow(&self, cluster: &str, topics: &Topics) {
        let reason = Reason::new(Code::DeadlineExceeded, "no acknowledgement yet");
        for (topic, _) in topics.runs() {
            self.note(cluster, topic, &reason, 0, 0);
        }
    }

    /// How many topics fail, by cluster and code.
    pub(crate) fn counts(&self) -> BTreeMap<(String, Code), usize> {
        let mut counts = BTreeMap::new();
        for ((cluster, _), trouble) in &self.current().by_name {
            *counts.entry((cluster.clone(), trouble.reason.code)).or_insert(0) += 1;
        }
        counts
    }

    /// Every failing topic that is remembered.
    pub(crate) fn json(&self) -> Vec<Value> {
        let one = |((cluster, topic), trouble): (&(String, String), &Trouble)| {
            json!({
                "cluster": cluster, "topic": topic, "code": trouble.reason.code.name(),
                "reason": trouble.reason.logged(), "seconds": trouble.since.elapsed().as_secs(),
            })
        };
        self.current().by_name.iter().map(one).collect()
    }

    fn note(&self, cluster: &str, topic: &str, reason: &Reason, failures: usize, dropped: usize) {
        let (now, mut topics) = (Instant::now(), self.current());
        let key = (cluster.to_owned(), topic.to_owned());
        if topics.by_name.len() >= FAILING_TOPICS && !topics.by_name.contains_key(&key) {
            topics.others.0 += failures;
            topics.others.1 += dropped;
        } else {
            let reason = reason.clone();
            let trouble = topics.by_name.entry(key).or_insert_with(|| Trouble {
                reason: reason.clone(),
                since: now,
                last: now,
                failures: 0,
                dropped: 0,
            });
            trouble.reason = reason;
            trouble.last = now;
            trouble.failures += failures;
            trouble.dropped += dropped;
        }
        self.log(topics, now);
    }

    fn clear(&self, cluster: &str, topic: &str) {
        let mut topics = self.current();
        let key = (cluster.to_owned(), topic.to_owned());
        if let Some(trouble) = topics.by_name.remove(&key) {
            topics.recover(key, trouble);
        }
        if !topics.recovered.is_empty() || topics.others.1 > 0 {
            return self.log(topics, Instant::now());
        }
        self.any.store(!topics.by_name.is_empty(), Relaxed);
    }

    fn log(&self, mut topics: MutexGuard<'_, Known>, now: Instant) {
        let line = topics.poll_line(now);
        // What no line has told yet is told when a later batch is settled.
        self.any.store(true, Relaxed);
        drop(topics);
        if let Some(Line { topics, failures, dropped, text }) = line {
            tracing::warn!(topics, failures, dropped, examples = text, "topics_failing");
        }
    }

    /// What nobody has asked for in a while is forgotten.
    fn current(&self) -> MutexGuard<'_, Known> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        topics.by_name.retain(|_, trouble| now < trouble.last + FAILING_KEPT);
        topics
    }
}

struct Line {
    topics: usize,
    failures: usize,
    dropped: usize,
    text: String,
}

impl Known {
    /// A topic is written again. What it dropped without a line is kept for the next one.
    fn recover(&mut self, key: (String, String), trouble: Trouble) {
        if trouble.dropped == 0 {
            return;
        }
        if let Some(before) = self.recovered.get_mut(&key) {
            before.failures += trouble.failures;
            before.dropped += trouble.dropped;
        } else if self.recovered.len() < FAILING_TOPICS {
            self.recovered.insert(key, trouble);
        } else {
            self.others.0 += trouble.failures;
            self.others.1 += trouble.dropped;
        }
    }

    /// A line for the log, once a minute.
    fn poll_line(&mut self, now: Instant) -> Option<Line> {
        if self.logged.is_some_and(|logged| now < logged + FAILING_LOGGED) {
            return None;
        }
        self.logged = Some(now);
        let (failures, dropped) = std::mem::take(&mut self.others);
        let text = String::new();
        let mut line = Line { topics: self.by_name.len(), failures, dropped, text };
        let all = self.recovered.iter_mut().chain(&mut self.by_name);
        for (number, ((cluster, topic), trouble)) in all.enumerate() {
            let failures = std::mem::take(&mut trouble.failures);
            line.failures += failures;
            line.dropped += std::mem::take(&mut trouble.dropped);
            if number < FAILING_TOPICS_LOGGED {
                let (topic, code) = (topic.escape_debug(), trouble.reason.code.name());
                let separator = if number == 0 { "" } else { ", " };
                let detail = trouble.reason.logged().escape_debug();
                let one = format_args!("{separator}{cluster}/{topic} {failures} {code}: {detail}");
                // Writing to a string cannot fail.
                let _written = line.text.write_fmt(one);
            }
        }
        self.recovered.clear();
        Some(line)
    }
}

/// Why a record failed, where that says something of its topic, or where memory mode drops it.
fn failure(outcome: &Outcome, delivery: Delivery) -> Option<&Reason> {
    let (Outcome::NotWritten(reason) | Outcome::Unknown(reason)) = outcome else { return None };
    let is_dropped = delivery != Delivery::Acked && reason.code.is_permanent();
    (is_dropped || reason.code.scope() != Scope::Record).then_some(reason)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn topics(topic: &str) -> Topics {
        let (timestamp_ms, headers) = (5, Vec::new());
        let (partition, key, value) = (None, None, None);
        let record = Record { topic, partition, timestamp_ms, key, value, headers };
        Topics::of(&[record])
    }

    fn fails(failing: &Failing, name: &str, code: Code) {
        let outcome = Outcome::NotWritten(Reason::new(code, "why"));
        failing.settled("main", Delivery::Memory, &topics(name), &[outcome]);
    }

    fn written(failing: &Failing, name: &str) {
        let outcome = Outcome::Written { partition: 0, offset: None };
        failing.settled("main", Delivery::Memory, &topics(name), &[outcome]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_fails_until_it_is_written_or_left_alone() {
        let failing = Failing::default();
        fails(&failing, "a", Code::UnknownTopic);
        fails(&failing, "b", Code::UnknownTopic);
        let key = ("main".to_owned(), Code::UnknownTopic);
        assert_eq!(failing.counts()[&key], 2);
        written(&failing, "a");
        assert_eq!(failing.json()[0]["topic"], "b");
        tokio::time::advance(FAILING_KEPT).await;
        assert!(failing.json().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_dropped_is_told_though_the_topic_is_written_again() {
        let failing = Failing::default();
        fails(&failing, "told", Code::UnknownTopic);
        written(&failing, "told");
        fails(&failing, "dropped", Code::Rejected);
        written(&failing, "dropped");
        assert!(failing.json().is_empty() && failing.counts().is_empty());
        tokio::time::advance(FAILING_LOGGED).await;
        let line = failing.current().poll_line(Instant::now()).unwrap();
        assert_eq!((line.topics, line.failures, line.dropped), (0, 1, 1));
        assert!(line.text.starts_with("main/dropped 1 rejected"), "{}", line.text);
        written(&failing, "dropped");
        assert!(!failing.any.load(Relaxed), "nothing is left to tell");
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_has_one_line_with_every_failure_in_it_and_few_names() {
        let failing = Failing::default();
        fails(&failing, "bad\n\u{1b}name", Code::UnknownTopic);
        for number in 0..2 * FAILING_TOPICS {
            fails(&failing, &format!("t{number}"), Code::Rejected);
        }
        assert_eq!(failing.json().len(), FAILING_TOPICS);
        let now = Instant::now();
        assert!(failing.current().poll_line(now).is_none(), "the first failure was told");
        tokio::time::advance(Duration::from_secs(60)).await;
        let line = failing.current().poll_line(Instant::now()).unwrap();
        assert_eq!((line.topics, line.failures), (FAILING_TOPICS, 2 * FAILING_TOPICS));
        assert_eq!(line.dropped, 2 * FAILING_TOPICS);
        assert!(line.text.len() < FAILING_TOPICS_LOGGED * 50, "{}", line.text);
        assert!(line.text.chars().all(|letter| !letter.is_control()), "{}", line.text);
    }
}
