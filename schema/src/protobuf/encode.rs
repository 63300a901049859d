//! JSON as a message, by the canonical mapping.
//!
//! The document is followed along the schema, not the other way round, so that an error has the
//! place of what is wrong, and what is written takes no more than the document did.

use std::collections::HashSet;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::types::{Enum, Field, Form, Kind, Message, Shape, Types};
use super::well_known;
use crate::fault::Fault;
use crate::json::{self, Json, Value};
use crate::limits::DEPTH_MAX;
use crate::number;

/// The bytes of the message `message`.
pub(super) fn payload(types: &Types, message: usize, json: &[u8]) -> Result<Vec<u8>, Fault> {
    let parsed = Json::parse_bytes(json, DEPTH_MAX)?;
    let mut encoder = Encoder { types, out: Vec::with_capacity(json.len() / 2) };
    encoder.message(message, parsed.root())?;
    Ok(encoder.out)
}

struct Encoder<'t> {
    types: &'t Types,
    out: Vec<u8>,
}

/// A member of an object that is a field.
type Member<'a> = (usize, &'a Field, &'a str, Value<'a>);

impl Encoder<'_> {
    fn message(&mut self, message: usize, json: Value<'_>) -> Result<(), Fault> {
        let types = self.types;
        let message = types.message(message).ok_or_else(unknown)?;
        match message.form {
            Form::Object if json.kind() != json::Kind::Object => {
                Err(Fault::new(format!("it must be an object of {}", message.name)))
            }
            Form::Object => self.object(message, json.members()),
            Form::Any => self.any(json),
            Form::Duration => self.seconds(json, well_known::read_duration, well_known::DURATION),
            Form::Timestamp => {
                self.seconds(json, well_known::read_timestamp, well_known::TIMESTAMP)
            }
            Form::FieldMask => {
                let paths = json.string().and_then(well_known::read_field_mask);
                let paths = paths.ok_or_else(|| Fault::new(well_known::FIELD_MASK))?;
                paths.iter().for_each(|path| self.delimited(1, path.as_bytes()));
                Ok(())
            }
            Form::Struct | Form::ListValue | Form::Wrapper => {
                self.field(message.numbered(1).ok_or_else(unknown)?, json)
            }
            Form::Value => self.value(message, json),
        }
    }

    fn object<'a>(
        &mut self,
        message: &'a Message,
        members: impl Iterator<Item = (&'a str, Value<'a>)>,
    ) -> Result<(), Fault> {
        let mut fields: Vec<Member<'_>> = Vec::new();
        for (name, value) in members {
            let (at, field) = message.field(name).ok_or_else(|| {
                Fault::new(format!("{} has no such field", message.name)).of_member(name)
            })?;
            fields.push((at, field, name, value));
        }
        // As messages are written usually, and so that names of one field are side by side.
        fields.sort_by_key(|(at, ..)| *at);
        for pair in fields.windows(2) {
            if let [(before, ..), (at, _, name, _)] = pair
                && before == at
            {
                return Err(json::repeated(name));
            }
        }
        fields.retain(|(_, field, _, value)| {
            value.kind() != json::Kind::Null || self.takes_null(field)
        });
        check(message, &fields)?;
        for (_, field, name, value) in fields {
            self.field(field, value).map_err(|fault| fault.of_member(name))?;
        }
        Ok(())
    }

    /// Null is a value of these, and elsewhere as good as nothing.
    fn takes_null(&self, field: &Field) -> bool {
        if matches!(field.shape, Shape::Repeated | Shape::Packed | Shape::Map) {
            return false;
        }
        match field.kind {
            Kind::Message(at) => {
                self.types.message(at).is_some_and(|message| message.form == Form::Value)
            }
            Kind::Enum(at) => self.types.enumeration(at).is_some_and(|of| of.is_null),
            _ => false,
        }
    }

    fn field(&mut self, field: &Field, json: Value<'_>) -> Result<(), Fault> {
        match field.shape {
            Shape::Implicit => {
                let before = self.out.len();
                self.tagged(field, json)?;
                // A default value is written as nothing: its bytes are all zero behind the tag.
                let tag = varint_len(tag(field.number, wire_type(field.kind)));
                let value = self.out.get(before + tag..).unwrap_or_default();
                if value.iter().all(|&byte| byte == 0) && is_default(field.kind, value) {
                    self.out.truncate(before);
                }
                Ok(())
            }
            Shape::Optional | Shape::Required => self.tagged(field, json),
            Shape::Repeated | Shape::Packed => {
                if json.kind() != json::Kind::Array {
                    return Err(Fault::new("it must be an array"));
                }
                let mut items = json.items().enumerate();
                if field.shape == Shape::Repeated || json.len() == 0 {
                    return items.try_for_each(|(at, item)| {
                        self.tagged(field, item).map_err(|fault| fault.of_item(at))
                    });
                }
                self.push_varint(tag(field.number, WireType::Delimited));
                self.measured(|encoder| {
                    items.try_for_each(|(at, item)| {
                        encoder.scalar(field.kind, item).map_err(|fault| fault.of_item(at))
                    })
                })
            }
            Shape::Map => self.map(field, json),
        }
    }

    fn map(&mut self, field: &Field, json: Value<'_>) -> Result<(), Fault> {
        if json.kind() != json::Kind::Object {
            return Err(Fault::new("it must be an object"));
        }
        let entry = match field.kind {
            Kind::Message(at) => self.types.message(at),
            _ => None,
        };
        let parts = entry.and_then(|entry| Some((entry.numbered(1)?, entry.numbered(2)?)));
        let (key, value) = parts.ok_or_else(unknown)?;
        let mut seen = HashSet::new();
        for (name, json) in json.members() {
            if !seen.insert(name) {
                return Err(json::repeated(name));
            }
            self.push_varint(tag(field.number, WireType::Delimited));
            let written = self.measured(|encoder| {
                encoder.push_varint(tag(key.number, wire_type(key.kind)));
                encoder.key(key.kind, name)?;
                encoder.tagged(value, json)
            });
            written.map_err(|fault| fault.of_member(name))?;
        }
        Ok(())
    }

    fn key(&mut self, kind: Kind, name: &str) -> Result<(), Fault> {
        match (kind, name) {
            (Kind::String, name) => self.push_delimited(name.as_bytes()),
            (Kind::Bool, "true") => self.out.push(1),
            (Kind::Bool, "false") => self.out.push(0),
            (Kind::Bool, _) => return Err(Fault::new("it must be a boolean")),
            (kind, name) => {
                // A number has one text, or one key could come twice.
                let number = name.parse().ok().filter(|it: &i128| it.to_string() == name);
                self.integer(kind, number.map(|_| name))?;
            }
        }
        Ok(())
    }

    /// A value with its tag.
    fn tagged(&mut self, field: &Field, json: Value<'_>) -> Result<(), Fault> {
        self.push_varint(tag(field.number, wire_type(field.kind)));
        match field.kind {
            Kind::Message(at) => self.measured(|encoder| encoder.message(at, json)),
            Kind::Group(at) => {
                self.message(at, json)?;
                self.push_varint(tag(field.number, WireType::EndGroup));
                Ok(())
            }
            kind => self.scalar(kind, json),
        }
    }

    fn scalar(&mut self, kind: Kind, json: Value<'_>) -> Result<(), Fault> {
        match kind {
            Kind::Double => {
                let value = double(json).ok_or_else(|| Fault::new("it must be a double"))?;
                self.out.extend(value.to_le_bytes());
            }
            Kind::Float => {
                let value = float(json).ok_or_else(|| Fault::new("it must be a float"))?;
                self.out.extend(value.to_le_bytes());
            }
            Kind::Bool => match json.kind() {
                json::Kind::True => self.out.push(1),
                json::Kind::False => self.out.push(0),
                _ => return Err(Fault::new("it must be a boolean")),
            },
            Kind::String => {
                let text = json.string().ok_or_else(|| Fault::new("it must be a string"))?;
                self.push_delimited(text.as_bytes());
            }
            Kind::Bytes => {
                let bytes = json.string().and_then(bytes);
                let bytes = bytes.ok_or_else(|| Fault::new("it must be a string in base64"))?;
                self.push_delimited(&bytes);
            }
            Kind::Enum(at) => {
                let of = self.types.enumeration(at);
                let number = of.and_then(|of| enum_number(of, json));
                let number = number.ok_or_else(|| Fault::new("it must be a value of its enum"))?;
                self.push_varint(i64::from(number).cast_unsigned());
            }
            // No message is a scalar.
            Kind::Message(_) | Kind::Group(_) => {}
            kind => self.integer(kind, numeral(json))?,
        }
        Ok(())
    }

    fn integer(&mut self, kind: Kind, text: Option<&str>) -> Result<(), Fault> {
        let (name, least, most) = match kind {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                ("int32", i128::from(i32::MIN), i128::from(i32::MAX))
            }
            Kind::Uint32 | Kind::Fixed32 => ("uint32", 0, i128::from(u32::MAX)),
            Kind::Uint64 | Kind::Fixed64 => ("uint64", 0, i128::from(u64::MAX)),
            _ => ("int64", i128::from(i64::MIN), i128::from(i64::MAX)),
        };
        let value = text.and_then(number::whole).filter(|value| (least..=most).contains(value));
        let value = value.ok_or_else(|| Fault::new(format!("it must be an {name}")))?;
        // In range, so the low bits are the value.
        let bits = value as u64;
        match kind {
            Kind::Sint32 | Kind::Sint64 => {
                let signed = bits.cast_signed();
                self.push_varint(((signed << 1) ^ (signed >> 63)).cast_unsigned());
            }
            Kind::Fixed32 | Kind::Sfixed32 => self.out.extend((bits as u32).to_le_bytes()),
            Kind::Fixed64 | Kind::Sfixed64 => self.out.extend(bits.to_le_bytes()),
            _ => self.push_varint(bits),
        }
        Ok(())
    }

    fn seconds(
        &mut self,
        json: Value<'_>,
        read: fn(&str) -> Option<well_known::Seconds>,
        reason: &'static str,
    ) -> Result<(), Fault> {
        let read = json.string().and_then(read).ok_or_else(|| Fault::new(reason))?;
        let parts = [(1, read.0), (2, i64::from(read.1))];
        for (number, part) in parts.into_iter().filter(|(_, part)| *part != 0) {
            self.push_varint(tag(number, WireType::Varint));
            self.push_varint(part.cast_unsigned());
        }
        Ok(())
    }

    /// Any JSON: the field of its type.
    fn value(&mut self, message: &Message, json: Value<'_>) -> Result<(), Fault> {
        let number = match json.kind() {
            json::Kind::Null => 1,
            json::Kind::Integer | json::Kind::Number => 2,
            json::Kind::String | json::Kind::Escaped => 3,
            json::Kind::True | json::Kind::False => 4,
            json::Kind::Object => 5,
            json::Kind::Array => 6,
        };
        self.tagged(message.numbered(number).ok_or_else(unknown)?, json)
    }

    /// A message with the name of its type, which must be one of the schema's.
    fn any(&mut self, json: Value<'_>) -> Result<(), Fault> {
        const TYPE: &str = "@type";
        if json.kind() != json::Kind::Object {
            return Err(Fault::new("it must be an object"));
        }
        if json.len() == 0 {
            return Ok(());
        }
        let url = json.get(TYPE).and_then(Value::string);
        let url = url.ok_or_else(|| Fault::new("it must have an @type"))?;
        if json.members().filter(|(name, _)| *name == TYPE).count() > 1 {
            return Err(json::repeated(TYPE));
        }
        let named = url.rsplit_once('/').and_then(|(_, name)| self.types.named(name));
        let found = named.and_then(|at| Some((at, self.types.message(at)?)));
        let (at, message) = found.ok_or_else(|| {
            Fault::new("it must end with a / and a type of the schema").of_member(TYPE)
        })?;
        self.delimited(1, url.as_bytes());
        self.push_varint(tag(2, WireType::Delimited));
        self.measured(|encoder| {
            let mut others = json.members().filter(|(name, _)| *name != TYPE);
            if message.form == Form::Object {
                return encoder.object(message, others);
            }
            match (others.next(), others.next()) {
                (Some((name @ "value", value)), None) => {
                    encoder.message(at, value).map_err(|fault| fault.of_member(name))
                }
                _ => Err(Fault::new("beside @type it must have a value, and nothing else")),
            }
        })
    }

    fn delimited(&mut self, number: u32, bytes: &[u8]) {
        self.push_varint(tag(number, WireType::Delimited));
        self.push_delimited(bytes);
    }

    fn push_delimited(&mut self, bytes: &[u8]) {
        self.push_varint(bytes.len() as u64);
        self.out.extend(bytes);
    }

    /// What `write` writes, with its length in front.
    fn measured(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let start = self.out.len();
        write(self)?;
        let mut length = (self.out.len() - start) as u64;
        let mut bytes = [0; 10];
        let mut used = 0;
        for byte in &mut bytes {
            used += 1;
            *byte = (length & 0x7f) as u8 | if length > 0x7f { 0x80 } else { 0 };
            length >>= 7;
            if length == 0 {
                break;
            }
        }
        self.out.splice(start..start, bytes.into_iter().take(used));
        Ok(())
    }

    fn push_varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

/// No two of a oneof, and none missing that is required.
fn check(message: &Message, fields: &[Member<'_>]) -> Result<(), Fault> {
    let mut oneofs = HashSet::new();
    for (_, field, name, _) in fields {
        if field.oneof.is_some_and(|oneof| !oneofs.insert(oneof)) {
            return Err(Fault::new("another field of its oneof is set").of_member(name));
        }
    }
    let is_there = |at: &usize| fields.binary_search_by_key(at, |(at, ..)| *at).is_ok();
    let missing = message.required.iter().find(|at| !is_there(at));
    match missing.and_then(|at| message.fields.get(*at)) {
        Some(field) => Err(Fault::new(format!("the field {} is missing", field.name))),
        None => Ok(()),
    }
}

fn unknown() -> Fault {
    Fault::new("its type is unknown")
}

/// How a value is written.
#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Delimited = 2,
    StartGroup = 3,
    EndGroup = 4,
    Fixed32 = 5,
}

fn wire_type(kind: Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::Fixed64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::Fixed32,
        Kind::String | Kind::Bytes | Kind::Message(_) => WireType::Delimited,
        Kind::Group(_) => WireType::StartGroup,
        _ => WireType::Varint,
    }
}

fn tag(number: u32, wire_type: WireType) -> u64 {
    u64::from(number) << 3 | wire_type as u64
}

fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Of a value whose bytes are zero: a text of one zero character has two of them.
fn is_default(kind: Kind, bytes: &[u8]) -> bool {
    !matches!(kind, Kind::Message(_) | Kind::Group(_)) && {
        !matches!(kind, Kind::String | Kind::Bytes) || bytes.len() == 1
    }
}

/// The text of a number, or of a string that is one.
fn numeral(json: Value<'_>) -> Option<&str> {
    json.number().or_else(|| json.string().filter(|text| json::is_number(text)))
}

fn double(json: Value<'_>) -> Option<f64> {
    match numeral(json) {
        Some(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
        None => number::not_finite(json.string()?),
    }
}

fn float(json: Value<'_>) -> Option<f32> {
    match numeral(json) {
        Some(text) => text.parse().ok().filter(|value: &f32| value.is_finite()),
        None => Some(number::not_finite(json.string()?)? as f32),
    }
}

/// Base64 with either alphabet, padded or not.
fn bytes(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    GeneralPurpose::new(&alphabet, LENIENT).decode(text).ok()
}

fn enum_number(of: &Enum, json: Value<'_>) -> Option<i32> {
    if of.is_null && json.kind() == json::Kind::Null {
        return Some(0);
    }
    if let Some(name) = json.string() {
        return of.number(name);
    }
    let number = i32::try_from(number::whole(json.number()?)?).ok()?;
    (!of.is_closed || of.name(number).is_some()).then_some(number)
}
