//! Topic → partition → leader: one refresh at a time, and no more often than needed.

mod cache;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backoff::random;
use crate::calls::metadata::{AskMetadata, MetadataAnswer, TopicAnswer, TopicsAsked};
use crate::calls::produce::LeaderHint;
use crate::cluster::{Cluster, anyone};
use crate::connection::Connection;
use crate::error::{Cause, Reason};
use crate::limits::REBOOTSTRAP;
use crate::lock::Lock;
use crate::log_throttle::LogThrottle;
use crate::resolve::Endpoint;
use crate::watch::{Watch, WatchReader};
use cache::{Cache, Lookup};
pub(crate) use cache::{ReadRoute, Trust};

/// The handle; the refreshing itself is done by [`Metadata::run`] in a task of its own.
#[derive(Debug)]
pub(crate) struct Metadata {
    cluster: Arc<Cluster>,
    cache: Lock<Cache>,
    wake: Notify,
    rounds: Watch<Round>,
    /// When the first round began since which nobody has answered.
    silent_since: Lock<Option<Instant>>,
}

/// A topic of the cluster, as a broker lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// Whether it is one of Kafka's own, such as `__consumer_offsets`: a pattern is not meant to find
    /// it.
    pub is_internal: bool,
}

impl From<TopicAnswer> for TopicListing {
    fn from(answer: TopicAnswer) -> Self {
        let TopicAnswer { name, partitions, is_internal, .. } = answer;
        Self { name, partitions: partitions.len(), is_internal }
    }
}

/// A refresh that has ended, well or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    /// How many have been started up to and with this one.
    number: u64,
    failure: Option<Cause>,
}

impl Metadata {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        let cache = Lock::new(Cache::new(cluster.config.retry, cluster.config.metadata_age));
        Arc::new(Self {
            cluster,
            cache,
            wake: Notify::new(),
            rounds: Watch::default(),
            silent_since: Lock::default(),
        })
    }

    /// Tells of every finished round.
    pub(crate) fn rounds(&self) -> WatchReader<'_, Round> {
        self.rounds.reader()
    }

    /// The number of partitions of a topic, asked for if unknown. A topic may stay unknown for
    /// 5 s, because brokers learn of new topics at different times.
    ///
    /// With [`Trust::Doubted`] the number is asked for in any case.
    pub(crate) async fn partitions(
        &self,
        topic: &str,
        trust: Trust,
        deadline: Instant,
    ) -> Result<usize, Reason> {
        let mut rounds = self.rounds();
        let wish = self.cache.lock().wish(trust, Instant::now());
        let mut last = Some(Reason::Unreachable("none has answered yet".into()));
        loop {
            let lookup = self.cluster.settings.tasks.span.in_scope(|| {
                let mut cache = self.cache.lock();
                cache.lookup(topic, wish, Instant::now())
            });
            match lookup {
                Lookup::Known(partitions) => return Ok(partitions),
                Lookup::Refused(reason) => return Err(reason),
                Lookup::Wanted => self.wake.notify_one(),
            }
            let Ok(round) = timeout_at(deadline, rounds.next()).await else {
                let last = last.unwrap_or(Reason::UnknownTopic);
                return Err(Reason::DeadlineExceeded { last: Some(last.into()) });
            };
            last = round.failure.map(Reason::Unreachable);
            if self.cluster.settings.shutdown.is_cancelled() {
                return Err(Reason::Closed);
            }
        }
    }

    /// Who leads a partition now. Keeps the topic in use.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.cache.lock().leader(topic, partition, Instant::now())
    }

    /// Who leads a partition now, and of which topic; `None` if either is not known.
    pub(crate) fn read_route(&self, topic: &str, partition: i32) -> Option<ReadRoute> {
        self.cache.lock().read_route(topic, partition, Instant::now())
    }

    /// A topic's id and its number of partitions, without asking anyone.
    pub(crate) fn known(&self, topic: &str) -> Option<(u128, usize)> {
        self.cache.lock().known(topic)
    }

    /// What a complaint about what is known now must carry.
    pub(crate) fn generation(&self) -> u64 {
        self.cache.lock().generation()
    }

    /// Something learnt in `generation` turned out wrong: refresh, unless that has happened since.
    pub(crate) fn complain(&self, generation: u64) {
        if self.cache.lock().complain(generation, Instant::now()) {
            self.wake.notify_one();
        }
    }

    /// A refusal told who leads now (KIP-951), in an era of the cluster; says whether that was news.
    pub(crate) fn hint(&self, topic: &str, partition: i32, hint: &LeaderHint, era: u64) -> bool {
        let mut cache = self.cache.lock();
        let is_ours = self.cluster.era() == era;
        let is_news = is_ours && cache.apply_hint(topic, partition, hint.id, hint.epoch);
        drop(cache);
        if is_news && let Some(endpoint) = hint.endpoint.clone() {
            self.cluster.learn_one(hint.id, endpoint);
        }
        is_news
    }

    /// Asks a broker now, and again until one answers. `Err` has the last failure, which is that of
    /// an earlier question while this one goes on.
    pub(crate) async fn ask_now(&self, deadline: Instant) -> Result<(), Option<Cause>> {
        let mut rounds = self.rounds();
        let wanted = self.cache.lock().ask_now(Instant::now());
        let mut last = None;
        loop {
            self.wake.notify_one();
            let Ok(round) = timeout_at(deadline, rounds.next()).await else {
                return Err(last.or(self.rounds.latest().failure));
            };
            match round.failure {
                None if round.number >= wanted => return Ok(()),
                None => {}
                failure => last = failure,
            }
        }
    }

    /// Asks any broker for all topics that we may see. The answer is not kept: what is in use is
    /// refreshed by name.
    pub(crate) async fn list(&self) -> Result<Vec<TopicListing>, Cause> {
        let question = AskMetadata { topics: TopicsAsked::All, asks_operations: false };
        let candidates = self.cluster.anyone().into_iter().map(|endpoint| (endpoint, None));
        let judge = judge(self.cluster.clone());
        let (answer, endpoint, _) = anyone::ask(&self.cluster, question, candidates, judge).await?;
        if answer.code != 0 {
            return Err(refused(&endpoint, answer.code));
        }
        let listed = answer.topics.into_iter().filter(|topic| topic.code == 0);
        Ok(listed.map(TopicListing::from).collect())
    }

    /// Refreshes when due, until the client is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        let shutdown = self.cluster.settings.shutdown.clone();
        let cluster = self.cluster.clone();
        let throttle = LogThrottle::default();
        let mut source = MetadataConnection { cluster, current: None, throttle };
        let work = async {
            loop {
                let due = self.cache.lock().poll_due(Instant::now());
                match due {
                    Some(at) if at <= Instant::now() => self.round(&mut source).await,
                    Some(at) => tokio::select! {
                        biased;
                        () = sleep_until(at) => {}
                        () = self.wake.notified() => {}
                    },
                    None => self.wake.notified().await,
                }
            }
        };
        shutdown.run_until_cancelled(work).await;
        self.rounds.change(|round| round.failure.replace("the client is closed".into()).is_none());
    }

    /// Why the last round failed, if it did.
    pub(crate) fn failure(&self) -> Option<Cause> {
        self.rounds.latest().failure
    }

    /// For how long nobody has answered, while they were asked.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        self.silent_since.lock().map(|since| since.elapsed())
    }

    async fn round(&self, source: &mut MetadataConnection) {
        let silent = self.silent_since.lock().get_or_insert_with(Instant::now).elapsed();
        let (number, topics) = self.cache.lock().start(Instant::now());
        let answer = source.ask(topics, silent).await;
        let stats = &self.cluster.settings.stats;
        let failure = answer.map(|(answer, by)| self.take(answer, by)).err();
        match &failure {
            None => {
                *self.silent_since.lock() = None;
                stats.metadata_refreshes.add(1);
                if source.throttle.clear() {
                    tracing::info!("metadata_again");
                }
            }
            Some(cause) => {
                stats.metadata_failures.add(1);
                if source.throttle.admits(cause) {
                    tracing::warn!(%cause, "no_metadata");
                }
                source.current = None;
                self.cache.lock().fail(Instant::now(), random());
            }
        }
        self.rounds.replace(Round { number, failure });
    }

    fn take(&self, answer: MetadataAnswer, by: Endpoint) {
        let brokers = answer.brokers.clone();
        let mut cache = self.cache.lock();
        if self.cluster.adopt(answer.cluster_id.as_deref()) {
            cache.forget_cluster(Instant::now());
        }
        cache.apply(answer, Instant::now());
        drop(cache);
        self.cluster.learn(brokers, by);
    }
}

/// The connection that questions go out on.
struct MetadataConnection {
    cluster: Arc<Cluster>,
    current: Option<(Endpoint, Connection)>,
    throttle: LogThrottle,
}

/// REBOOTSTRAP_REQUIRED (KIP-1102): the broker wants us to start over.
const REBOOTSTRAP_REQUIRED: i16 = 129;

impl MetadataConnection {
    /// `silent` is for how long nobody has answered.
    async fn ask(
        &mut self,
        topics: Vec<Arc<str>>,
        silent: Duration,
    ) -> Result<(MetadataAnswer, Endpoint), Cause> {
        if silent >= REBOOTSTRAP {
            self.cluster.bootstrap_anew();
        }
        let is_usable = |(endpoint, connection): &(Endpoint, Connection)| {
            connection.is_open() && self.cluster.lists(endpoint)
        };
        let open = self.current.take().filter(is_usable);
        // One of an older TLS configuration is asked when no new one can be made.
        let (outdated, open): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|(_, connection)| self.cluster.is_outdated(connection));
        let there = |(endpoint, connection)| (endpoint, Some(connection));
        let others = self.cluster.anyone().into_iter().map(|endpoint| (endpoint, None));
        let candidates = open.into_iter().map(there).chain(others);
        let candidates = candidates.chain(outdated.into_iter().map(there));
        let topics = TopicsAsked::Named(topics);
        let question = AskMetadata { topics, asks_operations: false };
        let judge = judge(self.cluster.clone());
        let (answer, endpoint, connection) =
            anyone::ask(&self.cluster, question, candidates, judge).await?;
        if answer.code == REBOOTSTRAP_REQUIRED {
            self.cluster.bootstrap_anew();
            return Err(refused(&endpoint, answer.code));
        }
        self.current = Some((endpoint.clone(), connection));
        Ok((answer, endpoint))
    }
}

/// Which answers are taken: of this cluster, and without an error. Who asks us to start over is heard,
/// whatever the others say.
fn judge(
    cluster: Arc<Cluster>,
) -> impl Fn(&Endpoint, MetadataAnswer) -> Result<MetadataAnswer, Cause> + Clone + Send + 'static {
    move |endpoint, answer| match answer.code {
        0 => match cluster.admits(answer.cluster_id.as_deref()) {
            Ok(()) => Ok(answer),
            Err(cause) => Err(format!("{endpoint}: {cause}").into()),
        },
        REBOOTSTRAP_REQUIRED => Ok(answer),
        code => Err(refused(endpoint, code)),
    }
}

fn refused(endpoint: &Endpoint, code: i16) -> Cause {
    format!("{endpoint}: {}", Reason::of_code(code)).into()
}
