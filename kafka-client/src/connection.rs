//! One broker socket: a cheap handle in front of the one task that owns it.

mod driver;
mod renewal;
mod request;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::calls::{self, Call};
use crate::frame::Decoder;
use crate::handshake::Negotiated;
use crate::limits::{FRAME_BYTES, QUEUED_REQUESTS};
use crate::sasl::{Login, Session};
use crate::stats::Counters;
use crate::tasks::Tasks;
use crate::versions::{NoCommonVersion, Versions};
use renewal::{Renewal, RenewalCommand};
use request::{AnswerWaiter, Outgoing, Waiter, WriteReceipt};
pub(crate) use request::{Lost, LostReason, PendingAnswer};
use wire::Wire;

/// What all connections of a client share.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSettings {
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
    closing: CancellationToken,
    session: Option<Session>,
    commands: mpsc::Sender<RenewalCommand>,
}

impl Connection {
    /// Takes over a stream whose handshake is done; `decoder` may hold bytes already read.
    pub(crate) fn start<S>(
        stream: S,
        mut decoder: Decoder,
        negotiated: Negotiated,
        settings: &ConnectionSettings,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        decoder.raise_limit(FRAME_BYTES);
        let (queue, requests) = mpsc::channel(QUEUED_REQUESTS);
        let closing = settings.shutdown.child_token();
        let Negotiated { versions, pause, session } = negotiated;
        let (commands, ordered) = mpsc::channel(1);
        let now = Instant::now();
        let mut wire = Wire::new(settings.idle, now, settings.stats.clone());
        wire.hold(pause, now);
        let driver = driver::Driver {
            decoder,
            wire,
            requests,
            commands: ordered,
            drained: None,
            retired: None,
            closing: closing.clone(),
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
            closing,
            session,
            commands,
        }
    }

    /// From now on it is authenticated again before its session ends.
    pub(crate) fn renewed_by(
        self,
        login: &Arc<Login>,
        host: &str,
        settings: &ConnectionSettings,
    ) -> Self {
        if let Some(session) = self.session {
            let renewal = Renewal {
                login: Arc::clone(login),
                host: host.to_owned(),
                versions: self.versions.clone(),
                client_id: self.client_id.clone(),
                commands: self.commands.clone(),
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
        !self.queue.is_closed() && !self.closing.is_cancelled()
    }

    /// Closes the connection: an answer lacked a part, so what else it says cannot be trusted.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// The version of `C` that both sides speak.
    pub(crate) fn version<C: Call>(&self) -> Result<i16, NoCommonVersion> {
        self.versions.highest(C::API)
    }

    /// Queues a request, waiting for a place. Requests leave in the order in which this returned.
    /// Dropping the reply does not withdraw the request.
    pub(crate) async fn submit<C: Call>(
        &self,
        call: Arc<C>,
        patience: Duration,
    ) -> Result<PendingAnswer<C::Answer>, Lost> {
        let (sender, reply) = oneshot::channel();
        let version = self.version::<C>().map_err(unsent)?;
        let waiter = Box::new(AnswerWaiter { call: call.clone(), version, reply: sender });
        self.queue(&*call, version, patience, waiter).await?;
        Ok(PendingAnswer(reply))
    }

    /// Queues a request that gets no answer (Produce with acks 0); the reply is that the socket
    /// took it.
    pub(crate) async fn submit_unanswered<C: Call>(
        &self,
        call: &C,
        patience: Duration,
    ) -> Result<PendingAnswer<()>, Lost> {
        let (sender, reply) = oneshot::channel();
        let version = self.version::<C>().map_err(unsent)?;
        self.queue(call, version, patience, Box::new(WriteReceipt(sender))).await?;
        Ok(PendingAnswer(reply))
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

#[cfg(test)]
mod tests;
