//! A model of the bridge: decodes real frames, remembers batches, and keeps the ledger of what is
//! in Kafka; a test sets what it does with the next callouts.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kafka_upstream_core::outcome::{Code, Outcome, Reason};
use kafka_upstream_core::profile;
use kafka_upstream_core::wire::{self, Batch, Delivery};

use crate::abi;
use crate::callout::{Callout, Ending};
use crate::client::Reply;
use crate::host::Host;

/// What the bridge does with a callout.
#[derive(Debug, Clone)]
pub enum Does {
    /// Its work.
    Answers,
    /// Its work, and the reply comes after so many ms.
    AnswersAfter(u64),
    /// Nothing: the callout ends so.
    Ends(Ending),
    /// Its work, but the callout ends so: its reply is lost.
    WorksBut(Ending),
    /// It gives each record this outcome, and writes none.
    Gives(Outcome),
    /// It refuses the whole callout, with its marker.
    Refuses(u32),
}

/// A record in Kafka.
#[derive(Debug, Clone)]
pub struct Written {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Vec<u8>,
    /// Record headers.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// When it was captured, in ms since 1970.
    pub timestamp_ms: i64,
    /// What `body` has found: tests look for each of many bodies in each record.
    body: OnceCell<String>,
}

impl Written {
    /// The value of a message of `forward_body` alone: the body that the client sent.
    #[must_use]
    pub fn body(&self) -> String {
        self.body_text().to_owned()
    }

    fn body_text(&self) -> &str {
        self.body.get_or_init(|| {
            let message: serde_json::Value = serde_json::from_slice(&self.value).unwrap();
            message["body"].as_str().unwrap().to_owned()
        })
    }
}

/// The bridge and the Kafka behind it.
#[derive(Debug, Default)]
pub struct Bridge {
    /// Everything that is in Kafka, in order.
    pub ledger: Vec<Written>,
    /// The sequences of the batches that came, with what VM they came from.
    pub batches: Vec<([u8; 16], u64, usize)>,
    /// Paths of all callouts, in order.
    pub paths: Vec<String>,
    /// How many more records its own queue takes; none for any number.
    pub room: Option<usize>,
    /// How many more bytes of values its own queue takes; none for any number.
    pub room_bytes: Option<usize>,
    profiles: BTreeSet<String>,
    missing: BTreeSet<String>,
    answered: BTreeMap<([u8; 16], u64), Vec<Outcome>>,
    script: VecDeque<Does>,
    always: Option<Does>,
}

impl Bridge {
    /// A bridge that knows no profile.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next callout that has no order yet gets this one.
    pub fn next(&mut self, does: Does) -> &mut Self {
        self.script.push_back(does);
        self
    }

    /// Takes back the next order that no callout has got.
    pub fn forget_next(&mut self) -> Option<Does> {
        self.script.pop_front()
    }

    /// What is done with callouts that have no order of their own.
    pub fn always(&mut self, does: Does) {
        self.always = Some(does);
    }

    /// Kafka has no such topic.
    pub fn missing(&mut self, topic: &str) {
        self.missing.insert(topic.to_owned());
    }

    /// Somebody makes the topic.
    pub fn created(&mut self, topic: &str) {
        self.missing.remove(topic);
    }

    /// The ledger and the lists are read; only what it answers batches by is kept.
    pub fn clear(&mut self) {
        self.ledger.clear();
        self.batches.clear();
        self.paths.clear();
    }

    /// How often a body is in the ledger.
    #[must_use]
    pub fn times(&self, body: &str) -> usize {
        self.ledger.iter().filter(|written| written.body_text() == body).count()
    }

    /// How a callout ends, and after how many ms.
    pub fn answer(&mut self, callout: &Callout) -> (u64, Ending) {
        self.paths.push(callout.path());
        let does = self.script.pop_front().or_else(|| self.always.clone());
        match does.unwrap_or(Does::Answers) {
            Does::Answers => (0, Ending::Reply(self.work(callout, None))),
            Does::AnswersAfter(ms) => (ms, Ending::Reply(self.work(callout, None))),
            Does::Ends(ending) => (0, ending),
            Does::WorksBut(ending) => {
                self.work(callout, None);
                (0, ending)
            }
            Does::Gives(outcome) => (0, Ending::Reply(self.work(callout, Some(&outcome)))),
            Does::Refuses(status) => {
                (0, Ending::Reply(marked(status, JSON, b"{\"error\":\"no\"}")))
            }
        }
    }

    fn work(&mut self, callout: &Callout, forced: Option<&Outcome>) -> Reply {
        let (method, path) = (callout.header(":method"), callout.path());
        match (method.as_str(), path.as_str()) {
            ("GET", "/healthz") => marked(200, "text/plain", b"ok"),
            ("PUT", path) => {
                self.profiles.extend(path.strip_prefix("/v1/profiles/").map(str::to_owned));
                marked(200, JSON, b"{}")
            }
            ("POST", "/v1/produce") => match wire::decode_frame(&callout.body) {
                Ok(batch) => self.produce(&batch, forced),
                Err(error) => marked(400, JSON, error.to_string().as_bytes()),
            },
            _ => marked(404, JSON, b"{\"error\":\"not_found\"}"),
        }
    }

    fn produce(&mut self, batch: &Batch<'_>, forced: Option<&Outcome>) -> Reply {
        if !self.profiles.contains(&profile::hex(&batch.head.profile)) {
            return marked(404, JSON, b"{\"error\":\"unknown_profile\"}");
        }
        let key = (batch.head.vm, batch.head.sequence);
        self.batches.push((key.0, key.1, batch.records.len()));
        let outcomes = match (self.answered.get(&key), forced) {
            (Some(outcomes), _) => outcomes.clone(),
            (None, Some(outcome)) => vec![outcome.clone(); batch.records.len()],
            (None, None) if batch.head.delivery == Delivery::Queued => self.queue(batch),
            (None, None) => self.write(batch),
        };
        self.answered.insert(key, outcomes.clone());
        marked(200, wire::OUTCOMES_TYPE, &wire::encode_outcomes(&outcomes).unwrap())
    }

    /// Takes records into its queue, whose way to Kafka is short here.
    fn queue(&mut self, batch: &Batch<'_>) -> Vec<Outcome> {
        let records = batch.records.len();
        let values = batch.records.iter().filter_map(|record| record.value);
        let bytes: usize = values.map(<[u8]>::len).sum();
        let lacks = |room: Option<usize>, wanted| room.is_some_and(|room| room < wanted);
        if lacks(self.room, records) || lacks(self.room_bytes, bytes) {
            let full = Outcome::NotWritten(Reason::new(Code::QueueFull, "full"));
            return vec![full; records];
        }
        self.room = self.room.map(|room| room - records);
        self.room_bytes = self.room_bytes.map(|room| room - bytes);
        self.write(batch);
        vec![Outcome::Queued; records]
    }

    fn write(&mut self, batch: &Batch<'_>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for record in &batch.records {
            if self.missing.contains(record.topic) {
                let reason = Reason::new(Code::UnknownTopic, "no such topic");
                outcomes.push(Outcome::NotWritten(reason));
                continue;
            }
            let partition = record.partition.unwrap_or(0);
            let place = |one: &&Written| one.topic == record.topic && one.partition == partition;
            let offset = self.ledger.iter().rev().find(place).map_or(0, |last| last.offset + 1);
            let headers = record.headers.iter();
            self.ledger.push(Written {
                topic: record.topic.to_owned(),
                partition,
                offset,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.unwrap_or_default().to_vec(),
                headers: headers.map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect(),
                timestamp_ms: record.timestamp_ms,
                body: OnceCell::new(),
            });
            outcomes.push(Outcome::Written { partition, offset: Some(offset) });
        }
        outcomes
    }
}

/// A reply with the header by which the bridge marks each of its own.
#[must_use]
pub fn marked(status: u32, kind: &str, body: &[u8]) -> Reply {
    let length = body.len().to_string();
    let headers = abi::pairs(&[
        (wire::MARKER, wire::VERSION),
        ("content-type", kind),
        ("content-length", &length),
    ]);
    Reply { status, headers, body: body.to_vec() }
}

impl Host {
    /// Lets the bridge answer until nothing waits for it at this time.
    pub fn serve(&mut self, bridge: &mut Bridge) {
        loop {
            self.turn();
            let waiting = self.callouts();
            if waiting.is_empty() {
                return;
            }
            for callout in waiting {
                let (ms, ending) = bridge.answer(&callout);
                self.end_after(callout.id, ms, ending);
            }
        }
    }

    /// As `serve`, with the order of the replies drawn from the seed.
    pub fn serve_in_any_order(&mut self, bridge: &mut Bridge) {
        loop {
            self.turn();
            let mut waiting = self.callouts();
            if waiting.is_empty() {
                return;
            }
            self.shuffle(&mut waiting);
            for callout in waiting {
                let (ms, ending) = bridge.answer(&callout);
                self.end_after(callout.id, ms, ending);
            }
        }
    }

    /// Lets time pass with the bridge at its work.
    pub fn run_for(&mut self, bridge: &mut Bridge, ms: u64) {
        let until = self.now_ms() + ms;
        self.serve(bridge);
        while let Some((at, _)) = self.next_due(until) {
            self.advance(at.saturating_sub(self.now_ms()));
            self.serve(bridge);
        }
        self.advance(until - self.now_ms());
    }
}

const JSON: &str = "application/json";
