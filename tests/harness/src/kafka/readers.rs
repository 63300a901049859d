//! Partitions read by Java's console consumer and by kcat, each a program of its own.

use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{Kafka, KafkaVersion};
use crate::record::ReadRecord;
use xtask::tools;

/// What stands between the parts of a record, and behind it; no record has it.
const BETWEEN: &str = "<|6f1d|>";
const AFTER: &str = "<|a93c|>";
/// What stands for a missing key or value, and between headers.
const MISSING: &str = "<|none|>";
const HEADERS: &str = "<|hdrs|>";

type Bytes = Vec<u8>;

impl Kafka {
    /// The first `count` records of partition 0, by Java's consumer.
    ///
    /// # Errors
    /// When it fails, or finds fewer.
    pub async fn read_with_java(
        &self,
        topic: &str,
        count: usize,
    ) -> anyhow::Result<Vec<ReadRecord>> {
        let mut command = tools::kafka_java(self.version)?.command(&[])?;
        command.args(tools::QUICK);
        command.arg("org.apache.kafka.tools.consumer.ConsoleConsumer");
        command.args(["--bootstrap-server", &self.bootstrap(), "--topic", topic]);
        command.args(["--partition", "0", "--offset", "earliest", "--timeout-ms", "20000"]);
        command.args(["--max-messages", &count.to_string()]);
        // Later versions take the former name too, and say on standard output that it is old.
        let property = match self.version {
            KafkaVersion::V3_9 => "--property",
            KafkaVersion::V4_3 => "--formatter-property",
        };
        for print in ["timestamp", "offset", "headers", "key"] {
            command.args([property, &format!("print.{print}=true")]);
        }
        for (name, text) in [
            ("key.separator", BETWEEN),
            ("line.separator", AFTER),
            ("null.literal", MISSING),
            ("headers.separator", HEADERS),
        ] {
            command.args([property, &format!("{name}={text}")]);
        }
        let output = tokio::task::spawn_blocking(move || run(command)).await??;
        let records: Vec<_> = split(&output, AFTER).filter(|record| !record.is_empty()).collect();
        ensure!(records.len() == count, "{topic}: {} of {count} records", records.len());
        records.into_iter().map(of_java).collect()
    }

    /// The first `count` records of partition 0, by kcat.
    ///
    /// It prints headers as `name=value` with commas between, and `NULL` for a missing value.
    ///
    /// # Errors
    /// When it fails, or finds fewer.
    pub async fn read_with_kcat(
        &self,
        topic: &str,
        count: usize,
    ) -> anyhow::Result<Vec<ReadRecord>> {
        let (bootstrap, topic) = (self.bootstrap(), topic.to_owned());
        let format = format!("%o %T %K %S%h{AFTER}%k%s");
        let output = tokio::task::spawn_blocking(move || {
            let mut command = tools::kcat()?;
            command.args(["-C", "-q", "-e", "-X", "check.crcs=true", "-o", "beginning", "-p", "0"]);
            command.args(["-b", &bootstrap, "-t", &topic, "-c", &count.to_string()]);
            command.args(["-f", &format]);
            run(command)
        });
        let output = output.await??;
        let mut rest = &output[..];
        (0..count).map(|_| of_kcat(&mut rest)).collect()
    }
}

fn run(mut command: Command) -> anyhow::Result<Bytes> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// `CreateTime:5`, `Offset:0`, headers, key, value.
fn of_java(record: &[u8]) -> anyhow::Result<ReadRecord> {
    let parts: Vec<_> = split(record, BETWEEN).collect();
    let [time, offset, headers, key, value] = parts[..] else {
        bail!("{} parts: {}", parts.len(), String::from_utf8_lossy(record))
    };
    let number = |part: &[u8], name: &str| -> anyhow::Result<i64> {
        let text = std::str::from_utf8(part)?;
        Ok(text.strip_prefix(name).with_context(|| format!("no {name} {text}"))?.parse()?)
    };
    let optional = |part: &[u8]| (part != MISSING.as_bytes()).then(|| part.to_vec());
    let header = |header: &[u8]| {
        let (name, value) = halves(header, ":").context("a header without a colon")?;
        Ok((String::from_utf8(name.to_vec())?, optional(value)))
    };
    let headers = match headers {
        b"NO_HEADERS" => Vec::new(),
        some => split(some, HEADERS).map(header).collect::<anyhow::Result<_>>()?,
    };
    Ok(ReadRecord {
        partition: 0,
        offset: number(offset, "Offset:")?,
        timestamp_ms: number(time, "CreateTime:")?,
        key: optional(key),
        value: optional(value),
        headers,
    })
}

/// Takes one record off: its numbers and headers as text, then key and value by their lengths.
fn of_kcat(rest: &mut &[u8]) -> anyhow::Result<ReadRecord> {
    let (head, behind) = halves(rest, AFTER).context("kcat found fewer records")?;
    let mut words = head.splitn(4, |byte| *byte == b' ');
    let mut word = || words.next().context("a record of too few words");
    let number = |word: &[u8]| -> anyhow::Result<i64> { Ok(std::str::from_utf8(word)?.parse()?) };
    let (offset, timestamp_ms) = (number(word()?)?, number(word()?)?);
    let (key, tail) = (number(word()?)?, word()?);
    let digits = tail.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
    let (value, headers) = tail.split_at(digits);
    let value = number(value)?;
    *rest = behind;
    let key = take(rest, key)?;
    let value = take(rest, value)?;
    let header = |header: &[u8]| {
        let (name, value) = halves(header, "=").context("a header without =")?;
        Ok((String::from_utf8(name.to_vec())?, (value != b"NULL").then(|| value.to_vec())))
    };
    let headers = match headers {
        b"" => Vec::new(),
        some => split(some, ",").map(header).collect::<anyhow::Result<_>>()?,
    };
    Ok(ReadRecord { partition: 0, offset, timestamp_ms, key, value, headers })
}

/// As many bytes; none for the length −1.
fn take(rest: &mut &[u8], length: i64) -> anyhow::Result<Option<Bytes>> {
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let (taken, behind) = rest.split_at_checked(length).context("kcat's output is cut short")?;
    *rest = behind;
    Ok(Some(taken.to_vec()))
}

fn split<'a>(text: &'a [u8], mark: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (part, behind) = halves(text, mark).map_or((text, None), |(part, b)| (part, Some(b)));
        rest = behind;
        Some(part)
    })
}

/// What is before and behind the first `mark`.
fn halves<'a>(text: &'a [u8], mark: &str) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(mark.len()).position(|window| window == mark.as_bytes())?;
    let (before, behind) = text.split_at_checked(at)?;
    Some((before, behind.get(mark.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: Vec<(String, Option<Bytes>)>) -> ReadRecord {
        let (key, value) = (None, Some(b"a\nb".to_vec()));
        ReadRecord { partition: 0, offset: 4, timestamp_ms: 5, key, value, headers }
    }

    #[test]
    fn what_java_prints_is_understood() {
        let text = |headers: &str| {
            ["CreateTime:5", "Offset:4", headers, MISSING, "a\nb"].join(BETWEEN).into_bytes()
        };
        assert_eq!(of_java(&text("NO_HEADERS")).unwrap(), record(Vec::new()));
        let headers = vec![("h".to_owned(), Some(b"1:2".to_vec())), ("h".to_owned(), None)];
        assert_eq!(of_java(&text(&format!("h:1:2{HEADERS}h:{MISSING}"))).unwrap(), record(headers));
    }

    #[test]
    fn what_kcat_prints_is_understood() {
        let text = format!("4 5 -1 3h=1,h=NULL{AFTER}a\nb4 5 -1 3{AFTER}a\nb");
        let mut rest = text.as_bytes();
        let headers = vec![("h".to_owned(), Some(b"1".to_vec())), ("h".to_owned(), None)];
        assert_eq!(of_kcat(&mut rest).unwrap(), record(headers));
        assert_eq!(of_kcat(&mut rest).unwrap(), record(Vec::new()));
        assert!(of_kcat(&mut rest).is_err());
    }
}
