//! The task that owns a socket: moves bytes between it and the `wire`.

use std::io::IoSlice;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::renewal::RenewalCommand;
use super::request::{Lost, LostReason, Outgoing};
use super::wire::Wire;
use crate::frame::Decoder;
use crate::limits::WRITE_SLICES;
use crate::stats::Counters;
use crate::tls;

pub(super) struct Driver {
    pub(super) decoder: Decoder,
    pub(super) wire: Wire,
    pub(super) requests: mpsc::Receiver<Outgoing>,
    /// Without a handle, requests under way are still answered before the connection ends.
    pub(super) has_handle: bool,
    pub(super) commands: mpsc::Receiver<RenewalCommand>,
    /// Who waits until all that was written is answered.
    pub(super) drained: Option<oneshot::Sender<()>>,
    /// Why it ends as soon as all that was written is answered.
    pub(super) retired: Option<LostReason>,
    /// Whether TLS may have kept back something of what was written.
    pub(super) needs_flush: bool,
    /// Cancelled when this connection must end, or all of the client.
    pub(super) closing: CancellationToken,
    pub(super) shutdown: CancellationToken,
}

/// What can happen next.
enum Event {
    Request(Option<Outgoing>),
    RenewalCommand(RenewalCommand),
    Written(std::io::Result<usize>),
    Flushed(std::io::Result<()>),
    Read(std::io::Result<usize>),
    Time,
    Closing,
}

impl Driver {
    pub(super) async fn run<S>(mut self, stream: S, stats: Arc<Counters>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        stats.connections_open.add(1);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let fault = loop {
            let event = self.next_event(&mut reader, &mut writer).await;
            if let Err(fault) = self.handle(event) {
                break fault;
            }
            if let Some(fault) = self.end() {
                break fault;
            }
        };
        stats.connections_open.subtract(1);
        tracing::debug!(%fault, "connection_ended");
        self.requests.close();
        self.wire.fail(&fault);
        while let Some(outgoing) = self.requests.recv().await {
            outgoing.waiter.lost(Lost { fault: fault.clone(), handed_over: false });
        }
    }

    /// Whether nothing is left to do.
    fn end(&mut self) -> Option<LostReason> {
        if self.wire.is_drained()
            && let Some(waiting) = self.drained.take()
        {
            let _nobody_waits = waiting.send(());
        }
        match &self.retired {
            _ if !self.wire.is_quiet() => None,
            Some(fault) => Some(fault.clone()),
            None => (!self.has_handle).then_some(LostReason::Unused),
        }
    }

    async fn next_event<S>(&mut self, reader: &mut ReadHalf<S>, writer: &mut WriteHalf<S>) -> Event
    where
        S: AsyncRead + AsyncWrite,
    {
        let now = Instant::now();
        let wake = self.wire.poll_timeout(now);
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let used = self.wire.poll_write(now, &mut slices);
        let slices = slices.get(..used).unwrap_or_default();
        let listens = self.has_handle && self.retired.is_none() && self.wire.has_room();
        let writes = !slices.is_empty() || self.needs_flush;
        // Nothing starves what is below it: requests are bounded, and so are the answers to them.
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Event::Closing,
            Some(order) = self.commands.recv() => Event::RenewalCommand(order),
            request = self.requests.recv(), if listens => Event::Request(request),
            event = write(writer, slices), if writes => event,
            done = reader.read_buf(self.decoder.spare()) => Event::Read(done),
            () = sleep_until(wake) => Event::Time,
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), LostReason> {
        let now = Instant::now();
        match event {
            Event::Request(Some(outgoing)) => {
                self.wire.push(outgoing);
                while self.wire.has_room() {
                    let Ok(more) = self.requests.try_recv() else { break };
                    self.wire.push(more);
                }
                Ok(())
            }
            Event::RenewalCommand(order) => {
                self.obey(order);
                Ok(())
            }
            Event::Request(None) => {
                self.has_handle = false;
                Ok(())
            }
            Event::Written(Ok(0)) | Event::Read(Ok(0)) => Err(LostReason::Closed),
            Event::Written(Ok(bytes)) => {
                self.wire.on_written(bytes, now);
                self.needs_flush = true;
                Ok(())
            }
            Event::Read(Ok(_)) => {
                while let Some(frame) = self.decoder.poll_frame()? {
                    self.wire.on_frame(frame, now)?;
                }
                Ok(())
            }
            Event::Flushed(Ok(())) => {
                self.needs_flush = false;
                Ok(())
            }
            Event::Written(Err(error)) | Event::Flushed(Err(error)) | Event::Read(Err(error)) => {
                Err(failure(&error))
            }
            Event::Time => self.wire.on_timeout(now),
            Event::Closing if self.shutdown.is_cancelled() => Err(LostReason::Shutdown),
            Event::Closing => Err(LostReason::Incomplete),
        }
    }

    fn obey(&mut self, order: RenewalCommand) {
        match order {
            RenewalCommand::Hold(drained) => {
                self.wire.shut();
                self.drained = Some(drained);
            }
            RenewalCommand::Write(outgoing) => self.wire.push_through(outgoing),
            RenewalCommand::Resume => self.wire.open(),
            RenewalCommand::Retire(fault) => {
                self.wire.shut();
                self.wire.fail_unsent(&fault);
                self.requests.close();
                while let Ok(outgoing) = self.requests.try_recv() {
                    let lost = Lost { fault: fault.clone(), handed_over: false };
                    outgoing.waiter.lost(lost);
                }
                self.retired = Some(fault);
            }
        }
    }
}

/// Writes, or flushes if there is nothing to write.
async fn write<S: AsyncWrite>(writer: &mut WriteHalf<S>, slices: &[IoSlice<'_>]) -> Event {
    if slices.is_empty() {
        Event::Flushed(writer.flush().await)
    } else {
        Event::Written(writer.write_vectored(slices).await)
    }
}

fn failure(error: &std::io::Error) -> LostReason {
    match error.kind() {
        // TLS without its goodbye.
        std::io::ErrorKind::UnexpectedEof => LostReason::Closed,
        _ => {
            LostReason::Io(tls::explain(error).map_or_else(|| error.to_string(), |e| e.to_string()))
        }
    }
}
