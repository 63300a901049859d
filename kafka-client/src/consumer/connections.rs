//! The connections of readers: apart from those of producers, and one request at a time on each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::calls::Call;
use crate::cluster::Cluster;
use crate::cluster::link::Link;
use crate::error::Reason;
use crate::limits::INFLATING_BYTES;
use crate::lock::Lock;

/// What all consumers of a client share. A broker does not look at the next request of a connection
/// while a Fetch waits for records, so each request has a connection to itself.
#[derive(Debug)]
pub(crate) struct ReaderConnections {
    cluster: Arc<Cluster>,
    /// Connections per broker.
    each: usize,
    brokers: Lock<Brokers>,
    /// A permit for each byte that batches may be decompressed to at a time.
    pub(super) inflating: Arc<Semaphore>,
    /// Grows with each fetch, so that partitions take turns at being the first.
    turns: AtomicUsize,
}

#[derive(Debug, Default)]
struct Brokers {
    /// Of the cluster that the connections lead to.
    era: u64,
    by_id: HashMap<i32, Arc<Broker>>,
}

#[derive(Debug)]
struct Broker {
    free: Semaphore,
    /// Links that nobody uses now, with their connections or their pauses.
    idle: Lock<Vec<Link>>,
}

/// One request, and what its answer is about.
pub(super) struct Question<C> {
    pub(super) broker: i32,
    pub(super) call: C,
    /// How long the broker may wait before it answers.
    pub(super) wait: Duration,
    /// Places of what is asked for.
    pub(super) about: Vec<usize>,
}

/// What came of a question.
pub(super) type Reply<A> = (Vec<usize>, Result<A, Reason>);

impl ReaderConnections {
    /// As many requests to each broker at a time as `each`.
    pub(crate) fn new(cluster: Arc<Cluster>, each: usize) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            each,
            brokers: Lock::default(),
            inflating: Arc::new(Semaphore::new(INFLATING_BYTES)),
            turns: AtomicUsize::new(0),
        })
    }

    pub(super) fn turn(&self) -> usize {
        self.turns.fetch_add(1, Relaxed)
    }

    /// Puts a question in a task of its own: who asks may stop listening, and the connection is used
    /// again once it is answered. Connections are waited for until `deadline`.
    pub(super) fn ask<C: Call>(
        self: &Arc<Self>,
        question: Question<C>,
        deadline: Instant,
        replies: &mpsc::Sender<Reply<C::Answer>>,
    ) {
        let (connections, replies) = (Arc::clone(self), replies.clone());
        let Question { broker, call, wait, about } = question;
        let work = async move {
            let answer = connections.answer(broker, call, wait, deadline).await;
            let _nobody_listens = replies.send((about, answer)).await;
        };
        let settings = &self.cluster.settings;
        settings.tasks.spawn(settings.shutdown.clone().run_until_cancelled_owned(work));
    }

    /// One call, whose answer is waited for until `deadline`; the broker may take its time for as long
    /// as `wait`.
    pub(crate) async fn call<C: Call>(
        self: &Arc<Self>,
        broker: i32,
        call: C,
        wait: Duration,
        deadline: Instant,
    ) -> Result<C::Answer, Reason> {
        let (sender, mut replies) = mpsc::channel(1);
        let question = Question { broker, call, wait, about: Vec::new() };
        self.ask(question, deadline, &sender);
        drop(sender);
        match timeout_at(deadline, replies.recv()).await {
            Ok(Some((_, answer))) => answer,
            Ok(None) => Err(Reason::Closed),
            Err(_) => Err(unreachable(broker, "no answer in time")),
        }
    }

    async fn answer<C: Call>(
        &self,
        id: i32,
        call: C,
        wait: Duration,
        deadline: Instant,
    ) -> Result<C::Answer, Reason> {
        let era = self.cluster.era();
        let broker = self.broker(id, era);
        let free = timeout_at(deadline, broker.free.acquire()).await;
        let Ok(Ok(_place)) = free else {
            return Err(unreachable(id, "all connections are in use"));
        };
        let unused = broker.idle.lock().pop();
        let mut link = unused.unwrap_or_else(|| Link::new(self.cluster.clone(), id));
        let answer = self.converse(id, &mut link, call, wait, deadline).await;
        broker.idle.lock().push(link);
        if self.cluster.era() == era {
            answer
        } else {
            Err(unreachable(id, "it is of a cluster that is no longer there"))
        }
    }

    async fn converse<C: Call>(
        &self,
        id: i32,
        link: &mut Link,
        call: C,
        wait: Duration,
        deadline: Instant,
    ) -> Result<C::Answer, Reason> {
        let connected = timeout_at(deadline, link.connection()).await;
        let connected = connected.map_err(|_| unreachable(id, "no connection in time"))?;
        let connection = connected.map_err(|error| Reason::Unreachable(error.cause()))?;
        if let Err(error) = connection.version::<C>() {
            return Err(Reason::Unsupported(error.to_string().into()));
        }
        let patience = self.cluster.config.request_timeout.saturating_add(wait);
        let reply = match connection.submit(Arc::new(call), patience).await {
            Ok(reply) => reply.answer().await,
            Err(lost) => Err(lost),
        };
        reply.map_err(|lost| Reason::NoAnswer(lost.to_string().into()))
    }

    /// Those of a former cluster are dropped.
    fn broker(&self, id: i32, era: u64) -> Arc<Broker> {
        let mut brokers = self.brokers.lock();
        if brokers.era != era {
            *brokers = Brokers { era, by_id: HashMap::new() };
        }
        let made = || {
            let free = Semaphore::new(self.each);
            Arc::new(Broker { free, idle: Lock::default() })
        };
        brokers.by_id.entry(id).or_insert_with(made).clone()
    }
}

fn unreachable(broker: i32, what: &str) -> Reason {
    Reason::Unreachable(format!("broker {broker}: {what}").into())
}
