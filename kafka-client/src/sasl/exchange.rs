//! One run of a mechanism, as the mechanisms implement it, and how it fails.

use crate::error::codes;
use crate::limits::{ITERATIONS_LEAST, ITERATIONS_MOST};
use crate::secret::Secret;

/// Why the authentication failed, by its stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SaslFault {
    #[error("no credential for {mechanism}: {cause}")]
    NoCredential { mechanism: &'static str, cause: String },
    #[error(
        "SASL mechanism: this listener has no {mechanism}, it has {offered}; \
         set sasl.mechanism to one that it has"
    )]
    NoSuchMechanism { mechanism: &'static str, offered: String },
    #[error("SASL: this listener does not use SASL; set security.protocol to PLAINTEXT or SSL")]
    NotWanted,
    #[error(
        "SASL credential: refused for {mechanism}, {advice}; the broker says {name} ({code}){message}",
        name = codes::name(*code),
        message = shown(message)
    )]
    Refused { mechanism: &'static str, code: i16, message: Option<String>, advice: String },
    #[error("SASL: the broker's part of {mechanism} is wrong: {flaw}")]
    Flawed { mechanism: &'static str, flaw: Flaw },
}

/// What is wrong with a message of a broker, as a mechanism sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("its message cannot be read")]
    Unreadable,
    #[error("its nonce does not extend ours")]
    Nonce,
    #[error("{0} iterations are not {least} to {most}", least = ITERATIONS_LEAST, most = ITERATIONS_MOST)]
    Iterations(u64),
    #[error("it says `{0}`")]
    Error(String),
    #[error("its signature is wrong: it does not know the password")]
    Signature,
    #[error("it accepted the login before it had proven that it knows the password")]
    TooSoon,
    #[cfg(feature = "gssapi")]
    #[error("{0}")]
    Kerberos(String),
    #[cfg(feature = "gssapi")]
    #[error("it insists on a security layer (it offers {0}); use TLS instead")]
    Layers(u8),
    #[error("more rounds than {0}")]
    Rounds(u32),
    #[error("it sends more after the exchange has ended")]
    Unasked,
}

/// What a mechanism does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextMessage {
    Send(Vec<u8>),
    /// Both sides are content.
    Done,
}

/// One run of a mechanism (pure): the broker's bytes in, ours out.
pub(crate) trait Exchange: Send {
    /// What is said first.
    fn first(&mut self) -> Vec<u8>;

    /// The broker's answer to what was said last, if it did not refuse.
    fn on_answer(&mut self, answer: &[u8]) -> Result<NextMessage, Flaw>;

    /// What the broker said of a refusal that it tells now.
    fn complaint(&self) -> Option<&str> {
        None
    }

    /// What to check when the broker refuses, saying this.
    fn advice(&self, _said: &str) -> String {
        "check sasl.username and sasl.password".to_owned()
    }

    /// What the broker was told and may say again.
    fn told(&self) -> &[Secret] {
        &[]
    }

    /// Whether the next answer may cost more time than an IO task has.
    fn is_laborious(&self) -> bool {
        false
    }
}

fn shown(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(": {message}")).unwrap_or_default()
}
