//! What is said on a fresh connection before it may carry requests: ApiVersions for now.

use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::calls::api_versions::{AskVersions, UNSUPPORTED_VERSION};
use crate::calls::{self, CORRELATION_BYTES};
use crate::error::codes;
use crate::frame::{Decoder, Frame, FrameError};
use crate::limits::HANDSHAKE_FRAME_BYTES;
use crate::tls::{self, TlsError};
use crate::versions::{API_VERSIONS, Versions};

/// Why a fresh connection cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// Some brokers close on a version of ApiVersions that they do not know: worth another try in
    /// version 0.
    #[error("the listener closed the connection at the first request; does security.protocol fit?")]
    ClosedAtHello,
    #[error("{0}")]
    Io(String),
    #[error(transparent)]
    Tls(TlsError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Malformed(String),
    #[error("the broker refused the handshake with {name} ({code})", name = codes::name(*code))]
    Refused { code: i16 },
    #[error("no handshake within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// What the broker said when the handshake was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) versions: Versions,
    /// For how long it wants to be left alone (KIP-219).
    pub(crate) pause: Duration,
}

/// The handshake of one connection (pure): requests out, frames in.
#[derive(Debug)]
pub(crate) struct Handshake {
    client_id: String,
    version: i16,
    correlation: i32,
    outbox: Option<Frame>,
}

impl Handshake {
    /// Starts with ApiVersions in `version`.
    pub(crate) fn new(client_id: &str, version: i16) -> Result<Self, HandshakeError> {
        let client_id = client_id.to_owned();
        let mut handshake = Self { client_id, version, correlation: 0, outbox: None };
        handshake.ask()?;
        Ok(handshake)
    }

    /// What to send next, if anything.
    pub(crate) fn poll_transmit(&mut self) -> Option<Frame> {
        self.outbox.take()
    }

    /// A frame arrived; answers with what the broker said when the handshake is done.
    pub(crate) fn on_frame(&mut self, frame: Bytes) -> Result<Option<Welcome>, HandshakeError> {
        let id = frame.get(..CORRELATION_BYTES).map(|mut id| id.get_i32());
        if id != Some(self.correlation) {
            return Err(HandshakeError::Malformed("an answer to another request".into()));
        }
        let (answer, pause) = calls::decode::<AskVersions>(self.version, frame)
            .map_err(|malformed| HandshakeError::Malformed(malformed.to_string()))?;
        match answer.code {
            0 => Ok(Some(Welcome { versions: answer.versions, pause })),
            UNSUPPORTED_VERSION if self.version > 0 => {
                let common = answer.versions.highest(&API_VERSIONS).unwrap_or(0);
                // A broker that refuses a version and names it again gets the oldest one.
                self.version = if common < self.version { common } else { 0 };
                self.ask()?;
                Ok(None)
            }
            code => Err(HandshakeError::Refused { code }),
        }
    }

    fn ask(&mut self) -> Result<(), HandshakeError> {
        self.correlation += 1;
        let frame = calls::encode(&AskVersions, self.version, self.correlation, &self.client_id)
            .map_err(HandshakeError::Malformed)?;
        self.outbox = Some(frame);
        Ok(())
    }
}

/// Runs the handshake on a stream; gives the bytes read beyond it back in the decoder.
pub(crate) async fn drive<S>(
    stream: &mut S,
    mut handshake: Handshake,
) -> Result<(Welcome, Decoder), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES);
    loop {
        if let Some(frame) = handshake.poll_transmit() {
            write(stream, frame).await?;
        }
        while let Some(frame) = decoder.poll_frame()? {
            if let Some(welcome) = handshake.on_frame(frame)? {
                return Ok((welcome, decoder));
            }
            if let Some(frame) = handshake.poll_transmit() {
                write(stream, frame).await?;
            }
        }
        let read = stream.read_buf(decoder.spare()).await;
        match read {
            Ok(0) => return Err(HandshakeError::ClosedAtHello),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Err(HandshakeError::ClosedAtHello);
            }
            Err(error) => return Err(failure(&error)),
        }
    }
}

fn failure(error: &std::io::Error) -> HandshakeError {
    match (tls::explain(error), error.kind()) {
        (Some(tls), _) => HandshakeError::Tls(tls),
        // TLS without its goodbye.
        (None, std::io::ErrorKind::UnexpectedEof) => HandshakeError::ClosedAtHello,
        (None, _) => HandshakeError::Io(error.to_string()),
    }
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    mut frame: Frame,
) -> Result<(), HandshakeError> {
    while !frame.is_written() {
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        let used = frame.fill(&mut slices);
        let written = stream.write_vectored(slices.get(..used).unwrap_or_default()).await;
        match written {
            Ok(0) => return Err(HandshakeError::ClosedAtHello),
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
        let mut handshake = Handshake::new("me", 4).unwrap();
        assert!(handshake.poll_transmit().is_some());
        let welcome = handshake.on_frame(answer(1, 4, 0, 4)).unwrap().unwrap();
        assert_eq!(welcome.versions.highest(&API_VERSIONS), Ok(4));
    }

    #[test]
    fn an_older_broker_is_asked_again_in_the_version_it_names() {
        let mut handshake = Handshake::new("me", 4).unwrap();
        assert!(handshake.poll_transmit().is_some());
        assert_eq!(handshake.on_frame(answer(1, 0, 35, 2)), Ok(None));
        assert!(handshake.poll_transmit().is_some());
        assert!(handshake.on_frame(answer(2, 2, 0, 2)).unwrap().is_some());
    }

    #[test]
    fn a_broker_that_refuses_what_it_names_gets_version_0_and_then_up() {
        let mut handshake = Handshake::new("me", 4).unwrap();
        assert_eq!(handshake.on_frame(answer(1, 0, 35, 9)), Ok(None));
        assert_eq!(handshake.version, 0);
        let refused = HandshakeError::Refused { code: 35 };
        assert_eq!(handshake.on_frame(answer(2, 0, 35, 9)), Err(refused));
    }

    #[test]
    fn an_answer_to_another_request_is_no_answer() {
        let mut handshake = Handshake::new("me", 4).unwrap();
        assert!(handshake.on_frame(answer(2, 4, 0, 4)).is_err());
    }
}
