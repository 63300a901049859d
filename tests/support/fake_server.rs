//! Servers that a test plays, byte by byte: for what no honest server says.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A listener of loopback; it ends with the runtime.
#[derive(Clone)]
pub struct FakeServer {
    address: SocketAddr,
    met: Arc<AtomicU64>,
}

impl FakeServer {
    /// Plays every connection as `play` says, until that ends. Who is fooled no longer hangs up:
    /// that is no failure.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start<F>(play: impl Fn(TcpStream) -> F + Send + 'static) -> anyhow::Result<Self>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, met) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&met);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Relaxed);
                tokio::spawn(play(stream));
            }
        });
        Ok(Self { address, met })
    }

    /// As [`FakeServer::start`], with a broker that speaks Kafka up to SASL and then says what
    /// `script` makes of the round and of the client's message.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn broker(
        script: impl Fn(usize, &str) -> Say + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let script = Arc::new(script);
        Self::start(move |stream| authenticate(stream, Arc::clone(&script))).await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken.
    #[must_use]
    pub fn met(&self) -> u64 {
        self.met.load(Relaxed)
    }
}

/// The target of a request by GET.
///
/// # Errors
/// When the client hangs up before.
pub async fn target(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut request).await? > 0, "no whole request");
    }
    let request = String::from_utf8(request)?;
    Ok(request.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// Answers it; the connection is to be closed then. A redirect leads to `/elsewhere`.
///
/// # Errors
/// When the client hangs up before.
pub async fn answer(stream: &mut TcpStream, status: &str, body: &str) -> anyhow::Result<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\nlocation: /elsewhere\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    Ok(stream.write_all(answer.as_bytes()).await?)
}

/// What a broker answers to a message of a mechanism.
pub enum Say {
    /// Goes on with these bytes, and claims success.
    Bytes(Vec<u8>),
    /// Refuses, with a message.
    Refusal(i16, String),
    /// Nothing, ever.
    Nothing,
}

async fn authenticate(
    mut stream: TcpStream,
    script: Arc<impl Fn(usize, &str) -> Say>,
) -> anyhow::Result<()> {
    let mut round = 0;
    loop {
        let request = read(&mut stream).await?;
        let mut answer = request.correlation.to_be_bytes().to_vec();
        match request.api {
            API_VERSIONS => answer.extend(versions(request.version >= 3)),
            SASL_HANDSHAKE => answer.extend([0, 0, 0, 0, 0, 0]),
            _ => {
                let message = request.body.get(4..).unwrap_or_default();
                let said = script(round, &String::from_utf8_lossy(message));
                round += 1;
                match said {
                    Say::Nothing => std::future::pending().await,
                    Say::Bytes(bytes) => {
                        answer.extend([0, 0, 0xff, 0xff]);
                        answer.extend(u32::try_from(bytes.len())?.to_be_bytes());
                        answer.extend(bytes);
                    }
                    Say::Refusal(code, message) => {
                        answer.extend(code.to_be_bytes());
                        answer.extend(u16::try_from(message.len())?.to_be_bytes());
                        answer.extend(message.into_bytes());
                        answer.extend([0; 4]);
                    }
                }
                // No limit of the session.
                answer.extend([0; 8]);
            }
        }
        stream.write_all(&u32::try_from(answer.len())?.to_be_bytes()).await?;
        stream.write_all(&answer).await?;
    }
}

/// A request of the versions that [`versions`] offers.
struct Request {
    api: i16,
    version: i16,
    correlation: i32,
    body: Vec<u8>,
}

async fn read(stream: &mut TcpStream) -> anyhow::Result<Request> {
    let length = usize::try_from(stream.read_u32().await?)?;
    ensure!(length < 100_000, "a request of {length} bytes");
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    let mut frame = frame.as_slice();
    let (api, version) = (frame.read_i16().await?, frame.read_i16().await?);
    let (correlation, client) = (frame.read_i32().await?, frame.read_u16().await?);
    let body = frame.get(usize::from(client)..).context("a request without a client id")?;
    Ok(Request { api, version, correlation, body: body.to_vec() })
}

/// ApiVersions itself, SaslHandshake up to version 1 and SaslAuthenticate up to version 1.
fn versions(is_flexible: bool) -> Vec<u8> {
    let mut answer = vec![0, 0];
    answer.extend(if is_flexible { vec![4] } else { vec![0, 0, 0, 3] });
    for (api, most) in [(API_VERSIONS, 4i16), (SASL_HANDSHAKE, 1), (SASL_AUTHENTICATE, 1)] {
        answer.extend([api.to_be_bytes(), [0, 0], most.to_be_bytes()].concat());
        answer.extend(is_flexible.then_some(0));
    }
    answer.extend(is_flexible.then_some([0; 5]).into_iter().flatten());
    answer
}

const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const SASL_AUTHENTICATE: i16 = 36;
