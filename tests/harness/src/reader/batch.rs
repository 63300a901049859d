//! Record batches of magic 2 (KIP-98, KIP-82), from the bytes of a Fetch response.

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes};

use super::decompress::decompress;
use crate::record::ReadRecord;

/// Bytes of the base offset and of the length, which the length does not count.
const PREFIX_BYTES: usize = 12;

/// Bytes of the header after them.
const HEADER_BYTES: usize = 49;

/// Bytes before the part that the checksum covers: leader epoch, magic, checksum.
const UNCHECKED_BYTES: usize = 9;

/// Bit of the attributes of a control batch.
const CONTROL: i16 = 1 << 5;

/// All records of whole batches; a batch that is cut off at the end is left out.
pub(super) fn records(partition: i32, mut bytes: Bytes) -> anyhow::Result<Vec<ReadRecord>> {
    let mut records = Vec::new();
    while bytes.len() >= PREFIX_BYTES {
        let base_offset = bytes.get_i64();
        let length = usize::try_from(bytes.get_i32())?;
        if length > bytes.len() {
            break;
        }
        let batch = bytes.split_to(length);
        decode(partition, base_offset, batch, &mut records)
            .with_context(|| format!("the batch at {partition}/{base_offset}"))?;
    }
    Ok(records)
}

fn decode(
    partition: i32,
    base_offset: i64,
    mut batch: Bytes,
    records: &mut Vec<ReadRecord>,
) -> anyhow::Result<()> {
    ensure!(batch.len() >= HEADER_BYTES, "its header is cut short");
    let checked = batch.slice(UNCHECKED_BYTES..);
    let (_leader_epoch, magic, checksum) = (batch.get_i32(), batch.get_i8(), batch.get_u32());
    ensure!(magic == 2, "magic {magic}");
    ensure!(crc32c::crc32c(&checked) == checksum, "its checksum is wrong");
    let (attributes, _last_offset_delta) = (batch.get_i16(), batch.get_i32());
    let (base_timestamp, _max_timestamp) = (batch.get_i64(), batch.get_i64());
    let (_producer_id, _epoch, _sequence) = (batch.get_i64(), batch.get_i16(), batch.get_i32());
    let count = batch.get_i32();
    if attributes & CONTROL != 0 {
        return Ok(());
    }
    let mut rest = decompress(attributes & 7, &batch)?;
    for _ in 0..count {
        let mut record = take(&mut rest)?.context("a record of length -1")?;
        let _attributes = record.try_get_i8()?;
        let timestamp_ms = base_timestamp + varint(&mut record)?;
        let offset = base_offset + varint(&mut record)?;
        let (key, value) = (take(&mut record)?, take(&mut record)?);
        let mut headers = Vec::new();
        for _ in 0..varint(&mut record)? {
            let name = take(&mut record)?.context("a header without a name")?;
            let value = take(&mut record)?.map(|value| value.to_vec());
            headers.push((String::from_utf8(name.to_vec())?, value));
        }
        ensure!(record.is_empty(), "{} bytes too many in a record", record.len());
        let (key, value) = (key.map(|key| key.to_vec()), value.map(|value| value.to_vec()));
        records.push(ReadRecord { partition, offset, timestamp_ms, key, value, headers });
    }
    ensure!(rest.is_empty(), "{} bytes after its records", rest.len());
    Ok(())
}

/// Bytes behind their length; none for the length -1.
fn take(from: &mut Bytes) -> anyhow::Result<Option<Bytes>> {
    let length = varint(from)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length)?;
    ensure!(length <= from.len(), "{length} bytes of {}", from.len());
    Ok(Some(from.split_to(length)))
}

/// A zigzag varint of at most 64 bits.
fn varint(from: &mut Bytes) -> anyhow::Result<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    bail!("a varint of more than ten bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch with one record: key `k`, no value, headers `a=1`, `a` without a value.
    fn batch() -> Vec<u8> {
        let record = [0, 2, 4, 2, b'k', 1, 4, 2, b'a', 2, b'1', 2, b'a', 1];
        let mut checked = Vec::new();
        checked.extend(0_i16.to_be_bytes());
        checked.extend(0_i32.to_be_bytes());
        checked.extend([1000_i64.to_be_bytes(), 1001_i64.to_be_bytes()].concat());
        checked.extend((-1_i64).to_be_bytes());
        checked.extend((-1_i16).to_be_bytes());
        checked.extend([(-1_i32).to_be_bytes(), 1_i32.to_be_bytes()].concat());
        checked.push(u8::try_from(record.len() * 2).unwrap());
        checked.extend(record);
        let mut bytes = 40_i64.to_be_bytes().to_vec();
        bytes.extend(i32::try_from(checked.len() + UNCHECKED_BYTES).unwrap().to_be_bytes());
        bytes.extend(0_i32.to_be_bytes());
        bytes.push(2);
        bytes.extend(crc32c::crc32c(&checked).to_be_bytes());
        bytes.extend(checked);
        bytes
    }

    #[test]
    fn repeated_headers_and_missing_values_are_kept() {
        let record = ReadRecord {
            partition: 3,
            offset: 42,
            timestamp_ms: 1001,
            key: Some(b"k".to_vec()),
            value: None,
            headers: vec![("a".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), None)],
        };
        assert_eq!(records(3, batch().into()).unwrap(), std::slice::from_ref(&record));
        let cut = [batch(), batch()[..20].to_vec()].concat();
        assert_eq!(records(3, cut.into()).unwrap(), [record]);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut bytes = batch();
        *bytes.last_mut().unwrap() = 3;
        let error = records(3, bytes.into()).unwrap_err();
        assert_eq!(format!("{error:#}"), "the batch at 3/40: its checksum is wrong");
    }
}
