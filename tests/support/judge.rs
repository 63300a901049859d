//! What a producer was told of its records, judged by Kafka's log.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::kafka::Kafka;
use harness::reader::read_all;
use harness::record::ReadRecord;
use kafka_client::Outcome;

use crate::produce::{SentRecord, key, value};

/// An outcome may be this much later than the record's deadline, on processors that also run the
/// cluster; the client's own promise is 100 ms.
const MARGIN: Duration = Duration::from_secs(2);

/// How outcomes and log agree.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Records told as written.
    pub written: usize,
    /// Records told as not written.
    pub not_written: usize,
    /// Records of which nothing is known.
    pub unknown: usize,
    /// Of the unknown ones, those in the log.
    pub unknown_present: usize,
    /// SentRecord as written, and not in the log at that place.
    pub missing: Vec<SentRecord>,
    /// SentRecord as not written, and in the log.
    pub present: Vec<SentRecord>,
    /// Copies beyond the first of a record, whatever was told of it.
    pub duplicates: usize,
    /// Acknowledged records that stand in their partition behind a later one of their key.
    pub out_of_order: usize,
    /// How much later than its deadline an outcome came, at most.
    pub latest: Duration,
    /// How long it took until a record was told as written, at most.
    pub slowest: Duration,
}

impl Verdict {
    /// Checks what holds whatever happens to the brokers: what is told as not written is not there,
    /// acknowledged records of a key are in their order, and nobody is told late.
    ///
    /// # Errors
    /// When it is not so.
    pub fn is_honest(&self) -> anyhow::Result<()> {
        let present = self.present.first();
        ensure!(present.is_none(), "told as not written, and there: {present:?}; {self}");
        ensure!(self.out_of_order == 0 && self.latest < MARGIN, "{self}");
        Ok(())
    }

    /// Checks what holds beyond that with acks=all and idempotence: what is told as written is
    /// there, and nothing is there twice.
    ///
    /// # Errors
    /// When it is not so.
    pub fn is_exact(&self) -> anyhow::Result<()> {
        let missing = self.missing.first();
        ensure!(missing.is_none(), "told as written, and not there: {missing:?}; {self}");
        ensure!(self.duplicates == 0, "{self}");
        self.is_honest()
    }
}

/// Judges what was told by what Kafka holds of a topic now, and prints the figures.
///
/// # Errors
/// As [`judge`], or when Kafka does not answer.
pub async fn judge_topic(
    kafka: &Kafka,
    topic: &str,
    told: &[SentRecord],
) -> anyhow::Result<Verdict> {
    let verdict = judge(told, &read_all(&kafka.bootstrap(), topic).await?)?;
    println!("{:?} {topic:>10}: {verdict}", kafka.version());
    Ok(verdict)
}

/// Judges what was told by the log.
///
/// # Errors
/// When the log has something that was never sent, or anyone was told twice or never.
pub fn judge(told: &[SentRecord], log: &[ReadRecord]) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut copies = vec![0_usize; told.len()];
    let mut numbers = HashMap::with_capacity(log.len());
    for record in log {
        let number = number_of(record)?;
        let count = copies.get_mut(usize::try_from(number)?);
        *count.with_context(|| format!("{number} was never sent"))? += 1;
        numbers.insert((record.partition, record.offset), number);
    }
    verdict.duplicates = copies.iter().map(|count| count.saturating_sub(1)).sum();
    let mut acknowledged = Vec::with_capacity(told.len());
    for (index, (one, copies)) in told.iter().zip(&copies).enumerate() {
        ensure!(one.number == index as u64, "{index} is told as {}", one.number);
        verdict.latest = verdict.latest.max(one.settled.saturating_duration_since(one.deadline));
        match &one.outcome {
            Outcome::Written { partition, offset, .. } => {
                verdict.written += 1;
                verdict.slowest = verdict.slowest.max(one.settled - one.sent);
                let place = (*partition, offset.context("acknowledged without an offset")?);
                if numbers.get(&place) == Some(&one.number) {
                    acknowledged.push((one.number, place));
                } else {
                    verdict.missing.push(one.clone());
                }
            }
            Outcome::NotWritten(_) => {
                verdict.not_written += 1;
                verdict.present.extend((*copies > 0).then(|| one.clone()));
            }
            Outcome::Unknown(_) => {
                verdict.unknown += 1;
                verdict.unknown_present += usize::from(*copies > 0);
            }
        }
    }
    let mut last = HashMap::new();
    for (number, (partition, offset)) in acknowledged {
        let last = last.entry((partition, key(number))).or_insert(-1);
        verdict.out_of_order += usize::from(offset < *last);
        *last = offset.max(*last);
    }
    Ok(verdict)
}

/// The number of a record, which must be as it was sent.
fn number_of(record: &ReadRecord) -> anyhow::Result<u64> {
    let text = str::from_utf8(record.value.as_deref().context("a record without a value")?)?;
    let (number, _) = text.split_once(' ').with_context(|| format!("not ours: {text}"))?;
    let number = number.parse()?;
    ensure!(text == value(number), "damaged: {text}");
    ensure!(record.key == Some(key(number).into_bytes()), "{number} has the key of another");
    Ok(number)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, not_written, unknown, unknown_present, duplicates, .. } = self;
        write!(
            f,
            "{written} written, {not_written} not, {unknown} unknown ({unknown_present} of them \
             present); missing {}, present {}, duplicates {duplicates}, out of order {}; {} ms \
             late, slowest {} ms",
            self.missing.len(),
            self.present.len(),
            self.out_of_order,
            self.latest.as_millis(),
            self.slowest.as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use kafka_client::Reason;
    use tokio::time::Instant;

    use super::*;

    fn told(outcomes: &[Outcome]) -> Vec<SentRecord> {
        let now = Instant::now();
        let one = |(number, outcome): (usize, &Outcome)| SentRecord {
            number: number as u64,
            sent: now,
            deadline: now,
            settled: now + Duration::from_millis(7),
            outcome: outcome.clone(),
        };
        outcomes.iter().enumerate().map(one).collect()
    }

    fn written(offset: i64) -> Outcome {
        Outcome::Written { partition: 0, offset: Some(offset), timestamp_ms: 0 }
    }

    /// A log of one partition.
    fn log(numbers: &[u64]) -> Vec<ReadRecord> {
        let one = |(offset, number): (i64, &u64)| ReadRecord {
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Some(key(*number).into_bytes()),
            value: Some(value(*number).into_bytes()),
            headers: Vec::new(),
        };
        (0..).zip(numbers).map(one).collect()
    }

    #[test]
    fn each_kind_of_fault_is_counted() {
        let (not, unknown) =
            (Outcome::NotWritten(Reason::Closed), Outcome::Unknown(Reason::Closed));
        let mut outcomes = vec![written(0), written(1), not.clone(), unknown, not];
        outcomes.resize(331, Outcome::NotWritten(Reason::Closed));
        // The same key as 0, and before it.
        outcomes.push(written(1));
        outcomes[0] = written(4);
        outcomes[1] = written(9);
        let verdict = judge(&told(&outcomes), &log(&[2, 331, 3, 3, 0])).unwrap();
        let numbers = |told: &[SentRecord]| told.iter().map(|one| one.number).collect::<Vec<_>>();
        assert_eq!((verdict.written, verdict.unknown, verdict.unknown_present), (3, 1, 1));
        assert_eq!(numbers(&verdict.missing), [1]);
        assert_eq!(numbers(&verdict.present), [2]);
        assert_eq!((verdict.duplicates, verdict.out_of_order), (1, 1));
        assert_eq!(verdict.latest, Duration::from_millis(7));
    }

    #[test]
    fn what_nobody_sent_or_is_damaged_is_an_error() {
        assert!(judge(&told(&[written(0)]), &log(&[1])).is_err());
        let mut damaged = log(&[0]);
        damaged[0].key = None;
        assert!(judge(&told(&[written(0)]), &damaged).is_err());
        assert!(judge(&told(&[written(0)]), &log(&[0])).unwrap().missing.is_empty());
    }
}
