//! SaslAuthenticate: one message of a mechanism, and the broker's answer to it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use kafka_protocol::protocol::Encodable;

use super::{Call, take_message};
use crate::frame::FrameWriter;
use crate::limits::SASL_ANSWER_BYTES;
use crate::shape::FieldKind::{Blob, Fixed, Text};
use crate::shape::{Struct, always, since};
use crate::versions::{Api, SASL_AUTHENTICATE};

/// A message of the mechanism at hand.
pub(crate) struct Prove(pub(crate) Bytes);

impl fmt::Debug for Prove {
    /// It may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What the broker says to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProofAnswer {
    pub(crate) code: i16,
    pub(crate) message: Option<String>,
    pub(crate) bytes: Bytes,
    /// For how long the connection is authenticated; none before version 1 (KIP-368).
    pub(crate) lifetime: Option<Duration>,
}

const ANSWER: Struct = Struct {
    fields: &[always(Fixed(2)), always(Text), always(Blob), since(1, Fixed(8))],
    tagged: &[],
    memory: 0,
};

impl Call for Prove {
    type Answer = ProofAnswer;
    const API: &'static Api = &SASL_AUTHENTICATE;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(self.0.clone());
        request.encode(frame.tail(), version).map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(ProofAnswer, Duration), String> {
        let message: SaslAuthenticateResponse =
            take_message(Self::API, version, &mut body, &ANSWER)?;
        let bytes = message.auth_bytes.len();
        if bytes > SASL_ANSWER_BYTES {
            return Err(format!("{bytes} bytes of SASL are over the limit of {SASL_ANSWER_BYTES}"));
        }
        let lifetime = u64::try_from(message.session_lifetime_ms).unwrap_or(0);
        let answer = ProofAnswer {
            code: message.error_code,
            message: message.error_message.map(|text| text.to_string()),
            bytes: message.auth_bytes,
            lifetime: (lifetime > 0).then(|| Duration::from_millis(lifetime)),
        };
        Ok((answer, Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::calls::answered;
    use crate::calls::{decode, encode};

    fn answer(version: i16, bytes: usize) -> Bytes {
        let response = SaslAuthenticateResponse::default()
            .with_error_code(58)
            .with_error_message(Some(StrBytes::from_static_str("no")))
            .with_auth_bytes(vec![7; bytes].into())
            .with_session_lifetime_ms(if version > 0 { 3000 } else { 0 });
        answered(&SASL_AUTHENTICATE, version, &response)
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in 0..=2 {
            assert!(encode(&Prove(Bytes::from_static(b"x")), version, 1, "me").is_ok());
            let (got, _) = decode(&Prove(Bytes::new()), version, answer(version, 3)).unwrap();
            let lifetime = (version > 0).then(|| Duration::from_secs(3));
            let bytes = vec![7; 3].into();
            let expected = ProofAnswer { code: 58, message: Some("no".into()), bytes, lifetime };
            assert_eq!(got, expected, "v{version}");
        }
    }

    #[test]
    fn a_huge_token_answer_is_cut() {
        assert!(decode(&Prove(Bytes::new()), 2, answer(2, SASL_ANSWER_BYTES)).is_ok());
        assert!(decode(&Prove(Bytes::new()), 2, answer(2, SASL_ANSWER_BYTES + 1)).is_err());
        let huge = Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        assert!(decode(&Prove(Bytes::new()), 1, huge).is_err());
    }
}
