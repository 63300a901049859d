//! A message as JSON, by the canonical mapping.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::types::{Field, Form, Kind, Message, Shape, Types};
use super::well_known::{self, Seconds};
use super::wire::{self, Part, Raw};
use crate::fault::Fault;
use crate::limits::{DEPTH_MAX, OUTPUT_BYTES_MAX};
use crate::number;

/// The JSON of `payload`, which is of the message `message`.
pub(super) fn json(types: &Types, message: usize, payload: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut decoder = Decoder { types, payload, out: Vec::new(), levels: 0 };
    decoder.message(message, &[Raw::Delimited(payload)])?;
    Ok(decoder.out)
}

struct Decoder<'a> {
    types: &'a Types,
    payload: &'a [u8],
    out: Vec<u8>,
    levels: usize,
}

/// The fields of a message, by number, and those of one number as they came.
struct Parts<'a>(Vec<Part<'a>>);

impl<'a> Parts<'a> {
    fn of(&self, number: u32) -> &[Part<'a>] {
        let start = self.0.partition_point(|part| part.number < number);
        let rest = self.0.get(start..).unwrap_or_default();
        rest.chunk_by(|a, b| a.number == b.number)
            .next()
            .filter(|_| rest.first().is_some_and(|part| part.number == number))
            .unwrap_or_default()
    }

    fn last(&self, number: u32) -> Option<Raw<'a>> {
        self.of(number).last().map(|part| part.raw)
    }
}

impl<'a> Decoder<'a> {
    /// A message, which may come in pieces that are merged.
    fn message(&mut self, at: usize, pieces: &[Raw<'a>]) -> Result<(), Fault> {
        let types = self.types;
        let message = types.message(at).ok_or_else(|| Fault::new("its type is unknown"))?;
        // What is no level in JSON is none here, so that what can be written can be read.
        if message.form == Form::Value {
            return self.form(message, pieces);
        }
        if self.levels == DEPTH_MAX {
            return Err(Fault::new(format!("it has more than {DEPTH_MAX} levels of messages")));
        }
        self.levels += 1;
        self.form(message, pieces)?;
        self.levels -= 1;
        Ok(())
    }

    fn form(&mut self, message: &'a Message, pieces: &[Raw<'a>]) -> Result<(), Fault> {
        let parts = self.parts(pieces)?;
        match message.form {
            Form::Object => {
                self.out.push(b'{');
                self.members(message, &parts, true)?;
                self.out.push(b'}');
            }
            Form::Any => self.any(&parts)?,
            Form::Duration => self.seconds(&parts, well_known::duration)?,
            Form::Timestamp => self.seconds(&parts, well_known::timestamp)?,
            Form::FieldMask => self.field_mask(&parts)?,
            Form::Struct | Form::ListValue | Form::Wrapper => {
                let field = message.numbered(1).ok_or_else(|| Fault::new("its type is unknown"))?;
                self.field(field, parts.of(1))?;
            }
            Form::Value => self.value(message, &parts)?,
        }
        Ok(())
    }

    fn parts(&self, pieces: &[Raw<'a>]) -> Result<Parts<'a>, Fault> {
        let mut parts = Vec::new();
        for piece in pieces {
            let (Raw::Delimited(bytes) | Raw::Group(bytes)) = piece else {
                return Err(Fault::new("it is no message on the wire"));
            };
            wire::read(bytes, &mut parts).map_err(|(why, left)| {
                Fault::new(format!("{why} at byte {}", self.offset(bytes) + bytes.len() - left))
            })?;
        }
        parts.sort_by_key(|part| part.number);
        Ok(Parts(parts))
    }

    /// Where in the payload a piece of it begins.
    fn offset(&self, piece: &[u8]) -> usize {
        piece.as_ptr().addr().saturating_sub(self.payload.as_ptr().addr())
    }

    /// The fields that are there, and between them those that are always shown.
    fn members(
        &mut self,
        message: &Message,
        parts: &Parts<'a>,
        mut is_first: bool,
    ) -> Result<(), Fault> {
        let last_of_oneofs = last_of_oneofs(message, parts);
        let mut shown = message.shown.iter().copied().peekable();
        for group in parts.0.chunk_by(|a, b| a.number == b.number) {
            let number = group.first().map_or(0, |part| part.number);
            // What the schema does not know is left out.
            let Some((at, field)) = message.numbered_at(number) else { continue };
            while let Some(default) = shown.next_if(|default| *default < at) {
                self.default_member(message, default, &mut is_first)?;
            }
            let _ = shown.next_if_eq(&at);
            let is_last = |oneof| last_of_oneofs.get(&oneof).is_some_and(|last| last.1 == number);
            if field.oneof.is_none_or(is_last) {
                self.member(field, group, &mut is_first)?;
            }
        }
        for default in shown {
            self.default_member(message, default, &mut is_first)?;
        }
        let is_missing = |at: &&usize| {
            let field = message.fields.get(**at);
            field.is_some_and(|field| parts.of(field.number).is_empty())
        };
        match message.required.iter().find(is_missing).and_then(|at| message.fields.get(*at)) {
            Some(field) => Err(Fault::new(format!("the field {} is missing", field.name))),
            None => Ok(()),
        }
    }

    fn default_member(
        &mut self,
        message: &Message,
        at: usize,
        is_first: &mut bool,
    ) -> Result<(), Fault> {
        let Some(field) = message.fields.get(at) else { return Ok(()) };
        self.member(field, &[], is_first)
    }

    fn member(
        &mut self,
        field: &Field,
        parts: &[Part<'a>],
        is_first: &mut bool,
    ) -> Result<(), Fault> {
        if !std::mem::replace(is_first, false) {
            self.out.push(b',');
        }
        self.push(&*field.name)?;
        self.out.push(b':');
        self.field(field, parts).map_err(|fault| fault.of_member(&field.name))
    }

    fn field(&mut self, field: &Field, parts: &[Part<'a>]) -> Result<(), Fault> {
        match field.shape {
            Shape::Repeated | Shape::Packed => self.list(field, parts),
            Shape::Map => self.map(field, parts),
            Shape::Implicit | Shape::Optional | Shape::Required => match field.kind {
                Kind::Message(at) | Kind::Group(at) => {
                    let pieces: Vec<_> = parts.iter().map(|part| part.raw).collect();
                    self.message(at, &pieces)
                }
                kind => self.scalar(kind, parts.last().map(|part| part.raw)),
            },
        }
    }

    fn list(&mut self, field: &Field, parts: &[Part<'a>]) -> Result<(), Fault> {
        self.out.push(b'[');
        let mut count = 0;
        for part in parts {
            let mut item = |decoder: &mut Self, raw| {
                if count > 0 {
                    decoder.out.push(b',');
                }
                let item = match field.kind {
                    Kind::Message(at) | Kind::Group(at) => decoder.message(at, &[raw]),
                    kind => decoder.scalar(kind, Some(raw)),
                };
                count += 1;
                item.map_err(|fault| fault.of_item(count - 1))
            };
            match (packed_type(field.kind), part.raw) {
                (Some(wire_type), Raw::Delimited(bytes)) => {
                    let mut rest = bytes;
                    while !rest.is_empty() {
                        let (raw, behind) =
                            wire::packed(wire_type, rest).map_err(|(why, left)| {
                                let byte = self.offset(bytes) + bytes.len() - left;
                                Fault::new(format!("{why} at byte {byte}"))
                            })?;
                        item(self, raw)?;
                        rest = behind;
                    }
                }
                (_, raw) => item(self, raw)?,
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// The last entry with a key counts.
    fn map(&mut self, field: &Field, parts: &[Part<'a>]) -> Result<(), Fault> {
        let entry = match field.kind {
            Kind::Message(at) => self.types.message(at),
            _ => None,
        };
        let fields = entry.and_then(|entry| Some((entry.numbered(1)?, entry.numbered(2)?)));
        let (key_field, value_field) = fields.ok_or_else(|| Fault::new("its type is unknown"))?;
        let mut entries = BTreeMap::new();
        for part in parts {
            let entry = self.parts(&[part.raw])?;
            let key = self.key(key_field, entry.last(1))?;
            entries.insert(key, entry);
        }
        self.out.push(b'{');
        for (count, (key, entry)) in entries.iter().enumerate() {
            if count > 0 {
                self.out.push(b',');
            }
            self.push(&**key)?;
            self.out.push(b':');
            let written = self.field(value_field, entry.of(2));
            written.map_err(|fault| fault.of_member(key))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// A key as the text that it is in JSON.
    fn key(&mut self, field: &Field, raw: Option<Raw<'a>>) -> Result<String, Fault> {
        let start = self.out.len();
        self.scalar(field.kind, raw)?;
        let written = self.out.split_off(start);
        if field.kind == Kind::String {
            let key = serde_json::from_slice(&written);
            return key.map_err(|_| Fault::new("a key is no text"));
        }
        let text = String::from_utf8(written).map_err(|_| Fault::new("a key is no text"))?;
        Ok(text.trim_matches('"').to_owned())
    }

    fn scalar(&mut self, kind: Kind, raw: Option<Raw<'a>>) -> Result<(), Fault> {
        let raw = raw.unwrap_or_else(|| default(kind));
        match (kind, raw) {
            (Kind::Bool, Raw::Varint(value)) => self.push(&(value != 0)),
            (Kind::Int32, Raw::Varint(value)) => self.push(&(value as i32)),
            (Kind::Uint32, Raw::Varint(value)) => self.push(&(value as u32)),
            (Kind::Sint32, Raw::Varint(value)) => self.push(&(zigzag(value & 0xffff_ffff) as i32)),
            (Kind::Int64, Raw::Varint(value)) => self.push_text(value.cast_signed()),
            (Kind::Uint64, Raw::Varint(value)) => self.push_text(value),
            (Kind::Sint64, Raw::Varint(value)) => self.push_text(zigzag(value)),
            (Kind::Fixed32, Raw::Fixed32(value)) => self.push(&u32::from_le_bytes(value)),
            (Kind::Sfixed32, Raw::Fixed32(value)) => self.push(&i32::from_le_bytes(value)),
            (Kind::Fixed64, Raw::Fixed64(value)) => self.push_text(u64::from_le_bytes(value)),
            (Kind::Sfixed64, Raw::Fixed64(value)) => self.push_text(i64::from_le_bytes(value)),
            (Kind::Float, Raw::Fixed32(value)) => {
                let value = f32::from_le_bytes(value);
                self.float(&value, value.into())
            }
            (Kind::Double, Raw::Fixed64(value)) => {
                let value = f64::from_le_bytes(value);
                self.float(&value, value)
            }
            (Kind::String, Raw::Delimited(bytes)) => self.push(self.text(bytes)?),
            (Kind::Bytes, Raw::Delimited(bytes)) => self.push(&BASE64_STANDARD.encode(bytes)),
            (Kind::Enum(at), Raw::Varint(value)) => {
                let number = value as i32;
                let types = self.types;
                let of = types.enumeration(at);
                match of.and_then(|of| of.name(number)) {
                    Some(_) if of.is_some_and(|of| of.is_null) => self.push(&()),
                    Some(name) => self.push(name),
                    None => self.push(&number),
                }
            }
            _ => Err(Fault::new("its type on the wire is another one than in the schema")),
        }
    }

    fn float(&mut self, float: &impl Serialize, wide: f64) -> Result<(), Fault> {
        match number::not_finite_json(wide) {
            Some(json) => self.out.extend(json.as_bytes()),
            None => self.push(float)?,
        }
        Ok(())
    }

    fn text(&self, bytes: &'a [u8]) -> Result<&'a str, Fault> {
        std::str::from_utf8(bytes).map_err(|error| {
            let byte = self.offset(bytes) + error.valid_up_to();
            Fault::new(format!("a string is no UTF-8 at byte {byte}"))
        })
    }

    fn seconds(
        &mut self,
        parts: &Parts<'a>,
        text: fn(Seconds) -> Option<String>,
    ) -> Result<(), Fault> {
        let seconds = varint(parts.last(1)).cast_signed();
        let text = text((seconds, varint(parts.last(2)) as i32));
        self.push(&text.ok_or_else(|| Fault::new("it is out of its type's range"))?)
    }

    fn field_mask(&mut self, parts: &Parts<'a>) -> Result<(), Fault> {
        let mut paths = Vec::new();
        for part in parts.of(1) {
            let Raw::Delimited(bytes) = part.raw else { continue };
            paths.push(self.text(bytes)?);
        }
        let text = well_known::field_mask(paths.into_iter());
        self.push(&text.ok_or_else(|| Fault::new("a path has no form in JSON"))?)
    }

    /// Any JSON: what came last of its types.
    fn value(&mut self, message: &Message, parts: &Parts<'a>) -> Result<(), Fault> {
        let known = parts.0.iter().filter(|part| message.numbered(part.number).is_some());
        let last = known.max_by_key(|part| part.at).map(|part| part.number);
        let field = last.and_then(|number| message.numbered(number));
        let field = field.ok_or_else(|| Fault::new("it has no value"))?;
        let start = self.out.len();
        self.field(field, parts.of(field.number))?;
        if field.kind == Kind::Double && self.out.get(start) == Some(&b'"') {
            return Err(Fault::new("it is a number that JSON does not have"));
        }
        Ok(())
    }

    /// A message of a type that it names, which must be one of the schema's.
    fn any(&mut self, parts: &Parts<'a>) -> Result<(), Fault> {
        if parts.0.is_empty() {
            self.out.extend(b"{}");
            return Ok(());
        }
        let url = match parts.last(1) {
            Some(Raw::Delimited(url)) => self.text(url)?,
            _ => "",
        };
        let types = self.types;
        let at = url.rsplit_once('/').and_then(|(_, name)| types.named(name));
        let found = at.and_then(|at| Some((at, types.message(at)?)));
        let (at, message) =
            found.ok_or_else(|| Fault::new("it is of a type that is not in the schema"))?;
        let payload = parts.last(2).unwrap_or(Raw::Delimited(&[]));
        self.out.extend(b"{\"@type\":");
        self.push(url)?;
        if message.form == Form::Object {
            if self.levels == DEPTH_MAX {
                return Err(Fault::new(format!("it has more than {DEPTH_MAX} levels")));
            }
            self.levels += 1;
            let parts = self.parts(&[payload])?;
            self.members(message, &parts, false)?;
            self.levels -= 1;
        } else {
            self.out.extend(b",\"value\":");
            let written = self.message(at, &[payload]);
            written.map_err(|fault| fault.of_member("value"))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// A number of 64 bits is a string.
    fn push_text(&mut self, value: impl itoa::Integer) -> Result<(), Fault> {
        self.push(itoa::Buffer::new().format(value))
    }

    fn push(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Fault> {
        let written = serde_json::to_writer(&mut self.out, value);
        if written.is_err() || self.out.len() > OUTPUT_BYTES_MAX {
            return Err(Fault::new(format!("its JSON is larger than {OUTPUT_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

/// Which field of each oneof came last.
fn last_of_oneofs(message: &Message, parts: &Parts<'_>) -> HashMap<usize, (usize, u32)> {
    let mut last: HashMap<usize, (usize, u32)> = HashMap::new();
    if message.has_oneofs {
        for part in &parts.0 {
            let oneof = message.numbered(part.number).and_then(|field| field.oneof);
            if let Some(oneof) = oneof {
                let last = last.entry(oneof).or_default();
                *last = (*last).max((part.at, part.number));
            }
        }
    }
    last
}

fn varint(raw: Option<Raw<'_>>) -> u64 {
    match raw {
        Some(Raw::Varint(value)) => value,
        _ => 0,
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// The wire type of a type that can be packed.
fn packed_type(kind: Kind) -> Option<u64> {
    match default(kind) {
        Raw::Varint(_) => Some(0),
        Raw::Fixed64(_) => Some(1),
        Raw::Fixed32(_) => Some(5),
        Raw::Delimited(_) | Raw::Group(_) => None,
    }
}

fn default(kind: Kind) -> Raw<'static> {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Raw::Fixed64([0; 8]),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Raw::Fixed32([0; 4]),
        Kind::String | Kind::Bytes | Kind::Message(_) => Raw::Delimited(&[]),
        Kind::Group(_) => Raw::Group(&[]),
        _ => Raw::Varint(0),
    }
}
