//! One fetch of Kafka for all readers: a tail for those at the log end, and reads that those behind it
//! share.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kafka_client::{
    At, Client, Consumer, ConsumerConfig, Fetched, IsolationLevel, NotReady, ReadError, Reason,
    TopicPartitions,
};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::ahead::Ahead;
use super::memory::Memory;
use super::start::KnownTopic;
use super::steps::Steps;
use super::topic_log::{Segment, TopicLog, tag_of};
use crate::limits::{
    FEED_ANSWERS_BYTES, FEED_BATCH_BYTES, FEED_CACHE_BYTES, FEED_CATCH_UPS, FEED_CHUNK_BYTES,
    FEED_GRACE, FEED_IDLE, FEED_KNOWN, FEED_PARTITION_BYTES, FEED_QUIET, FEED_TAIL_WAIT,
    FEED_UNMADE_BYTES,
};

/// Reads a cluster at one isolation level, whoever the readers are.
pub(crate) struct Hub {
    pub(crate) client: Client,
    level: IsolationLevel,
    /// For all but records.
    consumer: Consumer,
    /// The names of all topics, for patterns.
    listed: Shared<Result<Listed, NotReady>>,
    pub(crate) resources: Arc<Resources>,
    topics: Mutex<BTreeMap<String, Arc<Topic>>>,
    /// Brokers with a task that fetches tails; without one those that nobody answers for.
    drivers: Mutex<HashMap<Option<i32>, Arc<Notify>>>,
}

/// Names of the cluster's topics.
pub(crate) type Listed = Arc<[String]>;

/// What the hubs of all clusters share.
pub(crate) struct Resources {
    pub(crate) memory: Arc<Memory>,
    /// Of pages and replies until they are sent. Apart: who takes them slowly must not stop a tail.
    pub(crate) answers: Arc<Memory>,
    /// Of records of pages that are made while they are sent: a part of the readers' memory.
    pub(crate) unmade: Arc<Memory>,
    /// Reads behind the tails at a time.
    catch_ups: Semaphore,
    /// Readers whose next page is read already.
    pub(crate) ahead: Ahead,
    /// What they have read, oldest first.
    cache: Mutex<Cache>,
    /// Every topic, for when memory is spent.
    topics: Mutex<Vec<Weak<Topic>>>,
    /// What readers of each feed were sent last.
    steps: Mutex<Vec<Weak<Steps>>>,
}

/// A topic, and what was asked about it last.
pub(crate) struct Topic {
    pub(crate) log: TopicLog,
    known: Shared<Result<KnownTopic, Reason>>,
    begins: Shared<Vec<Result<i64, Reason>>>,
    ends: Shared<Vec<Result<i64, Reason>>>,
}

/// A read behind the tail.
pub(crate) struct Wanted {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: i32,
    pub(crate) next: i64,
    /// The leader epoch of what is before it, if it is known.
    pub(crate) epoch: Option<i32>,
    /// For whoever asks.
    pub(crate) place: usize,
}

impl Wanted {
    fn position(&self) -> kafka_client::Position<'_> {
        kafka_client::Position::new(&self.topic.log.name, self.partition, self.next)
            .epoch(self.epoch)
    }
}

/// What was read; without records it may end where it began.
pub(crate) type Answer = (Wanted, Result<Arc<Segment>, ReadError>);

#[derive(Default)]
struct Cache {
    segments: VecDeque<(Weak<Topic>, i32, i64, usize)>,
    bytes: usize,
}

/// An answer that all may use who asked before it was asked for.
struct Shared<T>(tokio::sync::Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(tokio::sync::Mutex::default())
    }
}

impl<T: Clone> Shared<T> {
    /// An answer that `is_young` takes for what it is, or one that was asked for after this call. Many
    /// callers at a time have one question asked, and another for those who came meanwhile.
    async fn get(
        &self,
        is_young: impl Fn(Instant, &T) -> bool,
        deadline: Instant,
        ask: impl Future<Output = T>,
    ) -> Option<T> {
        let came = Instant::now();
        let mut last = timeout_at(deadline, self.0.lock()).await.ok()?;
        if let Some((asked, answer)) = &*last
            && (*asked >= came || is_young(*asked, answer))
        {
            return Some(answer.clone());
        }
        let asked = Instant::now();
        let answer = ask.await;
        *last = Some((asked, answer.clone()));
        Some(answer)
    }
}

impl Resources {
    pub(crate) fn new(memory: usize) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(memory),
            answers: Memory::new(FEED_ANSWERS_BYTES),
            unmade: Memory::new(FEED_UNMADE_BYTES),
            catch_ups: Semaphore::new(FEED_CATCH_UPS),
            ahead: Ahead::default(),
            cache: Mutex::default(),
            topics: Mutex::default(),
            steps: Mutex::default(),
        })
    }

    /// Those of a feed, which are freed when memory is spent.
    pub(crate) fn steps(&self) -> Arc<Steps> {
        let steps = Arc::default();
        lock(&self.steps).push(Arc::downgrade(&steps));
        steps
    }

    /// Whether nobody new can be served.
    pub(crate) fn is_spent(&self) -> bool {
        if self.memory.is_spent() {
            self.shrink();
        }
        self.memory.is_spent()
    }

    /// Frees what can be read again: first what readers behind the tails have read, then the older
    /// half of each tail.
    pub(crate) fn shrink(&self) {
        lock(&self.steps).iter().filter_map(Weak::upgrade).for_each(|steps| steps.clear());
        let cached = std::mem::take(&mut *lock(&self.cache));
        for (topic, partition, base, _) in &cached.segments {
            drop_cached(topic, *partition, *base);
        }
        if !cached.segments.is_empty() {
            return;
        }
        let topics: Vec<_> = lock(&self.topics).iter().filter_map(Weak::upgrade).collect();
        for topic in topics {
            let mut state = topic.log.lock();
            let half = state.tail_bytes() / 2;
            state.shrink_tail(half);
        }
    }

    fn cache(&self, topic: &Arc<Topic>, partition: i32, base: i64, bytes: usize) {
        let mut dropped = Vec::new();
        {
            let mut cache = lock(&self.cache);
            cache.segments.push_back((Arc::downgrade(topic), partition, base, bytes));
            cache.bytes += bytes;
            while cache.bytes > FEED_CACHE_BYTES
                && let Some(oldest) = cache.segments.pop_front()
            {
                cache.bytes -= oldest.3;
                dropped.push(oldest);
            }
        }
        for (topic, partition, base, _) in &dropped {
            drop_cached(topic, *partition, *base);
        }
    }
}

fn drop_cached(topic: &Weak<Topic>, partition: i32, base: i64) {
    if let Some(topic) = topic.upgrade() {
        topic.log.lock().drop_segment(partition, base);
    }
}

impl Hub {
    pub(crate) fn new(
        client: Client,
        level: IsolationLevel,
        resources: &Arc<Resources>,
    ) -> Arc<Self> {
        let consumer = client.consumer(&ConsumerConfig::default().isolation(level));
        let (topics, drivers) = (Mutex::default(), Mutex::default());
        let resources = Arc::clone(resources);
        let listed = Shared::default();
        Arc::new(Self { client, level, consumer, listed, resources, topics, drivers })
    }

    /// Topics are those of the feeds, and of the cluster where a feed has a pattern: those that nobody
    /// has read lately go when others come.
    pub(crate) fn topic(&self, name: &str) -> Arc<Topic> {
        let mut topics = lock(&self.topics);
        if let Some(topic) = topics.get(name) {
            return Arc::clone(topic);
        }
        topics.retain(|_, topic| Arc::strong_count(topic) > 1 || !topic.log.is_idle(FEED_IDLE));
        let topic = Arc::new(Topic {
            log: TopicLog::new(name),
            known: Shared::default(),
            begins: Shared::default(),
            ends: Shared::default(),
        });
        let mut of_all = lock(&self.resources.topics);
        of_all.retain(|topic| topic.strong_count() > 0);
        of_all.push(Arc::downgrade(&topic));
        topics.insert(name.to_owned(), Arc::clone(&topic));
        topic
    }

    /// The names of the cluster's topics, as a broker said them within `age`.
    ///
    /// # Errors
    /// No broker answers.
    pub(crate) async fn listed(&self, age: Duration, within: Duration) -> Result<Listed, NotReady> {
        let ask = async {
            let topics = self.client.topics(within).await?;
            Ok(topics.into_iter().map(|topic| topic.name).collect())
        };
        let is_young =
            |asked: Instant, answer: &Result<_, _>| answer.is_ok() && asked.elapsed() < age;
        let answer = self.listed.get(is_young, Instant::now() + within, ask).await;
        answer.unwrap_or(Err(NotReady::Timeout))
    }

    /// What the cluster has of a topic, as brokers said it within `age`.
    ///
    /// # Errors
    /// They do not say, or it does not exist.
    pub(crate) async fn known(
        &self,
        topic: &Topic,
        age: Duration,
        within: Duration,
    ) -> Result<KnownTopic, Reason> {
        let ask = async {
            let found = self.consumer.partitions(&topic.log.name, within).await?;
            let TopicPartitions { id, leaders, .. } = found;
            let partitions = i32::try_from(leaders.len()).unwrap_or(i32::MAX);
            let tag = id.and_then(tag_of);
            topic.log.lock().set_known(tag, leaders);
            Ok(KnownTopic { tag, partitions })
        };
        let is_young =
            |asked: Instant, answer: &Result<_, _>| answer.is_ok() && asked.elapsed() < age;
        let answer = topic.known.get(is_young, Instant::now() + within, ask).await;
        answer.unwrap_or(Err(Reason::DeadlineExceeded { last: None }))
    }

    /// The offsets of these partitions.
    pub(crate) async fn offsets(
        &self,
        topic: &Topic,
        partitions: &[i32],
        at: At,
        within: Duration,
    ) -> Vec<Result<i64, Reason>> {
        let name = &*topic.log.name;
        let alone = async |at| {
            let asked: Vec<_> = partitions.iter().map(|partition| (name, *partition)).collect();
            self.consumer.offsets(&asked, at, within).await
        };
        let shared = match at {
            At::Earliest => &topic.begins,
            At::Latest => &topic.ends,
            At::Time(_) => return alone(at).await,
        };
        // Of all partitions, so that everybody can use them.
        let count = self.known(topic, FEED_KNOWN, within).await.map_or(0, |known| known.partitions);
        if partitions.iter().any(|partition| *partition >= count) {
            // What there may not be.
            return alone(at).await;
        }
        let asked: Vec<_> = (0..count).map(|partition| (name, partition)).collect();
        let ask = self.consumer.offsets(&asked, at, within);
        let all = shared.get(|_, _| false, Instant::now() + within, ask).await;
        let none = || Err(Reason::DeadlineExceeded { last: None });
        let one = |partition: &i32| {
            let index = usize::try_from(*partition).ok()?;
            all.as_ref()?.get(index).cloned()
        };
        partitions.iter().map(|partition| one(partition).unwrap_or_else(none)).collect()
    }

    /// Reads partitions behind their tails, as soon as there is room. What they have now is kept for
    /// others; whoever comes to the log end begins its tail. Where another one has just failed, only that
    /// is answered.
    pub(crate) fn read(
        self: &Arc<Self>,
        wanted: Vec<Wanted>,
        bytes: usize,
    ) -> impl Future<Output = Vec<Answer>> + Send + use<> {
        let (hub, wanted) = (Arc::clone(self), unless_failed(wanted));
        let marks = wanted.as_deref().ok().map(Marks::new);
        async move {
            let _marks = marks;
            let wanted = match wanted {
                Ok(wanted) => wanted,
                Err(failed) => return failed,
            };
            let _turn = hub.resources.catch_ups.acquire().await;
            let memory = &hub.resources.memory;
            let _room = memory.wait_for(bytes, || hub.resources.shrink()).await;
            let asked: Vec<_> = wanted.iter().map(Wanted::position).collect();
            let answers = hub.fetch(&asked, bytes, Duration::ZERO).await;
            let answers = wanted.into_iter().zip(answers).map(|(wanted, answer)| {
                let (log, partition) = (&wanted.topic.log, wanted.partition);
                match &answer {
                    Err(ReadError::Truncated { .. }) => log.lock().forget(partition),
                    Err(error @ (ReadError::Refused(_) | ReadError::Unavailable(_))) => {
                        log.lock().fail(partition, error);
                    }
                    _ => {}
                }
                let answer = answer.map(|fetched| {
                    let log_end = fetched.log_end;
                    let from = (wanted.next, wanted.epoch);
                    let segment = Arc::new(Segment::new(from, fetched, memory));
                    hub.take_in(&wanted, &segment, log_end);
                    segment
                });
                (wanted, answer)
            });
            let answers: Vec<_> = answers.collect();
            hub.drive_tails(answers.iter().map(|(wanted, _)| &wanted.topic));
            answers
        }
    }

    /// Asks brokers for so many bytes. Whole batches come, and all of them is kept: what is dropped would
    /// be fetched once more.
    async fn fetch(
        &self,
        asked: &[kafka_client::Position<'_>],
        bytes: usize,
        wait: Duration,
    ) -> Vec<Result<Fetched, ReadError>> {
        let of_partition = FEED_PARTITION_BYTES.max(bytes / asked.len().max(1));
        let config = ConsumerConfig::default()
            .isolation(self.level)
            .fetch_max_bytes(bytes)
            .max_partition_fetch_bytes(of_partition);
        self.client.consumer(&config).fetch_from(asked, kept_bytes(bytes), wait).await
    }

    fn take_in(&self, wanted: &Wanted, segment: &Arc<Segment>, log_end: i64) {
        let Wanted { topic, partition, .. } = wanted;
        let mut state = topic.log.lock();
        state.keep(*partition, segment, log_end);
        if segment.next >= log_end {
            state.begin_tail(*partition, segment.next, segment.epoch);
        }
        drop(state);
        if segment.next > segment.base {
            self.resources.cache(topic, *partition, segment.base, segment.bytes());
        }
    }

    /// Has every tail of these topics fetched.
    fn drive_tails<'a>(self: &Arc<Self>, topics: impl Iterator<Item = &'a Arc<Topic>>) {
        let leaders: BTreeSet<_> =
            topics.flat_map(|topic| topic.log.lock().leaders_of_tails()).collect();
        for leader in leaders {
            let mut drivers = lock(&self.drivers);
            match drivers.get(&leader) {
                Some(driver) => driver.notify_one(),
                None => {
                    let changed = Arc::new(Notify::new());
                    drivers.insert(leader, Arc::clone(&changed));
                    tokio::spawn(Arc::clone(self).drive(leader, changed));
                }
            }
        }
    }

    /// Fetches the tails that one broker leads while there are any: one fetch at a time for all.
    async fn drive(self: Arc<Self>, leader: Option<i32>, changed: Arc<Notify>) {
        while let Some(tails) = self.tails(leader) {
            let asked: Vec<_> = tails.iter().map(Wanted::position).collect();
            let answers = tokio::select! {
                answers = self.fetch(&asked, FEED_CHUNK_BYTES, FEED_TAIL_WAIT) => answers,
                // It is not to wait for what the others wait for.
                () = self.another_tail(leader, &tails, &changed) => continue,
            };
            let is_answered = answers.iter().any(Result::is_ok);
            for (tail, answer) in tails.iter().zip(answers) {
                self.append(tail, answer).await;
            }
            if leader.is_none() {
                for tail in &tails {
                    let _asked_again = self.known(&tail.topic, FEED_KNOWN, FEED_GRACE).await;
                }
            }
            // Some may have gone over to another broker.
            self.drive_tails(tails.iter().map(|tail| &tail.topic));
            if !is_answered {
                tokio::time::sleep(FEED_QUIET).await;
            }
        }
    }

    /// The tails that a broker is asked for. With none its task is taken to have ended.
    fn tails(&self, leader: Option<i32>) -> Option<Vec<Wanted>> {
        let mut drivers = lock(&self.drivers);
        let topics: Vec<_> = lock(&self.topics).values().cloned().collect();
        let mut tails = Vec::new();
        for topic in topics {
            if topic.log.is_idle(FEED_IDLE) {
                continue;
            }
            let of_topic = topic.log.lock().tails_of(leader);
            tails.extend(of_topic.into_iter().map(|(partition, next, epoch)| Wanted {
                topic: Arc::clone(&topic),
                partition,
                next,
                epoch,
                place: 0,
            }));
        }
        if tails.is_empty() {
            drivers.remove(&leader);
        }
        Some(tails).filter(|tails| !tails.is_empty())
    }

    /// Waits for a tail that is not among these.
    async fn another_tail(&self, leader: Option<i32>, tails: &[Wanted], changed: &Notify) {
        loop {
            changed.notified().await;
            let topics: Vec<_> = lock(&self.topics).values().cloned().collect();
            let is_new = topics.iter().any(|topic| {
                let of_topic = topic.log.lock().tails_of(leader);
                of_topic.iter().any(|(partition, ..)| {
                    let is_it = |tail: &Wanted| {
                        tail.partition == *partition && Arc::ptr_eq(&tail.topic, topic)
                    };
                    !tails.iter().any(is_it)
                })
            });
            if is_new {
                return;
            }
        }
    }

    async fn append(&self, tail: &Wanted, answer: Result<Fetched, ReadError>) {
        let (log, memory) = (&tail.topic.log, &self.resources.memory);
        let is_news = match answer {
            Ok(fetched) => {
                let (is_news, log_end) = (fetched.next_offset > tail.next, fetched.log_end);
                if is_news {
                    // The tail is not fetched on while memory is spent.
                    memory.wait_for(FEED_CHUNK_BYTES, || self.resources.shrink()).await;
                }
                let from = (tail.next, tail.epoch);
                let segment = Arc::new(Segment::new(from, fetched, memory));
                log.lock().append(tail.partition, log_end, &segment) && is_news
            }
            Err(ReadError::Unavailable(reason)) if !is_unknown_topic(&reason) => {
                log.lock().tail_is_failing(tail.partition, tail.next);
                false
            }
            // What to do about it is for each reader to say.
            Err(_) => {
                log.lock().end_tail(tail.partition, tail.next);
                true
            }
        };
        if is_news {
            log.ring();
        }
    }
}

/// All of these, or those of which a read has just failed, and why.
fn unless_failed(wanted: Vec<Wanted>) -> Result<Vec<Wanted>, Vec<Answer>> {
    let (mut rest, mut failed) = (Vec::with_capacity(wanted.len()), Vec::new());
    for it in wanted {
        let failure = it.topic.log.lock().failure(it.partition);
        match failure {
            Some(error) => failed.push((it, Err(error))),
            None => rest.push(it),
        }
    }
    if failed.is_empty() { Ok(rest) } else { Err(failed) }
}

/// What may be kept of so many bytes on the wire, with what is around each record, and of a batch beyond.
fn kept_bytes(bytes: usize) -> usize {
    2 * bytes + FEED_BATCH_BYTES
}

/// Also where brokers have been asked for less than the 5 s after which they are believed.
pub(crate) fn is_unknown_topic(reason: &Reason) -> bool {
    match reason {
        Reason::UnknownTopic => true,
        Reason::DeadlineExceeded { last: Some(last) } => matches!(**last, Reason::UnknownTopic),
        _ => false,
    }
}

/// Offsets that are being read, until it is dropped; then whoever waits for them looks again.
struct Marks(Vec<(Arc<Topic>, i32, i64)>);

impl Marks {
    fn new(wanted: &[Wanted]) -> Self {
        let marks = wanted.iter().map(|Wanted { topic, partition, next, .. }| {
            topic.log.lock().mark(*partition, *next);
            (Arc::clone(topic), *partition, *next)
        });
        Self(marks.collect())
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        for (topic, partition, next) in &self.0 {
            topic.log.lock().unmark(*partition, *next);
        }
        let mut last: Option<&Arc<Topic>> = None;
        for (topic, ..) in &self.0 {
            if last.is_none_or(|last| !Arc::ptr_eq(last, topic)) {
                topic.log.ring_caught_up();
            }
            last = Some(topic);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
