//! Batches and outcomes between filter and bridge as bytes (postcard).
//!
//! A frame is the postcard encoding of `Head`, the number of records, and the records. Each record
//! is encoded once, when it is captured, and copied into its batch.

use serde::{Deserialize, Serialize};

use crate::limits::{FRAME_RECORDS_MAX, REPLY_BYTES_MAX};
use crate::outcome::Outcome;
use crate::record::Record;

/// The value of the header `kafka-upstream-bridge`: replies of another version are not understood.
pub const VERSION: &str = "1";
/// The header by which the bridge marks each of its replies.
pub const MARKER: &str = "kafka-upstream-bridge";
/// The content type of a frame.
pub const BATCH_TYPE: &str = "application/vnd.kafka-upstream.batch.v1";
/// The content type of the outcomes of a frame's records.
pub const OUTCOMES_TYPE: &str = "application/vnd.kafka-upstream.outcomes.v1";

/// What a 200 to the client means, and so when the bridge must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// Queued in the filter's bounded memory (`producer_async` true).
    Memory,
    /// Acknowledged by Kafka (`producer_async` false).
    Acked,
    /// Queued in the bridge's bounded memory: memory mode on a gateway whose filter has no tick to
    /// send by. The bridge answers at once.
    Queued,
}

/// What precedes the records of a batch: profile and VM id as they are, and the others in postcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// SHA-256 of the producer profile.
    pub profile: [u8; 32],
    /// Random id of the VM that sends.
    pub vm: [u8; 16],
    /// Number of the batch within its VM; a resent batch keeps it.
    pub sequence: u64,
    /// The delivery mode that the records were captured under.
    pub delivery: Delivery,
    /// How long the bridge may take for an outcome, in ms.
    pub budget_ms: u32,
    /// No batch of the VM below this number is sent again: the bridge need not remember them. 0
    /// where the VM cannot tell.
    pub settled_below: u64,
}

/// A decoded frame, borrowed from its bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Head of the frame.
    pub head: Head,
    /// Records in order of capture.
    pub records: Vec<Record<'a>>,
    /// The records as they came: equal where a batch is sent again.
    pub encoded: &'a [u8],
}

/// Why bytes are not a frame or a list of outcomes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes do not decode.
    #[error("{what} does not decode: {reason}")]
    Malformed {
        /// What was being decoded.
        what: &'static str,
        /// The decoder's message.
        reason: postcard::Error,
    },
    /// Bytes are left behind the last record.
    #[error("{0} bytes are left behind the last record")]
    TrailingBytes(usize),
    /// A count is above its limit.
    #[error("{count} records are more than {FRAME_RECORDS_MAX}")]
    TooMany {
        /// The count that the frame declares.
        count: u64,
    },
    /// A frame without records has no purpose.
    #[error("the frame has no records")]
    Empty,
}

/// Encodes one record for a later frame.
///
/// # Errors
/// None that a record can cause; the encoder's error is passed on rather than hidden.
pub fn encode_record(record: &Record<'_>) -> Result<Vec<u8>, WireError> {
    // In a buffer that never grows: a record is made for every request.
    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let headers =
        record.headers.iter().map(|(key, value)| key.len() + bytes(*value) + 2 * LENGTH_BYTES);
    let size =
        record.topic.len() + bytes(record.key) + bytes(record.value) + headers.sum::<usize>();
    let buffer = Vec::with_capacity(size + RECORD_OVERHEAD_BYTES);
    postcard::to_extend(record, buffer).map_err(|reason| malformed("record", reason))
}

/// The topic of an encoded record: it stands first. Empty when the bytes are no record.
#[must_use]
pub fn topic(record: &[u8]) -> &str {
    postcard::take_from_bytes(record).map_or("", |(topic, _)| topic)
}

/// Puts encoded records behind their head.
///
/// # Errors
/// As `encode_record`.
pub fn encode_frame<'a>(
    head: &Head,
    records: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) -> Result<Vec<u8>, WireError> {
    let size: usize = records.clone().map(<[u8]>::len).sum();
    let mut frame = Vec::with_capacity(size + HEAD_BYTES);
    frame.extend_from_slice(&head.profile);
    frame.extend_from_slice(&head.vm);
    let Head { sequence, delivery, budget_ms, settled_below, .. } = head;
    let rest = (sequence, delivery, budget_ms, settled_below, records.len() as u64);
    frame = postcard::to_extend(&rest, frame).map_err(|reason| malformed("head", reason))?;
    records.for_each(|record| frame.extend_from_slice(record));
    Ok(frame)
}

/// Decodes a frame completely before any of it is used.
///
/// # Errors
/// Names what does not decode, a count above its limit, or bytes left behind the last record.
pub fn decode_frame(frame: &[u8]) -> Result<Batch<'_>, WireError> {
    let (head, count, mut rest) = decode_head(frame).map_err(|reason| malformed("head", reason))?;
    if count == 0 {
        return Err(WireError::Empty);
    }
    if count > FRAME_RECORDS_MAX as u64 {
        return Err(WireError::TooMany { count });
    }
    let (mut records, encoded) = (Vec::new(), rest);
    for _ in 0..count {
        let (record, left) =
            postcard::take_from_bytes(rest).map_err(|reason| malformed("record", reason))?;
        records.push(record);
        rest = left;
    }
    if rest.is_empty() {
        Ok(Batch { head, records, encoded })
    } else {
        Err(WireError::TrailingBytes(rest.len()))
    }
}

fn decode_head(frame: &[u8]) -> postcard::Result<(Head, u64, &[u8])> {
    let end = || postcard::Error::DeserializeUnexpectedEnd;
    let (profile, rest) = frame.split_first_chunk().ok_or_else(end)?;
    let (vm, rest) = rest.split_first_chunk().ok_or_else(end)?;
    let ((sequence, delivery, budget_ms, settled_below, count), rest) =
        postcard::take_from_bytes(rest)?;
    let (profile, vm) = (*profile, *vm);
    Ok((Head { profile, vm, sequence, delivery, budget_ms, settled_below }, count, rest))
}

/// Encodes the outcomes of a frame's records, in the records' order.
///
/// # Errors
/// As `encode_record`.
pub fn encode_outcomes(outcomes: &[Outcome]) -> Result<Vec<u8>, WireError> {
    let buffer = Vec::with_capacity(outcomes.len() * WRITTEN_BYTES + LENGTH_BYTES);
    postcard::to_extend(outcomes, buffer).map_err(|reason| malformed("outcomes", reason))
}

/// Decodes outcomes.
///
/// # Errors
/// As `decode_frame`.
pub fn decode_outcomes(bytes: &[u8]) -> Result<Vec<Outcome>, WireError> {
    if bytes.len() > REPLY_BYTES_MAX {
        return Err(WireError::TrailingBytes(bytes.len() - REPLY_BYTES_MAX));
    }
    let (outcomes, rest) =
        postcard::take_from_bytes(bytes).map_err(|reason| malformed("outcomes", reason))?;
    if rest.is_empty() { Ok(outcomes) } else { Err(WireError::TrailingBytes(rest.len())) }
}

fn malformed(what: &'static str, reason: postcard::Error) -> WireError {
    WireError::Malformed { what, reason }
}

/// Profile, VM id, and the varints of sequence, delivery, budget, settled and count at their
/// longest.
const HEAD_BYTES: usize = 32 + 16 + 10 + 1 + 5 + 10 + 10;
/// What a record that was written has: kind, partition, and an offset below 2^41.
const WRITTEN_BYTES: usize = 1 + 2 + 1 + 6;
/// The longest varint of a length, and whether there is a value.
const LENGTH_BYTES: usize = 5 + 1;
/// What a record has beside its texts: the lengths of topic, key, value and headers, its partition and
/// its timestamp.
const RECORD_OVERHEAD_BYTES: usize = 4 * LENGTH_BYTES + 6 + 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Code, Reason};
    use proptest::prelude::*;

    fn head() -> Head {
        Head {
            profile: [7; 32],
            vm: [9; 16],
            sequence: 300,
            delivery: Delivery::Acked,
            budget_ms: 9,
            settled_below: 300,
        }
    }

    fn frame(records: &[Record<'_>]) -> Vec<u8> {
        let encoded: Vec<_> = records.iter().map(|record| encode_record(record).unwrap()).collect();
        encode_frame(&head(), encoded.iter().map(Vec::as_slice)).unwrap()
    }

    fn records() -> Vec<Record<'static>> {
        let plain = Record {
            topic: "orders",
            partition: None,
            timestamp_ms: -1,
            key: None,
            value: Some(b"{}"),
            headers: vec![],
        };
        let full = Record {
            partition: Some(4),
            key: Some(b""),
            value: None,
            headers: vec![(b"a", Some(b"1")), (b"a", None), (b"\xff", Some(b""))],
            ..plain.clone()
        };
        vec![plain, full]
    }

    #[test]
    fn a_frame_decodes_to_what_was_encoded() {
        let bytes = frame(&records());
        let batch = decode_frame(&bytes).unwrap();
        assert_eq!((batch.head, batch.records), (head(), records()));
        assert!(bytes.ends_with(batch.encoded));
        assert_eq!(batch.encoded[..7], *b"\x06orders");
    }

    #[test]
    fn the_topic_of_an_encoded_record_can_be_read_alone() {
        let encoded = encode_record(&records()[1]).unwrap();
        assert_eq!((topic(&encoded), topic(b"\xff")), ("orders", ""));
    }

    #[test]
    fn a_frame_cut_at_every_byte_is_refused() {
        let bytes = frame(&records());
        for end in 0..bytes.len() {
            assert!(decode_frame(&bytes[..end]).is_err(), "cut at {end}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode_frame(&longer), Err(WireError::TrailingBytes(1)));
    }

    #[test]
    fn a_declared_count_takes_no_memory() {
        let mut start = frame(&[]);
        assert_eq!(start.pop(), Some(0), "the number of records");
        let start = postcard::to_extend(&u64::MAX, start).unwrap();
        assert_eq!(decode_frame(&start), Err(WireError::TooMany { count: u64::MAX }));
        assert_eq!(decode_frame(&frame(&[])), Err(WireError::Empty));
        let outcomes = postcard::to_allocvec(&u32::MAX).unwrap();
        assert!(decode_outcomes(&outcomes).is_err());
    }

    #[test]
    fn outcomes_decode_to_what_was_encoded() {
        let outcomes = [
            Outcome::Written { partition: 1, offset: None },
            Outcome::NotWritten(Reason::new(Code::QueueFull, "full")),
            Outcome::Unknown(Reason::new(Code::DeadlineExceeded, "")),
        ];
        let bytes = encode_outcomes(&outcomes).unwrap();
        assert_eq!(decode_outcomes(&bytes).unwrap(), outcomes);
        for end in 0..bytes.len() {
            assert!(decode_outcomes(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode_frame(&bytes);
            let _ = decode_outcomes(&bytes);
        }
    }
}
