//! SaslHandshake and the rounds of SaslAuthenticate, whatever the mechanism (pure).

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::exchange::{Exchange, Flaw, NextMessage, SaslFault};
use crate::calls::sasl_authenticate::ProofAnswer;
use crate::calls::sasl_handshake::MechanismsAnswer;
use crate::error::quotable;

/// One authentication of one connection.
pub(crate) struct Authentication {
    mechanism: &'static str,
    exchange: Box<dyn Exchange>,
    /// When what is proven expires.
    until: Option<Instant>,
    rounds: u32,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Send(Bytes),
    Done(Session),
}

/// For how long a connection is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    /// What the broker grants; it closes what is not authenticated again by then (KIP-368).
    pub(crate) granted: Option<Duration>,
    /// When the credential expires, which an old broker does not say.
    pub(crate) until: Option<Instant>,
}

impl Authentication {
    pub(super) fn new(
        mechanism: &'static str,
        exchange: Box<dyn Exchange>,
        until: Option<Instant>,
    ) -> Self {
        Self { mechanism, exchange, until, rounds: 0 }
    }

    pub(crate) fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// Whether the next answer may cost more time than an IO task has.
    pub(crate) fn is_laborious(&self) -> bool {
        self.exchange.is_laborious()
    }

    /// The answer to SaslHandshake; gives the first proof.
    pub(crate) fn on_mechanisms(
        &mut self,
        mut answer: MechanismsAnswer,
    ) -> Result<Bytes, SaslFault> {
        let mechanism = self.mechanism;
        match answer.code {
            0 => Ok(self.exchange.first().into()),
            UNSUPPORTED_SASL_MECHANISM => {
                answer.mechanisms.sort();
                let offered = match answer.mechanisms.as_slice() {
                    [] => "none".to_owned(),
                    offered => quotable(&offered.join(", ")),
                };
                Err(SaslFault::NoSuchMechanism { mechanism, offered })
            }
            ILLEGAL_SASL_STATE => Err(SaslFault::NotWanted),
            code => {
                let advice = self.exchange.advice("");
                Err(SaslFault::Refused { mechanism, code, message: None, advice })
            }
        }
    }

    /// The answer to SaslAuthenticate.
    pub(crate) fn on_answer(&mut self, answer: ProofAnswer) -> Result<Progress, SaslFault> {
        let mechanism = self.mechanism;
        if answer.code != 0 {
            let said = [self.exchange.complaint(), answer.message.as_deref()];
            let mut said: Vec<_> = said.into_iter().flatten().collect();
            said.dedup();
            let said = said.join(" ");
            let told = self.exchange.told().iter();
            let said = told.fold(said, |said, told| told.hidden_in(&said));
            let message = (!said.is_empty()).then(|| quotable(&said));
            let advice = self.exchange.advice(message.as_deref().unwrap_or_default());
            return Err(SaslFault::Refused { mechanism, code: answer.code, message, advice });
        }
        self.rounds += 1;
        let step = match self.rounds {
            ..=ROUNDS => self.exchange.on_answer(&answer.bytes),
            _ => Err(Flaw::Rounds(ROUNDS)),
        };
        match step.map_err(|flaw| SaslFault::Flawed { mechanism, flaw })? {
            NextMessage::Send(bytes) => Ok(Progress::Send(bytes.into())),
            NextMessage::Done => {
                Ok(Progress::Done(Session { granted: answer.lifetime, until: self.until }))
            }
        }
    }
}

impl fmt::Debug for Authentication {
    /// What the exchange holds is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;
/// Rounds of the longest mechanism, and some.
const ROUNDS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::super::plain::Plain;
    use super::*;
    use crate::secret::Secret;

    fn plain() -> Authentication {
        Authentication::new("PLAIN", Box::new(Plain::new("u".into(), Secret::new("hunter2"))), None)
    }

    fn mechanisms(code: i16, mechanisms: &[&str]) -> MechanismsAnswer {
        MechanismsAnswer { code, mechanisms: mechanisms.iter().map(|m| m.to_string()).collect() }
    }

    fn answer(code: i16, message: Option<&str>) -> ProofAnswer {
        ProofAnswer { code, message: message.map(Into::into), bytes: Bytes::new(), lifetime: None }
    }

    #[test]
    fn a_mechanism_that_the_listener_lacks_is_told_with_those_it_has() {
        let fault =
            plain().on_mechanisms(mechanisms(33, &["GSSAPI", "SCRAM-SHA-512"])).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "SASL mechanism: this listener has no PLAIN, it has GSSAPI, SCRAM-SHA-512; set \
             sasl.mechanism to one that it has"
        );
        let fault = plain().on_mechanisms(mechanisms(34, &[])).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "SASL: this listener does not use SASL; set security.protocol to PLAINTEXT or SSL"
        );
    }

    #[test]
    fn a_refusal_says_what_to_check_and_never_the_secret() {
        let mut plain = plain();
        assert_eq!(plain.on_mechanisms(mechanisms(0, &[])), Ok("\0u\0hunter2".into()));
        let fault =
            plain.on_answer(answer(58, Some("Authentication failed\n: invalid"))).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "SASL credential: refused for PLAIN, check sasl.username and sasl.password; the broker \
             says SASL_AUTHENTICATION_FAILED (58): Authentication failed : invalid"
        );
        assert!(!format!("{plain:?}").contains("hunter2"));
        let echo = plain.on_answer(answer(58, Some("\0u\0hunter2"))).unwrap_err().to_string();
        assert!(echo.ends_with("(58):  u (secret)"), "{echo}");
    }

    #[test]
    fn the_end_says_for_how_long_it_holds() {
        let mut plain = plain();
        let granted = Some(Duration::from_secs(3));
        let done = plain.on_answer(ProofAnswer { lifetime: granted, ..answer(0, None) });
        assert_eq!(done, Ok(Progress::Done(Session { granted, until: None })));
    }

    #[test]
    fn nobody_talks_for_ever() {
        struct Endless;
        impl Exchange for Endless {
            fn first(&mut self) -> Vec<u8> {
                Vec::new()
            }
            fn on_answer(&mut self, _: &[u8]) -> Result<NextMessage, Flaw> {
                Ok(NextMessage::Send(Vec::new()))
            }
        }
        let mut endless = Authentication::new("PLAIN", Box::new(Endless), None);
        let turns: Vec<_> = (0..9).map(|_| endless.on_answer(answer(0, None)).is_ok()).collect();
        assert_eq!(turns, [true, true, true, true, true, true, true, true, false]);
    }
}
