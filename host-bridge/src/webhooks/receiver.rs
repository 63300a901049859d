//! Where a webhook's requests go, and whether they may go now: one that is overloaded gets none for a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use tokio::time::{Instant, sleep_until};

use super::config::{Auth, WebhookConfig};
use super::credentials::{self, Credentials};
use super::message::Message;
use super::permission::Permission;
use super::retry::Verdict;
use crate::clock::now_ms;
use crate::credentials::oauth::TokenEndpoint;
use crate::credentials::token::Token;
use crate::http_client::{HttpClient, HttpLimits};
use crate::watched::Watched;

/// The other end of a webhook.
pub(super) struct Receiver {
    http: HttpClient,
    credentials: Arc<Watched<Credentials>>,
    token: Option<Token<TokenEndpoint>>,
    permission: Permission,
    /// Until then it is left alone, after so many answers in a row that said so.
    overloaded: Mutex<Option<(Instant, u32)>>,
}

/// What became of a request.
pub(super) struct Answered {
    pub(super) verdict: Verdict,
    /// In words, without anything of the answer but its status.
    pub(super) told: String,
}

impl Receiver {
    /// # Errors
    /// As [`credentials::load`].
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, String> {
        let limits = HttpLimits {
            connect: config.connect_timeout,
            whole: config.timeout,
            answer_bytes: ANSWER_BYTES,
        };
        let trust = config.trust.clone();
        let http = match config.allow_link_local {
            true => HttpClient::new(trust, limits),
            false => HttpClient::guarded(trust, limits),
        };
        let credentials = credentials::load(config)?;
        let token = match &config.auth {
            Auth::OAuth2(client) => Some(Token::new(TokenEndpoint::new(client.clone()))),
            _ => None,
        };
        let (permission, overloaded) = (Permission::default(), Mutex::default());
        Ok(Self { http, credentials, token, permission, overloaded })
    }

    /// Follows the files that it has its credentials from.
    pub(super) fn follow(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.credentials).follow()
    }

    /// Sends a request, once the receiver is not overloaded.
    pub(super) async fn send(
        &self,
        config: &WebhookConfig,
        message: &Message,
        attempt: u32,
    ) -> Answered {
        while let Some(until) = self.overloaded_until() {
            sleep_until(until).await;
        }
        // It may be back later.
        let verdict = Verdict::Again { after: None, is_overloaded: false };
        let answered = self.attempt(config, message, attempt).await;
        let answered = answered.unwrap_or_else(|told| Answered { verdict, told });
        self.note(config, answered.verdict);
        answered
    }

    /// # Errors
    /// There is no answer.
    async fn attempt(
        &self,
        config: &WebhookConfig,
        message: &Message,
        attempt: u32,
    ) -> Result<Answered, String> {
        if let Some(origin) = &config.origin {
            let permitted = self.permission.wait(&self.http, &config.url, origin).await;
            permitted.map_err(|denied| denied.to_string())?;
        }
        let mut refused = None;
        loop {
            let token = match &self.token {
                Some(token) => Some(token.get(refused.as_ref()).await?),
                None => None,
            };
            let (credentials, seconds) = (self.credentials.get(), now_ms() / 1000);
            let request = message.request(config, &credentials, token.as_ref(), (attempt, seconds));
            let head = self.http.tell(&config.url, request).await;
            let head = head.map_err(|error| error.to_string())?;
            // The endpoint may have withdrawn the token: one more attempt with another.
            if head.status == StatusCode::UNAUTHORIZED && refused.is_none() && token.is_some() {
                refused = token;
                continue;
            }
            let verdict = Verdict::of(head.status, &head.headers, SystemTime::now());
            return Ok(Answered { verdict, told: format!("it answered {}", head.status) });
        }
    }

    fn overloaded_until(&self) -> Option<Instant> {
        let until = self.overloaded().map(|(until, _)| until);
        until.filter(|until| *until > Instant::now())
    }

    fn note(&self, config: &WebhookConfig, verdict: Verdict) {
        let mut overloaded = self.overloaded();
        match verdict {
            Verdict::Again { after, is_overloaded: true } => {
                let times = overloaded.map_or(1, |(_, times)| times.saturating_add(1));
                let asked = after.unwrap_or_default().min(config.retry.most);
                let pause = config.retry.pause(times, None, random()).min(OVERLOADED_MOST);
                *overloaded = Some((Instant::now() + pause.max(asked), times));
            }
            Verdict::Delivered => *overloaded = None,
            _ => {}
        }
    }

    fn overloaded(&self) -> MutexGuard<'_, Option<(Instant, u32)>> {
        self.overloaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Bytes of an answer that are read, for its connection to be used again.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long a receiver that does not say for how long is left alone: other requests than those that it
/// answered so may fare better by then.
const OVERLOADED_MOST: Duration = Duration::from_secs(60);
