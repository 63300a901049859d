//! Measures the codecs: MB/s of records on the way out and in, and what is left of them.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use kafka_client::Record;
use kafka_client::record_batch::{BatchBuilder, Compression, Encoder, compress, decode_all};

/// How often and how long each direction of each row is measured.
const ROUNDS: u32 = 40;
const ROUND: Duration = Duration::from_millis(20);

const CODECS: [(&str, Compression); 6] = [
    ("gzip 6", Compression::Gzip(6)),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd 1", Compression::Zstd(1)),
    ("zstd 3", Compression::Zstd(3)),
    ("zstd 7", Compression::Zstd(7)),
];

fn main() -> anyhow::Result<()> {
    println!("records  codec      out MB/s    in MB/s   ratio");
    for records in [16, 4000] {
        let batch = batch(records);
        for (name, compression) in CODECS {
            let mut encoder = Encoder::new(compression);
            let packed = compress(&batch, &mut encoder).context("the batch does not shrink")?;
            let out = rate(batch.len(), || compress(&batch, &mut encoder).is_some());
            let back = rate(batch.len(), || decode_all(&packed).is_ok());
            let ratio = packed.len() as f64 / batch.len() as f64;
            println!("{records:>7}  {name:<8}  {out:>9.0}  {back:>9.0}  {ratio:>6.2}");
        }
    }
    let fresh = batch(16);
    let out =
        rate(fresh.len(), || compress(&fresh, &mut Encoder::new(Compression::Zstd(3))).is_some());
    println!("     16  zstd 3, a fresh context each: {out:.0} MB/s");
    Ok(())
}

/// Records of JSON, about 200 bytes each, whose values differ.
fn batch(records: u64) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(0);
    let mut state = 1u64;
    for number in 0..records {
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 16
        };
        let value = format!(
            r#"{{"id":{number},"user":"{:012x}","path":"/v1/orders/{}","status":200,"ms":{},"agent":"curl/8.5.0","trace":"{:012x}{:012x}","cart":[{},{}]}}"#,
            random(),
            random() % 100_000,
            random() % 500,
            random(),
            random(),
            random() % 1000,
            random() % 1000,
        );
        let value = Some(value.as_bytes());
        let record = Record { partition: None, key: None, value, headers: &[], timestamp_ms: 5 };
        builder.push_within(&record, usize::MAX);
    }
    builder.finish(kafka_client::record_batch::Stamp::NONE)
}

/// MB/s in the best of some rounds: the others were disturbed.
fn rate(bytes: usize, mut work: impl FnMut() -> bool) -> f64 {
    let mut best = 0f64;
    for _ in 0..ROUNDS {
        let (started, mut times) = (Instant::now(), 0u32);
        while started.elapsed() < ROUND && work() {
            times += 1;
        }
        let rate = bytes as f64 * f64::from(times) / 1e6 / started.elapsed().as_secs_f64();
        best = best.max(rate);
    }
    best
}
