//! What is said on a fresh connection before it may carry requests: ApiVersions, and who we are.

use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use crate::calls::api_versions::{AskVersions, UNSUPPORTED_VERSION};
use crate::calls::sasl_authenticate::Prove;
use crate::calls::sasl_handshake::ChooseMechanism;
use crate::calls::{self, CORRELATION_BYTES, Call};
use crate::error::codes;
use crate::frame::{Decoder, Frame, FrameError};
use crate::limits::{HANDSHAKE_FRAME_BYTES, THROTTLE};
use crate::sasl::{Authentication, Progress, SaslFault, Session};
use crate::tls::{self, TlsError};
use crate::versions::{API_VERSIONS, NoCommonVersion, SASL_AUTHENTICATE, SASL_HANDSHAKE, Versions};

/// Why a fresh connection cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// Some brokers close on a version of ApiVersions that they do not know: worth another try in
    /// version 0.
    #[error("the listener closed the connection at the first request; does security.protocol fit?")]
    ClosedAtHello,
    #[error("the broker closed the connection during the authentication by {0}")]
    ClosedAtLogin(&'static str),
    #[error(
        "the broker closed the connection at the first request; does its listener want SASL \
         (security.protocol=SASL_PLAINTEXT or SASL_SSL)?"
    )]
    ClosedWithoutLogin,
    #[error("the broker closed the connection at the first request")]
    ClosedAtRequest,
    #[error("{0}")]
    Io(String),
    #[error(transparent)]
    Tls(TlsError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Version(#[from] NoCommonVersion),
    #[error("the broker refused the handshake with {name} ({code})", name = codes::name(*code))]
    Refused { code: i16 },
    #[error("{0}")]
    Sasl(#[from] SaslFault),
    #[error("no handshake within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// What the broker said when the handshake was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) versions: Versions,
    /// For how long it wants to be left alone (KIP-219).
    pub(crate) pause: Duration,
    /// For how long it knows who we are, if it asked.
    pub(crate) session: Option<Session>,
}

/// The handshake of one connection (pure): requests out, frames in.
#[derive(Debug)]
pub(crate) struct Handshake {
    client_id: String,
    version: i16,
    correlation: i32,
    outbox: Option<Frame>,
    authentication: Option<Authentication>,
    phase: HandshakePhase,
}

/// Which answer is due, and to what.
#[derive(Debug)]
enum HandshakePhase {
    Versions,
    Mechanisms(Negotiated, ChooseMechanism),
    Proof(Negotiated, Prove),
}

impl Handshake {
    /// Starts with ApiVersions in `version`.
    pub(crate) fn new(
        client_id: &str,
        version: i16,
        authentication: Option<Authentication>,
    ) -> Result<Self, HandshakeError> {
        let mut handshake = Self {
            client_id: client_id.to_owned(),
            version,
            correlation: 0,
            outbox: None,
            authentication,
            phase: HandshakePhase::Versions,
        };
        handshake.ask(&AskVersions, version)?;
        Ok(handshake)
    }

    /// What to send next, if anything.
    pub(crate) fn poll_transmit(&mut self) -> Option<Frame> {
        self.outbox.take()
    }

    /// For how long the broker wants to be left alone before that.
    fn pause(&self) -> Duration {
        match &self.phase {
            HandshakePhase::Mechanisms(negotiated, _) => negotiated.pause.min(THROTTLE),
            HandshakePhase::Versions | HandshakePhase::Proof(..) => Duration::ZERO,
        }
    }

    /// Whether the next frame may cost more time than an IO task has.
    fn is_laborious(&self) -> bool {
        let proves = matches!(self.phase, HandshakePhase::Proof(..));
        proves && self.authentication.as_ref().is_some_and(Authentication::is_laborious)
    }

    fn closed(&self) -> HandshakeError {
        match (&self.phase, &self.authentication) {
            (HandshakePhase::Mechanisms(..) | HandshakePhase::Proof(..), Some(authentication)) => {
                HandshakeError::ClosedAtLogin(authentication.mechanism())
            }
            _ => HandshakeError::ClosedAtHello,
        }
    }

    /// A frame arrived; answers with what the broker said when the handshake is done.
    pub(crate) fn on_frame(&mut self, frame: Bytes) -> Result<Option<Negotiated>, HandshakeError> {
        let id = frame.get(..CORRELATION_BYTES).map(|mut id| id.get_i32());
        if id != Some(self.correlation) {
            return Err(HandshakeError::Malformed("an answer to another request".into()));
        }
        match std::mem::replace(&mut self.phase, HandshakePhase::Versions) {
            HandshakePhase::Versions => self.on_versions(frame),
            HandshakePhase::Mechanisms(negotiated, asked) => {
                self.on_mechanisms(frame, negotiated, &asked)
            }
            HandshakePhase::Proof(negotiated, asked) => self.on_proof(frame, negotiated, &asked),
        }
    }

    fn on_versions(&mut self, frame: Bytes) -> Result<Option<Negotiated>, HandshakeError> {
        let (answer, pause) = decode(&AskVersions, self.version, frame)?;
        match answer.code {
            0 => {
                let negotiated = Negotiated { versions: answer.versions, pause, session: None };
                let Some(authentication) = &self.authentication else {
                    return Ok(Some(negotiated));
                };
                let call = ChooseMechanism(authentication.mechanism());
                self.ask(&call, negotiated.versions.highest(&SASL_HANDSHAKE)?)?;
                self.phase = HandshakePhase::Mechanisms(negotiated, call);
                Ok(None)
            }
            UNSUPPORTED_VERSION if self.version > 0 => {
                let common = answer.versions.highest(&API_VERSIONS).unwrap_or(0);
                // A broker that refuses a version and names it again gets the oldest one.
                let version = if common < self.version { common } else { 0 };
                self.ask(&AskVersions, version)?;
                Ok(None)
            }
            code => Err(HandshakeError::Refused { code }),
        }
    }

    fn on_mechanisms(
        &mut self,
        frame: Bytes,
        negotiated: Negotiated,
        asked: &ChooseMechanism,
    ) -> Result<Option<Negotiated>, HandshakeError> {
        let (answer, _) = decode(asked, self.version, frame)?;
        let Some(authentication) = &mut self.authentication else { return Ok(Some(negotiated)) };
        let first = authentication.on_mechanisms(answer)?;
        let call = Prove(first);
        self.ask(&call, negotiated.versions.highest(&SASL_AUTHENTICATE)?)?;
        // What the broker wanted to be left alone for has passed.
        self.phase =
            HandshakePhase::Proof(Negotiated { pause: Duration::ZERO, ..negotiated }, call);
        Ok(None)
    }

    fn on_proof(
        &mut self,
        frame: Bytes,
        negotiated: Negotiated,
        asked: &Prove,
    ) -> Result<Option<Negotiated>, HandshakeError> {
        let (answer, _) = decode(asked, self.version, frame)?;
        let Some(authentication) = &mut self.authentication else { return Ok(Some(negotiated)) };
        match authentication.on_answer(answer)? {
            Progress::Send(next) => {
                let call = Prove(next);
                self.ask(&call, self.version)?;
                self.phase = HandshakePhase::Proof(negotiated, call);
                Ok(None)
            }
            Progress::Done(session) => {
                Ok(Some(Negotiated { session: Some(session), ..negotiated }))
            }
        }
    }

    fn ask<C: Call>(&mut self, call: &C, version: i16) -> Result<(), HandshakeError> {
        self.version = version;
        self.correlation += 1;
        let frame = calls::encode(call, version, self.correlation, &self.client_id)
            .map_err(HandshakeError::Malformed)?;
        self.outbox = Some(frame);
        Ok(())
    }
}

fn decode<C: Call>(
    call: &C,
    version: i16,
    frame: Bytes,
) -> Result<(C::Answer, Duration), HandshakeError> {
    calls::decode(call, version, frame)
        .map_err(|malformed| HandshakeError::Malformed(malformed.to_string()))
}

/// Runs the handshake on a stream; gives the bytes read beyond it back in the decoder.
pub(crate) async fn drive<S>(
    stream: &mut S,
    mut handshake: Handshake,
) -> Result<(Negotiated, Decoder), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES);
    loop {
        if let Some(frame) = handshake.poll_transmit() {
            let pause = handshake.pause();
            if !pause.is_zero() {
                sleep(pause).await;
            }
            write(stream, frame).await.map_err(|error| error.unwrap_or(handshake.closed()))?;
        }
        if let Some(frame) = decoder.poll_frame()? {
            let (heard, negotiated) = hear(handshake, frame).await?;
            handshake = heard;
            if let Some(negotiated) = negotiated {
                return Ok((negotiated, decoder));
            }
            continue;
        }
        let read = stream.read_buf(decoder.spare()).await;
        match read {
            Ok(0) => return Err(handshake.closed()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Err(handshake.closed());
            }
            Err(error) => return Err(failure(&error).unwrap_or(handshake.closed())),
        }
    }
}

/// Salting a password takes a thread for as long as the broker's number of iterations says.
async fn hear(
    mut handshake: Handshake,
    frame: Bytes,
) -> Result<(Handshake, Option<Negotiated>), HandshakeError> {
    let is_laborious = handshake.is_laborious();
    let work = move || handshake.on_frame(frame).map(|negotiated| (handshake, negotiated));
    if !is_laborious {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(HandshakeError::Io(error.to_string())))
}

/// `None` is a closed connection.
fn failure(error: &std::io::Error) -> Option<HandshakeError> {
    match (tls::explain(error), error.kind()) {
        (Some(tls), _) => Some(HandshakeError::Tls(tls)),
        // TLS without its goodbye.
        (None, std::io::ErrorKind::UnexpectedEof) => None,
        (None, _) => Some(HandshakeError::Io(error.to_string())),
    }
}

/// `None` is a closed connection.
async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    mut frame: Frame,
) -> Result<(), Option<HandshakeError>> {
    while !frame.is_written() {
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        let used = frame.fill(&mut slices);
        let written = stream.write_vectored(slices.get(..used).unwrap_or_default()).await;
        match written {
            Ok(0) => return Err(None),
            Ok(written) => frame.advance(written),
            Err(error) => return Err(failure(&error)),
        };
    }
    // TLS may have kept something back.
    stream.flush().await.map_err(|error| failure(&error))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiVersionsResponse;
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn answer(correlation: i32, version: i16, code: i16, most: i16) -> Bytes {
        let key = ApiVersion::default().with_api_key(18).with_max_version(most);
        let mut bytes = bytes::BytesMut::from(&correlation.to_be_bytes()[..]);
        ApiVersionsResponse::default()
            .with_error_code(code)
            .with_api_keys(vec![key])
            .encode(&mut bytes, version)
            .unwrap();
        bytes.freeze()
    }

    #[test]
    fn a_newer_broker_is_done_after_one_answer() {
        let mut handshake = Handshake::new("me", 4, None).unwrap();
        assert!(handshake.poll_transmit().is_some());
        let negotiated = handshake.on_frame(answer(1, 4, 0, 4)).unwrap().unwrap();
        assert_eq!(negotiated.versions.highest(&API_VERSIONS), Ok(4));
    }

    #[test]
    fn an_older_broker_is_asked_again_in_the_version_it_names() {
        let mut handshake = Handshake::new("me", 4, None).unwrap();
        assert!(handshake.poll_transmit().is_some());
        assert_eq!(handshake.on_frame(answer(1, 0, 35, 2)), Ok(None));
        assert!(handshake.poll_transmit().is_some());
        assert!(handshake.on_frame(answer(2, 2, 0, 2)).unwrap().is_some());
    }

    #[test]
    fn a_broker_that_refuses_what_it_names_gets_version_0_and_then_up() {
        let mut handshake = Handshake::new("me", 4, None).unwrap();
        assert_eq!(handshake.on_frame(answer(1, 0, 35, 9)), Ok(None));
        assert_eq!(handshake.version, 0);
        let refused = HandshakeError::Refused { code: 35 };
        assert_eq!(handshake.on_frame(answer(2, 0, 35, 9)), Err(refused));
    }

    #[test]
    fn an_answer_to_another_request_is_no_answer() {
        let mut handshake = Handshake::new("me", 4, None).unwrap();
        assert!(handshake.on_frame(answer(2, 4, 0, 4)).is_err());
    }
}
