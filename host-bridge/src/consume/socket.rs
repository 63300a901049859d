//! A feed over a WebSocket, as JSON or as bare values: records as they come, what clients acknowledge,
//! refuse and write, and how it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::asked::Protocol;
use self::frames::{Command, Fault, Frame, Place, Produce};
use self::produce::{Done, Producing};
use self::records::{Records, Window};
use self::several::Several;
use super::acks::{Acks, Unsent};
use super::connections::Connection;
use super::cursor::Cursor;
use super::envelope::Shape;
use super::feed_metrics::Lag;
use super::feeds::Entrypoint;
use super::follow::{Follower, Portion};
use super::groups::{News, Share};
use super::refusal::{Code, Refusal, close_code};
use super::start::GapReason;
use super::steps::Sent;
use super::timer::Timer;
use crate::limits::{FEED_AT_RISK, FEED_LAG_REPORTED, FEED_QUEUE_BYTES};
use crate::websocket::{Gone, Kind, Received, Socket, write_head};

pub(crate) use self::asked::Asked;
pub(crate) use self::produce::Writer;

mod asked;
mod frames;
mod nack;
mod produce;
mod records;
mod several;
mod sharing;

/// A client, and what it is sent.
pub(crate) struct Conversation {
    socket: Socket,
    follower: Follower,
    /// Of a group, and where it was in what it gives up of that.
    share: Option<Box<Share>>,
    leaving: Cursor,
    /// Where it was in the others then.
    stayed_at: Cursor,
    asked: Asked,
    /// What may be unacknowledged; without it there is no bound but the connection's.
    window: Option<Window>,
    acks: Acks,
    /// When an acknowledgement is due.
    ack_due: Option<Instant>,
    producing: Producing,
    nacks: Several<Nacked>,
    is_paused: bool,
    /// Moves of the cursor when it was last sent, and when it is to be sent again.
    sent_moves: u64,
    position_at: Instant,
    /// When what the gateway said of the client holds no longer.
    expires_at: Option<Instant>,
    /// The process is to end. Kept: to wait anew for each event is a lock that all share.
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Timer,
    connection: Connection,
    lag: Lag,
    lag_at: Instant,
}

type Nacked = (Place, Result<(), Refusal>);

/// What happens next.
enum Event {
    Found(Result<Found, Refusal>),
    News(Result<News, Refusal>),
    Received(Option<Received>),
    Produced(Done),
    Nacked(Nacked),
    Ending,
    /// It may be time for something.
    Time,
}

/// What there is for a client.
enum Found {
    Portions(Vec<Portion>),
    /// What another one who was there was sent.
    Shared(Sent),
}

/// Why a client is not obeyed.
enum Trouble {
    Fault(Fault),
    End(End),
}

/// Why a conversation ends.
enum End {
    Gone(Gone),
    Refused(Refusal),
    /// A record of a client that is sent nothing else was not written.
    NotWritten(u16),
    /// Bytes where JSON is spoken.
    Binary,
    Shutdown,
}

impl From<Gone> for End {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<End> for Trouble {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Fault(Fault { refusal, reference: None })
    }
}

impl From<Unsent> for Trouble {
    fn from(unsent: Unsent) -> Self {
        Code::InvalidParameter.because(unsent.to_string()).into()
    }
}

impl Conversation {
    pub(crate) fn new(
        (socket, connection): (Socket, Connection),
        (follower, share): (Follower, Option<Share>),
        asked: Asked,
        (writer, may_write): (Option<Writer>, Vec<String>),
        shutdown: CancellationToken,
    ) -> Self {
        let of_feed = &follower.reader.feed.conversation;
        let window = asked.acks.then(|| Window::new(of_feed.max_unacked));
        let producing = Producing::new(writer, of_feed.produce.clone(), may_write);
        let (lag, now) = (connection.metrics.lag(), Instant::now());
        Self {
            socket,
            follower,
            share: share.map(Box::new),
            leaving: Cursor::default(),
            stayed_at: Cursor::default(),
            asked,
            window,
            acks: Acks::default(),
            ack_due: None,
            producing,
            nacks: Several::default(),
            is_paused: false,
            sent_moves: 0,
            position_at: now,
            expires_at: None,
            ending: Box::pin(shutdown.cancelled_owned()),
            timer: Timer::default(),
            connection,
            lag,
            lag_at: now,
        }
    }

    /// Goes on until the client leaves or has to, for so long at most.
    pub(crate) async fn serve(mut self: Box<Self>, expires_in: Option<Duration>) {
        self.expires_at = expires_in.and_then(|left| Instant::now().checked_add(left));
        if let Err(end) = self.go_on().await {
            Box::pin(self.end(end)).await;
        }
    }

    /// What is rare is boxed: a client that waits would have room for all of it.
    async fn go_on(&mut self) -> Result<(), End> {
        Box::pin(self.welcome()).await?;
        loop {
            self.has_sent();
            match self.next().await {
                Event::Found(found) => match found? {
                    Found::Portions(portions) => Box::pin(self.send_found(portions)).await?,
                    Found::Shared(sent) => self.send_shared(sent).await?,
                },
                Event::News(news) => Box::pin(self.change(news?)).await?,
                Event::Received(None) => return Ok(()),
                Event::Received(Some(received)) => Box::pin(self.hear(received)).await?,
                Event::Produced(done) => Box::pin(self.tell_outcome(&done)).await?,
                Event::Nacked(nacked) => Box::pin(self.has_nacked(nacked)).await?,
                Event::Ending => return Err(End::Shutdown),
                Event::Time => {}
            }
            let now = Instant::now();
            if self.expires_at.is_some_and(|at| at <= now) {
                let message = "what the gateway knows of the reader has expired";
                return Err(End::Refused(Code::AuthExpired.because(message)));
            }
            if self.ack_due.is_some_and(|at| at <= now) {
                let message = format!("{} records are not acknowledged", self.acks.records());
                return Err(End::Refused(Code::AckTimeout.because(message)));
            }
            if now >= self.lag_at {
                self.lag_at = now + FEED_LAG_REPORTED;
                self.lag.set(self.follower.lag());
            }
        }
    }

    async fn next(&mut self) -> Event {
        let wants_records = !self.is_paused && self.room() != Some(0);
        // The socket is not read while as many records as may be are in flight.
        let hears = self.producing.has_room() && self.nacks.len() < NACKS_MAX;
        let due = self.ack_due.into_iter().chain(self.expires_at).min();
        let until = due.map_or(self.position_at, |due| due.min(self.position_at));
        let shared = self.is_shared().then_some(self.asked.shape);
        let Self { socket, follower, share, producing, nacks, ending, timer, .. } = self;
        tokio::select! {
            news = sharing::news(share) => Event::News(news),
            found = look(follower, shared, until), if wants_records => Event::Found(found),
            received = socket.receive(), if hears => Event::Received(received),
            done = producing.next() => Event::Produced(done),
            Some(nacked) = nacks.next() => Event::Nacked(nacked),
            () = ending.as_mut() => Event::Ending,
            () = timer.wait(due.unwrap_or(until)), if due.is_some() => Event::Time,
        }
    }

    /// Whether it is sent what others are sent at the same place.
    fn is_shared(&self) -> bool {
        let Asked { protocol, batch, acks, .. } = self.asked;
        protocol == Protocol::Json && batch == 1 && !acks
    }

    /// How many records the client may be sent, if there is a bound.
    fn room(&self) -> Option<usize> {
        self.window.map(|window| window.room(&self.acks))
    }

    async fn welcome(&mut self) -> Result<(), End> {
        // What is sent at the start comes before the position behind it.
        self.tell_gaps().await?;
        self.has_sent_position();
        let frame = framed(&Frame::Welcome {
            cursor: self.id(),
            max_unacked: self.window.map(|window| window.records),
            max_unacked_bytes: self.window.map(|window| window.bytes),
            batch: self.asked.batch,
        });
        self.tell(frame).await
    }

    async fn send_found(&mut self, portions: Vec<Portion>) -> Result<(), End> {
        self.tell_gaps().await?;
        match portions.is_empty() {
            false => self.send_records(portions).await,
            true => self.tell_position().await,
        }
    }

    /// Now and then, if it has moved without records.
    async fn tell_position(&mut self) -> Result<(), End> {
        if Instant::now() >= self.position_at {
            let has_moved = self.follower.moves() != self.sent_moves;
            self.has_sent_position();
            self.settle();
            if let Some(id) = self.id().filter(|_| has_moved) {
                let frame = framed(&Frame::Position { id });
                return self.tell(frame).await;
            }
        }
        Ok(())
    }

    async fn send_records(&mut self, portions: Vec<Portion>) -> Result<(), End> {
        let reader = Arc::clone(&self.follower.reader);
        let mut records = Records::new(&reader, self.asked);
        let from = self.is_shared().then(|| self.follower.here(self.asked.shape));
        let (window, acks) = (self.window, &mut self.acks);
        let share = self.share.as_ref().filter(|share| share.is_committed_before());
        let mut left = if share.is_some() { FEED_AT_RISK } else { usize::MAX };
        let taken = self.follower.take(portions, |taken| {
            let bytes = records.write(&taken);
            let stored = taken.segment.records.get(taken.index);
            if let (Some(_), Some(stored)) = (window, stored) {
                let at = (stored.record.offset, stored.epoch());
                acks.send(taken.topic, taken.partition, at, bytes);
            }
            left -= 1;
            let is_full = left == 0 || window.is_some_and(|window| window.room(acks) == 0);
            is_full || records.bytes() >= FEED_QUEUE_BYTES
        });
        let (frames, records, moves) = records.finish();
        if let Some(share) = share.filter(|_| records > 0) {
            share.commit(&self.follower.cursor()).await?;
        }
        self.connection.metrics.by(Entrypoint::Websocket).records.inc_by(records);
        // What was filtered out behind the last record is sent as a `position` later, to each by itself.
        let is_sent = moves == Some(self.follower.moves());
        if let Some(from) = from.filter(|_| taken.is_ok() && (is_sent || records == 0)) {
            self.follower.tell_others(&from, Sent { parts: frames.clone().into(), records });
        }
        if frames.is_empty() {
            // All were filtered out, and there may be many more: others have their turn.
            yield_now().await;
        } else {
            if is_sent {
                self.sent_moves = self.follower.moves();
            }
            self.position_at = Instant::now() + POSITION_INTERVAL;
            if self.acks.records() > 0 {
                let due = Instant::now() + self.ack_timeout();
                self.ack_due.get_or_insert(due);
            }
            self.send(&frames).await?;
        }
        Ok(taken?)
    }

    async fn send_shared(&mut self, Sent { parts, records }: Sent) -> Result<(), End> {
        if parts.is_empty() {
            return self.tell_position().await;
        }
        self.connection.metrics.by(Entrypoint::Websocket).records.inc_by(records);
        self.has_sent_position();
        self.send(&parts).await
    }

    /// Gaps that were not sent. The last has the position behind all of them: who is cut off before
    /// hears of them again. Where values are sent alone they are counted, and not sent.
    async fn tell_gaps(&mut self) -> Result<(), End> {
        let gaps = self.follower.take_gaps();
        if let Some(share) = &self.share {
            share.hear(&gaps);
        }
        for (index, gap) in gaps.iter().enumerate() {
            // Of a former topic nothing is owed.
            let to = gap.to.filter(|_| gap.reason != GapReason::Recreated);
            self.acks.go_on_from(&gap.topic, gap.partition, to);
            let id = self.id().filter(|_| index + 1 == gaps.len());
            let frame = framed(&Frame::Gap { gap, id });
            self.tell(frame).await?;
        }
        if !gaps.is_empty() {
            self.ack_due = self.ack_due.filter(|_| self.acks.records() > 0);
            self.has_sent_position();
        }
        Ok(())
    }

    async fn hear(&mut self, received: Received) -> Result<(), End> {
        match (self.asked.protocol, received) {
            (Protocol::Json, Received::Text(text)) => match self.obey(&text).await {
                Err(Trouble::Fault(Fault { refusal, reference })) => {
                    let Refusal { code, message } = &refusal;
                    let (error, r#ref) = (code.name(), reference.as_deref());
                    self.tell(framed(&Frame::Error { error, message, r#ref, cursors: None })).await
                }
                Err(Trouble::End(end)) => Err(end),
                Ok(()) => Ok(()),
            },
            (Protocol::Json, Received::Binary(_)) => Err(End::Binary),
            (Protocol::Raw, Received::Text(text)) => self.write_value(Some(text.into())),
            // As a record without a value is sent.
            (Protocol::Raw, Received::Binary(bytes)) => {
                self.write_value(Some(bytes).filter(|bytes| !bytes.is_empty()))
            }
        }
    }

    async fn obey(&mut self, text: &str) -> Result<(), Trouble> {
        match Command::parse(text, &self.follower.reader.feed)? {
            Command::Pause => self.is_paused = true,
            Command::Resume => self.is_paused = false,
            Command::Ping(state) => {
                self.tell(framed(&Frame::Pong { state: state.as_deref() })).await?;
            }
            Command::Produce(record) => {
                let reference = record.reference.clone();
                let done = self.write(*record, text.len());
                let done = done.map_err(|refusal| Fault { refusal, reference })?;
                if let Some(done) = done {
                    self.tell_outcome(&done).await?;
                }
            }
            Command::Ack(id) => {
                self.check_acks()?;
                let (acked, now) = (self.with_leaving(Cursor::parse(&id)?), self.cursor());
                let is_more = self.acks.ack(&acked, &now)?;
                self.has_acked(is_more).await?;
            }
            Command::AckUpTo(Place { topic, partition, offset }) => {
                self.check_acks()?;
                let now = self.cursor();
                let is_more = self.acks.ack_up_to(&topic, partition, offset, &now)?;
                self.has_acked(is_more).await?;
            }
            Command::Nack(place, reason) => self.nack(place, reason)?,
        }
        Ok(())
    }

    fn check_acks(&self) -> Result<(), Refusal> {
        match self.window {
            Some(_) => Ok(()),
            None => Err(Code::InvalidParameter
                .because("this connection acknowledges nothing: it has not asked for acks=true")),
        }
    }

    /// What is behind is ignored, as an acknowledgement of it is.
    fn nack(&mut self, place: Place, reason: String) -> Result<(), Trouble> {
        self.check_acks()?;
        let Place { topic, partition, offset } = &place;
        self.acks.check(topic, *partition, *offset, &self.cursor())?;
        if self.follower.reader.feed.selection.dlq_topic.is_none() {
            return Err(Code::InvalidParameter.because("nack: the feed has no dlq_topic").into());
        }
        if self.acks.owes(topic, *partition, *offset) {
            let reader = Arc::clone(&self.follower.reader);
            self.nacks.push(Box::pin(async move {
                let written = nack::dead_letter(&reader, &place, &reason).await;
                (place, written)
            }));
        }
        Ok(())
    }

    async fn has_nacked(&mut self, (place, written): Nacked) -> Result<(), End> {
        let Place { topic, partition, offset } = place;
        match written {
            Ok(()) => {
                self.acks.ack_one(&topic, partition, offset);
                self.has_acked(true).await
            }
            Err(Refusal { code, message }) => {
                let error = code.name();
                let frame = Frame::Error { error, message: &message, r#ref: None, cursors: None };
                self.tell(framed(&frame)).await
            }
        }
    }

    async fn has_acked(&mut self, is_more: bool) -> Result<(), End> {
        if !is_more {
            return Ok(());
        }
        self.ack_due = (self.acks.records() > 0).then(|| Instant::now() + self.ack_timeout());
        let settled = self.acks.settled(self.cursor());
        self.settle();
        let feed = &self.follower.reader.feed;
        let id = feed.delivery.has_cursors().then(|| settled.encode(feed.encode_message_id));
        self.tell(framed(&Frame::Acked { id })).await
    }

    /// Takes a record that is to be written; or says what became of it.
    fn write(&mut self, record: Produce, bytes: usize) -> Result<Option<Done>, Refusal> {
        let answers = &self.follower.reader.hub.resources.answers;
        self.producing.push(record, answers.try_hold(bytes))
    }

    fn write_value(&mut self, value: Option<Bytes>) -> Result<(), End> {
        let bytes = value.as_ref().map_or(0, Bytes::len);
        let record = Produce { value: value.map(Vec::from), ..Produce::default() };
        match self.write(record, bytes)? {
            None => Ok(()),
            Some(done) => Err(End::NotWritten(done.status())),
        }
    }

    async fn tell_outcome(&mut self, done: &Done) -> Result<(), End> {
        match done.frame() {
            Some(frame) => self.tell(framed(&frame)).await,
            None if done.status() == 200 => Ok(()),
            None => Err(End::NotWritten(done.status())),
        }
    }

    fn ack_timeout(&self) -> Duration {
        self.follower.reader.feed.conversation.ack_timeout
    }

    /// Sends a frame of JSON to who speaks it.
    async fn tell(&mut self, frame: Bytes) -> Result<(), End> {
        match self.asked.protocol {
            Protocol::Json => self.send(&[frame]).await,
            Protocol::Raw => Ok(()),
        }
    }

    async fn send(&mut self, frames: &[Bytes]) -> Result<(), End> {
        let bytes = frames.iter().map(Bytes::len).sum::<usize>();
        self.connection.metrics.by(Entrypoint::Websocket).bytes.inc_by(bytes as u64);
        Ok(self.socket.send(frames).await?)
    }

    /// Outcomes of what is being written come first.
    async fn end(mut self, end: End) {
        if let End::Gone(gone) = end {
            let slow = &self.connection.metrics.by(Entrypoint::Websocket).slow_closes;
            slow.inc_by(u64::from(gone == Gone::Slow));
            return;
        }
        let telling = async {
            while self.producing.in_flight() > 0 {
                let done = self.producing.next().await;
                self.tell_outcome(&done).await?;
            }
            Ok(())
        };
        if let Ok(Err(End::Gone(_))) = timeout(OUTCOMES_TIMEOUT, telling).await {
            return;
        }
        let (code, reason) = match &end {
            End::Gone(_) => return,
            End::Shutdown => (1012, SHUTDOWN),
            End::Binary => (1003, "JSON is text"),
            End::NotWritten(status) => (close_code(*status), "not_written"),
            End::Refused(refusal) => (refusal.code.close(), refusal.code.name()),
        };
        let sent = match &end {
            End::Refused(refusal) if refusal.code != Code::AuthExpired => {
                let cursors = match refusal.code {
                    Code::OffsetOutOfRange => Some(self.follower.reader.both_ends().await),
                    _ => None,
                };
                let (error, message) = (refusal.code.name(), &*refusal.message);
                self.tell(framed(&Frame::Error { error, message, r#ref: None, cursors })).await
            }
            End::Shutdown | End::Refused(_) => self.tell(framed(&Frame::Goaway { reason })).await,
            _ => Ok(()),
        };
        if sent.is_ok() {
            self.socket.close(code, reason).await;
        }
    }
}

/// Records at the positions, as soon as there are any; none once there is something to tell, or at a
/// time, or now and then before. With a shape it does as others do.
async fn look(
    follower: &mut Follower,
    shared: Option<Shape>,
    until: Instant,
) -> Result<Found, Refusal> {
    let resources = &follower.reader.hub.resources;
    if resources.is_spent() {
        let resources = Arc::clone(resources);
        let room = resources.memory.wait_for(FEED_QUEUE_BYTES, || resources.shrink());
        let _in_time = timeout_at(until, room).await;
        return Ok(Found::Portions(Vec::new()));
    }
    if let Some(shape) = shared
        && let Some(sent) = follower.as_others(shape, until).await?
    {
        return Ok(Found::Shared(sent));
    }
    if let Some(refusal) = follower.held_up() {
        return Err(refusal);
    }
    let portions = follower.look_and_wait(until, Duration::ZERO).await?;
    Ok(Found::Portions(portions.unwrap_or_default()))
}

fn framed(frame: &Frame<'_>) -> Bytes {
    // There is nothing in it that JSON cannot have.
    let json = serde_json::to_vec(frame).unwrap_or_default();
    let mut framed = Vec::with_capacity(HEAD_BYTES + json.len());
    write_head(&mut framed, Kind::Text, json.len());
    framed.extend_from_slice(&json);
    framed.into()
}

const SHUTDOWN: &str = "shutdown";
/// How often a `position` is sent where it moves without records.
const POSITION_INTERVAL: Duration = Duration::from_secs(5);
/// Records that are being written to the dead-letter topic: with more the socket is not read.
const NACKS_MAX: usize = 64;
/// How long outcomes of records may take when the conversation ends.
const OUTCOMES_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes before a message at most.
const HEAD_BYTES: usize = 10;

#[cfg(test)]
mod tests;
