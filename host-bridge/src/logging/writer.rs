//! The thread that writes the log: what it cannot write in time is counted, and nobody waits.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::line::{Line, LogFormat};
use super::throttle::Throttle;
use crate::limits::LOG_QUEUE_LINES;

/// Lines that this process could not write.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines this process could not write.
pub(crate) fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// A handle to the thread. It ends with the process: it may wait for a reader for ever.
#[derive(Clone)]
pub(super) struct Writer {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

enum Order {
    Line(String),
    /// Write what waits, then say so.
    Finish(SyncSender<()>),
}

/// What the thread works with.
struct Output<W> {
    out: W,
    format: LogFormat,
    throttle: Throttle,
    /// Lines that were lost, and of which no line tells.
    lost: Arc<AtomicU64>,
    /// Whether the last line was written in part, or not.
    is_broken: bool,
}

impl Writer {
    pub(super) fn start(
        out: impl Write + Send + 'static,
        format: LogFormat,
        throttle: Throttle,
    ) -> io::Result<Self> {
        let (sender, orders) = sync_channel(LOG_QUEUE_LINES);
        let lost = Arc::<AtomicU64>::default();
        let own = Arc::clone(&lost);
        let output = Output { out, format, throttle, lost: own, is_broken: false };
        std::thread::Builder::new().name("log".to_owned()).spawn(|| output.run(orders))?;
        Ok(Self { orders: sender, lost })
    }

    pub(super) fn push(&self, line: String) {
        if self.orders.try_send(Order::Line(line)).is_err() {
            lose(&self.lost, 1);
        }
    }

    /// Waits until all is written, or until `within` is over.
    pub(super) fn finish(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let (done, finished) = sync_channel(1);
        let mut order = Order::Finish(done);
        while let Err(std::sync::mpsc::TrySendError::Full(back)) = self.orders.try_send(order) {
            if Instant::now() >= deadline {
                return;
            }
            order = back;
            std::thread::park_timeout(FULL);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let _written_or_late = finished.recv_timeout(left);
    }
}

impl<W: Write> Output<W> {
    fn run(mut self, orders: Receiver<Order>) {
        let mut looked = Instant::now();
        loop {
            match orders.recv_timeout(LOOK) {
                Ok(Order::Line(line)) => self.write(&line),
                Ok(Order::Finish(done)) => {
                    self.write_due(true);
                    let _nobody_waits = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked.elapsed() >= LOOK {
                self.write_due(false);
                looked = Instant::now();
            }
        }
    }

    fn write_due(&mut self, all: bool) {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = throttle.due(Instant::now(), all);
        drop(throttle);
        lines.iter().for_each(|line| self.write(line));
    }

    fn write(&mut self, line: &str) {
        let lost = self.lost.swap(0, Relaxed);
        let mut text = String::new();
        if self.is_broken {
            text.push('\n');
        }
        if lost > 0 {
            text.push_str(&Line::about_lost(lost, self.format));
        }
        text.push_str(line);
        // One call a line, so that nothing of another process comes between.
        self.is_broken = self.out.write_all(text.as_bytes()).is_err();
        if self.is_broken {
            self.lost.fetch_add(lost, Relaxed);
            lose(&self.lost, 1);
        }
    }
}

fn lose(own: &AtomicU64, lines: u64) {
    own.fetch_add(lines, Relaxed);
    LOST.fetch_add(lines, Relaxed);
}

/// How often the thread looks for what is due.
const LOOK: Duration = Duration::from_secs(1);
/// Pause while the queue is full at the end.
const FULL: Duration = Duration::from_millis(5);
