//! PLAIN (RFC 4616): user name and password as they are.

use super::exchange::{Exchange, Flaw, NextMessage};
use crate::secret::Secret;

pub(super) struct Plain {
    user: String,
    password: Secret,
}

impl Plain {
    pub(super) fn new(user: String, password: Secret) -> Self {
        Self { user, password }
    }
}

impl Exchange for Plain {
    /// Without an authorization id: the user acts for itself.
    fn first(&mut self) -> Vec<u8> {
        format!("\0{}\0{}", self.user, self.password.expose()).into_bytes()
    }

    fn told(&self) -> &[Secret] {
        std::slice::from_ref(&self.password)
    }

    /// Whatever it says beside its yes has no meaning.
    fn on_answer(&mut self, _answer: &[u8]) -> Result<NextMessage, Flaw> {
        Ok(NextMessage::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_that_of_rfc_4616() {
        let mut plain = Plain::new("tim".into(), Secret::new("tanstaaftanstaaf"));
        assert_eq!(plain.first(), b"\0tim\0tanstaaftanstaaf");
        assert_eq!(plain.on_answer(b""), Ok(NextMessage::Done));
    }
}
