//! Closes batches: compressed on the spot, or on a thread if that takes long.

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::batch::Content;
use crate::record_batch::{BatchError, Compression, Encoder, Stamp, compress};

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
            Content::Away => return Err(BatchError::Truncated { need: 1, have: 0 }),
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
