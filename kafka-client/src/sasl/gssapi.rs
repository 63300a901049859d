//! GSSAPI (RFC 4752): a Kerberos context with the broker, without a security layer.

mod acquire;
pub(super) mod worker;

use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext};
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE};

use super::exchange::{Exchange, Flaw, NextMessage};
use super::identity::Kerberos;
use crate::error::quotable;

/// One authentication; its first token is made, so that the KDC has been asked.
pub(super) struct Gssapi {
    context: ClientCtx,
    first: Vec<u8>,
    phase: Phase,
}

/// What the broker says next.
enum Phase {
    /// A token of the context.
    Token,
    /// Which security layers it has.
    Layers,
    /// That we are in.
    Verdict,
}

impl Gssapi {
    /// Blocks: asks the KDC for the ticket of the service, unless the cache has it.
    fn new(
        kerberos: &Kerberos,
        cred: libgssapi::credential::Cred,
        host: &str,
    ) -> Result<Self, String> {
        let target = format!("{}@{host}", kerberos.service);
        let failed = |error| format!("no ticket for the service {target}: {}", explained(error));
        let name = Name::new(target.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE)).map_err(failed)?;
        // The broker proves itself too, as in RFC 4752; integrity is what wraps the last messages.
        let flags = CtxFlags::GSS_C_MUTUAL_FLAG | CtxFlags::GSS_C_INTEG_FLAG;
        let mut context = ClientCtx::new(Some(cred), name, flags, Some(GSS_MECH_KRB5));
        let first = context.step(None, None).map_err(failed)?;
        let first = first.map(|token| token.to_vec()).unwrap_or_default();
        Ok(Self { context, first, phase: Phase::Token })
    }

    /// An empty message asks for the layers when the context needs no more tokens of ours.
    fn on_token(&mut self, token: &[u8]) -> Result<NextMessage, Flaw> {
        let next = self.context.step(Some(token), None).map_err(refused)?;
        if self.context.is_complete() {
            self.phase = Phase::Layers;
        }
        Ok(NextMessage::Send(next.map(|token| token.to_vec()).unwrap_or_default()))
    }

    fn on_layers(&mut self, wrapped: &[u8]) -> Result<NextMessage, Flaw> {
        let offer = self.context.unwrap(wrapped).map_err(refused)?;
        let choice = choose(&offer)?;
        let wrapped = self.context.wrap(false, &choice).map_err(refused)?;
        self.phase = Phase::Verdict;
        Ok(NextMessage::Send(wrapped.to_vec()))
    }
}

impl Exchange for Gssapi {
    fn first(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.first)
    }

    fn on_answer(&mut self, answer: &[u8]) -> Result<NextMessage, Flaw> {
        match self.phase {
            Phase::Token => self.on_token(answer),
            Phase::Layers => self.on_layers(answer),
            Phase::Verdict if answer.is_empty() => Ok(NextMessage::Done),
            Phase::Verdict => Err(Flaw::Unasked),
        }
    }

    fn advice(&self, _said: &str) -> String {
        "check the broker's keytab and both clocks".to_owned()
    }

    /// Ciphers of the C library, which may look into its files.
    fn is_laborious(&self) -> bool {
        true
    }
}

/// A bit for each layer, and the size of what the broker reads with one: we want none, and say no
/// authorization id because the client acts for itself.
fn choose(offer: &[u8]) -> Result<[u8; 4], Flaw> {
    match offer {
        [layers, _, _, _] if layers & NO_LAYER != 0 => Ok([NO_LAYER, 0, 0, 0]),
        [layers, _, _, _] => Err(Flaw::Layers(*layers)),
        _ => Err(Flaw::Unreadable),
    }
}

fn refused(error: Error) -> Flaw {
    Flaw::Kerberos(explained(error))
}

/// What Kerberos says, which stands in brackets behind what GSSAPI says; without it the latter. The
/// C library keeps its texts by thread: this must run in the thread of the call that failed.
fn explained(error: Error) -> String {
    let text = error.to_string();
    quotable(detail(&text).unwrap_or(&text))
}

fn detail(text: &str) -> Option<&str> {
    let (_, detail) = text.split_once(" (")?;
    let detail = detail.trim_end().strip_suffix(')')?;
    // A minor status of 0 has one of these texts.
    (!["", "Success", "Unknown error"].contains(&detail)).then_some(detail)
}

const NO_LAYER: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_layer_is_chosen_if_it_is_offered() {
        assert_eq!(choose(&[1, 0, 0, 0]), Ok([1, 0, 0, 0]));
        assert_eq!(choose(&[7, 0, 255, 255]), Ok([1, 0, 0, 0]));
        assert_eq!(choose(&[6, 0, 255, 255]), Err(Flaw::Layers(6)));
    }

    #[test]
    fn kerberos_own_words_are_shown_if_there_are_any() {
        let skew = "Unspecified GSS failure.  Minor code may provide more information (Clock skew \
            too great (37))";
        assert_eq!(detail(skew), Some("Clock skew too great (37)"));
        for text in ["A token was invalid", "A token was invalid (Success)", "", "a ("] {
            assert_eq!(detail(text), None);
        }
    }

    #[test]
    fn an_offer_of_another_length_is_none() {
        for offer in [&[][..], &[1], &[1, 0, 0], &[1, 0, 0, 0, 0]] {
            assert_eq!(choose(offer), Err(Flaw::Unreadable));
        }
    }
}
