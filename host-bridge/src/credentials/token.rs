//! Tokens of an OAuth 2 endpoint, kept for as long as they are good.

use axum::http::HeaderValue;
use kafka_client::{Credential, Lease};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::sensitive;

/// What gives tokens.
pub(crate) trait Endpoint {
    /// Asks for one.
    ///
    /// # Errors
    /// What it answered instead.
    fn ask(&self) -> impl Future<Output = Result<Lease, String>> + Send;
}

/// The token of a webhook or of a schema registry's client.
pub(crate) struct Token<E> {
    endpoint: E,
    current: Mutex<Option<(HeaderValue, Instant)>>,
}

impl<E: Endpoint> Token<E> {
    pub(crate) fn new(endpoint: E) -> Self {
        Self { endpoint, current: Mutex::default() }
    }

    /// `Authorization`; asked for anew if it is over soon, or is the one that was refused.
    ///
    /// # Errors
    /// The endpoint gives none.
    pub(crate) async fn get(&self, refused: Option<&HeaderValue>) -> Result<HeaderValue, String> {
        let mut current = self.current.lock().await;
        if let Some((token, until)) = &*current
            && *until > Instant::now()
            && Some(token) != refused
        {
            return Ok(token.clone());
        }
        let Lease { credential, lifetime } =
            self.endpoint.ask().await.map_err(|why| format!("oauth2.token_endpoint: {why}"))?;
        let Credential::Token(token) = credential else { return Err("no token".to_owned()) };
        let token = sensitive(format!("Bearer {}", token.expose()));
        let token = token.map_err(|()| "the token is none".to_owned())?;
        // Requests that are under way then must not be refused.
        let until = Instant::now() + lifetime.unwrap_or_default() * 4 / 5;
        *current = Some((token.clone(), until));
        Ok(token)
    }
}
