//! One broker socket: a cheap handle in front of the one task that owns it.

mod driver;
mod renewal;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::calls::{self, Call};
use crate::error::Malformed;
use crate::frame::{Decoder, Frame, FrameError};
use crate::handshake::Welcome;
use crate::limits::{FRAME_BYTES, QUEUED_REQUESTS};
use crate::sasl::{Login, SaslFault, Session};
use crate::stats::Counters;
use crate::tasks::Tasks;
use crate::versions::{NoCommonVersion, Versions};
use renewal::{Order, Renewal};
use wire::Wire;

/// Why a connection ended; every waiter is told the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LostReason {
    #[error("the broker closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(String),
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("an answer to request {got} where {expected} was due")]
    OutOfStep { got: i32, expected: i32 },
    #[error("an answer that nobody asked for")]
    Unasked,
    #[error("an answer lacks a part that was asked for")]
    Incomplete,
    #[error("the connection was idle")]
    Idle,
    #[error("the connection is no longer used")]
    Unused,
    #[error("the client is closed")]
    Shutdown,
    #[error("the authentication ends")]
    Expiring,
    #[error("no new authentication: {0}")]
    Sasl(#[from] SaslFault),
    #[error("{0}")]
    Version(#[from] NoCommonVersion),
    #[error("the request cannot be written: {0}")]
    Unwritable(String),
}

/// A request that got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub(crate) struct Lost {
    pub(crate) fault: LostReason,
    /// Whether the socket took the last byte of the request. If not, the broker cannot have
    /// executed it.
    pub(crate) handed_over: bool,
}

/// Who is told about a request; called by the task that owns the socket.
trait Waiter: Send {
    /// The socket took the last byte. Gives the waiter back if an answer is due.
    fn handed_over(self: Box<Self>) -> Option<Box<dyn Waiter>>;
    /// The answer is here; says for how long the broker wants us to pause.
    fn answered(self: Box<Self>, frame: Bytes) -> Result<Duration, Malformed>;
    /// There will be no answer.
    fn lost(self: Box<Self>, lost: Lost);
}

/// A request on its way to the socket.
struct Outgoing {
    frame: Frame,
    correlation: i32,
    /// How long the answer may take, from the last byte written.
    patience: Duration,
    waiter: Box<dyn Waiter>,
}

/// What all connections of a client share.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) client_id: Arc<str>,
    pub(crate) idle: Duration,
    pub(crate) stats: Arc<Counters>,
    /// Ends the connection when the client is closed.
    pub(crate) shutdown: CancellationToken,
    /// Every task of the client, so that closing it can wait for them.
    pub(crate) tasks: Tasks,
}

/// Connections that were opened so far.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// The handle. Requests are answered in order; dropping the handle ends the connection once its
/// last request is answered.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its number among all of this process.
    serial: u64,
    /// Of the TLS configuration that it was made with.
    generation: u64,
    queue: mpsc::Sender<Outgoing>,
    versions: Versions,
    client_id: Arc<str>,
    correlation: AtomicI32,
    condemned: CancellationToken,
    session: Option<Session>,
    orders: mpsc::Sender<Order>,
}

impl Connection {
    /// Takes over a stream whose handshake is done; `decoder` may hold bytes already read.
    pub(crate) fn start<S>(
        stream: S,
        mut decoder: Decoder,
        welcome: Welcome,
        settings: &Settings,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        decoder.raise_limit(FRAME_BYTES);
        let (queue, requests) = mpsc::channel(QUEUED_REQUESTS);
        let condemned = settings.shutdown.child_token();
        let Welcome { versions, pause, session } = welcome;
        let (orders, ordered) = mpsc::channel(1);
        let now = Instant::now();
        let mut wire = Wire::new(settings.idle, now, settings.stats.clone());
        wire.hold(pause, now);
        let driver = driver::Driver {
            decoder,
            wire,
            requests,
            orders: ordered,
            drained: None,
            retired: None,
            condemned: condemned.clone(),
            shutdown: settings.shutdown.clone(),
            has_handle: true,
            needs_flush: false,
        };
        settings.tasks.spawn(driver.run(stream, settings.stats.clone()));
        let client_id = settings.client_id.clone();
        let serial = OPENED.fetch_add(1, Relaxed);
        let correlation = AtomicI32::new(1);
        Self {
            serial,
            generation: 0,
            queue,
            versions,
            client_id,
            correlation,
            condemned,
            session,
            orders,
        }
    }

    /// From now on it is authenticated again before its session ends.
    pub(crate) fn renewed_by(self, login: &Arc<Login>, host: &str, settings: &Settings) -> Self {
        if let Some(session) = self.session {
            let renewal = Renewal {
                login: Arc::clone(login),
                host: host.to_owned(),
                versions: self.versions.clone(),
                client_id: self.client_id.clone(),
                orders: self.orders.clone(),
                correlation: AtomicI32::new(i32::MIN),
            };
            settings.tasks.spawn(renewal.run(session));
        }
        self
    }

    /// Notes the generation of the TLS configuration that it was made with.
    pub(crate) fn of_generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Tells connections apart, however often one is made anew.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.queue.is_closed() && !self.condemned.is_cancelled()
    }

    /// Closes the connection: an answer lacked a part, so what else it says cannot be trusted.
    pub(crate) fn condemn(&self) {
        self.condemned.cancel();
    }

    /// The version of `C` that both sides speak.
    pub(crate) fn version<C: Call>(&self) -> Result<i16, NoCommonVersion> {
        self.versions.highest(C::API)
    }

    /// Queues a request, waiting for a place. Requests leave in the order in which this returned.
    /// Dropping the reply does not withdraw the request.
    pub(crate) async fn submit<C: Call>(
        &self,
        call: &C,
        patience: Duration,
    ) -> Result<Reply<C::Answer>, Lost> {
        let (sender, reply) = oneshot::channel();
        let version = self.version::<C>().map_err(unsent)?;
        let waiter = Box::new(Asked::<C> { version, reply: sender });
        self.queue(call, version, patience, waiter).await?;
        Ok(Reply(reply))
    }

    /// Queues a request that gets no answer (Produce with acks 0); the reply is that the socket
    /// took it.
    pub(crate) async fn submit_unanswered<C: Call>(
        &self,
        call: &C,
        patience: Duration,
    ) -> Result<Reply<()>, Lost> {
        let (sender, reply) = oneshot::channel();
        let version = self.version::<C>().map_err(unsent)?;
        self.queue(call, version, patience, Box::new(WriteReceipt(sender))).await?;
        Ok(Reply(reply))
    }

    async fn queue<C: Call>(
        &self,
        call: &C,
        version: i16,
        patience: Duration,
        waiter: Box<dyn Waiter>,
    ) -> Result<(), Lost> {
        let correlation = self.correlation.fetch_add(1, Relaxed);
        let frame = calls::encode(call, version, correlation, &self.client_id)
            .map_err(|what| unsent(LostReason::Unwritable(what)))?;
        let outgoing = Outgoing { frame, correlation, patience, waiter };
        self.queue.send(outgoing).await.map_err(|_| unsent(LostReason::Closed))
    }
}

fn unsent(fault: impl Into<LostReason>) -> Lost {
    Lost { fault: fault.into(), handed_over: false }
}

/// The answer to one request, when it comes.
#[derive(Debug)]
pub(crate) struct Reply<T>(oneshot::Receiver<Result<T, Lost>>);

impl<T> Reply<T> {
    pub(crate) async fn answer(self) -> Result<T, Lost> {
        // The task vanishes silently only when the runtime shuts down; nobody can tell then
        // what was written.
        self.0.await.unwrap_or(Err(Lost { fault: LostReason::Shutdown, handed_over: true }))
    }
}

/// Waits for the answer to `C`. If nobody waits at the other end any more, the answer is read and
/// dropped: the waiter is its own tombstone.
struct Asked<C: Call> {
    version: i16,
    reply: oneshot::Sender<Result<C::Answer, Lost>>,
}

impl<C: Call> Waiter for Asked<C> {
    fn handed_over(self: Box<Self>) -> Option<Box<dyn Waiter>> {
        Some(self)
    }

    fn answered(self: Box<Self>, frame: Bytes) -> Result<Duration, Malformed> {
        match calls::decode::<C>(self.version, frame) {
            Ok((answer, pause)) => {
                let _nobody_waits = self.reply.send(Ok(answer));
                Ok(pause)
            }
            Err(malformed) => {
                let lost = Lost { fault: malformed.clone().into(), handed_over: true };
                let _nobody_waits = self.reply.send(Err(lost));
                Err(malformed)
            }
        }
    }

    fn lost(self: Box<Self>, lost: Lost) {
        let _nobody_waits = self.reply.send(Err(lost));
    }
}

/// Waits for the last byte of a request to be written.
struct WriteReceipt(oneshot::Sender<Result<(), Lost>>);

impl Waiter for WriteReceipt {
    fn handed_over(self: Box<Self>) -> Option<Box<dyn Waiter>> {
        let _nobody_waits = self.0.send(Ok(()));
        None
    }

    fn answered(self: Box<Self>, _frame: Bytes) -> Result<Duration, Malformed> {
        Ok(Duration::ZERO)
    }

    fn lost(self: Box<Self>, lost: Lost) {
        let _nobody_waits = self.0.send(Err(lost));
    }
}

#[cfg(test)]
mod tests;
