//! Confluent's wire format: how a record says which schema its key or value has.
//!
//! Either in front of the payload (a zero byte, the schema's id in four bytes, big-endian, for
//! Protobuf the message index), or in a record header (`0x01` and the schema's GUID in 16 bytes, or
//! `0x00` and its id, then the message index).

/// The record header that names a key's schema.
pub const KEY_HEADER: &str = "__key_schema_id";
/// The record header that names a value's schema.
pub const VALUE_HEADER: &str = "__value_schema_id";

/// A registry's name for a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaId {
    /// Its number in one registry.
    Number(u32),
    /// Its GUID, equal in all registries.
    Guid([u8; 16]),
}

/// A value or key whose schema is named, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed<'a> {
    /// Its schema.
    pub id: SchemaId,
    /// The message index, where a header holds it apart from the payload.
    pub message_index: Option<&'a [u8]>,
    /// What follows the id.
    pub bytes: &'a [u8],
}

/// The bytes of a value or key with its schema's number in front.
#[must_use]
pub fn prefixed(id: u32, message_index: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + message_index.len() + payload.len());
    bytes.push(0);
    bytes.extend(id.to_be_bytes());
    bytes.extend(message_index);
    bytes.extend(payload);
    bytes
}

/// The value of a record header that names a schema.
#[must_use]
pub fn header(id: SchemaId, message_index: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(17 + message_index.len());
    match id {
        SchemaId::Number(number) => {
            bytes.push(0);
            bytes.extend(number.to_be_bytes());
        }
        SchemaId::Guid(guid) => {
            bytes.push(1);
            bytes.extend(guid);
        }
    }
    bytes.extend(message_index);
    bytes
}

/// Takes a value or key apart; `header` is that of the schema's id, if the record has one.
///
/// # Errors
/// A sentence, if neither the header nor the bytes name a schema.
pub fn split<'a>(header: Option<&'a [u8]>, bytes: &'a [u8]) -> Result<Framed<'a>, &'static str> {
    let Some(header) = header else {
        let (id, bytes) = named(bytes).ok_or("it does not begin with a schema's id")?;
        return Ok(Framed { id, message_index: None, bytes });
    };
    let (id, message_index) = named(header).ok_or("its header names no schema's id")?;
    Ok(Framed { id, message_index: Some(message_index), bytes })
}

/// The id in front, and what follows it.
fn named(bytes: &[u8]) -> Option<(SchemaId, &[u8])> {
    match bytes.split_first()? {
        (0, rest) => rest
            .split_first_chunk()
            .map(|(id, rest)| (SchemaId::Number(u32::from_be_bytes(*id)), rest)),
        (1, rest) => rest.split_first_chunk().map(|(id, rest)| (SchemaId::Guid(*id), rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_is_taken_apart() {
        let bytes = prefixed(258, &[2, 4], b"payload");
        assert_eq!(bytes, b"\0\0\0\x01\x02\x02\x04payload");
        let id = SchemaId::Number(258);
        let framed = Framed { id, message_index: None, bytes: b"\x02\x04payload" };
        assert_eq!(split(None, &bytes), Ok(framed));
        for id in [id, SchemaId::Guid([7; 16])] {
            let header = header(id, &[0]);
            let framed = Framed { id, message_index: Some(&[0]), bytes: b"payload" };
            assert_eq!(split(Some(&header), b"payload"), Ok(framed));
        }
    }

    #[test]
    fn what_names_no_schema_is_refused() {
        for bytes in [&b""[..], b"\0", b"\0\0\0\0", b"{}", b"\x02\0\0\0\0\0", &[1; 16]] {
            assert_eq!(split(None, bytes), Err("it does not begin with a schema's id"));
            assert_eq!(split(Some(bytes), b"x"), Err("its header names no schema's id"));
        }
    }
}
