//! The batches of one answer are read, and decompressed within a limit.

use tokio::sync::OwnedSemaphorePermit;

use super::cursor::{self, ReadBudget, Yield};
use super::fetched::ReadError;
use super::isolation::Isolation;
use crate::calls::fetch::FetchFound;
use crate::limits::{INFLATED_BATCH_BYTES, INFLATED_FIRST_BYTES, INFLATION};
use crate::record_batch::{self, BatchHeader};

/// What an answer has for one partition, and where it is read from.
pub(super) struct Job {
    pub(super) place: usize,
    pub(super) offset: i64,
    pub(super) found: FetchFound,
    pub(super) isolation: Option<Isolation>,
}

/// What an answer has for all of its partitions, while it is read.
pub(super) struct JobsUnderWay {
    pub(super) jobs: Vec<Job>,
    /// Bytes that a batch may be decompressed to.
    pub(super) limit: usize,
    pub(super) budget: ReadBudget,
    /// The memory for one batch at a time.
    pub(super) room: OwnedSemaphorePermit,
}

/// What was read of an answer.
pub(super) struct JobsDone {
    pub(super) done: Vec<(Job, Yield)>,
    /// Those that begin with a batch beyond the limit, if that is not the highest.
    pub(super) grown: Vec<Job>,
    pub(super) budget: ReadBudget,
    pub(super) room: OwnedSemaphorePermit,
}

impl Job {
    /// What its batches may become when they are decompressed, by the largest; 0 if none is compressed.
    pub(super) fn inflated_bytes(&self) -> usize {
        let compressed = record_batch::batches(self.found.records.clone())
            .filter_map(Result::ok)
            .filter(|batch| BatchHeader::parse(batch).is_ok_and(|header| header.codec() != 0));
        let inflated = |batch: bytes::Bytes| batch.len().saturating_mul(INFLATION);
        let largest = compressed.map(inflated).max();
        largest.map_or(0, |bytes| bytes.clamp(INFLATED_FIRST_BYTES, INFLATED_BATCH_BYTES))
    }
}

impl JobsUnderWay {
    pub(super) fn work(self) -> JobsDone {
        let Self { jobs, limit, mut budget, room } = self;
        let (mut done, mut grown) = (Vec::new(), Vec::new());
        for job in jobs {
            let (records, isolation) = (job.found.records.clone(), job.isolation.clone());
            let given = cursor::read(records, job.offset, isolation, &mut budget, limit);
            let has_grown = matches!(given.error, Some(ReadError::TooLarge { limit, .. })
                if limit < INFLATED_BATCH_BYTES && given.records.is_empty());
            if has_grown {
                grown.push(job);
            } else {
                done.push((job, given));
            }
        }
        JobsDone { done, grown, budget, room }
    }
}
