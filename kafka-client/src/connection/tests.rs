//! One connection: order, deadlines, and what was handed over.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::protocol::Encodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::calls::api_versions::AskVersions;
use crate::error::Malformed;
use crate::frame::FrameError;
use crate::limits::HANDSHAKE_FRAME_BYTES;
use crate::versions::Range;

const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    connection: Arc<Connection>,
    broker: DuplexStream,
    stats: Arc<Counters>,
    shutdown: CancellationToken,
}

/// A connection whose socket buffers hold `room` bytes each.
fn fixture(room: usize) -> Fixture {
    let (ours, broker) = tokio::io::duplex(room);
    let (stats, shutdown) = (Arc::<Counters>::default(), CancellationToken::new());
    let settings = ConnectionSettings {
        client_id: "me".into(),
        idle: Duration::from_secs(540),
        stats: stats.clone(),
        shutdown: shutdown.clone(),
        tasks: Tasks::new(CancellationToken::new()),
    };
    let versions = Versions::new(vec![Range { key: 18, least: 0, most: 0 }]);
    let negotiated = Negotiated { versions, pause: Duration::ZERO, session: None };
    let decoder = Decoder::new(HANDSHAKE_FRAME_BYTES);
    let connection = Arc::new(Connection::start(ours, decoder, negotiated, &settings));
    Fixture { connection, broker, stats, shutdown }
}

type Answer = Result<crate::calls::api_versions::VersionsAnswer, Lost>;

impl Fixture {
    async fn ask(&self, patience: Duration) -> tokio::task::JoinHandle<Answer> {
        let reply = self.connection.submit(Arc::new(AskVersions), patience).await.unwrap();
        tokio::spawn(reply.answer())
    }

    /// The correlation id of the next request.
    async fn hear(&mut self) -> i32 {
        let length = self.broker.read_i32().await.unwrap();
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        self.broker.read_exact(&mut frame).await.unwrap();
        i32::from_be_bytes(frame[4..8].try_into().unwrap())
    }

    async fn say(&mut self, correlation: i32, code: i16) {
        let mut frame = BytesMut::new();
        frame.put_i32(correlation);
        ApiVersionsResponse::default().with_error_code(code).encode(&mut frame, 0).unwrap();
        self.broker.write_i32(i32::try_from(frame.len()).unwrap()).await.unwrap();
        self.broker.write_all(&frame).await.unwrap();
    }
}

async fn lost(asked: tokio::task::JoinHandle<Answer>) -> Lost {
    asked.await.unwrap().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_questions_in_order() {
    let mut fixture = fixture(4096);
    let (first, second) = (fixture.ask(PATIENCE).await, fixture.ask(PATIENCE).await);
    let (one, two) = (fixture.hear().await, fixture.hear().await);
    fixture.say(one, 1).await;
    fixture.say(two, 2).await;
    assert_eq!(first.await.unwrap().unwrap().code, 1);
    assert_eq!(second.await.unwrap().unwrap().code, 2);
}

#[tokio::test(start_paused = true)]
async fn every_request_has_a_deadline() {
    let mut fixture = fixture(4096);
    let started = Instant::now();
    let (first, second) = (fixture.ask(PATIENCE).await, fixture.ask(PATIENCE).await);
    fixture.hear().await;
    let silent = Lost { fault: LostReason::Silent(PATIENCE), handed_over: true };
    assert_eq!(lost(first).await, silent);
    assert_eq!(lost(second).await, silent, "nothing behind it can be trusted to be timely");
    assert_eq!(started.elapsed(), PATIENCE);
    assert!(!fixture.connection.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stops_reading_is_given_up() {
    let fixture = fixture(8);
    let asked = fixture.ask(PATIENCE).await;
    let silent = Lost { fault: LostReason::Silent(PATIENCE), handed_over: false };
    assert_eq!(lost(asked).await, silent);
}

#[tokio::test(start_paused = true)]
async fn a_request_cut_short_was_not_handed_over() {
    let mut fixture = fixture(20);
    let (first, second) = (fixture.ask(PATIENCE).await, fixture.ask(PATIENCE).await);
    fixture.hear().await;
    fixture.broker.read_u8().await.unwrap();
    drop(fixture.broker);
    assert!(lost(first).await.handed_over);
    assert!(!lost(second).await.handed_over);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_does_not_disturb_the_next() {
    let mut fixture = fixture(4096);
    let dropped = fixture.connection.submit(Arc::new(AskVersions), PATIENCE).await.unwrap();
    let kept = fixture.ask(PATIENCE).await;
    drop(dropped);
    let (one, two) = (fixture.hear().await, fixture.hear().await);
    fixture.say(one, 1).await;
    fixture.say(two, 2).await;
    assert_eq!(kept.await.unwrap().unwrap().code, 2);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_correlation_id_poisons_the_connection() {
    let mut fixture = fixture(4096);
    let (first, second) = (fixture.ask(PATIENCE).await, fixture.ask(PATIENCE).await);
    let one = fixture.hear().await;
    fixture.say(one + 1, 0).await;
    let fault = LostReason::OutOfStep { got: one + 1, expected: one };
    assert_eq!(lost(first).await, Lost { fault: fault.clone(), handed_over: true });
    assert_eq!(lost(second).await.fault, fault);
    assert!(!fixture.connection.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_asked_for_poisons_the_connection() {
    let mut fixture = fixture(4096);
    fixture.say(99, 0).await;
    let reply = fixture.connection.submit(Arc::new(AskVersions), PATIENCE).await;
    assert!(match reply {
        Ok(reply) => reply.answer().await.is_err(),
        Err(_) => true,
    });
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_answer_poisons_the_connection() {
    let mut fixture = fixture(4096);
    let (first, second) = (fixture.ask(PATIENCE).await, fixture.ask(PATIENCE).await);
    let one = fixture.hear().await;
    fixture.broker.write_i32(10).await.unwrap();
    fixture.broker.write_i32(one).await.unwrap();
    fixture.broker.write_all(&[0, 0, 0x7f, 0xff, 0xff, 0xff]).await.unwrap();
    for asked in [first, second] {
        let lost = lost(asked).await;
        assert!(matches!(lost.fault, LostReason::Malformed(_)), "{lost:?}");
        assert!(lost.handed_over);
    }
}

#[tokio::test(start_paused = true)]
async fn a_huge_frame_poisons_the_connection() {
    let mut fixture = fixture(4096);
    let asked = fixture.ask(PATIENCE).await;
    fixture.hear().await;
    fixture.broker.write_i32(i32::MAX).await.unwrap();
    assert!(matches!(lost(asked).await.fault, LostReason::Frame(FrameError::TooLong { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_by_us() {
    let mut fixture = fixture(4096);
    let asked = fixture.ask(PATIENCE).await;
    let one = fixture.hear().await;
    fixture.say(one, 0).await;
    asked.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(539)).await;
    assert!(fixture.connection.is_open());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!fixture.connection.is_open());
    assert_eq!(fixture.stats.connections_open.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_ends_when_it_is_written() {
    let mut fixture = fixture(4096);
    let told = fixture.connection.submit_unanswered(&AskVersions, PATIENCE).await.unwrap();
    assert_eq!(told.answer().await, Ok(()));
    let asked = fixture.ask(PATIENCE).await;
    fixture.hear().await;
    let two = fixture.hear().await;
    fixture.say(two, 0).await;
    assert!(asked.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_last_answers_are_read_after_the_handle_is_gone() {
    let mut fixture = fixture(4096);
    let asked = fixture.ask(PATIENCE).await;
    let one = fixture.hear().await;
    drop(fixture.connection);
    let mut frame = BytesMut::new();
    frame.put_i32(one);
    ApiVersionsResponse::default().encode(&mut frame, 0).unwrap();
    fixture.broker.write_i32(i32::try_from(frame.len()).unwrap()).await.unwrap();
    fixture.broker.write_all(&frame).await.unwrap();
    assert!(asked.await.unwrap().is_ok());
    assert_eq!(fixture.broker.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_the_client_ends_its_connections() {
    let fixture = fixture(4096);
    let asked = fixture.ask(PATIENCE).await;
    fixture.shutdown.cancel();
    assert_eq!(lost(asked).await.fault, LostReason::Shutdown);
}

/// Answers after a pause of its own.
struct Throttled(Duration);

impl Waiter for Throttled {
    fn handed_over(self: Box<Self>) -> Option<Box<dyn Waiter>> {
        Some(self)
    }

    fn answered(self: Box<Self>, _frame: Bytes) -> Result<Duration, Malformed> {
        Ok(self.0)
    }

    fn lost(self: Box<Self>, _lost: Lost) {}
}

#[tokio::test(start_paused = true)]
async fn a_throttled_broker_is_left_alone() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut wire = Wire::new(Duration::from_secs(540), now, Arc::default());
    let queue = |wire: &mut Wire, correlation| {
        let frame = calls::encode(&AskVersions, 0, correlation, "me").unwrap();
        let waiter = Box::new(Throttled(Duration::from_millis(700)));
        wire.push(Outgoing { frame, correlation, patience: PATIENCE, waiter });
    };
    queue(&mut wire, 1);
    wire.on_written(writable(&wire, now), now);
    queue(&mut wire, 2);
    wire.on_frame(Bytes::from_static(&[0, 0, 0, 1]), now).unwrap();
    assert_eq!(writable(&wire, at(699)), 0);
    assert_eq!(wire.poll_timeout(at(1)), at(700));
    assert_eq!(wire.on_timeout(at(60_000)), Ok(()), "its timer has not started");
    assert!(writable(&wire, at(700)) > 0);
}

fn writable(wire: &Wire, now: Instant) -> usize {
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    let used = wire.poll_write(now, &mut slices);
    slices[..used].iter().map(|slice| slice.len()).sum()
}
