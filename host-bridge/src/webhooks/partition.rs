//! The task that sends a partition's records: it reads, has requests made, and notes what is settled.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kafka_client::{At, ReadError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::config::{OnFailure, Qos};
use super::halt::{Halt, Why};
use super::item::{Item, Origin};
use super::opening::{Opened, offset_at, open};
use super::place::Place;
use super::position::Note;
use super::receiver::{Answered, random};
use super::retry::Verdict;
use super::source::{Portion, Source, Trouble};
use super::webhook::Webhook;
use super::window::{Bounds, Ordering, Window};
use crate::consume::feeds::Reset;
use crate::consume::gone::onward;
use crate::consume::selection::{Selected, reported};
use crate::limits::FEED_RETRY;

/// A partition that is sent.
pub(super) struct Partition {
    webhook: Arc<Webhook>,
    place: Arc<Place>,
    origin: Arc<Origin>,
    topic_id: Option<u128>,
    source: Source,
    /// The leader epoch of what is before the window's end.
    epoch: Option<i32>,
    window: Window<Arc<Item>>,
    under_way: FuturesUnordered<BoxFuture<'static, (u64, Done)>>,
    reading: Option<BoxFuture<'static, Result<Portion, Trouble>>>,
    note: Note,
    /// When what is settled is told to who commits.
    told_at: Option<Instant>,
    halts: watch::Receiver<Option<Halt>>,
}

/// What became of a request.
enum Done {
    Answered(Answered),
    /// Its records are in the dead-letter topic.
    DeadLettered,
    /// It was not made: its records could come twice.
    NotCommitted,
}

/// Sends until it is to stop; then what is under way is awaited.
pub(super) async fn run(webhook: Arc<Webhook>, place: Arc<Place>, stop: CancellationToken) {
    let told = |why: String| place.progress().last_error = Some(why);
    let opened = tokio::select! {
        opened = open(&webhook, &place.topic, place.partition, told) => opened,
        () = stop.cancelled() => return,
    };
    let mut partition = Partition::new(webhook, place, opened);
    while !stop.is_cancelled() {
        partition.start();
        tokio::select! {
            () = stop.cancelled() => {}
            () = partition.step() => {}
        }
    }
    while let Some((number, done)) = partition.under_way.next().await {
        partition.done(number, done);
    }
    partition.tell();
}

impl Partition {
    fn new(webhook: Arc<Webhook>, place: Arc<Place>, opened: Opened) -> Self {
        let Opened { next, epoch, mut note, settled, is_new } = opened;
        let (reader, topic) = (Arc::clone(&webhook.reader), Arc::clone(&place.topic));
        let origin = Origin {
            topic: Arc::clone(&place.topic.log.name),
            partition: place.partition,
            tag: note.tag,
        };
        if let Some(halt) = note.halt.take() {
            place.set_halt(Some(halt));
        }
        place.set(next, note.clone(), is_new);
        place.progress().last_error = None;
        Self {
            window: Window::new(bounds(&webhook), next, settled),
            source: Source::new(reader, topic, place.partition, note.tag),
            halts: place.halts(),
            origin: Arc::new(origin),
            topic_id: None,
            epoch,
            under_way: FuturesUnordered::new(),
            reading: None,
            note,
            told_at: None,
            webhook,
            place,
        }
    }

    /// Begins what can begin now.
    fn start(&mut self) {
        if self.halts.borrow_and_update().is_some() {
            return;
        }
        while let Some(number) = self.window.poll_send(now()) {
            self.send(number);
        }
        if self.reading.is_none() && !self.is_full() {
            let next = self.source.clone().next(self.window.next(), self.epoch);
            self.reading = Some(next.boxed());
        }
    }

    /// Whether nothing is read now: of memory that all webhooks have used up each still has one record.
    fn is_full(&self) -> bool {
        self.window.is_full() || (!self.window.is_empty() && self.webhook.memory.is_spent())
    }

    /// Waits until something has happened.
    async fn step(&mut self) {
        let is_halted = self.halts.borrow().is_some();
        let due = self.window.poll_timeout().filter(|_| !is_halted).map(Instant::from_std);
        let wake = due.into_iter().chain(self.told_at).min();
        tokio::select! {
            Some((number, done)) = self.under_way.next() => self.done(number, done),
            portion = finished(&mut self.reading) => self.take_in(portion).await,
            _ = self.halts.changed() => {
                if is_halted && self.halts.borrow().is_none() {
                    self.window.start_again(now());
                }
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                if self.told_at.is_some_and(|at| at <= Instant::now()) {
                    self.tell();
                }
            }
        }
    }

    /// Makes a request, once the webhook may make another one.
    fn send(&mut self, number: u64) {
        let Some(delivery) = self.window.delivery(number) else { return };
        let attempt = delivery.attempts;
        let items: Vec<_> = self.window.records(number).map(|item| &**item).collect();
        let Some(last) = items.last() else { return };
        let webhook = Arc::clone(&self.webhook);
        let message = webhook.message(&self.origin, self.topic_id, &items, None);
        let is_once = webhook.config.qos == Qos::AtMostOnce;
        if is_once {
            // Nobody sends it again, whatever happens from here on.
            self.place.set(last.offset + 1, self.note.clone(), true);
        }
        let place = Arc::clone(&self.place);
        let sending = async move {
            if is_once {
                webhook.commit().await;
                if place.new_offset().is_some() {
                    return (number, Done::NotCommitted);
                }
            }
            let _turn = webhook.requests.acquire().await;
            let answered = webhook.receiver.send(&webhook.config, &message, attempt).await;
            (number, Done::Answered(answered))
        };
        self.under_way.push(sending.boxed());
    }

    fn done(&mut self, number: u64, done: Done) {
        let metrics = &self.webhook.metrics;
        let records = self.window.delivery(number).map_or(0, |it| it.offsets.len() as u64);
        self.told_at.get_or_insert_with(|| Instant::now() + TELL_AFTER);
        let Answered { verdict, told } = match done {
            Done::Answered(answered) => answered,
            Done::DeadLettered => {
                metrics.dead_lettered.inc_by(records);
                return self.window.on_settled(number);
            }
            Done::NotCommitted => return self.window.on_failed(number, now() + FEED_RETRY),
        };
        metrics.attempt(verdict);
        match verdict {
            Verdict::Delivered => {
                metrics.delivered.inc_by(records);
                self.window.on_settled(number);
                let mut progress = self.place.progress();
                (progress.attempts, progress.last_error) = (0, None);
            }
            Verdict::Again { after, .. } => self.again(number, after, &told),
            Verdict::Refused => self.failed(number, &told),
            Verdict::Gone => {
                match self.webhook.config.qos {
                    Qos::AtMostOnce => self.failed(number, &told),
                    _ => self.keep(number, &told),
                }
                let reason = "the receiver is gone for good: it answered 410 Gone";
                self.webhook.set_halt(Some(&Halt::new(Why::Disabled, reason)));
            }
        }
    }

    /// It may be delivered later.
    fn again(&mut self, number: u64, after: Option<Duration>, told: &str) {
        let attempts = self.window.delivery(number).map_or(0, |it| it.attempts);
        let retry = &self.webhook.config.retry;
        let is_once = self.webhook.config.qos == Qos::AtMostOnce;
        if is_once || retry.is_spent(attempts, self.window.tried_for(number, now())) {
            return self.failed(number, &format!("{told}, after {attempts} attempts"));
        }
        let pause = retry.pause(attempts, after, random());
        self.tell_fault(attempts, told);
        self.window.on_failed(number, now() + pause);
    }

    /// It is never delivered.
    fn failed(&mut self, number: u64, told: &str) {
        let delivery = self.window.delivery(number);
        let (attempts, first) =
            delivery.map_or((0, -1), |it| (it.attempts, it.offsets.first().copied().unwrap_or(-1)));
        self.tell_fault(attempts, told);
        let (topic, partition) = (&*self.origin.topic, self.origin.partition);
        match self.webhook.config.on_failure {
            OnFailure::Skip => {
                let records = delivery_len(&self.window, number);
                self.webhook.metrics.skipped.inc_by(records);
                let webhook = &*self.webhook.name;
                tracing::warn!(webhook, topic, partition, offset = first, told, "webhook_skipped");
                self.window.on_settled(number);
            }
            OnFailure::Dlq => self.dead_letter(number, attempts),
            OnFailure::Stop => {
                let reason = format!("{topic}-{partition}, offset {first}: {told}");
                self.keep(number, told);
                self.webhook.set_halt(Some(&Halt::new(Why::Stopped, &reason)));
            }
        }
    }

    /// It is sent again once the webhook goes on.
    fn keep(&mut self, number: u64, told: &str) {
        let attempts = self.window.delivery(number).map_or(0, |it| it.attempts);
        self.tell_fault(attempts, told);
        self.window.on_failed(number, now());
    }

    /// Writes the records of a request to the dead-letter topic, however long that takes.
    fn dead_letter(&mut self, number: u64, attempts: u32) {
        let items: Vec<_> = self.window.records(number).cloned().collect();
        let (webhook, origin) = (Arc::clone(&self.webhook), Arc::clone(&self.origin));
        let place = Arc::clone(&self.place);
        let writing = async move {
            for item in &items {
                while let Some(placed) = item.placed(&origin)
                    && let Err(why) =
                        webhook.reader.undelivered(placed, (&*webhook.name, attempts)).await
                {
                    place.progress().last_error = Some(why.message);
                    sleep(FEED_RETRY).await;
                }
            }
            (number, Done::DeadLettered)
        };
        self.under_way.push(writing.boxed());
    }

    fn tell_fault(&self, attempts: u32, told: &str) {
        let mut progress = self.place.progress();
        (progress.attempts, progress.last_error) = (attempts, Some(told.to_owned()));
        let (webhook, partition) = (&*self.webhook.name, self.origin.partition);
        tracing::warn!(webhook, partition, attempts, fault = told, "webhook_not_delivered");
    }

    async fn take_in(&mut self, portion: Result<Portion, Trouble>) {
        self.told_at.get_or_insert_with(|| Instant::now() + TELL_AFTER);
        match portion {
            Ok(portion) => self.take(&portion),
            Err(Trouble::Passing(why)) => {
                self.place.progress().last_error = Some(why);
                let (next, epoch) = (self.window.next(), self.epoch);
                let source = self.source.clone();
                let later = async move {
                    sleep(FEED_RETRY).await;
                    source.next(next, epoch).await
                };
                self.reading = Some(later.boxed());
            }
            Err(Trouble::Position(error)) => self.go_on_after(&error).await,
        }
    }

    fn take(&mut self, portion: &Portion) {
        let Portion { segment, at, end } = portion;
        self.topic_id = segment.topic_id.or(self.topic_id);
        for stored in segment.records.get(*at..*end).unwrap_or_default() {
            if self.is_full() {
                return;
            }
            let record = &stored.record;
            let (offset, epoch) = (record.offset, stored.epoch());
            let reader = &self.webhook.reader;
            let selected = reader.select(&self.origin.topic, self.origin.partition, stored);
            if let Selected::Stop(reason) = selected {
                let (topic, partition) = (&self.origin.topic, self.origin.partition);
                let reason = format!("{topic}-{partition}, offset {offset}: {}", reported(reason));
                self.webhook.set_halt(Some(&Halt::new(Why::Stopped, &reason)));
                return;
            }
            self.epoch = epoch;
            if !selected.is_given() {
                self.window.pass(offset + 1);
                continue;
            }
            let config = &self.webhook.config;
            let mut item = Item::new(config, &reader.feed, &self.origin, record, &selected);
            let key = record.key.as_deref();
            // The records that wait for it are found by its key.
            let bytes = item.bytes() + key.map_or(0, <[u8]>::len);
            if self.window.was_settled(offset) {
                self.window.push_settled(offset, bytes);
            } else {
                item.held = Some(self.webhook.memory.hold(bytes));
                self.window.push(offset, key, bytes, Arc::new(item));
            }
        }
        if *end == segment.records.len() {
            self.window.pass(segment.next);
            self.epoch = segment.epoch;
        }
    }

    /// The log is not what it was: it is read on where it can be.
    async fn go_on_after(&mut self, error: &ReadError) {
        let (topic, partition) = (&*self.origin.topic, self.origin.partition);
        let from = self.window.next();
        let reset = match self.webhook.reader.feed.reset {
            // Nothing that is still there is left out.
            Reset::Latest => Reset::Earliest,
            reset => reset,
        };
        if matches!(error, ReadError::Recreated) {
            let known =
                self.webhook.reader.hub.known(&self.place.topic, Duration::ZERO, FEED_RETRY);
            let (known, begin) = (
                known.await,
                offset_at(&self.webhook, &self.place.topic, partition, At::Earliest).await,
            );
            if let (Ok(known), Ok(begin)) = (known, begin) {
                self.webhook.gap(topic, partition, "recreated", from);
                self.begin_anew(known.tag, begin);
            }
            return;
        }
        match onward((topic, partition, from), error, reset) {
            Ok((to, epoch, reason)) => {
                self.webhook.gap(topic, partition, reason.name(), from);
                if to < from {
                    // What is before is there no more, or is another log's.
                    self.begin_anew(self.note.tag, to);
                }
                self.window.pass(to);
                self.epoch = epoch;
            }
            Err(refusal) => {
                self.webhook.set_halt(Some(&Halt::new(Why::Stopped, &refusal.message)));
            }
        }
    }

    /// Of another log of the name nothing was sent. Requests of the former are forgotten.
    fn begin_anew(&mut self, tag: Option<u32>, begin: i64) {
        self.under_way.clear();
        self.window = Window::new(bounds(&self.webhook), begin, Vec::new());
        (self.epoch, self.note.tag, self.source.tag) = (None, tag, tag);
        self.place.set(begin, self.note.clone(), true);
        let topic = Arc::clone(&self.origin.topic);
        self.origin = Arc::new(Origin { topic, partition: self.origin.partition, tag });
    }

    /// Tells what is settled to who commits.
    fn tell(&mut self) {
        self.told_at = None;
        let note = Note { settled: self.window.runs(), ..self.note.clone() };
        let mut position = self.window.position();
        let is_new = {
            let told = self.place.progress();
            if self.webhook.config.qos == Qos::AtMostOnce {
                // What is under way is committed.
                position = position.max(told.position.unwrap_or_default());
            }
            told.position != Some(position) || told.note != note
        };
        self.place.set(position, note, is_new);
    }
}

fn delivery_len<T>(window: &Window<T>, number: u64) -> u64 {
    window.delivery(number).map_or(0, |it| it.offsets.len() as u64)
}

fn bounds(webhook: &Webhook) -> Bounds {
    let (ordering, batch) = (webhook.config.ordering, webhook.config.batch_max);
    let (in_flight, records, bytes) = match ordering {
        Ordering::Partition => (1, 2 * batch, AHEAD_BYTES),
        Ordering::Key | Ordering::None => (IN_FLIGHT, WINDOW_RECORDS, WINDOW_BYTES),
    };
    Bounds { ordering, in_flight, batch, batch_bytes: BATCH_BYTES, records, bytes }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn finished<T>(task: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(pending) = task else { return std::future::pending().await };
    let done = Pin::new(pending).await;
    *task = None;
    done
}

/// Requests of a partition at a time, where its records do not wait for each other.
const IN_FLIGHT: usize = 8;
/// Bytes of a request with several records.
const BATCH_BYTES: usize = 1024 * 1024;
/// What is read behind a request of a partition that is sent in order.
const AHEAD_BYTES: usize = 1024 * 1024;
/// How far a partition goes on behind a record that is not settled.
const WINDOW_RECORDS: usize = 10_000;
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// After what has been settled for so long, who commits hears of it.
const TELL_AFTER: Duration = Duration::from_millis(500);
