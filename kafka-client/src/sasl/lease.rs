//! Credentials that are lent for a while, kept until they are due for another.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument as _;

use super::aws::AwsKeys;
use crate::backoff::random;
use crate::error::Cause;
use crate::limits::{CREDENTIAL_OVERLAP, CREDENTIAL_PATIENCE, CREDENTIAL_RETRY};
use crate::lock::Lock;
use crate::secret::Secret;

/// What a client proves who it is with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// For PLAIN and SCRAM.
    Password {
        /// The user, or the id of a delegation token.
        user: String,
        /// The password, or the HMAC of a delegation token.
        password: Secret,
        /// Whether it is a delegation token (KIP-48), which SCRAM alone knows.
        is_token: bool,
    },
    /// For OAUTHBEARER.
    Token(Secret),
    /// For AWS_MSK_IAM, and for OAUTHBEARER where AWS signs.
    Aws {
        /// The keys.
        keys: AwsKeys,
        /// The region of the environment that they come from, if it names one.
        region: Option<String>,
    },
}

/// A credential, and for how long it is good from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The credential.
    pub credential: Credential,
    /// None means for ever.
    pub lifetime: Option<Duration>,
}

/// A credential on its way.
pub type Obtaining<'a> = Pin<Box<dyn Future<Output = Result<Lease, Cause>> + Send + 'a>>;

/// Where credentials come from that are not in the properties. The client asks when it needs one
/// and has none that is fresh: at 80 % of its lifetime, one question at a time.
pub trait CredentialSource: Send + Sync + Debug {
    /// A new credential. The error is shown to people: it must not contain a secret.
    fn obtain(&self) -> Obtaining<'_>;
}

/// The last credential of a source.
#[derive(Debug)]
pub(super) struct Leases {
    source: Arc<dyn CredentialSource>,
    held: Arc<Lock<Held>>,
    /// Who asks holds it, so that there is one question at a time.
    turn: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Held {
    lease: Option<Kept>,
    /// When the last question began.
    asked: Option<Instant>,
    /// The last failure, and when to ask again.
    failure: Option<(Cause, Instant)>,
}

#[derive(Debug, Clone)]
struct Kept {
    credential: Credential,
    obtained: Instant,
    /// When to ask for the next one, and when this one is worth nothing.
    due: Option<(Instant, Instant)>,
}

impl Leases {
    pub(super) fn new(source: Arc<dyn CredentialSource>) -> Self {
        Self { source, held: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }

    /// A credential that is good now, and until when. While the source fails, or takes long, an old
    /// one is used until it expires.
    pub(super) async fn get(&self) -> Result<(Credential, Option<Instant>), Cause> {
        let began = Instant::now();
        if let Some(kept) = self.held.lock().fresh() {
            return Ok(kept.given());
        }
        self.begin();
        let overlap = {
            let held = self.held.lock();
            held.usable().and(held.asked).map(|asked| asked + CREDENTIAL_OVERLAP)
        };
        if let Some(overlap) = overlap
            && timeout_at(overlap, self.answered()).await.is_err()
            && let Some(kept) = self.held.lock().usable()
        {
            return Ok(kept.given());
        }
        // The old one may have expired meanwhile.
        self.answered().await;
        let held = self.held.lock();
        let failure = || match &held.failure {
            Some((cause, _)) => cause.clone(),
            None => "the question for it has ended".into(),
        };
        // What was asked for now is worth a try, however short its life.
        let new = held.lease.as_ref().filter(|kept| kept.obtained >= began);
        held.usable().or(new).map(Kept::given).ok_or_else(failure)
    }

    /// Waits until nobody asks.
    async fn answered(&self) {
        drop(self.turn.acquire().await);
    }

    /// Asks, unless that is being done or has just failed. Goes on without whoever wants to know.
    fn begin(&self) {
        let Ok(turn) = Arc::clone(&self.turn).try_acquire_owned() else { return };
        let now = Instant::now();
        {
            let mut held = self.held.lock();
            let is_early = held.failure.as_ref().is_some_and(|(_, again)| now < *again);
            if is_early || held.fresh().is_some() {
                return;
            }
            held.asked = Some(now);
        }
        let (source, held) = (Arc::clone(&self.source), Arc::clone(&self.held));
        let asking = async move {
            let answer = ask(&*source).await;
            let mut held = held.lock();
            match answer {
                Ok(kept) => (held.lease, held.failure) = (Some(kept), None),
                Err(cause) => {
                    tracing::warn!(%cause, "no_new_credential");
                    held.failure = Some((cause, Instant::now() + CREDENTIAL_RETRY));
                }
            }
            drop(held);
            drop(turn);
        };
        tokio::spawn(asking.in_current_span());
    }
}

async fn ask(source: &dyn CredentialSource) -> Result<Kept, Cause> {
    let asked = timeout(CREDENTIAL_PATIENCE, source.obtain()).await;
    let late =
        |_| -> Cause { format!("no answer within {} ms", CREDENTIAL_PATIENCE.as_millis()).into() };
    let Lease { credential, lifetime } = asked.map_err(late)??;
    let now = Instant::now();
    let due = lifetime.and_then(|lifetime| {
        // 75 to 85 %: clients that began together ask at different times.
        let fresh = lifetime.mul_f64(0.75 + (random() % 1000) as f64 / 10_000.0);
        Some((now.checked_add(fresh)?, now.checked_add(lifetime)?))
    });
    Ok(Kept { credential, obtained: now, due })
}

impl Held {
    fn fresh(&self) -> Option<&Kept> {
        let now = Instant::now();
        self.lease.as_ref().filter(|kept| kept.is_fresh(now))
    }

    fn usable(&self) -> Option<&Kept> {
        let now = Instant::now();
        self.lease.as_ref().filter(|kept| kept.is_usable(now))
    }
}

impl Kept {
    fn is_fresh(&self, now: Instant) -> bool {
        self.due.is_none_or(|(due, _)| now < due)
    }

    fn is_usable(&self, now: Instant) -> bool {
        self.due.is_none_or(|(_, end)| now < end)
    }

    fn given(&self) -> (Credential, Option<Instant>) {
        (self.credential.clone(), self.due.map(|(_, end)| end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::advance;

    use super::*;

    /// Answers in turn; counts the questions by what is left.
    #[derive(Debug)]
    struct Script(Lock<VecDeque<Result<(&'static str, u64), &'static str>>>);

    impl CredentialSource for Script {
        fn obtain(&self) -> Obtaining<'_> {
            let next = self.0.lock().pop_front();
            Box::pin(async move {
                tokio::task::yield_now().await;
                let (token, seconds) = next.unwrap_or(Err("asked too often"))?;
                let lifetime = Some(Duration::from_secs(seconds));
                Ok(Lease { credential: Credential::Token(Secret::new(token)), lifetime })
            })
        }
    }

    fn leases(answers: &[Result<(&'static str, u64), &'static str>]) -> Arc<Leases> {
        Arc::new(Leases::new(Arc::new(Script(Lock::new(answers.iter().copied().collect())))))
    }

    async fn token(leases: &Leases) -> Result<String, String> {
        match leases.get().await {
            Ok((Credential::Token(token), _)) => Ok(token.expose().to_owned()),
            Ok(other) => panic!("{other:?}"),
            Err(cause) => Err(cause.to_string()),
        }
    }

    async fn pass(seconds: u64) {
        advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_asked_for_again_at_80_percent_of_its_life() {
        let leases = leases(&[Ok(("one", 100)), Ok(("two", 100))]);
        assert_eq!(token(&leases).await.as_deref(), Ok("one"));
        pass(74).await;
        assert_eq!(token(&leases).await.as_deref(), Ok("one"));
        pass(12).await;
        assert_eq!(token(&leases).await.as_deref(), Ok("two"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_token_is_used_until_it_expires() {
        let leases = leases(&[Ok(("one", 100)), Err("down"), Err("still down"), Ok(("two", 100))]);
        assert_eq!(token(&leases).await.as_deref(), Ok("one"));
        pass(90).await;
        assert_eq!(token(&leases).await.as_deref(), Ok("one"));
        pass(11).await;
        assert_eq!(token(&leases).await, Err("still down".into()));
        assert_eq!(token(&leases).await, Err("still down".into()), "a pause before the next try");
        pass(60).await;
        assert_eq!(token(&leases).await.as_deref(), Ok("two"));
    }

    /// Gives one token, and then never answers.
    #[derive(Debug)]
    struct Stalling(Lock<bool>);

    impl CredentialSource for Stalling {
        fn obtain(&self) -> Obtaining<'_> {
            let has_given = std::mem::replace(&mut *self.0.lock(), true);
            Box::pin(async move {
                if has_given {
                    std::future::pending::<()>().await;
                }
                let lifetime = Some(Duration::from_secs(100));
                Ok(Lease { credential: Credential::Token(Secret::new("one")), lifetime })
            })
        }
    }

    /// Answers after some seconds with tokens that live for 6 s.
    #[derive(Debug)]
    struct Slow(Lock<VecDeque<(&'static str, u64)>>);

    impl CredentialSource for Slow {
        fn obtain(&self) -> Obtaining<'_> {
            let next = self.0.lock().pop_front();
            Box::pin(async move {
                let (token, seconds) = next.ok_or("asked too often")?;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                let lifetime = Some(Duration::from_secs(6));
                Ok(Lease { credential: Credential::Token(Secret::new(token)), lifetime })
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_expires_while_the_next_is_on_its_way_makes_nobody_give_up() {
        let source = Slow(Lock::new(VecDeque::from([("one", 0), ("two", 3)])));
        let leases = Leases::new(Arc::new(source));
        assert_eq!(token(&leases).await.as_deref(), Ok("one"));
        pass(5).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(token(&leases).await.as_deref(), Ok("two"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_has_no_life_left_is_tried_once() {
        let leases = leases(&[Ok(("one", 0)), Ok(("two", 0))]);
        assert_eq!(token(&leases).await.as_deref(), Ok("one"));
        pass(1).await;
        assert_eq!(token(&leases).await.as_deref(), Ok("two"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_an_old_token_does_not_wait_long_for_a_source_that_stalls() {
        let leases = Leases::new(Arc::new(Stalling(Lock::default())));
        assert_eq!(token(&leases).await.as_deref(), Ok("one"));
        pass(86).await;
        for waits in [CREDENTIAL_OVERLAP, Duration::ZERO, Duration::ZERO] {
            let began = Instant::now();
            assert_eq!(token(&leases).await.as_deref(), Ok("one"));
            assert_eq!(began.elapsed(), waits);
        }
        pass(14).await;
        let late = "no answer within 15000 ms";
        assert_eq!(token(&leases).await, Err(late.into()), "it has expired");
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_need_a_token_ask_once() {
        let leases = leases(&[Ok(("one", 100))]);
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let leases = leases.clone();
            asking.spawn(async move { token(&leases).await });
        }
        assert!(asking.join_all().await.iter().all(|got| got.as_deref() == Ok("one")));
    }
}
