//! A request on its way, and who waits for its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::calls::{self, Call};
use crate::error::Malformed;
use crate::frame::{Frame, FrameError};
use crate::sasl::SaslFault;
use crate::versions::NoCommonVersion;

/// Why a connection ended: all waiters fail with it.
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
    #[error("an answer to no request")]
    Unasked,
    #[error("an answer lacks a part that was asked for")]
    Incomplete,
    #[error("the connection was idle")]
    Idle,
    #[error("the connection is no longer used")]
    Unused,
    #[error("the client is closed")]
    Shutdown,
    #[error("the authentication expires")]
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

/// What waits for the end of a request; called by the task that owns the socket.
pub(super) trait Waiter: Send {
    /// The socket took the last byte. Gives the waiter back if an answer is due.
    fn handed_over(self: Box<Self>) -> Option<Box<dyn Waiter>>;
    /// The answer is here; says for how long the broker wants us to pause.
    fn answered(self: Box<Self>, frame: Bytes) -> Result<Duration, Malformed>;
    /// There will be no answer.
    fn lost(self: Box<Self>, lost: Lost);
}

/// A request on its way to the socket.
pub(super) struct Outgoing {
    pub(super) frame: Frame,
    pub(super) correlation: i32,
    /// How long the answer may take, from the last byte written.
    pub(super) patience: Duration,
    pub(super) waiter: Box<dyn Waiter>,
}

/// The answer to one request, when it comes.
#[derive(Debug)]
pub(crate) struct PendingAnswer<T>(pub(super) oneshot::Receiver<Result<T, Lost>>);

impl<T> PendingAnswer<T> {
    pub(crate) async fn answer(self) -> Result<T, Lost> {
        // The task vanishes silently only when the runtime shuts down; nobody can tell then
        // what was written.
        self.0.await.unwrap_or(Err(Lost { fault: LostReason::Shutdown, handed_over: true }))
    }
}

/// Waits for the answer to `C`. If nobody waits at the other end any more, the answer is read and
/// dropped: its place in the queue is kept until then, so that later answers find their requests.
pub(super) struct AnswerWaiter<C: Call> {
    pub(super) call: Arc<C>,
    pub(super) version: i16,
    pub(super) reply: oneshot::Sender<Result<C::Answer, Lost>>,
}

impl<C: Call> Waiter for AnswerWaiter<C> {
    fn handed_over(self: Box<Self>) -> Option<Box<dyn Waiter>> {
        Some(self)
    }

    fn answered(self: Box<Self>, frame: Bytes) -> Result<Duration, Malformed> {
        let Self { call, version, reply } = *self;
        let decoded = calls::decode(&*call, version, frame);
        // A batch that is sent again can be restamped in place only if nobody else holds its bytes.
        drop(call);
        match decoded {
            Ok((answer, pause)) => {
                let _nobody_waits = reply.send(Ok(answer));
                Ok(pause)
            }
            Err(malformed) => {
                let lost = Lost { fault: malformed.clone().into(), handed_over: true };
                let _nobody_waits = reply.send(Err(lost));
                Err(malformed)
            }
        }
    }

    fn lost(self: Box<Self>, lost: Lost) {
        let Self { call, reply, .. } = *self;
        drop(call);
        let _nobody_waits = reply.send(Err(lost));
    }
}

/// Waits for the last byte of a request to be written.
pub(super) struct WriteReceipt(pub(super) oneshot::Sender<Result<(), Lost>>);

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
