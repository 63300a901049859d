//! Tokens of an OAuth 2 endpoint, kept for as long as they are good.

use axum::http::HeaderValue;
use kafka_client::{Credential, Lease, OAuthClient};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::credentials::sensitive;
use crate::credentials::oauth::TokenEndpoint;

/// The token of a webhook.
pub(super) struct Token {
    endpoint: TokenEndpoint,
    current: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Token {
    pub(super) fn new(client: &OAuthClient) -> Self {
        Self { endpoint: TokenEndpoint::new(client.clone()), current: Mutex::default() }
    }

    /// `Authorization`; asked for anew if it is over soon, or is the one that was refused.
    ///
    /// # Errors
    /// The endpoint gives none.
    pub(super) async fn get(&self, refused: Option<&HeaderValue>) -> Result<HeaderValue, String> {
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
