//! The bridge's queue against brokers in memory.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kafka_client::Config;
use kafka_client::fake_broker::{FakeCluster, FakeSettings, Fault, PRODUCE, When};
use kafka_upstream_core::wire::{Delivery, Head};

use super::*;
use crate::bridge::Bridge;
use crate::captures::Captures;
use crate::clusters::Clusters;
use crate::encoding::Encoder;
use crate::webhooks::running::Webhooks;

const PROFILE: [u8; 32] = [7; 32];

pub(crate) struct Parts {
    pub(crate) kafka: FakeCluster,
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) pipeline: Arc<Pipeline>,
}

impl Parts {
    pub(crate) fn new(properties: &[(&str, &str)]) -> Self {
        Self::with(properties, None)
    }

    pub(crate) fn with(properties: &[(&str, &str)], encoder: Option<Encoder>) -> Self {
        let kafka = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
        kafka.create_topic("orders", &[1]);
        let bootstrap = kafka.bootstrap();
        let all = [&[("bootstrap.servers", &*bootstrap), ("acks", "all")], properties].concat();
        let config = Config::from_properties(all).unwrap();
        let client = kafka.client(config.clone());
        let pipeline = Arc::new(Pipeline::new("default", client, &config.producer, encoder));
        let config = crate::Config::load(&crate::Args::default(), std::iter::empty()).unwrap();
        let bridge = Arc::new(Bridge::new(
            Arc::new(Clusters::new(&config).unwrap()),
            Captures::default(),
            Arc::default(),
            Webhooks::default(),
        ));
        Self { kafka, bridge, pipeline }
    }

    fn push(&self, values: &[String]) -> bool {
        let values: Vec<_> = values.iter().map(String::as_bytes).collect();
        self.push_frame(&frame("orders", &values))
    }

    fn push_frame(&self, frame: &[u8]) -> bool {
        let batch = wire::decode_frame(frame).unwrap();
        self.bridge.queued.push(&self.pipeline, frame, &batch)
    }

    /// Has nothing of a topic queued within so long.
    async fn has_none_within(&self, topic: &str, seconds: u64) -> bool {
        let queued = || {
            let held = self.bridge.queued.lock();
            held.lanes.iter().any(|((_, name), lane)| &**name == topic && lane.records > 0)
        };
        let is_empty = async {
            while queued() {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(seconds), is_empty).await.is_ok()
    }

    /// Waits until nothing is held; false when something still is after so long.
    async fn is_empty_within(&self, seconds: u64) -> bool {
        self.bridge.queued.drain(Instant::now() + Duration::from_secs(seconds)).await;
        let depth = self.bridge.queued.depth();
        assert_eq!(depth.records == 0, depth.bytes == 0, "{depth:?}");
        depth.records == 0
    }

    pub(crate) fn written(&self) -> Vec<String> {
        let text = |value: Option<Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        self.kafka.log("orders", 0).into_iter().map(|record| text(record.value)).collect()
    }

    fn counted(&self, row: &str) -> u64 {
        let depth = self.bridge.queued.depth();
        let page = self.bridge.metrics.text(&self.bridge.clusters, depth).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(row));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}

fn frame(topic: &str, values: &[&[u8]]) -> Vec<u8> {
    let head = Head {
        profile: PROFILE,
        vm: [1; 16],
        sequence: 1,
        delivery: Delivery::Queued,
        budget_ms: 10_000,
        settled_below: 0,
    };
    let record = |value: &&[u8]| {
        let (partition, key, headers) = (Some(0), Some(&b"key"[..]), Vec::new());
        let record = Record { topic, partition, timestamp_ms: 5, key, value: Some(value), headers };
        wire::encode_record(&record).unwrap()
    };
    let records: Vec<_> = values.iter().map(record).collect();
    wire::encode_frame(&head, records.iter().map(Vec::as_slice)).unwrap()
}

/// A wave that a test asked for panics.
pub(super) fn panic_if_asked(queues: &Queues) {
    let left = queues.panics.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
    assert!(left.is_err(), "as asked");
}

/// Numbered values, so many batches of so many.
fn numbered(batches: usize, records: usize) -> Vec<Vec<String>> {
    let values: Vec<_> = (0..batches * records).map(|n| format!("r {n}")).collect();
    values.chunks(records).map(<[String]>::to_vec).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_while_kafka_is_down_comes_once_and_in_order() {
    let parts = Parts::new(&[]);
    parts.kafka.kill(1);
    let batches = numbered(300, 10);
    for batch in &batches {
        assert!(parts.push(batch));
    }
    assert!(!parts.is_empty_within(300).await, "there is no Kafka");
    assert_eq!(parts.bridge.queued.depth().records, 3000);
    parts.kafka.restart(1);
    assert!(parts.is_empty_within(60).await);
    assert_eq!(parts.written(), batches.concat());
}

#[tokio::test(start_paused = true)]
async fn a_topic_whose_waves_fail_is_failing_until_one_is_written() {
    let parts = Parts::new(&[]);
    let is_failing = || parts.bridge.queued.is_failing(PROFILE, "orders", 2);
    parts.kafka.kill(1);
    assert!(parts.push(&numbered(1, 1)[0]) && !is_failing());
    while !is_failing() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    parts.kafka.restart(1);
    assert!(parts.is_empty_within(300).await && !is_failing());
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_wave_is_sent_again_does_not_overtake_it() {
    let parts = Parts::new(&[]);
    let batches = numbered(40, 5);
    for (n, batch) in batches.iter().enumerate() {
        if n % 10 == 3 {
            parts.kafka.kill(1);
        }
        assert!(parts.push(batch));
        tokio::time::sleep(Duration::from_millis(700)).await;
        if n % 10 == 7 {
            parts.kafka.restart(1);
        }
    }
    assert!(parts.is_empty_within(300).await);
    assert_eq!(parts.written(), batches.concat());
}

#[tokio::test(start_paused = true)]
async fn an_outage_after_a_batch_was_written_does_not_write_it_again() {
    for seconds in [5, 15, 60, 600] {
        let parts = Parts::new(&[]);
        parts.kafka.arm(PRODUCE, When::Nth(1), Fault::CloseAfter);
        let batch = &numbered(1, 10)[0];
        assert!(parts.push(batch));
        while parts.written().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        parts.kafka.kill(1);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        parts.kafka.restart(1);
        assert!(parts.is_empty_within(300).await);
        assert_eq!(&parts.written(), batch, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_records_and_has_room_again() {
    let parts = Parts::new(&[]);
    parts.kafka.kill(1);
    let batches = numbered(6, 10_000);
    for batch in &batches[..5] {
        assert!(parts.push(batch));
    }
    assert!(!parts.push(&batches[5]) && !parts.push(&["one".to_owned()]));
    assert_eq!(parts.bridge.queued.depth().records, QUEUE_RECORDS / 2);
    parts.kafka.restart(1);
    assert!(parts.is_empty_within(60).await);
    assert!(parts.push(&batches[5]));
    assert!(parts.is_empty_within(60).await);
    assert_eq!(parts.written(), batches.concat());
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_bytes() {
    let parts = Parts::new(&[("max.request.size", "2000000")]);
    parts.kafka.kill(1);
    let batch = vec![vec![b'x'; 1_000_000]; 10];
    let frame = frame("orders", &batch.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let fit = (1..).take_while(|_| parts.push_frame(&frame)).count();
    assert_eq!(fit, (QUEUE_BYTES / frame.len()).div_ceil(2));
    assert!(parts.bridge.queued.depth().bytes <= QUEUE_BYTES / 2 + frame.len());
    parts.kafka.restart(1);
    assert!(parts.is_empty_within(60).await);
    assert_eq!(parts.written().len(), 10 * fit);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_kafka_refuses_for_good_is_counted_and_holds_nothing_up() {
    let parts = Parts::new(&[("max.request.size", "1024"), ("batch.size", "1000")]);
    let large = "x".repeat(2000);
    let values = ["a".to_owned(), large, "b".to_owned()];
    assert!(parts.push(&values));
    assert!(parts.is_empty_within(60).await);
    assert_eq!(parts.written(), ["a", "b"]);
    let row = "host_bridge_records_total{outcome=\"not_written\",code=\"record_too_large\"}";
    assert_eq!(parts.counted(row), 1);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_exist_yet_keeps_its_records() {
    let parts = Parts::new(&[]);
    assert!(parts.push_frame(&frame("later", &[b"one", b"two"])));
    assert!(!parts.is_empty_within(200).await);
    parts.kafka.create_topic("later", &[1]);
    assert!(parts.is_empty_within(60).await);
    assert_eq!(parts.kafka.log("later", 0).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_when_kafka_is_away() {
    let parts = Parts::new(&[]);
    parts.kafka.kill(1);
    assert!(parts.push(&numbered(1, 3)[0]));
    let began = Instant::now();
    assert!(!parts.is_empty_within(10).await);
    assert!(began.elapsed() < Duration::from_millis(10_100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_a_drain_nothing_is_queued_that_could_not_be_written_any_more() {
    let (parts, shutdown) = (Parts::new(&[]), crate::Shutdown::default());
    shutdown.token().cancel();
    let ten = Duration::from_secs(10);
    let overdue = crate::overdue(&shutdown, &parts.bridge.queued, ten);
    let pushes = async {
        let at = async |second| {
            tokio::time::sleep(Duration::from_secs(second)).await;
            parts.push(&["a record".to_owned()])
        };
        [at(7).await, at(2).await]
    };
    let (is_overdue, pushed) = tokio::join!(tokio::time::timeout(ten, overdue), pushes);
    assert_eq!((is_overdue.is_ok(), pushed), (false, [true, false]));
}

#[tokio::test(start_paused = true)]
async fn a_missing_topic_holds_up_no_other_and_is_told() {
    let parts = Parts::new(&[]);
    let row = "host_bridge_failing_topics{cluster=\"default\",code=\"unknown_topic\"}";
    for number in 0..3 {
        assert!(parts.push_frame(&frame("missing", &[b"one"])));
        assert!(parts.push(&[number.to_string()]));
        assert!(parts.has_none_within("orders", 1).await, "{number}");
    }
    assert_eq!(parts.written(), ["0", "1", "2"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(parts.counted(row), 1);
    let failing = parts.bridge.metrics.failing.json();
    assert_eq!(
        (&failing[0]["topic"], &failing[0]["code"]),
        (&json!("missing"), &json!("unknown_topic"))
    );
    let slow = parts.bridge.queued.slow_lanes();
    assert_eq!((&slow[0]["topic"], &slow[0]["records"]), (&json!("missing"), &json!(3)));
    parts.kafka.create_topic("missing", &[1]);
    assert!(parts.is_empty_within(60).await);
    assert_eq!((parts.counted(row), parts.bridge.metrics.failing.json().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_several_topics_is_taken_whole_and_parted() {
    let parts = Parts::new(&[]);
    parts.kafka.create_topic("more", &[1]);
    let head = wire::decode_frame(&frame("orders", &[b"x"])).unwrap().head;
    let record = |topic, value| {
        let (partition, key, headers) = (Some(0), None, Vec::new());
        let record = Record { topic, partition, timestamp_ms: 5, key, value: Some(value), headers };
        wire::encode_record(&record).unwrap()
    };
    let values: [(&str, &[u8]); 4] =
        [("orders", b"a"), ("more", b"b"), ("missing", b"c"), ("orders", b"d")];
    let records: Vec<_> = values.iter().map(|(topic, value)| record(topic, value)).collect();
    let frame = wire::encode_frame(&head, records.iter().map(Vec::as_slice)).unwrap();
    assert!(parts.push_frame(&frame));
    assert_eq!(parts.bridge.queued.depth().records, 4);
    assert!(parts.has_none_within("orders", 1).await && parts.has_none_within("more", 1).await);
    assert_eq!(
        (parts.written(), parts.kafka.log("more", 0).len()),
        (vec!["a".into(), "d".into()], 1)
    );
    assert_eq!(parts.bridge.queued.depth().records, 1);
}

#[tokio::test(start_paused = true)]
async fn topics_that_cannot_be_written_leave_room_for_another() {
    let parts = Parts::new(&[]);
    let values = vec![&b"v"[..]; 1000];
    for topic in ["m1", "m2", "m3"] {
        let frame = frame(topic, &values);
        while parts.push_frame(&frame) {}
    }
    assert!(parts.push_frame(&frame("orders", &values)));
    assert!(parts.has_none_within("orders", 1).await);
    assert_eq!(parts.written().len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_lanes_task_loses_nothing() {
    let parts = Parts::new(&[]);
    parts.bridge.queued.panics.store(2, Relaxed);
    let batches = numbered(4, 10);
    for batch in &batches {
        assert!(parts.push(batch));
    }
    assert!(parts.is_empty_within(60).await);
    assert_eq!(parts.written(), batches.concat());
}
