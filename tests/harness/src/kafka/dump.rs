//! Kafka's own word on what is in a log, by its tool `DumpLogSegments`.

use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

use super::{Kafka, KafkaVersion};
use xtask::tools;

/// A batch in a log, as Kafka describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedBatch {
    /// The partition that it is in.
    pub partition: i32,
    /// The offset of its first record.
    pub base_offset: i64,
    /// Who wrote it, -1 without idempotence.
    pub producer_id: i64,
    /// The epoch of the producer id, or -1.
    pub producer_epoch: i16,
    /// The sequence of its first record, or -1.
    pub base_sequence: i32,
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
        let mut files = Vec::new();
        for segment in self.broker(id)?.segments(topic)? {
            files.push(segment.to_str().context("a path that is not UTF-8")?.to_owned());
        }
        ensure!(!files.is_empty(), "broker {id} has no log of {topic}");
        let mut command = tools::kafka_java(self.version)?.command(&[])?;
        command.args(tools::QUICK);
        let tool = match self.version() {
            KafkaVersion::V3_9 => "kafka.tools.DumpLogSegments",
            KafkaVersion::V4_3 => "org.apache.kafka.tools.DumpLogSegments",
        };
        command.args([tool, "--print-data-log", "--files"]);
        command.arg(files.join(","));
        parse(&tokio::task::spawn_blocking(move || run(command)).await??)
    }
}

pub(super) fn run(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().context("cannot run java")?;
    if !output.status.success() {
        bail!("DumpLogSegments: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn parse(text: &str) -> anyhow::Result<Vec<DumpedBatch>> {
    let mut batches: Vec<DumpedBatch> = Vec::new();
    let mut partition = None;
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("Dumping ") {
            partition = partition_of(path);
        } else if line.starts_with("baseOffset: ") {
            ensure!(field(line, "isvalid") == Some("true"), "not valid: {line}");
            batches.push(DumpedBatch {
                partition: partition.context("a batch of no partition")?,
                base_offset: number(line, "baseOffset")?,
                producer_id: number(line, "producerId")?,
                producer_epoch: number(line, "producerEpoch")?,
                base_sequence: number(line, "baseSequence")?,
                codec: field(line, "compresscodec").context("no codec")?.to_owned(),
                bytes: number(line, "size")?,
                values: Vec::new(),
            });
        } else if line.starts_with("| offset: ") {
            let (_, value) = line.split_once(" payload: ").context("a record without a value")?;
            let batch = batches.last_mut().context("a record without a batch")?;
            batch.values.push(value.to_owned());
        }
    }
    Ok(batches)
}

/// The number at the end of the folder of a segment.
fn partition_of(path: &str) -> Option<i32> {
    let folder = Path::new(path).parent()?.file_name()?.to_str()?;
    folder.rsplit_once('-')?.1.parse().ok()
}

fn number<T>(line: &str, name: &str) -> anyhow::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = field(line, name).with_context(|| format!("no {name}: {line}"))?;
    text.parse().with_context(|| format!("{name} is {text}"))
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
Dumping /d/my-orders-3/00000000000000000000.log
Log starting offset: 0
baseOffset: 40 lastOffset: 41 count: 2 baseSequence: 5 lastSequence: 6 producerId: 9 \
producerEpoch: 2 partitionLeaderEpoch: 0 isTransactional: false isControl: false \
deleteHorizonMs: OptionalLong.empty position: 0 CreateTime: 5 size: 77 magic: 2 \
compresscodec: lz4 crc: 2 isvalid: true
| offset: 0 CreateTime: 5 keySize: -1 valueSize: 1 sequence: -1 headerKeys: [] payload: a b
| offset: 1 CreateTime: 5 keySize: -1 valueSize: 1 sequence: -1 headerKeys: [] payload: c
";

    #[test]
    fn batches_and_their_records_are_understood() {
        let values = vec!["a b".to_owned(), "c".to_owned()];
        let batch = DumpedBatch {
            partition: 3,
            base_offset: 40,
            producer_id: 9,
            producer_epoch: 2,
            base_sequence: 5,
            codec: "lz4".to_owned(),
            bytes: 77,
            values,
        };
        assert_eq!(parse(OUTPUT).unwrap(), [batch]);
        assert!(parse(&OUTPUT.replace("isvalid: true", "isvalid: false")).is_err());
    }
}
