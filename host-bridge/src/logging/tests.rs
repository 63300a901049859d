//! Tests of the log: its forms, its bounds, and writers that fail or block.

use std::io::{self, Write};
use std::sync::mpsc::{Sender, channel};

use tracing::{debug, error_span, info, warn};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::limits::{LOG_AGAIN, LOG_QUEUE_LINES, LOG_VALUE_BYTES};

/// A place where lines go; its other end has them.
struct Pipe(Sender<String>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        self.0.send(text).map_err(|_| io::Error::other("the pipe is closed"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log in memory.
pub(crate) struct Capture(Writer, Throttle, std::sync::mpsc::Receiver<String>);

impl Capture {
    pub(crate) fn start() -> Self {
        let (sender, lines) = channel();
        let throttle = Throttle::default();
        let format = LogFormat::KeyValue;
        let writer = Writer::start(Pipe(sender), format, Arc::clone(&throttle)).unwrap();
        Self(writer, throttle, lines)
    }

    pub(crate) fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        let Self(writer, throttle, _) = self;
        let (writer, throttle) = (writer.clone(), Arc::clone(throttle));
        let lines = Lines { format: LogFormat::KeyValue, throttle, writer };
        tracing_subscriber::registry().with(lines)
    }

    /// Waits for the line of an event.
    pub(crate) async fn line(&self, event: &str) -> String {
        let event = format!(" event={event} ");
        loop {
            match self.2.try_recv() {
                Ok(line) if line.contains(&event) => return line,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// All that is logged meanwhile, without the time.
fn logged(format: LogFormat, work: impl FnOnce(&Throttle)) -> Vec<String> {
    let (sender, lines) = channel();
    let throttle = Throttle::default();
    let writer = Writer::start(Pipe(sender), format, Arc::clone(&throttle)).unwrap();
    let layer = Lines { format, throttle: Arc::clone(&throttle), writer: writer.clone() };
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || work(&throttle));
    writer.finish(Duration::from_secs(10));
    let text: String = lines.try_iter().collect();
    let without_time = |line: &str| match format {
        LogFormat::KeyValue => line.split_once(' ').unwrap().1.to_owned(),
        LogFormat::Json => line.to_owned(),
    };
    text.lines().map(without_time).collect()
}

#[test]
fn each_kind_of_event_has_one_line_a_minute_whatever_clients_send() {
    let lines = logged(LogFormat::KeyValue, |throttle| {
        let ask = |topic: &str| warn!(topic, "unknown_topic");
        for n in 0..1000 {
            ask(&format!("t{n}"));
        }
        warn!(cluster = "a", "unreachable");
        warn!(cluster = "b", "unreachable_too");
        for cluster in ["a", "b", "a"] {
            error_span!("kafka", cluster).in_scope(|| warn!("no_metadata"));
        }
        for webhook in ["x", "y", "x"] {
            warn!(webhook, topic = "t", "halted");
        }
        let later = Instant::now() + LOG_AGAIN;
        assert_eq!(throttle.lock().unwrap().due(Instant::now(), false).len(), 0);
        let due = throttle.lock().unwrap().due(later, false);
        assert_eq!(due.len(), 3, "{due:?}");
        assert!(due.iter().any(|line| line.contains("topic=t1 ") && line.ends_with("count=999\n")));
        assert_eq!(throttle.lock().unwrap().due(later + LOG_AGAIN, false).len(), 0);
        // A minute without an event: the next has its line at once.
        ask("again");
    });
    let topics: Vec<_> = lines.iter().filter(|line| line.contains("unknown_topic")).collect();
    assert_eq!(topics.len(), 2, "{lines:#?}");
    let of = |cluster: &str| format!("event=no_metadata cluster={cluster} ");
    assert!(["a", "b"].iter().all(|it| lines.iter().any(|line| line.contains(&of(it)))));
    let of = |webhook: &str| format!("event=halted webhook={webhook} ");
    assert!(["x", "y"].iter().all(|it| lines.iter().any(|line| line.contains(&of(it)))));
    assert_eq!(lines.len(), 8, "{lines:#?}");
}

#[test]
fn what_is_counted_is_told_at_the_end() {
    let lines = logged(LogFormat::KeyValue, |_| {
        for path in ["/a", "/b", "/c"] {
            info!(path, "asked");
            debug!(path, "asked_in_detail");
        }
    });
    let counted = lines.iter().filter(|line| line.contains("event=asked "));
    let counted: Vec<_> = counted.map(String::as_str).collect();
    let target = "target=host_bridge::logging::tests";
    assert_eq!(
        counted,
        [
            format!("level=INFO event=asked path=/a {target}"),
            format!("level=INFO event=asked path=/b {target} count=2"),
        ]
    );
    assert_eq!(lines.len(), 5, "details are not counted: {lines:#?}");
}

#[test]
fn text_of_a_client_makes_no_line_of_its_own_and_has_an_end() {
    let hostile = "a\nlevel=ERROR \"x\u{2028}\u{85}\u{1b}[31m";
    let long = "ä".repeat(LOG_VALUE_BYTES);
    let work = |_: &Throttle| warn!(topic = hostile, long, number = 7, is = true, "bad topic");
    let lines = logged(LogFormat::KeyValue, work);
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    let expected = r#"event="bad topic" topic="a\nlevel=ERROR \"x\u{2028}\u{85}\u{1b}[31m" long="#;
    assert!(line.contains(expected), "{line}");
    assert!(line.contains(" number=7 is=true ") && line.len() < LOG_VALUE_BYTES + 300, "{line}");

    let lines = logged(LogFormat::Json, work);
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    assert!(!line.contains(['\u{2028}', '\u{85}', '\u{1b}']), "{line}");
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&json["event"], &json["topic"]), (&"bad topic".into(), &hostile.into()));
    assert_eq!((&json["number"], &json["is"]), (&7.into(), &true.into()));
    assert!(json["time"].as_str().unwrap().ends_with('Z'), "{line}");
}

/// Takes nothing until it is told to, and fails on demand.
struct Stuck(std::sync::mpsc::Receiver<bool>, Sender<String>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.recv() {
            Ok(true) => Pipe(self.1.clone()).write(bytes),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_takes_nothing_blocks_nobody_and_what_is_lost_is_counted() {
    let (allow, allowed) = channel();
    let (sender, lines) = channel();
    let out = Stuck(allowed, sender);
    let writer = Writer::start(out, LogFormat::KeyValue, Throttle::default()).unwrap();
    for n in 0..2 * LOG_QUEUE_LINES {
        writer.push(format!("n={n}\n"));
    }
    writer.finish(Duration::from_millis(1));
    // The first cannot be written, and then all that waits can.
    allow.send(false).unwrap();
    for _ in 0..LOG_QUEUE_LINES {
        allow.send(true).unwrap();
    }
    let next = lines.recv().unwrap();
    assert!(next.starts_with("\ntime=") && next.contains("event=log_lines_lost count="), "{next}");
    assert!(next.ends_with("\nn=1\n"), "{next}");
}
