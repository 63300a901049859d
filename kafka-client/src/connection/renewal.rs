//! Keeps a connection authenticated (KIP-368): the broker closes one whose session has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::request::{AnswerWaiter, Lost, LostReason, Outgoing};
use crate::backoff::random;
use crate::calls::sasl_authenticate::{ProofAnswer, Prove};
use crate::calls::sasl_handshake::ChooseMechanism;
use crate::calls::{self, Call};
use crate::limits::CREDENTIAL_RETRY;
use crate::sasl::{Authentication, Login, Progress, SaslFault, Session};
use crate::versions::{SASL_AUTHENTICATE, Versions};

/// What the task that owns the socket is told.
pub(super) enum RenewalCommand {
    /// Write nothing more, and tell when all that was written is answered.
    Hold(oneshot::Sender<()>),
    /// Write this all the same.
    Write(Outgoing),
    /// Go on.
    Resume,
    /// Write nothing more, and end when all that was written is answered.
    Retire(LostReason),
}

pub(super) struct Renewal {
    pub(super) login: Arc<Login>,
    /// As it was dialled.
    pub(super) host: String,
    pub(super) versions: Versions,
    pub(super) client_id: Arc<str>,
    pub(super) commands: mpsc::Sender<RenewalCommand>,
    /// Beside those of the connection's own requests.
    pub(super) correlation: AtomicI32,
}

/// What is to be done about a session, when, and by when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RenewalPlan {
    Nothing,
    Renew { at: Instant, by: Instant },
    Replace { at: Instant },
}

impl Renewal {
    /// Runs until the connection ends.
    pub(super) async fn run(self, session: Session) {
        let ended = self.commands.clone();
        tokio::select! {
            () = ended.closed() => {}
            () = self.keep(session) => {}
        }
    }

    async fn keep(&self, mut session: Session) {
        loop {
            let is_old = self.versions.highest(&SASL_AUTHENTICATE) == Ok(0);
            let renewed = match plan(session, is_old, Instant::now(), random()) {
                RenewalPlan::Nothing => return,
                RenewalPlan::Replace { at } => {
                    sleep_until(at).await;
                    Err(LostReason::Expiring)
                }
                RenewalPlan::Renew { at, by } => {
                    sleep_until(at).await;
                    let renewed = timeout_at(by, self.renew(at + (by - at) / 2)).await;
                    renewed.unwrap_or(Err(LostReason::Expiring))
                }
            };
            match renewed {
                Ok(renewed) => session = renewed,
                Err(fault) => {
                    tracing::debug!(%fault, "connection_replaced");
                    let _ended = self.commands.send(RenewalCommand::Retire(fault)).await;
                    return;
                }
            }
        }
    }

    /// While the session lasts the connection serves, so who has no credential yet is asked again,
    /// but not so late that a request could arrive after the end.
    async fn authentication(&self, latest: Instant) -> Result<Authentication, SaslFault> {
        loop {
            let ready = self.login.authentication(&self.host).await;
            let again = Instant::now() + CREDENTIAL_RETRY;
            if ready.is_ok() || again > latest {
                return ready;
            }
            sleep_until(again).await;
        }
    }

    /// Any other request in between would make the broker close.
    async fn renew(&self, latest: Instant) -> Result<Session, LostReason> {
        let mut authentication = self.authentication(latest).await?;
        let (drained, done) = oneshot::channel();
        self.command(RenewalCommand::Hold(drained)).await?;
        done.await.map_err(|_| LostReason::Closed)?;
        let answer = self.ask(ChooseMechanism(authentication.mechanism())).await?;
        let mut proof = authentication.on_mechanisms(answer)?;
        loop {
            let answer = self.ask(Prove(proof)).await?;
            let turn;
            (authentication, turn) = hear(authentication, answer).await?;
            match turn {
                Progress::Send(next) => proof = next,
                Progress::Done(session) => {
                    self.command(RenewalCommand::Resume).await?;
                    return Ok(session);
                }
            }
        }
    }

    async fn ask<C: Call>(&self, call: C) -> Result<C::Answer, LostReason> {
        let version = self.versions.highest(C::API)?;
        let correlation = self.correlation.fetch_add(1, Relaxed);
        let frame = calls::encode(&call, version, correlation, &self.client_id)
            .map_err(LostReason::Unwritable)?;
        let (reply, answer) = oneshot::channel();
        let waiter = Box::new(AnswerWaiter { call: Arc::new(call), version, reply });
        let outgoing = Outgoing { frame, correlation, patience: PATIENCE, waiter };
        self.command(RenewalCommand::Write(outgoing)).await?;
        let answer =
            answer.await.unwrap_or(Err(Lost { fault: LostReason::Closed, handed_over: true }));
        answer.map_err(|lost| lost.fault)
    }

    async fn command(&self, command: RenewalCommand) -> Result<(), LostReason> {
        self.commands.send(command).await.map_err(|_| LostReason::Closed)
    }
}

/// Salting a password takes a thread.
async fn hear(
    mut authentication: Authentication,
    answer: ProofAnswer,
) -> Result<(Authentication, Progress), LostReason> {
    let is_laborious = authentication.is_laborious();
    let work = move || authentication.on_answer(answer).map(|turn| (authentication, turn));
    if !is_laborious {
        return Ok(work()?);
    }
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| LostReason::Io(error.to_string()))??)
}

/// A session that the broker limits is renewed at a random 85 to 95 % of it, so that connections
/// which began together do not stop together, and not within a second, which brokers refuse. An old
/// broker cannot renew, and does not say when the credential ends: we know it.
fn plan(session: Session, is_old: bool, now: Instant, random: u64) -> RenewalPlan {
    let share = 0.85 + (random % 1000) as f64 / 10_000.0;
    let part = |whole: Duration| now + whole.min(LONGEST).mul_f64(share);
    match (session.granted, session.until) {
        (Some(granted), _) => {
            let (at, by) = (part(granted).max(now + LEAST_BETWEEN), now + granted.min(LONGEST));
            if at < by {
                RenewalPlan::Renew { at, by }
            } else {
                RenewalPlan::Replace { at: part(granted) }
            }
        }
        (None, Some(until)) if is_old => {
            RenewalPlan::Replace { at: part(until.duration_since(now)) }
        }
        (None, _) => RenewalPlan::Nothing,
    }
}

/// How long each answer of a renewal may take; the end of the session bounds all of them.
const PATIENCE: Duration = Duration::from_secs(30);
/// Brokers refuse two authentications within a second.
const LEAST_BETWEEN: Duration = Duration::from_millis(1050);
/// Longer sessions are renewed as if they were as long; a clock cannot count further than some.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_renewed_at_85_to_95_percent_of_it() {
        let now = Instant::now();
        let of =
            |granted, until, is_old, random| plan(Session { granted, until }, is_old, now, random);
        let hour = Some(seconds(3600.0));
        for random in [0, 500, 999, u64::MAX] {
            let RenewalPlan::Renew { at, by } = of(hour, None, false, random) else {
                panic!("{random}")
            };
            assert!((now + seconds(3060.0)..now + seconds(3420.0)).contains(&at));
            assert_eq!(by, now + seconds(3600.0));
        }
        assert_eq!(of(None, Some(now + seconds(60.0)), false, 0), RenewalPlan::Nothing);
        let RenewalPlan::Replace { at } = of(None, Some(now + seconds(60.0)), true, 0) else {
            panic!("an old broker cannot renew")
        };
        assert_eq!(at, now + seconds(51.0));
        let RenewalPlan::Replace { at } = of(Some(seconds(1.0)), None, false, 0) else {
            panic!("twice within a second")
        };
        assert_eq!(at, now + seconds(0.85));
        assert!(matches!(of(Some(Duration::MAX), None, false, 0), RenewalPlan::Renew { .. }));
    }
}
