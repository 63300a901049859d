//! Where other batch codecs went wrong, one test each; the letters are those of `kafka-protocol`
//! 0.18's faults, for which this codec is our own.

use bytes::Bytes;

use super::golden::{golden, read};
use super::{record, resealed};
use crate::calls::encode;
use crate::calls::produce::Append;
use crate::record_batch::{
    BatchBuilder, BatchError, Compression, Encoder, HEADER_BYTES, Record, Stamp, batches, compress,
    decode, decode_all, decode_within, sequence_after,
};
use crate::versions::PRODUCE;

fn batch(records: &[Record<'_>], stamp: Stamp) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(0);
    assert!(records.iter().all(|record| builder.push_within(record, usize::MAX)));
    builder.finish(stamp)
}

/// a: headers in a map of strings lose what is repeated, and fail on what is not UTF-8.
#[test]
fn headers_repeat_keep_their_order_and_need_no_utf8() {
    let headers: [(&[u8], Option<&[u8]>); 4] =
        [(b"k", Some(b"2")), (b"\xff\xfe", None), (b"k", Some(b"")), (b"k", Some(b"2"))];
    let (_, records) =
        decode_all(&batch(&[Record { headers: &headers, ..record(b"v") }], Stamp::NONE)).unwrap();
    let stored: Vec<_> = records[0].headers.iter().collect();
    assert!(stored.iter().map(|(k, v)| (&k[..], v.as_deref())).eq(headers));
}

/// b: a batch ended where sequences and offsets stopped running in step.
#[test]
fn an_encode_is_one_batch_with_or_without_sequences() {
    let stamped = Stamp { producer_id: 7, producer_epoch: 0, base_sequence: 100 };
    for stamp in [Stamp::NONE, stamped] {
        let bytes = batch(&[record(b"v"); 200], stamp);
        assert_eq!(batches(bytes.clone()).count(), 1);
        let (header, records) = decode_all(&bytes).unwrap();
        assert_eq!((header.records, header.stamp(), records.len()), (200, stamp, 200));
    }
}

/// c: the wrap of the sequence split a batch in two.
#[test]
fn the_sequence_wraps_inside_a_batch() {
    let stamp = Stamp { producer_id: 7, producer_epoch: 3, base_sequence: i32::MAX - 1 };
    let bytes = batch(&[record(b"v"); 4], stamp);
    assert_eq!(batches(bytes.clone()).count(), 1);
    assert_eq!(decode_all(&bytes).unwrap().0.stamp(), stamp);
    let sequences = (0..4).map(|place| sequence_after(stamp.base_sequence, place));
    assert!(sequences.eq([i32::MAX - 1, i32::MAX, 0, 1]));
    assert_eq!(read(&golden!("wrap")).0.stamp(), stamp);
}

/// d: Fetch may end inside a batch, which was an error.
#[test]
fn a_batch_that_is_cut_short_at_the_end_is_left_out() {
    let whole = batch(&[record(b"v")], Stamp::NONE);
    for cut in 0..whole.len() {
        let fetched = Bytes::from([&whole[..], &whole[..cut]].concat());
        assert_eq!(batches(fetched).collect::<Vec<_>>(), [Ok(whole.clone())], "{cut}");
    }
}

/// e: the max timestamp was dropped, which is every record's time with `LogAppendTime`.
#[test]
fn log_append_time_is_the_time_of_every_record_of_java() {
    let (header, records) = read(&golden!("log-append-time"));
    assert!(header.is_log_append_time());
    assert!(records.iter().map(|record| record.1).eq([77, 77]));
}

/// f: the last offset delta was not to be had, so that a compacted batch stopped a reader.
#[test]
fn the_next_offset_is_in_the_header_of_an_emptied_or_compacted_batch() {
    let (header, records) = read(&golden!("empty"));
    assert_eq!((header.next_offset(), records.len()), (Ok(110), 0));
    let (header, records) = read(&golden!("compacted"));
    assert_eq!(header.next_offset(), Ok(110));
    // Their deltas add to the base timestamp, which is a delete horizon.
    let places: Vec<_> = records.iter().map(|record| (record.0, record.1)).collect();
    assert_eq!(places, [(102, 1_700_000_000_001), (107, 1_700_000_000_002)]);
}

/// g: memory was reserved as counts asked for it. `tests/decoding` measures it.
#[test]
fn a_count_beyond_the_bytes_is_refused_before_a_record_is_read() {
    let bytes = batch(&[record(b"v")], Stamp::NONE);
    for count in [i32::MAX, 1 << 20, 2, -1] {
        let lie = resealed(&bytes, |bytes| bytes[57..61].copy_from_slice(&count.to_be_bytes()));
        let error = decode(&lie).map(drop);
        assert!(matches!(error, Err(BatchError::Count { what: "records", .. })), "{error:?}");
    }
    let mut body = bytes.to_vec();
    // The header count is the last byte; its record is longer by what comes to it.
    body.pop();
    body.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0x0f]);
    body[HEADER_BYTES] += 2 * 4;
    body[11] += 4;
    let error = decode_all(&resealed(&body.into(), |_| ())).map(drop);
    assert!(matches!(error, Err(BatchError::Count { what: "headers", .. })), "{error:?}");
}

/// h: decompression had no limit.
#[test]
fn decompression_of_every_codec_stops_at_the_limit() {
    let plain = batch(&[record(&[0; 100_000])], Stamp::NONE);
    let (body, limit) = (plain.len() - HEADER_BYTES, 50_000);
    for compression in CODECS {
        let bomb = compress(&plain, &mut Encoder::new(compression)).unwrap();
        assert!(decode_within(&bomb, body).is_ok(), "{compression:?}");
        let error = decode_within(&bomb, limit).map(drop);
        assert_eq!(error, Err(BatchError::Inflated { limit }), "{compression:?}");
    }
}

const CODECS: [Compression; 4] =
    [Compression::Gzip(6), Compression::Snappy, Compression::Lz4, Compression::Zstd(3)];

/// i: every batch had a fresh context, and none had a level.
#[test]
fn an_encoder_that_is_reused_writes_what_a_fresh_one_writes_and_levels_differ() {
    let text = |word: &str| (0..3000).map(|n| format!("{word} {} ", n * n)).collect::<String>();
    let texts = ["one", "another"].map(|word| batch(&[record(text(word).as_bytes())], Stamp::NONE));
    for compression in CODECS {
        let mut reused = Encoder::new(compression);
        for plain in [&texts[0], &texts[1], &texts[0]] {
            let fresh = compress(plain, &mut Encoder::new(compression));
            assert!(fresh.is_some() && compress(plain, &mut reused) == fresh, "{compression:?}");
        }
    }
    let size = |compression| compress(&texts[0], &mut Encoder::new(compression)).unwrap().len();
    assert!(size(Compression::Gzip(9)) < size(Compression::Gzip(1)));
    assert!(size(Compression::Zstd(19)) < size(Compression::Zstd(1)));
}

/// j: errors could not be told apart, and sums of deltas were unchecked.
#[test]
fn an_offset_or_timestamp_out_of_range_is_an_error_of_its_own() {
    let later = Record { timestamp_ms: 6, ..record(b"v") };
    let bytes = batch(&[record(b"v"), later], Stamp::NONE);
    let largest = i64::MAX.to_be_bytes();
    for (what, at) in [("offset", 0..8), ("timestamp", 27..35)] {
        let lie = resealed(&bytes, |bytes| bytes[at].copy_from_slice(&largest));
        let (header, records) = decode(&lie).unwrap();
        let results: Vec<_> = records.collect();
        assert!(results[0].is_ok(), "{what}");
        assert_eq!(results[1..], [Err(BatchError::Overflow)], "{what}");
        assert_eq!(header.next_offset().is_err(), what == "offset");
    }
}

/// k: what a message carries depended on the version that was negotiated.
#[test]
fn a_batch_travels_unchanged_in_every_version_of_produce() {
    let bytes = batch(&[record(b"v")], Stamp::NONE);
    for version in PRODUCE.least..=PRODUCE.most {
        let topics = vec![("orders".into(), vec![(0, bytes.clone())])];
        let timeout = std::time::Duration::from_secs(1);
        let frame = encode(&Append { acks: -1, timeout, topics }, version, 1, "me").unwrap();
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let used = frame.fill(&mut slices);
        assert!(slices[..used].iter().any(|slice| slice[..] == bytes[..]), "v{version}");
    }
}
