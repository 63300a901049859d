//! The log: one line an event on stderr. Writing it neither fails nor blocks anything.

mod levels;
mod line;
mod throttle;
mod writer;

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

pub(crate) use levels::Levels;
pub use line::LogFormat;
use line::{CLUSTER, Line};
pub(crate) use throttle::LogThrottle;
use throttle::{Kind, Throttle, Verdict};
use writer::Writer;
pub(crate) use writer::lost;

/// The log of this process.
pub struct Log {
    writer: Writer,
}

impl Log {
    /// Begins to log events, and panics, to stderr.
    ///
    /// # Errors
    /// When there is no thread for it, or another log.
    pub fn start(format: LogFormat) -> anyhow::Result<Self> {
        let throttle = Throttle::default();
        let writer = Writer::start(std::io::stderr(), format, Arc::clone(&throttle))?;
        let levels = Levels::of_environment();
        let lines = Lines { format, throttle, writer: writer.clone() };
        let subscriber = tracing_subscriber::registry().with(levels.targets).with(lines);
        tracing::subscriber::set_global_default(subscriber)?;
        std::panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string);
            let reason = panic.payload_as_str().unwrap_or_default();
            tracing::error!(location, reason, "panic");
        }));
        if let Some(fault) = levels.fault {
            tracing::warn!(fault, accepted = Levels::ACCEPTED, "log_levels_not_understood");
        }
        Ok(Self { writer })
    }

    /// Writes what waits, unless whoever should read it does not.
    pub fn finish(self) {
        self.writer.finish(FINISH);
    }
}

/// Turns events into lines.
struct Lines {
    format: LogFormat,
    throttle: Throttle,
    writer: Writer,
}

/// The cluster that the events of a span are about.
struct OfCluster(Arc<str>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut found = Subject::default();
        attributes.record(&mut found);
        if let (Some(cluster), Some(span)) = (found.cluster, context.span(id)) {
            span.extensions_mut().insert(OfCluster(cluster));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = Subject::default();
        event.record(&mut own);
        let of_span = || {
            let mut spans = context.event_scope(event)?;
            spans.find_map(|span| Some(Arc::clone(&span.extensions().get::<OfCluster>()?.0)))
        };
        let inherited = if own.cluster.is_none() { of_span() } else { None };
        let line = || Line::of(event, inherited.as_deref(), self.format);
        let metadata = event.metadata();
        // Who asks for more than that wants to see each.
        if *metadata.level() > Level::INFO || metadata.target() == START {
            return self.writer.push(line().finish(None));
        }
        let subject = own.webhook.or(own.cluster).or_else(|| inherited.clone());
        let kind = (metadata.callsite(), subject);
        // No line is made under the lock: a value that panics when it is shown would keep it.
        let verdict = self.throttle().ask(&kind, Instant::now());
        match verdict {
            Verdict::Write => self.writer.push(line().finish(None)),
            Verdict::Keep => {
                let line = line();
                self.throttle().keep(&kind, line);
            }
            Verdict::Count => {}
        }
    }
}

impl Lines {
    fn throttle(&self) -> MutexGuard<'_, LogThrottle<Kind>> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of the configuration an event is about: the fields `cluster` and `webhook`.
#[derive(Default)]
struct Subject {
    cluster: Option<Arc<str>>,
    webhook: Option<Arc<str>>,
}

impl Subject {
    fn set(&mut self, field: &Field, value: impl FnOnce() -> String) {
        let found = match field.name() {
            CLUSTER => &mut self.cluster,
            WEBHOOK => &mut self.webhook,
            _ => return,
        };
        *found = Some(value().into());
    }
}

impl Visit for Subject {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, || line::bounded(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.set(field, || line::shown(value));
    }
}

const WEBHOOK: &str = "webhook";

/// The target of what is logged at the start alone: each has its line.
pub(crate) const START: &str = "host_bridge::start";
/// How long the end of the process waits for its last lines.
const FINISH: Duration = Duration::from_millis(500);

#[cfg(test)]
pub(crate) mod tests;
