//! Kafka's own word on what is in a log, by its tool `DumpLogSegments`.

use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::Kafka;
use super::broker::{Java, java_command};
use crate::tools;

/// A batch in a log, as Kafka describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedBatch {
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub codec: String,
    /// Bytes in the log, header included.
    pub bytes: usize,
    /// The values of its records as text, which Kafka has decompressed.
    pub values: Vec<String>,
}

impl Kafka {
    /// The batches of a topic in the log of broker `id`, partition by partition.
    ///
    /// Values must be text of one line.
    ///
    /// # Errors
    /// When there is no such log, or Kafka cannot read a batch of it.
    pub async fn dump(&self, id: usize, topic: &str) -> anyhow::Result<Vec<DumpedBatch>> {
        let java = Java { binary: tools::java()?, libs: tools::kafka_libs(self.version)? };
        let mut files = Vec::new();
        for segment in self.broker(id)?.segments(topic)? {
            files.push(segment.to_str().context("a path that is not UTF-8")?.to_owned());
        }
        ensure!(!files.is_empty(), "broker {id} has no log of {topic}");
        let mut command = java_command(&java)?;
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        command.args(["kafka.tools.DumpLogSegments", "--print-data-log", "--files"]);
        command.arg(files.join(","));
        parse(&tokio::task::spawn_blocking(move || run(command)).await??)
    }
}

fn run(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().context("cannot run java")?;
    if !output.status.success() {
        bail!("DumpLogSegments: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn parse(text: &str) -> anyhow::Result<Vec<DumpedBatch>> {
    let mut batches: Vec<DumpedBatch> = Vec::new();
    for line in text.lines() {
        if line.starts_with("baseOffset: ") {
            ensure!(field(line, "isvalid") == Some("true"), "not valid: {line}");
            let codec = field(line, "compresscodec").context("no codec")?.to_owned();
            let bytes = field(line, "size").context("no size")?.parse()?;
            batches.push(DumpedBatch { codec, bytes, values: Vec::new() });
        } else if line.starts_with("| offset: ") {
            let (_, value) = line.split_once(" payload: ").context("a record without a value")?;
            let batch = batches.last_mut().context("a record without a batch")?;
            batch.values.push(value.to_owned());
        }
    }
    Ok(batches)
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.find(|word| word.strip_suffix(':') == Some(name))?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Dumping /d/orders-0/00000000000000000000.log
Log starting offset: 0
baseOffset: 0 lastOffset: 1 count: 2 baseSequence: -1 lastSequence: -1 producerId: -1 \
producerEpoch: -1 partitionLeaderEpoch: 0 isTransactional: false isControl: false \
deleteHorizonMs: OptionalLong.empty position: 0 CreateTime: 5 size: 77 magic: 2 \
compresscodec: lz4 crc: 2 isvalid: true
| offset: 0 CreateTime: 5 keySize: -1 valueSize: 1 sequence: -1 headerKeys: [] payload: a b
| offset: 1 CreateTime: 5 keySize: -1 valueSize: 1 sequence: -1 headerKeys: [] payload: c
";

    #[test]
    fn batches_and_their_records_are_understood() {
        let values = vec!["a b".to_owned(), "c".to_owned()];
        let batch = DumpedBatch { codec: "lz4".to_owned(), bytes: 77, values };
        assert_eq!(parse(OUTPUT).unwrap(), [batch]);
        assert!(parse(&OUTPUT.replace("isvalid: true", "isvalid: false")).is_err());
    }
}
