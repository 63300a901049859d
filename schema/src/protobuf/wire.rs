//! A message's bytes as its fields, before anything is known of their types.

use super::index::varint;
use crate::limits::DEPTH_MAX;

/// The value of a field, as its wire type has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Delimited(&'a [u8]),
    /// What is between the two tags.
    Group(&'a [u8]),
}

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) number: u32,
    /// Its place among the message's fields.
    pub(super) at: usize,
    pub(super) raw: Raw<'a>,
}

/// Why bytes are no message, and how many were left where that was found.
pub(super) type Malformed = (&'static str, usize);

/// Adds the fields of `bytes`.
pub(super) fn read<'a>(bytes: &'a [u8], parts: &mut Vec<Part<'a>>) -> Result<(), Malformed> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, wire_type, behind) = tag(rest)?;
        let (raw, behind) = value(number, wire_type, behind)?;
        parts.push(Part { number, at: parts.len(), raw });
        rest = behind;
    }
    Ok(())
}

fn tag(bytes: &[u8]) -> Result<(u32, u64, &[u8]), Malformed> {
    let malformed = |why| move || (why, bytes.len());
    let (tag, rest) = varint(bytes).ok_or_else(malformed("a tag is cut off, or no number"))?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
    Ok((number.ok_or_else(malformed("a tag has no valid field number"))?, tag & 7, rest))
}

fn value(number: u32, wire_type: u64, bytes: &[u8]) -> Result<(Raw<'_>, &[u8]), Malformed> {
    let cut_off = || ("a value is cut off", bytes.len());
    match wire_type {
        0 => {
            let (value, rest) =
                varint(bytes).ok_or(("a value is cut off, or no number", bytes.len()))?;
            Ok((Raw::Varint(value), rest))
        }
        1 => {
            let (value, rest) = bytes.split_first_chunk().ok_or_else(cut_off)?;
            Ok((Raw::Fixed64(*value), rest))
        }
        2 => {
            let (value, rest) = delimited(bytes).ok_or_else(cut_off)?;
            Ok((Raw::Delimited(value), rest))
        }
        3 => {
            let (value, rest) = group(number, bytes)?;
            Ok((Raw::Group(value), rest))
        }
        5 => {
            let (value, rest) = bytes.split_first_chunk().ok_or_else(cut_off)?;
            Ok((Raw::Fixed32(*value), rest))
        }
        4 => Err(("a group ends that did not begin", bytes.len())),
        _ => Err(("a tag has no valid wire type", bytes.len())),
    }
}

/// The bytes behind their length, and what follows them.
fn delimited(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = varint(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// What is in a group whose first tag is in front of `bytes`, and what follows its last one.
fn group(number: u32, bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut open = vec![number];
    let mut rest = bytes;
    loop {
        let (number, wire_type, behind) = tag(rest)?;
        rest = match wire_type {
            3 if open.len() == DEPTH_MAX => return Err(("groups are too deep", rest.len())),
            3 => {
                open.push(number);
                behind
            }
            4 if open.pop() != Some(number) => {
                return Err(("a group ends that did not begin", rest.len()));
            }
            4 if open.is_empty() => {
                let inside = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
                return Ok((inside, behind));
            }
            4 => behind,
            _ => value(number, wire_type, behind)?.1,
        };
    }
}

/// Takes a value of the type out of packed ones.
pub(super) fn packed(wire_type: u64, bytes: &[u8]) -> Result<(Raw<'_>, &[u8]), Malformed> {
    value(0, wire_type, bytes)
}
