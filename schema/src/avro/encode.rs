//! JSON to Avro's binary encoding.

use std::borrow::Cow;
use std::collections::HashSet;

use super::form::Form;
use super::logical::{self, Logical};
use super::types::{Id, Kind, Names, Record, Type, Types, Union};
use crate::fault::Fault;
use crate::json::{self, Json, Value, too_deep};
use crate::limits::{DEPTH_MAX, OUTPUT_BYTES_MAX, TEXT_DEPTH_MAX, values_max};
use crate::number;

pub(super) fn encode(types: &Types, json: &[u8], form: Form) -> Result<Vec<u8>, Fault> {
    let parsed = Json::parse_bytes(json, TEXT_DEPTH_MAX)?;
    let mut encoder = Encoder {
        types,
        form,
        out: Vec::with_capacity(json.len() / 2),
        given: Vec::new(),
        values_left: values_max(json.len()),
        is_branch: false,
    };
    encoder.value(types.root, parsed.root(), DEPTH_MAX)?;
    Ok(encoder.out)
}

struct Encoder<'a> {
    types: &'a Types,
    form: Form,
    out: Vec<u8>,
    /// The fields of the records that are under way, as the document gives them.
    given: Vec<Option<Value<'a>>>,
    values_left: usize,
    /// Whether the next value is tried as a branch of a union.
    is_branch: bool,
}

impl<'a> Encoder<'a> {
    fn value(&mut self, id: Id, value: Value<'a>, depth: usize) -> Result<(), Fault> {
        self.spend(1)?;
        self.spend_text(value.text())?;
        let is_branch = std::mem::take(&mut self.is_branch);
        let types = self.types;
        let of = types.get(id);
        if self.form == Form::Simple
            && let Some(logical) = of.logical
        {
            return self.logical(logical, of, value, is_branch);
        }
        match (&of.kind, value.kind()) {
            (Kind::Null, json::Kind::Null) => Ok(()),
            (Kind::Boolean, json::Kind::False) => self.push(0),
            (Kind::Boolean, json::Kind::True) => self.push(1),
            (Kind::Record(record), json::Kind::Object) => self.record(record, value, depth),
            (Kind::Array(items), json::Kind::Array) => self.array(*items, value, depth),
            (Kind::Map(values), json::Kind::Object) => self.map(*values, value, depth),
            (Kind::Union(union), _) if self.form == Form::Avro => self.tagged(union, value, depth),
            (Kind::Union(union), _) => self.untagged(union, value, depth),
            (kind, _) => self.scalar(kind, value, is_branch),
        }
    }

    /// Counts values.
    fn spend(&mut self, values: usize) -> Result<(), Fault> {
        match self.values_left.checked_sub(values) {
            Some(left) if self.out.len() <= OUTPUT_BYTES_MAX => self.values_left = left,
            Some(_) => return Err(Fault::limit("its payload is larger than 16 MiB")),
            None => return Err(Fault::limit("it makes too many values for its size")),
        }
        Ok(())
    }

    /// Counts a text, which each branch that is tried reads again.
    fn spend_text(&mut self, text: &str) -> Result<(), Fault> {
        self.spend(text.len() / 16)
    }

    /// A reason that lists names of the schema. A union may try many branches that end so.
    fn listed(&mut self, reason: &str, names: &Names) -> Fault {
        match self.spend(Names::SHOWN) {
            Ok(()) => Fault::new(format!("{reason} {names}")),
            Err(limit) => limit,
        }
    }

    fn push(&mut self, byte: u8) -> Result<(), Fault> {
        self.out.push(byte);
        Ok(())
    }

    /// Zigzag, seven bits a byte, the lowest first.
    fn long(&mut self, number: i64) {
        let mut rest = ((number << 1) ^ (number >> 63)) as u64;
        while rest > 0x7f {
            self.out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.push(rest as u8);
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.long(bytes.len() as i64);
        self.out.extend_from_slice(bytes);
    }

    fn scalar(&mut self, kind: &Kind, value: Value<'a>, is_branch: bool) -> Result<(), Fault> {
        // The reason of one branch is not reported: the union lists its branches.
        let form = self.form;
        let misfit = || Fault::new(if is_branch { "".into() } else { expected(kind, form) });
        match kind {
            Kind::Int => {
                let number = integer(value, is_branch).ok_or_else(misfit)?;
                self.long(i32::try_from(number).map_err(|_| misfit())?.into());
            }
            Kind::Long => {
                let number = integer(value, is_branch).ok_or_else(misfit)?;
                self.long(number);
            }
            Kind::Float => {
                let number = float(value, is_branch).ok_or_else(misfit)?;
                self.out.extend(number.to_le_bytes());
            }
            Kind::Double => {
                let number = double(value, is_branch).ok_or_else(misfit)?;
                self.out.extend(number.to_le_bytes());
            }
            Kind::String => {
                let text = value.string().ok_or_else(misfit)?;
                self.sized(text.as_bytes());
            }
            Kind::Bytes => {
                let bytes = self.bytes(value).ok_or_else(misfit)?;
                self.sized(&bytes);
            }
            Kind::Fixed(size) => {
                let bytes = self.bytes(value).filter(|bytes| bytes.len() == *size);
                self.out.extend(bytes.ok_or_else(misfit)?);
            }
            Kind::Enum(symbols) => {
                let symbol = value.string().and_then(|symbol| symbols.find(symbol, 0));
                match symbol {
                    Some(symbol) => self.long(symbol as i64),
                    None if is_branch => return Err(misfit()),
                    None => return Err(self.listed("must be one of the symbols", symbols)),
                }
            }
            _ => return Err(misfit()),
        }
        Ok(())
    }

    fn bytes(&self, value: Value<'_>) -> Option<Vec<u8>> {
        let text = value.string()?;
        match self.form {
            Form::Simple => logical::from_base64(text),
            Form::Avro | Form::Default => text.chars().map(|c| u8::try_from(c).ok()).collect(),
        }
    }

    fn logical(
        &mut self,
        logical: Logical,
        of: &Type,
        value: Value<'a>,
        is_branch: bool,
    ) -> Result<(), Fault> {
        match (logical, value.string()) {
            (Logical::Time(iso, unit), Some(text)) => {
                // Of days, and of milliseconds of a day, no text has more than an int holds.
                self.long(logical::units(text, iso, unit)?);
                Ok(())
            }
            (Logical::Time(..), None) => self.scalar(&of.kind, value, is_branch),
            (Logical::Decimal { precision, scale }, text) => {
                let number = value.number().or(text.filter(|text| json::is_number(text)));
                let number = number.ok_or_else(|| {
                    Fault::new("must be a number, or a string that is written as one")
                })?;
                let bytes = logical::unscaled(number, precision, scale)?;
                if let Kind::Fixed(size) = of.kind {
                    let bytes = logical::sign_extended(&bytes, size)?;
                    self.spend(size / 16)?;
                    self.out.extend(bytes);
                } else {
                    self.sized(&bytes);
                }
                Ok(())
            }
            (Logical::Uuid, text) => {
                let parsed = text.and_then(|text| Some((text, logical::uuid(text)?)));
                let (text, bytes) = parsed.ok_or_else(|| Fault::new("must be a UUID"))?;
                match of.kind {
                    Kind::Fixed(_) => self.out.extend(bytes),
                    _ => self.sized(text.as_bytes()),
                }
                Ok(())
            }
            (Logical::Duration, _) => {
                let bytes = logical::duration(value).ok_or_else(|| {
                    Fault::new("must be an object of the numbers `months`, `days` and `millis`")
                })?;
                self.out.extend(bytes);
                Ok(())
            }
        }
    }

    fn record(&mut self, record: &'a Record, value: Value<'a>, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        self.spend(record.fields.len())?;
        let base = self.given.len();
        self.given.resize(base + record.fields.len(), None);
        let mut next = 0;
        for (name, member) in value.members() {
            self.spend_text(name)?;
            let place = record.names.find(name, next);
            let slot = place.and_then(|place| self.given.get_mut(base + place));
            let slot = slot.ok_or_else(|| Fault::new("no such field").of_member(name))?;
            if slot.replace(member).is_some() {
                return Err(json::repeated(name));
            }
            next = place.map_or(0, |place| place + 1);
        }
        for (place, field) in record.fields.iter().enumerate() {
            let given = self.given.get(base + place).copied().flatten();
            let written = match (given, &field.default) {
                (Some(value), _) => self.value(field.of, value, depth),
                (None, Some(default)) => self.default(field.of, default, depth),
                (None, None) => self.absent(field.of),
            };
            written.map_err(|fault| fault.of_member(record.names.get(place).unwrap_or("")))?;
        }
        self.given.truncate(base);
        Ok(())
    }

    fn default(&mut self, id: Id, default: &'a Json<'static>, depth: usize) -> Result<(), Fault> {
        let form = std::mem::replace(&mut self.form, Form::Default);
        let written = self.value(id, default.root(), depth);
        self.form = form;
        written.map_err(|fault| fault.of_default())
    }

    /// A field that is not in the document.
    fn absent(&mut self, id: Id) -> Result<(), Fault> {
        match &self.types.get(id).kind {
            Kind::Null => Ok(()),
            Kind::Union(Union { null: Some(null), .. }) => {
                self.long(*null as i64);
                Ok(())
            }
            _ => Err(Fault::new("it is missing, and has no default")),
        }
    }

    fn array(&mut self, items: Id, value: Value<'a>, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        if value.len() > 0 {
            self.long(value.len() as i64);
        }
        for (index, item) in value.items().enumerate() {
            self.value(items, item, depth).map_err(|fault| fault.of_item(index))?;
        }
        self.push(0)
    }

    fn map(&mut self, values: Id, value: Value<'a>, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        if value.len() > 0 {
            self.long(value.len() as i64);
        }
        let mut seen = HashSet::new();
        for (name, member) in value.members() {
            self.spend_text(name)?;
            if !seen.insert(name) {
                return Err(json::repeated(name));
            }
            self.sized(name.as_bytes());
            self.value(values, member, depth).map_err(|fault| fault.of_member(name))?;
        }
        self.push(0)
    }

    fn tagged(&mut self, union: &'a Union, value: Value<'a>, depth: usize) -> Result<(), Fault> {
        if let (json::Kind::Null, Some(null)) = (value.kind(), union.null) {
            self.long(null as i64);
            return Ok(());
        }
        let mut members = value.members();
        let tag = members.next().filter(|_| value.len() == 1);
        let found = tag.and_then(|(tag, member)| {
            let branch = union.tags.find(tag, 0)?;
            Some((branch, *union.branches.get(branch)?, tag, member))
        });
        let (branch, id, tag, member) = found.ok_or_else(|| {
            self.listed("must be an object whose one member names its branch, of", &union.tags)
        })?;
        self.long(branch as i64);
        self.value(id, member, depth).map_err(|fault| fault.of_member(tag))
    }

    /// The first branch that fits. The reason where none does: what is wrong inside the value, if
    /// only one branch is of its kind, else which branches there are.
    fn untagged(&mut self, union: &'a Union, value: Value<'a>, depth: usize) -> Result<(), Fault> {
        let (out, given) = (self.out.len(), self.given.len());
        let mut inside = Vec::new();
        for (branch, id) in union.branches.iter().enumerate() {
            self.long(branch as i64);
            self.is_branch = true;
            match self.value(*id, value, depth) {
                Ok(()) => return Ok(()),
                Err(fault) if fault.is_limit => return Err(fault),
                Err(fault) if fault.is_inside() => inside.push(fault),
                Err(_) => {}
            }
            self.out.truncate(out);
            self.given.truncate(given);
        }
        match inside.pop() {
            Some(fault) if inside.is_empty() => Err(fault),
            _ => Err(self.listed("fits no branch of", &union.tags)),
        }
    }
}

/// The integer that a number is. As a branch of a union a number that is written with a fraction or
/// an exponent is none, so that `1.0` finds a double.
fn integer(value: Value<'_>, is_branch: bool) -> Option<i64> {
    let text = value.number()?;
    if is_branch || value.kind() == json::Kind::Integer {
        return text.parse().ok();
    }
    i64::try_from(number::whole(text)?).ok()
}

/// The double that is nearest to a number, or a word for one that is none. As a branch of a union an
/// integer that would be rounded is none, so that it finds a long.
fn double(value: Value<'_>, is_branch: bool) -> Option<f64> {
    let Some(text) = value.number() else { return number::not_finite(value.string()?) };
    let number: f64 = text.parse().ok()?;
    let is_exact = || text.parse() == Ok(number as i128);
    let is_integer = value.kind() == json::Kind::Integer;
    (number.is_finite() && (!is_branch || !is_integer || is_exact())).then_some(number)
}

/// As [`double`], in 32 bits.
fn float(value: Value<'_>, is_branch: bool) -> Option<f32> {
    let Some(text) = value.number() else {
        return Some(number::not_finite(value.string()?)? as f32);
    };
    let number: f32 = text.parse().ok()?;
    let is_exact = || text.parse() == Ok(number as i128);
    let is_integer = value.kind() == json::Kind::Integer;
    (number.is_finite() && (!is_branch || !is_integer || is_exact())).then_some(number)
}

/// What a value of the kind must be.
fn expected(kind: &Kind, form: Form) -> Cow<'static, str> {
    let bytes = match form {
        Form::Simple => "in base64",
        Form::Avro | Form::Default => "as a string of characters below U+0100",
    };
    Cow::Borrowed(match kind {
        Kind::Null => "must be null",
        Kind::Boolean => "must be true or false",
        Kind::Int => "must be an integer of 32 bits",
        Kind::Long => "must be an integer of 64 bits",
        Kind::Float => "must be a number that a float holds",
        Kind::Double => "must be a number that a double holds",
        Kind::Bytes => return Cow::Owned(format!("must be bytes {bytes}")),
        Kind::Fixed(size) => return Cow::Owned(format!("must be {size} bytes {bytes}")),
        Kind::String | Kind::Enum(_) => "must be a string",
        Kind::Array(_) => "must be an array",
        Kind::Map(_) | Kind::Record(_) | Kind::Union(_) => "must be an object",
    })
}
