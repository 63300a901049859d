//! A feed as an event stream: records as they come, a sign of life when none do, and how it ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use serde_json::json;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::connections::Connection;
use super::envelope::{Record, Shape};
use super::feed_metrics::Lag;
use super::feeds::Entrypoint;
use super::follow::{Follower, Portion, Taken};
use super::groups::{News, Share};
use super::reader::FeedReader;
use super::refusal::{Code, Refusal};
use super::sse::{self, Notice, Rendered};
use super::steps::Sent;
use super::topic_log::View;
use crate::direct::Direct;
use crate::limits::{FEED_AT_RISK, FEED_LAG_REPORTED, FEED_QUEUE_BYTES, FEED_SHARED_BYTES};

mod broadcast;

/// A reader that is sent events for as long as it stays.
pub(crate) struct EventStream {
    sending: Sending,
    /// The process is to end. Kept: to wait anew for each event would cost more than the event.
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When what the gateway said of the reader holds no longer.
    expires_at: Option<Instant>,
    _connection: Connection,
}

/// What it is sent.
struct Sending {
    follower: Follower,
    /// Of a group's partitions.
    share: Option<Box<Share>>,
    view: View,
    /// Ready to be sent, in order; more is made when it is empty.
    queue: VecDeque<Bytes>,
    heartbeat_at: Instant,
    /// Moves of the cursor when it was last sent.
    sent_moves: u64,
    /// Records of the queue that are not counted.
    records: u64,
    lag: Lag,
    /// When that is to be reported next.
    lag_at: Instant,
    /// Where others may write, unless this is for many.
    direct: Option<Arc<Direct>>,
    has_ended: bool,
    turns: usize,
}

impl EventStream {
    pub(crate) fn new(
        follower: Follower,
        shape: Shape,
        shutdown: CancellationToken,
        connection: Connection,
    ) -> Self {
        let view = View { feed: follower.reader.number, shape };
        let direct = Some(Arc::default());
        let mut sending = Sending::new(follower, view, connection.metrics.lag(), direct);
        // What is sent at the start comes before the position behind it.
        let mut text = sse::retry(random());
        text.push_str(&sending.gaps());
        text.push_str(&sending.id().map(sse::position).unwrap_or_default());
        sending.send(text);
        let ending = Box::pin(shutdown.cancelled_owned());
        Self { sending, ending, expires_at: None, _connection: connection }
    }

    /// Where its connection's stream is to be.
    pub(crate) fn direct(&self) -> Arc<Direct> {
        self.sending.direct.clone().unwrap_or_default()
    }

    /// It has a share of a group, whose partitions come and go.
    pub(crate) fn sharing(mut self, share: Option<Share>) -> Self {
        self.sending.share = share.map(Box::new);
        self
    }

    /// It ends after so long, if that is given.
    pub(crate) fn expiring(self, left: Option<Duration>) -> Self {
        Self { expires_at: left.and_then(|left| Instant::now().checked_add(left)), ..self }
    }

    pub(crate) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut stream| async {
            let next = stream.next().await?;
            Some((Ok::<_, Infallible>(next), stream))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        let Self { sending, ending, expires_at, .. } = &mut *self;
        if sending.queue.is_empty() {
            sending.tell_sent();
        }
        while sending.queue.is_empty() && !sending.has_ended {
            if expires_at.is_some_and(|at| at <= Instant::now()) {
                sending.go_away("auth_expired");
                break;
            }
            // Seldom, since it is a lock that all share; but also where there is always more to send.
            sending.turns += 1;
            if sending.turns.is_multiple_of(LOOK_TURNS) && ending.as_mut().now_or_never().is_some()
            {
                sending.go_away("shutdown");
                break;
            }
            let worked = tokio::select! {
                biased;
                worked = sending.work(*expires_at) => Ok(worked),
                () = ending.as_mut() => Err("shutdown"),
            };
            match worked {
                Ok(Ok(())) => {}
                // Apart: each stream would have room for it all its life.
                Ok(Err(refusal)) => Box::pin(sending.fail(&refusal)).await,
                Err(reason) => sending.go_away(reason),
            }
        }
        let next = sending.queue.pop_front()?;
        sending.count(next.len(), 1);
        Some(next)
    }
}

impl Sending {
    fn new(follower: Follower, view: View, lag: Lag, direct: Option<Arc<Direct>>) -> Self {
        let now = Instant::now();
        Self {
            follower,
            share: None,
            view,
            queue: VecDeque::new(),
            heartbeat_at: now,
            sent_moves: 0,
            records: 0,
            lag,
            lag_at: now,
            direct,
            has_ended: false,
            turns: 0,
        }
    }

    /// Bytes were sent, with the records that were not counted before, to so many clients.
    fn count(&mut self, bytes: usize, clients: usize) {
        let (records, clients) = (std::mem::take(&mut self.records), clients as u64);
        let sse = self.follower.reader.metrics.by(Entrypoint::Sse);
        sse.bytes.inc_by(bytes as u64 * clients);
        sse.records.inc_by(records * clients);
        if records > 0 {
            // Beside the one that has looked.
            self.follower.reader.metrics.tail_hits.inc_by(clients.saturating_sub(1));
        }
        let now = Instant::now();
        if now >= self.lag_at {
            // Now and then: it takes a look at every partition.
            self.lag_at = now + FEED_LAG_REPORTED;
            self.lag.set(self.follower.lag());
        }
    }

    fn go_away(&mut self, reason: &str) {
        self.send(goaway(reason));
        self.has_ended = true;
    }

    /// Sends what there is, or a sign of life, or nothing: no later than at `end`.
    async fn work(&mut self, end: Option<Instant>) -> Result<(), Refusal> {
        let until = end.map_or(self.heartbeat_at, |end| end.min(self.heartbeat_at));
        let resources = &self.follower.reader.hub.resources;
        let portions = if resources.is_spent() {
            let resources = Arc::clone(resources);
            // Room is not waited for beyond the next sign of life.
            let room = resources.memory.wait_for(FEED_QUEUE_BYTES, || resources.shrink());
            let _in_time = timeout_at(until, room).await;
            Vec::new()
        } else if let Some(joined) = self.join() {
            self.wait_with_others(joined, end).await;
            return Ok(());
        } else if let Some(sent) = self.follower.as_others(self.view.shape, until).await? {
            if !sent.parts.is_empty() {
                self.queue.extend(sent.parts.iter().cloned());
                self.has_sent();
                self.records += sent.records;
            }
            return Ok(());
        } else if let Some(refusal) = self.follower.held_up() {
            return Err(refusal);
        } else {
            let Self { follower, share, .. } = self;
            let found = tokio::select! {
                biased;
                news = news(share) => Err(news?),
                found = follower.look_and_wait(until, Duration::ZERO) => Ok(found?),
            };
            match found {
                Ok(Some(portions)) => portions,
                Ok(None) => return Ok(()),
                Err(news) => return Box::pin(self.change(news)).await,
            }
        };
        let gaps = self.gaps();
        if !gaps.is_empty() {
            self.send(gaps);
        }
        if !portions.is_empty() {
            self.events(portions).await?;
        } else if Instant::now() >= self.heartbeat_at {
            let has_moved = self.follower.moves() != self.sent_moves;
            self.send(sse::heartbeat(self.id().filter(|_| has_moved)));
        }
        Ok(())
    }

    /// Partitions come and go. All that was sent of those that go is with the client.
    async fn change(&mut self, news: News) -> Result<(), Refusal> {
        self.tell_sent();
        let Self { follower, share: Some(share), .. } = self else { return Ok(()) };
        share.remember(&follower.take_away(&news.gone));
        share.give_up(&follower.take_away(&news.taken));
        if !news.given.is_empty() {
            let (starts, gaps) = share.starts(&news.given).await?;
            follower.give(&starts, gaps);
        }
        let text = self.gaps() + &self.id().map(sse::position).unwrap_or_default();
        self.send(text);
        Ok(())
    }

    /// What was queued has been taken by the connection.
    fn tell_sent(&mut self) {
        let Self { share: Some(share), follower, .. } = self else { return };
        share.sent(follower.moves(), || follower.cursor());
    }

    /// Events of as many records as a client is sent at a time.
    async fn events(&mut self, portions: Vec<Portion>) -> Result<(), Refusal> {
        let (view, reader) = (self.view, Arc::clone(&self.follower.reader));
        let from = self.follower.here(view.shape);
        let before = self.queue.len();
        let mut out = Events::default();
        let (mut records, mut moves) = (0, 0);
        let is_committed_before =
            self.share.as_ref().is_some_and(|share| share.is_committed_before());
        let most = if is_committed_before { FEED_AT_RISK as u64 } else { u64::MAX };
        let taken = self.follower.take(portions, |taken| {
            out.write(&taken, view, &reader);
            (records, moves) = (records + 1, taken.moves);
            out.bytes >= FEED_QUEUE_BYTES || records >= most
        });
        if let Some(share) = self.share.as_ref().filter(|_| is_committed_before && records > 0) {
            Box::pin(share.commit(&self.follower.cursor())).await?;
        }
        self.records += records;
        let Events { mut text, parts, .. } = out;
        for part in parts {
            self.queue.push_back(part);
        }
        if records > 0 && moves != self.follower.moves() {
            // What was filtered out behind the last event is not read again after a reconnect.
            text.extend(self.id().map(sse::position).unwrap_or_default().into_bytes());
        }
        if text.is_empty() && self.queue.is_empty() {
            // All were filtered out, and there may be many more: others have their turn.
            yield_now().await;
        }
        self.send(text);
        if taken.is_ok() {
            let parts = self.queue.iter().skip(before).cloned().collect();
            self.follower.tell_others(&from, Sent { parts, records });
        }
        taken
    }

    /// Gaps that were not sent, each an event. The last has the position behind all of them: who is
    /// cut off before hears of them again.
    fn gaps(&mut self) -> String {
        let gaps = self.follower.take_gaps();
        if let Some(share) = &self.share {
            share.hear(&gaps);
        }
        let mut text = String::new();
        for (index, gap) in gaps.iter().enumerate() {
            let id = self.id().filter(|_| index + 1 == gaps.len());
            text.push_str(&sse::notice(Notice::Gap, &json!(gap), id));
        }
        text
    }

    /// The cursor, if the feed's readers have any.
    fn id(&self) -> Option<&str> {
        // Without a partition there is none to go on from.
        let id = Some(self.follower.id()).filter(|id| !id.is_empty());
        id.filter(|_| self.follower.reader.feed.delivery.has_cursors())
    }

    async fn fail(&mut self, refusal: &Refusal) {
        let mut body = refusal.body();
        if refusal.code == Code::OffsetOutOfRange
            && let Some(body) = body.as_object_mut()
        {
            body.insert("cursors".to_owned(), self.follower.reader.both_ends().await);
        }
        let mut text = if refusal.code.is_lasting() { sse::retry_late() } else { String::new() };
        text.push_str(&sse::notice(Notice::Failure, &body, None));
        self.send(text);
        self.has_ended = true;
    }

    /// Queues a text, which counts as memory of readers until it is sent.
    fn send(&mut self, text: impl Into<Vec<u8>>) {
        let text = text.into();
        if text.is_empty() {
            return;
        }
        let memory = &self.follower.reader.hub.resources.memory;
        self.queue.push_back(memory.hold(text.len()).keep(text));
        self.has_sent();
    }

    /// The next sign of life counts from now.
    fn has_sent(&mut self) {
        self.sent_moves = self.follower.moves();
        self.heartbeat_at = Instant::now() + self.follower.reader.feed.sse.heartbeat;
    }
}

/// Events on their way into the queue.
#[derive(Default)]
struct Events {
    parts: Vec<Bytes>,
    /// Behind the parts.
    text: Vec<u8>,
    bytes: usize,
}

impl Events {
    fn write(&mut self, taken: &Taken<'_>, view: View, reader: &FeedReader) {
        let Some(stored) = taken.segment.records.get(taken.index) else { return };
        let memory = &reader.hub.resources.memory;
        let render = || {
            let headers: Vec<_> = stored.record.headers.iter().collect();
            let record = Record::of(taken.topic, taken.partition, &stored.record, &headers)
                .selected(&taken.selected);
            let Rendered { text, id_at } = sse::render(&record, &reader.feed, view.shape);
            Rendered { text: memory.hold(text.len()).keep(text), id_at }
        };
        let Rendered { text, id_at } = match reader.feed.selection.is_per_client() {
            true => render(),
            false => stored.rendered(view, render),
        };
        let (before, behind) = text.split_at(id_at.unwrap_or(0));
        if reader.feed.delivery.has_cursors() {
            self.text.extend_from_slice(b"id: ");
            self.text.extend_from_slice(taken.id.as_bytes());
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(before);
        if id_at.is_some() {
            self.text.extend_from_slice(taken.id.as_bytes());
        }
        if behind.len() > FEED_SHARED_BYTES {
            // All readers that are sent it share it.
            let before = std::mem::take(&mut self.text);
            self.bytes += before.len() + behind.len();
            let before = memory.hold(before.len()).keep(before);
            self.parts.extend([before, text.slice_ref(behind)]);
        } else {
            self.text.extend_from_slice(behind);
            self.bytes += taken.id.len() + text.len();
        }
    }
}

async fn news(share: &mut Option<Box<Share>>) -> Result<News, Refusal> {
    match share {
        Some(share) => share.next().await,
        None => pending().await,
    }
}

/// So often a stream that has always more to send looks whether the process is to end.
const LOOK_TURNS: usize = 16;

/// The whole stream of who cannot be served now: browsers come again after it.
pub(crate) fn refused(code: Code) -> Body {
    Body::from(sse::retry(random()) + &goaway(code.name()))
}

fn goaway(reason: &str) -> String {
    sse::notice(Notice::Goaway, &json!({ "reason": reason }), None)
}

/// Not for secrets.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests;
