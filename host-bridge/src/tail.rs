//! `host-bridge tail`: a feed or a topic, record by record, for people and for pipes.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Args, Config, ConfigError, Format, Places, Tail};
use crate::consume::cursor::Cursor;
use crate::consume::envelope::{Envelope, Raw, Record, Shape};
use crate::consume::feeds::{Feed, Feeds, Known};
use crate::consume::follow::{Follower, Taken};
use crate::consume::hub::{Hub, Resources};
use crate::consume::query;
use crate::consume::reader::FeedReader;
use crate::consume::start::{Gap, Given};
use crate::limits::{FEED_MEMORY_BYTES, FEED_PATIENCE};
use crate::registry::Registry;
use crate::{clusters, credentials};

/// Why it ended, when nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The limit is reached, or nobody reads the output any more.
    Done,
    /// By SIGINT.
    Interrupted,
}

/// Writes records to the standard output until the limit, SIGINT, or the end of its reader.
///
/// # Errors
/// A sentence for whoever runs it.
pub async fn tail(
    args: &Args,
    environment: Vec<(String, String)>,
    tail: &Tail,
) -> anyhow::Result<Ended> {
    let start = start(&tail.from)?;
    let config = configuration(args, environment)?;
    let (cluster, feed) = feed(tail, &config)?;
    let properties = config.clusters.get(&cluster);
    let properties =
        properties.ok_or_else(|| anyhow::anyhow!("there is no [clusters.{cluster}]"))?;
    let client = credentials::client(clusters::read(properties)?);
    let interrupted = CancellationToken::new();
    let on_signal = interrupted.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_signal.cancel();
        }
    });
    let hub = Hub::new(client, feed.isolation_level, &Resources::new(FEED_MEMORY_BYTES));
    let registry = feed.schema_registry.as_ref();
    let registry = registry.and_then(|name| {
        let connection = config.schemas.registries.get(name)?;
        Some(Arc::new(Registry::new(name.clone(), connection)))
    });
    let reader = FeedReader::new(feed, 0, hub, None, Arc::default());
    let reader = Arc::new(reader.decoding(registry));
    let following = async {
        let mut follower = Follower::open(reader, &start, None, FEED_PATIENCE).await?;
        follow(tail, &mut follower, &interrupted).await
    };
    tokio::select! {
        ended = following => ended,
        () = output_closed() => Ok(Ended::Done),
        // A line is not cut, unless nobody takes it.
        () = async { interrupted.cancelled().await; tokio::time::sleep(WRITE_GRACE).await } => {
            Ok(Ended::Interrupted)
        }
    }
}

/// With the name of its cluster.
fn feed(tail: &Tail, config: &Config) -> anyhow::Result<(String, Feed)> {
    let (name, Some(topic)) = (&tail.name, &tail.topic) else {
        let Some(feed) = config.feeds.feeds.get(&tail.name) else {
            let feeds = config.feeds.feeds.keys().map(String::as_str).collect::<Vec<_>>();
            let known = if feeds.is_empty() { "none".to_owned() } else { feeds.join(", ") };
            anyhow::bail!("there is no feed {}; the configuration has {known}", tail.name);
        };
        if feed.per_request_credential {
            anyhow::bail!("the feed {} is read by the token of each request", tail.name);
        }
        return Ok((feed.cluster.clone(), feed.clone()));
    };
    // As a feed that sets nothing else.
    let mut feed = toml::Table::new();
    feed.insert("cluster".to_owned(), name.as_str().into());
    feed.insert("topics".to_owned(), vec![topic.as_str()].into());
    feed.insert("auto_offset_reset".to_owned(), "earliest".into());
    let mut section = toml::Table::new();
    section.insert("listen".to_owned(), vec!["127.0.0.1:0"].into());
    section.insert("topic".to_owned(), feed.into());
    let known = Known::of_clusters(config.clusters.keys().map(String::as_str));
    let mut faults = Vec::new();
    let read = Feeds::read(section, &known, &mut faults).feeds.into_values().next();
    match (read, faults.into_iter().next()) {
        (_, Some(ConfigError::Field { reason, .. })) => Err(anyhow::Error::msg(reason)),
        (_, Some(other)) => Err(other.into()),
        (feed, None) => Ok((name.clone(), feed.ok_or_else(|| anyhow::anyhow!("no feed"))?)),
    }
}

async fn follow(
    tail: &Tail,
    follower: &mut Follower,
    interrupted: &CancellationToken,
) -> anyhow::Result<Ended> {
    let (mut left, mut is_waiting) = (tail.limit.unwrap_or(u64::MAX), false);
    while left > 0 {
        let more = follower.more(Instant::now() + WAIT, Duration::ZERO);
        let Some(portions) = interrupted.run_until_cancelled(more).await else {
            return Ok(Ended::Interrupted);
        };
        let portions = portions?;
        follower.take_gaps().iter().for_each(|gap| note(&told(gap)));
        // Brokers come back: nobody has to start anew.
        let trouble = follower.trouble();
        if let Some(trouble) = trouble.as_ref().filter(|_| !is_waiting) {
            note(&format!("{trouble}; waiting for them"));
        }
        is_waiting = trouble.is_some();
        let mut out = Vec::new();
        let feed = Arc::clone(&follower.reader);
        let taken = follower.take(portions, |taken| {
            show(&mut out, tail.format, &taken, &feed.feed);
            left -= 1;
            left == 0 || out.len() >= WRITE_BYTES
        });
        taken?;
        match write(out).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
    }
    Ok(Ended::Done)
}

fn show(out: &mut Vec<u8>, format: Format, taken: &Taken<'_>, feed: &Feed) {
    let Some(stored) = taken.segment.records.get(taken.index) else { return };
    let headers: Vec<_> = stored.record.headers.iter().collect();
    let record = Record::of(taken.topic, taken.partition, &stored.record, &headers)
        .selected(&taken.selected);
    match format {
        Format::Json => Envelope::new(taken.id, &record, feed, SHAPE).write_line(out),
        Format::Value => {
            out.extend_from_slice(Raw::new(&record, feed, SHAPE).body);
            out.push(b'\n');
        }
        Format::Pretty => out.extend_from_slice(pretty(&record, feed).as_bytes()),
    }
}

/// The fields of a record on a line, its value on the next ones, and an empty line. What a terminal
/// takes for a command is escaped.
fn pretty(record: &Record<'_>, feed: &Feed) -> String {
    let Raw { headers, body } = Raw::new(record, feed, SHAPE);
    let mut text = String::new();
    for (name, value) in headers.iter().filter(|field| *field != &("kafka-headers", "{}".into())) {
        let value = match *name {
            "kafka-timestamp" => timestamp(record.timestamp_ms).unwrap_or_else(|| value.clone()),
            _ => value.clone(),
        };
        let name = name.trim_start_matches("kafka-");
        let separator = if text.is_empty() { "" } else { " " };
        text.push_str(&format!("{separator}{name}={value}"));
    }
    let value = match std::str::from_utf8(body) {
        Ok(value) => match serde_json::from_str::<&RawValue>(value) {
            Ok(json) => indented(json.get()),
            Err(_) => value.to_owned(),
        },
        Err(_) => {
            text.push_str(" value-encoding=base64");
            BASE64_STANDARD.encode(body)
        }
    };
    text.push('\n');
    for char in value.chars() {
        match char.is_control() && !matches!(char, '\n' | '\t') {
            true => text.extend(char.escape_default()),
            false => text.push(char),
        }
    }
    text.push_str(if value.is_empty() { "\n" } else { "\n\n" });
    text
}

fn timestamp(ms: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok()?;
    let seconds = time.format(&Rfc3339).ok()?;
    // Always three digits: columns stay below each other.
    Some(format!("{}.{:03}Z", seconds.strip_suffix('Z')?, ms.rem_euclid(1000)))
}

/// Valid JSON over several lines; its numbers keep their digits.
fn indented(json: &str) -> String {
    let (mut text, mut depth, mut in_string, mut is_escaped) =
        (String::new(), 0_usize, false, false);
    let new_line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.push_str(&"  ".repeat(depth.min(INDENTS)));
    };
    for char in json.chars() {
        if in_string {
            text.push(char);
            in_string = is_escaped || char != '"';
            is_escaped = !is_escaped && char == '\\';
            continue;
        }
        match char {
            ' ' | '\t' | '\r' | '\n' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !text.ends_with(['{', '[']) {
                    new_line(&mut text, depth);
                }
            }
            _ if text.ends_with(['{', '[']) => new_line(&mut text, depth),
            _ => {}
        }
        text.push(char);
        match char {
            '"' => in_string = true,
            '{' | '[' => depth += 1,
            ',' => new_line(&mut text, depth),
            ':' => text.push(' '),
            _ => {}
        }
    }
    text
}

/// The configuration, without the files that only a bridge reads.
fn configuration(args: &Args, environment: Vec<(String, String)>) -> anyhow::Result<Config> {
    let text = Config::text(args)?;
    let text = text.as_deref();
    let places = Places::new(args.config.clone(), text.unwrap_or_default(), &environment);
    let mut faults = Vec::new();
    let config = Config::read(args, text, environment, &mut faults);
    let told: Vec<_> = faults.iter().map(|fault| places.told(fault)).collect();
    config.filter(|_| told.is_empty()).ok_or_else(|| anyhow::Error::msg(told.join("\n")))
}

/// A name or a time, as of a request, else a cursor.
fn start(from: &str) -> anyhow::Result<Given> {
    match query::start("from", from) {
        Ok(start) => Ok(Given::From(start)),
        Err(_) => Ok(Given::Cursor(Cursor::parse(from).map_err(|refusal| {
            let accepted = "`earliest`, `latest`, milliseconds, a time of RFC 3339 or a cursor";
            anyhow::anyhow!("--from must be {accepted}; {refusal}")
        })?)),
    }
}

/// By a thread that may wait for the reader of a pipe as long as it takes.
async fn write(bytes: Vec<u8>) -> io::Result<()> {
    let writing = tokio::task::spawn_blocking(move || {
        let mut output = io::stdout().lock();
        output.write_all(&bytes)?;
        output.flush()
    });
    writing.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Whoever reads the output is told by the next record only: a pipe's end is watched, too. A file has
/// none.
async fn output_closed() {
    let output = io::stdout().as_fd().try_clone_to_owned();
    // Unchecked: it is only watched, and written to by others.
    let output = output.and_then(Sender::from_owned_fd_unchecked);
    match output {
        Ok(output) => drop(output.ready(Interest::ERROR).await),
        Err(_) => std::future::pending().await,
    }
}

fn told(gap: &Gap) -> String {
    let Gap { topic, partition, from, to, reason } = gap;
    let shown = |offset: &Option<i64>| offset.map_or("?".to_owned(), |offset| offset.to_string());
    let (from, to, reason) = (shown(from), shown(to), reason.name());
    format!("{topic}-{partition}: records from {from} on are gone ({reason}); reading from {to}")
}

fn note(text: &str) {
    // Nobody may be there to read it.
    let _unread = writeln!(io::stderr(), "note: {text}");
}

const SHAPE: Shape = Shape { headers: true, metadata: true, big_as_string: false };
/// Bytes that are written at a time, as long as there is no larger record.
const WRITE_BYTES: usize = 64 * 1024;
/// How long brokers may not answer before that is told.
const WAIT: Duration = Duration::from_secs(5);
/// How long what is read may take to be written after SIGINT.
const WRITE_GRACE: Duration = Duration::from_millis(500);
/// Levels of JSON that are indented; more would fill the memory with spaces.
const INDENTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consume::start::GapReason;

    #[test]
    fn json_is_indented_and_keeps_its_text() {
        for (json, text) in [
            ("1.50", "1.50"),
            ("{}", "{}"),
            ("[ ]", "[]"),
            (
                "{\"a\" :[ 1,{}],\"b\":\"x,{:}\\\"\\\\\"}",
                "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": \"x,{:}\\\"\\\\\"\n}",
            ),
        ] {
            assert_eq!(indented(json), text);
        }
        let deep = ["[".repeat(5000), "]".repeat(5000)].concat();
        assert!(indented(&deep).len() < 5000 * 2 * (1 + 2 * INDENTS + 1));
    }

    #[test]
    fn times_have_milliseconds_and_gaps_the_names_of_pages() {
        for (ms, text) in [
            (1_795_987_280_180, "2026-11-29T21:21:20.180Z"),
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(timestamp(ms).as_deref(), Some(text));
        }
        assert_eq!(timestamp(i64::MAX), None);
        let (topic, reason) = ("orders".to_owned(), GapReason::BeyondEnd);
        let gap = Gap { topic, partition: 1, from: Some(7), to: None, reason };
        let text = "orders-1: records from 7 on are gone (beyond_end); reading from ?";
        assert_eq!(told(&gap), text);
    }

    #[test]
    fn a_start_is_a_name_a_time_or_a_cursor() {
        for from in ["earliest", "latest", "1700000000000", "2000-02-29T00:00:00Z"] {
            assert!(matches!(start(from).unwrap(), Given::From(_)), "{from}");
        }
        for cursor in ["orders@0#1;", "b3JkZXJzQDAjMTs="] {
            assert!(matches!(start(cursor).unwrap(), Given::Cursor(_)), "{cursor}");
        }
        let told = start("yesterday").unwrap_err().to_string();
        assert_eq!(
            told,
            "--from must be `earliest`, `latest`, milliseconds, a time of RFC 3339 or a cursor; \
             cursor: is neither TOPIC@PARTITION#OFFSET nor the base64 of that"
        );
    }
}
