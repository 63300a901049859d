//! SaslHandshake: which mechanism is to be used, and which there are.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{SaslHandshakeRequest, SaslHandshakeResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::{Fixed, List, Text};
use crate::shape::{Struct, always};
use crate::versions::{Api, SASL_HANDSHAKE};

/// I want to prove who I am by this mechanism.
#[derive(Debug)]
pub(crate) struct ChooseMechanism(pub(crate) &'static str);

/// Whether the broker has the mechanism, and all that it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MechanismsAnswer {
    pub(crate) code: i16,
    pub(crate) mechanisms: Vec<String>,
}

const MECHANISM: Struct = Struct {
    fields: &[always(Text)],
    tagged: &[],
    memory: size_of::<StrBytes>() + size_of::<String>(),
};
const ANSWER: Struct =
    Struct { fields: &[always(Fixed(2)), always(List(&MECHANISM))], tagged: &[], memory: 0 };

impl Call for ChooseMechanism {
    type Answer = MechanismsAnswer;
    const API: &'static Api = &SASL_HANDSHAKE;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let mechanism = StrBytes::from_static_str(self.0);
        let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
        request.encode(frame.tail(), version).map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(MechanismsAnswer, Duration), String> {
        let message: SaslHandshakeResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let mechanisms = message.mechanisms.iter().map(|name| name.to_string()).collect();
        Ok((MechanismsAnswer { code: message.error_code, mechanisms }, Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::calls::answered;
    use crate::calls::{decode, encode};

    #[test]
    fn the_version_of_framed_sasl_encodes_and_is_understood() {
        assert!(encode(&ChooseMechanism("PLAIN"), 1, 1, "me").is_ok());
        let mechanisms = vec![StrBytes::from_static_str("GSSAPI")];
        let response =
            SaslHandshakeResponse::default().with_error_code(33).with_mechanisms(mechanisms);
        let bytes = answered(&SASL_HANDSHAKE, 1, &response);
        let (got, _) = decode(&ChooseMechanism("PLAIN"), 1, bytes).unwrap();
        assert_eq!(got, MechanismsAnswer { code: 33, mechanisms: vec!["GSSAPI".into()] });
    }

    #[test]
    fn a_huge_count_is_an_error() {
        let huge = Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
        assert!(decode(&ChooseMechanism("PLAIN"), 1, huge).is_err());
    }
}
