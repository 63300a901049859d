//! One connection to a fake broker: requests in, answers out, and what goes wrong between.

use std::future::pending;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::FetchRequest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::FakeCluster;
use super::answers::encode;
use super::exchange::{BrokerReply, Request, throttle};
use super::execute::{drop_batches, execute};
use super::faults::Fault;
use super::fetch::Fetch;
use super::group_answers;
use super::groups::GroupWaiter;
use super::requests::HEAD_BYTES;
use super::sasl::SaslState;

/// Bytes of the length in front of a request.
const LENGTH_BYTES: usize = 4;
/// Largest request, bytes (`socket.request.max.bytes`).
const REQUEST_BYTES: usize = 100 * 1024 * 1024;

/// How much is read ahead while a Fetch waits, bytes: only to notice that the client hangs up.
const AHEAD_BYTES: usize = 64 * 1024;

/// When to look again at what nothing is known to happen to.
const FAR: Duration = Duration::from_secs(3600);

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
        let mut session = SaslState::default();
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
                BrokerReply::Answer(answer) => answer,
                BrokerReply::Fetch(asked) => {
                    self.fetch(broker, &request, &asked, &mut stream, &mut heard).await?
                }
                BrokerReply::Group(waiter) => {
                    self.gather(&request, &waiter, &mut stream, &mut heard).await?
                }
                BrokerReply::Nothing => continue,
                BrokerReply::Close => return None,
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

    /// Answers a Fetch as soon as there is enough for it, or when its client has waited as long as
    /// it wants to.
    async fn fetch<S>(
        &self,
        broker: i32,
        request: &Request,
        asked: &FetchRequest,
        stream: &mut S,
        heard: &mut BytesMut,
    ) -> Option<BytesMut>
    where
        S: AsyncRead + Unpin,
    {
        let (version, fault) = (request.version, request.fault.as_ref());
        let fetch = Fetch { broker, version, request: asked, fault };
        let until = Instant::now() + fetch.patience();
        let changed = self.state.lock().changed.clone();
        loop {
            // Made before looking, so that what changes behind the look wakes it.
            let change = changed.notified();
            let found = fetch.look(&self.state.lock());
            if !fetch.wants_more(&found) || Instant::now() >= until {
                let mut response = fetch.answer(found);
                response.throttle_time_ms = throttle(fault);
                return encode(&response, version, request.correlation);
            }
            tokio::select! {
                () = change => {}
                () = sleep_until(until) => {}
                () = hung_up(stream, heard) => return None,
            }
        }
    }

    /// Answers a member of a group as soon as the others have come, or have not.
    async fn gather<S>(
        &self,
        request: &Request,
        waiter: &GroupWaiter,
        stream: &mut S,
        heard: &mut BytesMut,
    ) -> Option<BytesMut>
    where
        S: AsyncRead + Unpin,
    {
        let changed = self.state.lock().changed.clone();
        loop {
            // Made before looking, so that what changes behind the look wakes it.
            let change = changed.notified();
            let looked = self.state.lock().look(waiter, Instant::now());
            let due = match looked {
                Ok(reply) => return group_answers::waited(reply, request),
                Err(due) => due.unwrap_or_else(|| Instant::now() + FAR),
            };
            tokio::select! {
                () = change => {}
                () = sleep_until(due) => {}
                () = hung_up(stream, heard) => return None,
            }
        }
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

/// Ends when the client has hung up. What it sends instead is kept, up to a bound.
async fn hung_up<S>(stream: &mut S, heard: &mut BytesMut)
where
    S: AsyncRead + Unpin,
{
    while heard.len() < AHEAD_BYTES {
        if !matches!(stream.read_buf(heard).await, Ok(1..)) {
            return;
        }
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_follows_what_arrives_and_not_what_a_length_promises() {
        let (mut theirs, mut ours) = tokio::io::duplex(1024);
        theirs.write_all(&[7; 1000]).await.unwrap();
        drop(theirs);
        let mut heard = BytesMut::new();
        assert_eq!(fill(&mut ours, &mut heard, REQUEST_BYTES).await, None);
        assert_eq!(heard.len(), 1000);
        assert!(heard.capacity() <= 4096, "{}", heard.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_ahead_is_kept_up_to_a_bound() {
        let (mut theirs, mut ours) = tokio::io::duplex(4 * AHEAD_BYTES);
        theirs.write_all(&[7; 3 * AHEAD_BYTES]).await.unwrap();
        let mut heard = BytesMut::new();
        let waited = timeout_at(Instant::now(), hung_up(&mut ours, &mut heard)).await;
        assert!(waited.is_err(), "it has not hung up");
        assert!((AHEAD_BYTES..=2 * AHEAD_BYTES).contains(&heard.len()), "{}", heard.len());
        let mut heard = BytesMut::new();
        drop(theirs);
        hung_up(&mut tokio::io::empty(), &mut heard).await;
    }
}
