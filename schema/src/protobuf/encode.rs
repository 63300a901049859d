//! JSON as a message, by the canonical mapping.
//!
//! The document is followed along the schema, not the other way round, so that an error has the
//! place of what is wrong, and what is written takes no more than the document did.

use std::collections::HashSet;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Number, Value};

use super::types::{Enum, Field, Form, Kind, Message, Shape, Types};
use super::well_known;
use crate::Invalid;
use crate::path::Path;

/// The bytes of the message `message`.
pub(super) fn payload(types: &Types, message: usize, json: &Value) -> Result<Vec<u8>, Invalid> {
    let mut encoder = Encoder { types, out: Vec::new() };
    encoder.message(message, json, &Path::Root)?;
    Ok(encoder.out)
}

struct Encoder<'t> {
    types: &'t Types,
    out: Vec<u8>,
}

/// A member of an object that is a field.
type Member<'a> = (usize, &'a Field, &'a str, &'a Value);

impl<'t> Encoder<'t> {
    fn message(&mut self, message: usize, json: &Value, path: &Path<'_>) -> Result<(), Invalid> {
        let types = self.types;
        let message = types.message(message).ok_or_else(|| path.invalid("its type is unknown"))?;
        match message.form {
            Form::Object => {
                let members = json.as_object().ok_or_else(|| {
                    path.invalid(format!("it must be an object of {}", message.name))
                })?;
                self.object(message, members.iter(), path)
            }
            Form::Any => self.any(json, path),
            Form::Duration => {
                self.seconds(json, well_known::read_duration, well_known::DURATION, path)
            }
            Form::Timestamp => {
                self.seconds(json, well_known::read_timestamp, well_known::TIMESTAMP, path)
            }
            Form::FieldMask => {
                let paths = json.as_str().and_then(well_known::read_field_mask);
                let paths = paths.ok_or_else(|| path.invalid(well_known::FIELD_MASK))?;
                paths.iter().for_each(|path| self.delimited(1, path.as_bytes()));
                Ok(())
            }
            Form::Struct | Form::ListValue | Form::Wrapper => {
                let field = message.numbered(1);
                self.field(field.ok_or_else(|| path.invalid("its type is unknown"))?, json, path)
            }
            Form::Value => self.value(message, json, path),
        }
    }

    fn object<'a>(
        &mut self,
        message: &'a Message,
        members: impl Iterator<Item = (&'a String, &'a Value)>,
        path: &Path<'_>,
    ) -> Result<(), Invalid> {
        let mut fields: Vec<Member<'_>> = Vec::new();
        for (name, value) in members {
            let found = message.field(name);
            let (at, field) = found.ok_or_else(|| {
                path.name(name).invalid(format!("{} has no such field", message.name))
            })?;
            if !value.is_null() || self.takes_null(field) {
                fields.push((at, field, name, value));
            }
        }
        // As messages are written usually, and so that names of one field are side by side.
        fields.sort_by_key(|(at, ..)| *at);
        self.check(message, &fields, path)?;
        for (_, field, name, value) in fields {
            self.field(field, value, &path.name(name))?;
        }
        Ok(())
    }

    /// No field twice, no two of a oneof, none missing that is required.
    fn check(
        &self,
        message: &Message,
        fields: &[Member<'_>],
        path: &Path<'_>,
    ) -> Result<(), Invalid> {
        let mut oneofs = HashSet::new();
        let mut before = None;
        for (at, field, name, _) in fields {
            if before.replace(at) == Some(at) {
                return Err(path.name(name).invalid("the field comes twice, by both its names"));
            }
            if field.oneof.is_some_and(|oneof| !oneofs.insert(oneof)) {
                return Err(path.name(name).invalid("another field of its oneof is set"));
            }
        }
        let is_there = |at: &usize| fields.binary_search_by_key(at, |(at, ..)| *at).is_ok();
        let missing = message.required.iter().find(|at| !is_there(at));
        match missing.and_then(|at| message.fields.get(*at)) {
            Some(field) => Err(path.invalid(format!("the field {} is missing", field.name))),
            None => Ok(()),
        }
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

    fn field(&mut self, field: &Field, json: &Value, path: &Path<'_>) -> Result<(), Invalid> {
        match field.shape {
            Shape::Implicit => {
                let before = self.out.len();
                self.tagged(field, json, path)?;
                // A default value is written as nothing: its bytes are all zero behind the tag.
                let tag = varint_len(tag(field.number, wire_type(field.kind)));
                let value = self.out.get(before + tag..).unwrap_or_default();
                if value.iter().all(|&byte| byte == 0) && is_default(field.kind, value) {
                    self.out.truncate(before);
                }
                Ok(())
            }
            Shape::Optional | Shape::Required => self.tagged(field, json, path),
            Shape::Repeated | Shape::Packed => {
                let items = json.as_array().ok_or_else(|| path.invalid("it must be an array"))?;
                if field.shape == Shape::Repeated || items.is_empty() {
                    let mut items = items.iter().enumerate();
                    return items
                        .try_for_each(|(at, item)| self.tagged(field, item, &path.index(at)));
                }
                self.push_varint(tag(field.number, WireType::Delimited));
                self.measured(|encoder| {
                    let mut items = items.iter().enumerate();
                    items.try_for_each(|(at, item)| {
                        encoder.scalar(field.kind, item, &path.index(at))
                    })
                })
            }
            Shape::Map => {
                let entries =
                    json.as_object().ok_or_else(|| path.invalid("it must be an object"))?;
                self.map(field, entries, path)
            }
        }
    }

    fn map(
        &mut self,
        field: &Field,
        entries: &Map<String, Value>,
        path: &Path<'_>,
    ) -> Result<(), Invalid> {
        let entry = match field.kind {
            Kind::Message(at) => self.types.message(at),
            _ => None,
        };
        let parts = entry.and_then(|entry| Some((entry.numbered(1)?, entry.numbered(2)?)));
        let (key, value) = parts.ok_or_else(|| path.invalid("its type is unknown"))?;
        for (name, json) in entries {
            let path = path.name(name);
            self.push_varint(tag(field.number, WireType::Delimited));
            self.measured(|encoder| {
                let name = match (key.kind, name.as_str()) {
                    (Kind::Bool, "true") => Value::Bool(true),
                    (Kind::Bool, "false") => Value::Bool(false),
                    (_, name) => Value::String(name.to_owned()),
                };
                encoder.tagged(key, &name, &path)?;
                encoder.tagged(value, json, &path)
            })?;
        }
        Ok(())
    }

    /// A value with its tag.
    fn tagged(&mut self, field: &Field, json: &Value, path: &Path<'_>) -> Result<(), Invalid> {
        self.push_varint(tag(field.number, wire_type(field.kind)));
        match field.kind {
            Kind::Message(at) => self.measured(|encoder| encoder.message(at, json, path)),
            Kind::Group(at) => {
                self.message(at, json, path)?;
                self.push_varint(tag(field.number, WireType::EndGroup));
                Ok(())
            }
            kind => self.scalar(kind, json, path),
        }
    }

    fn scalar(&mut self, kind: Kind, json: &Value, path: &Path<'_>) -> Result<(), Invalid> {
        match kind {
            Kind::Double => {
                let value = double(json).ok_or_else(|| path.invalid("it must be a double"))?;
                self.out.extend(value.to_le_bytes());
            }
            Kind::Float => {
                let value = float(json).ok_or_else(|| path.invalid("it must be a float"))?;
                self.out.extend(value.to_le_bytes());
            }
            Kind::Bool => {
                let value = json.as_bool().ok_or_else(|| path.invalid("it must be a boolean"))?;
                self.out.push(u8::from(value));
            }
            Kind::String => {
                let text = json.as_str().ok_or_else(|| path.invalid("it must be a string"))?;
                self.push_delimited(text.as_bytes());
            }
            Kind::Bytes => {
                let bytes = json.as_str().and_then(bytes);
                let bytes = bytes.ok_or_else(|| path.invalid("it must be a string in base64"))?;
                self.push_delimited(&bytes);
            }
            Kind::Enum(at) => {
                let of = self.types.enumeration(at);
                let number = of.and_then(|of| enum_number(of, json));
                let number =
                    number.ok_or_else(|| path.invalid("it must be a value of its enum"))?;
                self.push_varint(i64::from(number).cast_unsigned());
            }
            // No message is a scalar.
            Kind::Message(_) | Kind::Group(_) => {}
            kind => self.integer(kind, json, path)?,
        }
        Ok(())
    }

    fn integer(&mut self, kind: Kind, json: &Value, path: &Path<'_>) -> Result<(), Invalid> {
        let (name, least, most) = match kind {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                ("int32", i128::from(i32::MIN), i128::from(i32::MAX))
            }
            Kind::Uint32 | Kind::Fixed32 => ("uint32", 0, i128::from(u32::MAX)),
            Kind::Uint64 | Kind::Fixed64 => ("uint64", 0, i128::from(u64::MAX)),
            _ => ("int64", i128::from(i64::MIN), i128::from(i64::MAX)),
        };
        let value = integer(json).filter(|value| (least..=most).contains(value));
        let value = value.ok_or_else(|| path.invalid(format!("it must be an {name}")))?;
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
        json: &Value,
        read: fn(&str) -> Option<well_known::Seconds>,
        reason: &str,
        path: &Path<'_>,
    ) -> Result<(), Invalid> {
        let read = json.as_str().and_then(read).ok_or_else(|| path.invalid(reason))?;
        let parts = [(1, read.0), (2, i64::from(read.1))];
        for (number, part) in parts.into_iter().filter(|(_, part)| *part != 0) {
            self.push_varint(tag(number, WireType::Varint));
            self.push_varint(part.cast_unsigned());
        }
        Ok(())
    }

    /// Any JSON: the field of its type.
    fn value(&mut self, message: &Message, json: &Value, path: &Path<'_>) -> Result<(), Invalid> {
        let number = match json {
            Value::Null => 1,
            Value::Number(_) => 2,
            Value::String(_) => 3,
            Value::Bool(_) => 4,
            Value::Object(_) => 5,
            Value::Array(_) => 6,
        };
        let field = message.numbered(number).ok_or_else(|| path.invalid("its type is unknown"))?;
        self.tagged(field, json, path)
    }

    /// A message with the name of its type, which must be one of the schema's.
    fn any(&mut self, json: &Value, path: &Path<'_>) -> Result<(), Invalid> {
        let members = json.as_object().ok_or_else(|| path.invalid("it must be an object"))?;
        if members.is_empty() {
            return Ok(());
        }
        let url = members.get("@type").and_then(Value::as_str);
        let url = url.ok_or_else(|| path.invalid("it must have an @type"))?;
        let at = url.rsplit_once('/').and_then(|(_, name)| self.types.named(name));
        let unknown =
            || path.name("@type").invalid("it must end with a / and a type of the schema");
        let at = at.ok_or_else(unknown)?;
        let message = self.types.message(at).ok_or_else(unknown)?;
        self.delimited(1, url.as_bytes());
        self.push_varint(tag(2, WireType::Delimited));
        self.measured(|encoder| {
            let others = members.iter().filter(|(name, _)| *name != "@type");
            if message.form == Form::Object {
                return encoder.object(message, others, path);
            }
            let mut others = others;
            match (others.next(), others.next()) {
                (Some((name, value)), None) if name == "value" => {
                    encoder.message(at, value, &path.name("value"))
                }
                _ => Err(path.invalid("beside @type it must have a value, and nothing else")),
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
        write: impl FnOnce(&mut Self) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
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

/// A whole number, as a number or a string of one; nothing if digits may have been lost.
fn integer(json: &Value) -> Option<i128> {
    match json {
        Value::Number(number) => whole(number),
        Value::String(text) => whole(&number(text)?),
        _ => None,
    }
}

fn whole(number: &Number) -> Option<i128> {
    if let Some(value) = number.as_u64() {
        return Some(value.into());
    }
    if let Some(value) = number.as_i64() {
        return Some(value.into());
    }
    let value = number.as_f64()?;
    // From here on a double stands for several whole numbers.
    let is_exact = value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0;
    is_exact.then_some(value as i128)
}

fn number(text: &str) -> Option<Number> {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
    text.chars().all(is_number).then(|| serde_json::from_str(text).ok())?
}

fn double(json: &Value) -> Option<f64> {
    match json {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => number(text)?.as_f64(),
        },
        _ => None,
    }
}

fn float(json: &Value) -> Option<f32> {
    let value = double(json)?;
    let narrow = value as f32;
    (narrow.is_finite() || !value.is_finite()).then_some(narrow)
}

/// Base64 with either alphabet, padded or not.
fn bytes(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    GeneralPurpose::new(&alphabet, LENIENT).decode(text).ok()
}

fn enum_number(of: &Enum, json: &Value) -> Option<i32> {
    if of.is_null && json.is_null() {
        return Some(0);
    }
    if let Some(name) = json.as_str() {
        return of.number(name);
    }
    let number = i32::try_from(whole(json.as_number()?)?).ok()?;
    (!of.is_closed || of.name(number).is_some()).then_some(number)
}
