//! A batch from its first record to its bytes: growing, sealed, in flight, or taken apart (pure, but
//! for the thread that compresses a large one).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::sequence::SequenceError;
use super::settle::{Claim, OutcomeCell, Slot};
use super::verdict::Attempts;
use crate::error::Reason;
use crate::record_batch::{
    self, BatchBuilder, BatchError, Compression, Encoder, Record, Stamp, StoredRecord, compress,
};

/// Bounds of the batches of every partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) request_bytes: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) linger: Duration,
    /// Batches of one partition in flight, with idempotence.
    pub(crate) idempotent_in_flight: Option<usize>,
}

/// Records that are sent and settled together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) content: Content,
    pub(crate) attempts: Attempts,
    /// Gone when its deadline passed while it was in flight: then only its place is taken.
    pub(crate) claim: Option<Claim>,
    /// The earliest deadline of its records: a batch is settled as a whole.
    pub(crate) deadline: Instant,
    /// When it was opened, or the end of the pause that its last failure demands.
    pub(crate) not_before: Instant,
}

/// The records of a batch.
#[derive(Debug)]
pub(crate) enum Content {
    Growing(BatchBuilder),
    /// Sent before: under the same stamp not a byte changes any more.
    Sealed(Bytes),
    /// In flight.
    InFlight,
}

impl Content {
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        match self {
            Self::Growing(builder) => builder.capacity(),
            Self::Sealed(_) | Self::InFlight => self.len(),
        }
    }

    /// Bytes of the batch, a growing one's as if it were not compressed.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Growing(builder) => builder.len(),
            Self::Sealed(bytes) => bytes.len(),
            Self::InFlight => 0,
        }
    }
}

/// The part of a batch that travels, while its claim stays with the partition.
#[derive(Debug)]
pub(crate) struct InFlightBatch {
    pub(crate) id: u64,
    pub(crate) bytes: Bytes,
    pub(crate) records: usize,
    pub(crate) attempts: Attempts,
}

/// What a sender gets from a partition.
#[derive(Debug)]
pub(crate) enum NextBatch {
    /// To be sealed outside of the lock.
    Batch {
        id: u64,
        content: Content,
        records: usize,
        attempts: Attempts,
        stamp: Stamp,
    },
    /// Not into this request; the partition stays scheduled.
    NoRoom,
    Nothing,
}

/// How a shipment ended, for its partition.
#[derive(Debug)]
pub(crate) enum Ending {
    Written { base_offset: Option<i64>, log_append_ms: Option<i64> },
    GaveUp(Reason),
    Resend { at: Instant, cause: Arc<Reason>, why: ResendReason },
    Regroup(Regrouped),
}

/// Why a shipment is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResendReason {
    /// An answer says so.
    Refused,
    /// There will be no answer; the connection was closed then.
    CutOff(Instant),
    /// An answer that means what the partition's state makes of it.
    Sequence(SequenceError),
}

/// Belongs to one sender, whose encoder goes from batch to batch.
#[derive(Debug)]
pub(crate) struct Sealer {
    compression: Compression,
    encoder: Encoder,
}

impl Sealer {
    pub(crate) fn new(compression: Compression) -> Self {
        Self { compression, encoder: Encoder::new(compression) }
    }

    /// The final bytes of a batch under its stamp; one that does not shrink stays as it is. At most
    /// as many threads work as `threads` has places.
    ///
    /// # Errors
    /// Our own bytes cannot be read back, which would be a fault of ours.
    pub(crate) async fn seal(
        &mut self,
        content: Content,
        stamp: Stamp,
        threads: &Semaphore,
    ) -> Result<Bytes, BatchError> {
        let plain = match content {
            Content::Growing(builder) => builder.finish(stamp),
            Content::Sealed(bytes) => return stamp.put(bytes),
            Content::InFlight => return Err(BatchError::Truncated { need: 1, have: 0 }),
        };
        let compressed = if self.compression.takes_long(plain.len()) {
            self.on_a_thread(plain.clone(), threads).await
        } else {
            compress(&plain, &mut self.encoder)
        };
        Ok(compressed.unwrap_or(plain))
    }

    async fn on_a_thread(&mut self, plain: Bytes, threads: &Semaphore) -> Option<Bytes> {
        let _place = threads.acquire().await.ok()?;
        let mut encoder = std::mem::replace(&mut self.encoder, Encoder::new(self.compression));
        let span = tracing::Span::current();
        let work = spawn_blocking(move || {
            let compressed = span.in_scope(|| compress(&plain, &mut encoder));
            (compressed, encoder)
        });
        let (compressed, encoder) = work.await.ok()?;
        self.encoder = encoder;
        compressed
    }
}

/// A batch's records arranged anew: some refused, the others in groups.
#[derive(Debug)]
pub(crate) struct Regrouped {
    refused: Vec<(usize, Reason)>,
    groups: Vec<(BatchBuilder, Vec<usize>)>,
    records: usize,
}

impl Regrouped {
    /// Two halves. `None` if our own bytes cannot be read back, which would be a fault of ours.
    pub(crate) fn halves(bytes: &Bytes) -> Option<Self> {
        let (_, records) = record_batch::decode_all(bytes).ok()?;
        let middle = records.len().div_ceil(2);
        let group = |range: std::ops::Range<usize>| {
            let members = records.get(range.clone()).unwrap_or_default();
            (rebuild(members.iter()), range.collect())
        };
        let groups = vec![group(0..middle), group(middle..records.len())];
        Some(Self { refused: Vec::new(), groups, records: records.len() })
    }

    /// Without the records at `faults`; at least one of them must be in the batch.
    pub(crate) fn without(bytes: &Bytes, faults: &[(i32, Reason)]) -> Option<Self> {
        let (_, records) = record_batch::decode_all(bytes).ok()?;
        let fault = |index: usize| {
            faults.iter().find(|(at, _)| usize::try_from(*at).is_ok_and(|at| at == index))
        };
        let mut refused = Vec::new();
        let mut kept = Vec::new();
        for index in 0..records.len() {
            match fault(index) {
                Some((_, reason)) => refused.push((index, reason.clone())),
                None => kept.push(index),
            }
        }
        if refused.is_empty() {
            return None;
        }
        let builder = rebuild(kept.iter().filter_map(|index| records.get(*index)));
        let groups = if kept.is_empty() { Vec::new() } else { vec![(builder, kept)] };
        Some(Self { refused, groups, records: records.len() })
    }

    /// Turns the groups into batches that share the old batch's memory, and tells its tickets
    /// where their records are now.
    pub(crate) fn into_batches(
        self,
        old: Claim,
        (deadline, not_before): (Instant, Instant),
        last_id: &mut u64,
    ) -> Vec<Batch> {
        let lost = Slot::Refused(Reason::InvalidRecord("lost in regrouping".into()));
        let mut slots = vec![lost; self.records];
        for (index, reason) in self.refused {
            if let Some(slot) = slots.get_mut(index) {
                *slot = Slot::Refused(reason);
            }
        }
        let mut batches = Vec::with_capacity(self.groups.len());
        let mut handed_on = 0;
        for (builder, members) in self.groups {
            let cell = OutcomeCell::new(old.cell.partition());
            let mut claim = Claim::new(cell.clone(), old.ledger());
            claim.records = members.len();
            claim.reserved = share(old.reserved, members.len(), self.records);
            handed_on += claim.reserved;
            point(&mut slots, &cell, &members);
            let content = Content::Growing(builder);
            let attempts = Attempts::default();
            *last_id += 1;
            let (id, claim) = (*last_id, Some(claim));
            batches.push(Batch { id, content, attempts, claim, deadline, not_before });
        }
        old.moved(slots, handed_on);
        batches
    }
}

fn point(slots: &mut [Slot], cell: &Arc<OutcomeCell>, members: &[usize]) {
    for (index, member) in (0..).zip(members) {
        if let Some(slot) = slots.get_mut(*member) {
            *slot = Slot::In { cell: cell.clone(), index };
        }
    }
}

/// The part of `bytes` that belongs to `members` of `all` records, rounded down.
fn share(bytes: usize, members: usize, all: usize) -> usize {
    (bytes / all.max(1)) * members
}

fn rebuild<'a>(records: impl Iterator<Item = &'a StoredRecord>) -> BatchBuilder {
    let mut builder = BatchBuilder::with_capacity(0);
    for stored in records {
        let owned: Vec<_> = stored.headers.iter().collect();
        let headers: Vec<_> = owned.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
        let record = Record {
            partition: None,
            key: stored.key.as_deref(),
            value: stored.value.as_deref(),
            headers: &headers,
            timestamp_ms: stored.timestamp_ms,
        };
        builder.push_within(&record, usize::MAX);
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{BatchBuilder, BatchHeader, Record, decode_all};

    fn content(value: &[u8]) -> Content {
        let record = Record {
            partition: None,
            key: None,
            value: Some(value),
            headers: &[],
            timestamp_ms: 5,
        };
        let mut builder = BatchBuilder::with_capacity(0);
        assert!(builder.push_within(&record, usize::MAX));
        Content::Growing(builder)
    }

    #[tokio::test]
    async fn small_and_large_batches_are_compressed_by_one_encoder_after_another() {
        let threads = Semaphore::new(1);
        for compression in [Compression::Gzip(6), Compression::Zstd(7), Compression::Lz4] {
            let mut sealer = Sealer::new(compression);
            for bytes in [1000, 100_000, 2000, 300_000] {
                let value = b"abcdefgh".repeat(bytes / 8);
                let batch = sealer.seal(content(&value), Stamp::NONE, &threads).await.unwrap();
                assert!(batch.len() < bytes / 2, "{compression:?}");
                let (_, records) = decode_all(&batch).unwrap();
                assert_eq!(records[0].value.as_deref(), Some(&value[..]));
            }
        }
    }

    #[tokio::test]
    async fn a_batch_on_a_thread_waits_for_its_place() {
        let threads = Semaphore::new(0);
        let mut sealer = Sealer::new(Compression::Gzip(1));
        let mut waiting = Box::pin(sealer.seal(content(&[7; 100_000]), Stamp::NONE, &threads));
        let poll = futures_poll(&mut waiting).await;
        assert!(poll.is_none());
        threads.add_permits(1);
        assert!(waiting.await.unwrap().len() < 2000);
    }

    #[tokio::test]
    async fn what_does_not_shrink_stays_and_what_was_sent_is_not_touched() {
        let threads = Semaphore::new(1);
        let mut sealer = Sealer::new(Compression::Snappy);
        let batch = sealer.seal(content(b"x"), Stamp::NONE, &threads).await.unwrap();
        assert_eq!(BatchHeader::parse(&batch).unwrap().codec(), 0);
        let sent =
            sealer.seal(Content::Sealed(batch.clone()), Stamp::NONE, &threads).await.unwrap();
        assert_eq!(sent.as_ptr(), batch.as_ptr());
    }

    /// The output if the future is ready at once.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
