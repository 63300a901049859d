//! One event as one line, `key=value` or JSON: text is escaped and bounded, whoever wrote it.

use std::fmt::{self, Write as _};

use tracing::Event;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::limits::LOG_VALUE_BYTES;

/// The field that an event's line has of its span.
pub(super) const CLUSTER: &str = "cluster";

/// How the log is written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs; a value with other than graphic characters is quoted.
    #[default]
    KeyValue,
    /// A JSON object a line.
    Json,
}

/// A line that is not finished: a count may follow.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    format: LogFormat,
}

impl Line {
    /// `cluster` is the one of its span, unless the event names one itself.
    pub(super) fn of(event: &Event<'_>, cluster: Option<&str>, format: LogFormat) -> Self {
        let metadata = event.metadata();
        let mut line = Self::begin(metadata.level().as_str(), format);
        event.record(&mut Message(&mut line));
        if let Some(cluster) = cluster {
            line.text(CLUSTER, cluster);
        }
        event.record(&mut Fields(&mut line));
        line.text("target", metadata.target());
        line
    }

    /// Time and level.
    fn begin(level: &str, format: LogFormat) -> Self {
        let mut now = String::new();
        // Writing to a String cannot fail.
        let _infallible = SystemTime.format_time(&mut Writer::new(&mut now));
        let mut line = Self { text: String::new(), format };
        line.text("time", &now);
        line.text("level", level);
        line
    }

    /// What the log says of itself.
    pub(super) fn about_lost(count: u64, format: LogFormat) -> String {
        let mut line = Self::begin("WARN", format);
        line.text("event", "log_lines_lost");
        line.finish(Some(count))
    }

    /// The whole line; `count` is how many events it stands for.
    pub(super) fn finish(mut self, count: Option<u64>) -> String {
        if let Some(count) = count {
            self.raw("count", &count.to_string());
        }
        self.text.push_str(match self.format {
            LogFormat::KeyValue => "\n",
            LogFormat::Json => "}\n",
        });
        self.text
    }

    fn raw(&mut self, name: &str, value: &str) {
        let (first, next) = match self.format {
            LogFormat::KeyValue => ("", " "),
            LogFormat::Json => ("{", ","),
        };
        self.text.push_str(if self.text.is_empty() { first } else { next });
        // Writing to a String cannot fail.
        let _infallible = match self.format {
            LogFormat::KeyValue => write!(self.text, "{name}={value}"),
            LogFormat::Json => write!(self.text, "\"{name}\":{value}"),
        };
    }

    fn text(&mut self, name: &str, value: &str) {
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"=\\".contains(c);
        match self.format {
            LogFormat::KeyValue if !value.is_empty() && value.chars().all(is_plain) => {
                self.raw(name, value);
            }
            LogFormat::KeyValue => self.raw(name, &format!("{value:?}")),
            LogFormat::Json => self.raw(name, &json(value)),
        }
    }
}

/// Some readers of lines take more for the end of one than JSON escapes.
fn json(value: &str) -> String {
    let mut text = String::new();
    for c in serde_json::Value::from(value).to_string().chars() {
        let is_break = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        // Writing to a String cannot fail.
        let _infallible =
            if is_break { write!(text, "\\u{:04x}", u32::from(c)) } else { write!(text, "{c}") };
    }
    text
}

/// The first bytes of a text.
pub(super) fn bounded(text: &str) -> String {
    shown(&format_args!("{text}"))
}

/// A value as it is shown, to its bound: what is beyond takes no memory.
pub(super) fn shown(value: &dyn fmt::Debug) -> String {
    let mut text = Bounded(String::new());
    // It ends at the bound.
    let _cut = write!(text, "{value:?}");
    text.0
}

struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = LOG_VALUE_BYTES.saturating_sub(self.0.len());
        if more.len() <= room {
            self.0.push_str(more);
            return Ok(());
        }
        self.0.push_str(more.get(..more.floor_char_boundary(room)).unwrap_or_default());
        self.0.push('…');
        Err(fmt::Error)
    }
}

/// The message is the event's name, and stands first.
struct Message<'a>(&'a mut Line);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0.text("event", &shown(value));
        }
    }
}

struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != MESSAGE {
            self.0.text(field.name(), &shown(value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE {
            self.0.text(field.name(), &bounded(value));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.raw(field.name(), &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.raw(field.name(), &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.raw(field.name(), &value.to_string());
    }
}

const MESSAGE: &str = "message";
