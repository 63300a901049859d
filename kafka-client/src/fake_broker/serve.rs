//! One connection to a fake broker: requests in, answers out, and what goes wrong between.

use std::future::pending;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest, RequestHeader,
    SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::answers::{self, encode};
use super::faults::{Fault, Trace};
use super::produce::Produce;
use super::sasl::Session;
use super::state::State;
use super::{
    API_VERSIONS, FakeCluster, INIT_PRODUCER_ID, METADATA, PRODUCE, SASL_AUTHENTICATE,
    SASL_HANDSHAKE,
};

/// One request, and what is to go wrong with it.
struct Request {
    api: i16,
    version: i16,
    correlation: i32,
    frame: Bytes,
    fault: Option<Fault>,
}

/// What follows from a request.
enum Reply {
    Answer(BytesMut),
    /// acks 0.
    Nothing,
    Close,
}

/// Bytes of the length in front of a request.
const LENGTH_BYTES: usize = 4;
/// Bytes of API key, version and correlation id.
const HEAD_BYTES: usize = 8;
/// Largest request, bytes (`socket.request.max.bytes`).
const REQUEST_BYTES: usize = 100 * 1024 * 1024;

const UNSUPPORTED_VERSION: i16 = 35;

impl FakeCluster {
    /// Serves a stream until either side closes it, or the broker goes down.
    pub(crate) fn take<S>(&self, broker: i32, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(running) = self.state.lock().running(broker) else { return };
        let cluster = self.clone();
        cluster.state.lock().connections += 1;
        tokio::spawn(async move {
            running.run_until_cancelled(cluster.serve(broker, stream)).await;
            cluster.state.lock().connections -= 1;
        });
    }

    /// `None` is a closed connection.
    async fn serve<S>(&self, broker: i32, mut stream: S) -> Option<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut heard = BytesMut::new();
        let mut session = Session::default();
        loop {
            let request = self.read(&mut stream, &mut heard).await?;
            let fault = request.fault.clone();
            match fault {
                Some(Fault::CloseBefore) => {
                    drop_batches(&mut self.state.lock(), broker, &request);
                    return None;
                }
                Some(Fault::SlowStart(pause)) => sleep(pause).await,
                _ => {}
            }
            let reply = execute(&mut self.state.lock(), broker, &request, &mut session);
            let answer = match reply {
                Reply::Answer(answer) => answer,
                Reply::Nothing => continue,
                Reply::Close => return None,
            };
            match fault {
                Some(Fault::CloseAfter) => return None,
                Some(Fault::NoAnswer) => pending().await,
                Some(Fault::SlowAnswer(pause)) => sleep(pause).await,
                _ => {}
            }
            let bytes = self.frame(answer, fault.as_ref());
            if fault == Some(Fault::CutAnswer) {
                stream.write_all(bytes.get(..bytes.len() / 2)?).await.ok()?;
                return None;
            }
            stream.write_all(&bytes).await.ok()?;
            if let Some(Fault::Throttle(pause)) = fault {
                self.rest(broker, &mut stream, &mut heard, pause, request.tells_pause()).await;
            }
        }
    }

    /// Takes the next request from what was `heard`, reading as much as it needs.
    async fn read<S>(&self, stream: &mut S, heard: &mut BytesMut) -> Option<Request>
    where
        S: AsyncRead + Unpin,
    {
        fill(stream, heard, LENGTH_BYTES).await?;
        let length = usize::try_from(heard.get_i32()).ok()?;
        if !(HEAD_BYTES..=REQUEST_BYTES).contains(&length) {
            return None;
        }
        fill(stream, heard, HEAD_BYTES).await?;
        let mut head = heard.get(..HEAD_BYTES)?;
        let (api, version, correlation) = (head.get_i16(), head.get_i16(), head.get_i32());
        let fault = self.state.lock().strike(api);
        match fault {
            Some(Fault::HalfOpen) => pending().await,
            Some(Fault::CutRequest) => {
                fill(stream, heard, HEAD_BYTES + (length - HEAD_BYTES) / 2).await?;
                return None;
            }
            _ => {}
        }
        fill(stream, heard, length).await?;
        let frame = heard.split_to(length).freeze();
        Some(Request { api, version, correlation, frame, fault })
    }

    /// Works on nothing for as long as the client was told to pause, and counts what it sends all
    /// the same. What was under way when it was told comes at once.
    async fn rest<S>(
        &self,
        broker: i32,
        stream: &mut S,
        heard: &mut BytesMut,
        pause: Duration,
        is_told: bool,
    ) where
        S: AsyncRead + Unpin,
    {
        let (since, until) = (Instant::now(), Instant::now() + pause);
        while let Ok(Ok(1..)) = timeout_at(until, stream.read_buf(heard)).await {
            let now = Instant::now();
            if is_told && since < now && now < until {
                self.state.lock().impatient.push(broker);
            }
        }
        // Hanging up does not shorten it: what was heard is still worked on.
        sleep_until(until).await;
    }

    /// The bytes of an answer with its length, right or wrong.
    fn frame(&self, mut answer: BytesMut, fault: Option<&Fault>) -> BytesMut {
        match fault {
            Some(Fault::WrongCorrelation) => {
                if let Some(last) = answer.get_mut(3) {
                    *last = last.wrapping_add(1);
                }
            }
            Some(Fault::ShortBody) => answer.truncate((answer.len() / 2).max(4)),
            Some(Fault::Garbage) => {
                let dice = &mut self.state.lock().dice;
                let noise = |byte: &mut u8| *byte = u8::try_from(dice.between(0, 255)).unwrap_or(0);
                answer.iter_mut().skip(4).for_each(noise);
            }
            _ => {}
        }
        let length = match fault {
            Some(Fault::NegativeLength) => -1,
            Some(Fault::HugeLength) => i32::MAX,
            _ => i32::try_from(answer.len()).unwrap_or(i32::MAX),
        };
        let mut bytes = BytesMut::with_capacity(answer.len() + 4);
        bytes.put_i32(length);
        bytes.put_slice(&answer);
        bytes
    }
}

impl Request {
    /// Whether the answer has a place for `throttle_time_ms`.
    fn tells_pause(&self) -> bool {
        self.api != API_VERSIONS || self.version >= 1
    }
}

/// Reads until so many bytes are heard, and no more. `None` is a closed connection.
async fn fill<S>(stream: &mut S, heard: &mut BytesMut, length: usize) -> Option<()>
where
    S: AsyncRead + Unpin,
{
    while let Some(missing) = length.checked_sub(heard.len()).filter(|missing| *missing > 0) {
        let read = (&mut *stream).take(missing as u64).read_buf(heard).await;
        read.ok().filter(|read| *read > 0)?;
    }
    Some(())
}

/// Executes a request. What does not decode closes the connection, as at a real broker.
fn execute(state: &mut State, broker: i32, request: &Request, session: &mut Session) -> Reply {
    let Request { api, version, correlation, fault, .. } = request;
    let now = Instant::now();
    if !session.admits(state.settings.sasl.as_ref(), *api, now) {
        return Reply::Close;
    }
    if !state.executes(broker, *api, *version) {
        if *api != API_VERSIONS {
            return Reply::Close;
        }
        let response = answers::api_versions(state, broker, UNSUPPORTED_VERSION);
        return encode(&response, 0, *correlation).map_or(Reply::Close, Reply::Answer);
    }
    if *api == PRODUCE {
        return produce(state, broker, request).unwrap_or(Reply::Close);
    }
    let code = match fault {
        Some(Fault::Refuse { code, trace: Trace::Nothing }) => *code,
        _ => 0,
    };
    let pause = throttle(fault.as_ref());
    let answer = match *api {
        API_VERSIONS => body::<ApiVersionsRequest>(request).and_then(|_| {
            let mut response = answers::api_versions(state, broker, code);
            response.throttle_time_ms = if request.tells_pause() { pause } else { 0 };
            encode(&response, *version, *correlation)
        }),
        METADATA => body::<MetadataRequest>(request).and_then(|asked| {
            let mut response = answers::metadata(state, broker, &asked, *version, code);
            response.throttle_time_ms = if *version >= 3 { pause } else { 0 };
            encode(&response, *version, *correlation)
        }),
        INIT_PRODUCER_ID => body::<InitProducerIdRequest>(request).and_then(|asked| {
            let mut response = answers::init_producer_id(state, &asked, code);
            response.throttle_time_ms = pause;
            encode(&response, *version, *correlation)
        }),
        SASL_HANDSHAKE => body::<SaslHandshakeRequest>(request).and_then(|asked| {
            let response = session.handshake(state.settings.sasl.as_ref(), &asked, now);
            encode(&response, *version, *correlation)
        }),
        SASL_AUTHENTICATE => body::<SaslAuthenticateRequest>(request).and_then(|asked| {
            let sasl = state.settings.sasl.as_ref()?;
            let response = session.authenticate(sasl, &asked, *version, now)?;
            encode(&response, *version, *correlation)
        }),
        _ => None,
    };
    answer.map_or(Reply::Close, Reply::Answer)
}

fn produce(state: &mut State, broker: i32, request: &Request) -> Option<Reply> {
    let asked = body::<ProduceRequest>(request)?;
    let (version, fault) = (request.version, request.fault.as_ref());
    let mut response = Produce { state, broker, version, fault }.execute(&asked);
    response.throttle_time_ms = throttle(fault);
    if asked.acks != 0 {
        return encode(&response, version, request.correlation).map(Reply::Answer);
    }
    // Without an answer, closing is the only way to tell of a refusal.
    let mut answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    let closes = matches!(fault, Some(Fault::CloseAfter | Fault::CutAnswer));
    let refused = answers.any(|answer| answer.error_code != 0);
    Some(if closes || refused { Reply::Close } else { Reply::Nothing })
}

/// What was on the wire is recorded even if nobody executes it.
fn drop_batches(state: &mut State, broker: i32, request: &Request) {
    if request.api == PRODUCE && state.executes(broker, PRODUCE, request.version) {
        let (version, fault) = (request.version, request.fault.as_ref());
        let asked = body::<ProduceRequest>(request).unwrap_or_default();
        Produce { state, broker, version, fault }.execute(&asked);
    }
}

fn body<R: Decodable + HeaderVersion>(request: &Request) -> Option<R> {
    let mut frame = request.frame.clone();
    RequestHeader::decode(&mut frame, R::header_version(request.version)).ok()?;
    let body = R::decode(&mut frame, request.version).ok()?;
    frame.is_empty().then_some(body)
}

fn throttle(fault: Option<&Fault>) -> i32 {
    let pause = match fault {
        Some(Fault::Throttle(pause)) => *pause,
        _ => Duration::ZERO,
    };
    i32::try_from(pause.as_millis()).unwrap_or(i32::MAX)
}
