//! Avro's binary encoding to JSON.

use super::form::Form;
use super::logical::{self, Logical};
use super::types::{Id, Kind, Record, Types, Union};
use crate::fault::Fault;
use crate::json::too_deep;
use crate::limits::{DEPTH_MAX, OUTPUT_BYTES_MAX, values_max};
use crate::number;

pub(super) fn decode(types: &Types, bytes: &[u8], form: Form) -> Result<Vec<u8>, Fault> {
    let mut decoder = Decoder {
        types,
        form,
        rest: bytes,
        out: Vec::with_capacity(bytes.len().saturating_mul(2).min(OUTPUT_BYTES_MAX)),
        values_left: values_max(bytes.len()),
    };
    decoder.value(types.root, DEPTH_MAX)?;
    match decoder.rest {
        [] => Ok(decoder.out),
        rest => Err(Fault::new(format!("{} bytes follow the value", rest.len()))),
    }
}

struct Decoder<'a> {
    types: &'a Types,
    form: Form,
    rest: &'a [u8],
    out: Vec<u8>,
    values_left: usize,
}

impl<'a> Decoder<'a> {
    fn value(&mut self, id: Id, depth: usize) -> Result<(), Fault> {
        self.spend()?;
        let types = self.types;
        let of = types.get(id);
        if self.form == Form::Simple
            && let Some(logical) = of.logical
        {
            return self.logical(logical, &of.kind);
        }
        match &of.kind {
            Kind::Array(items) => self.array(*items, depth),
            Kind::Map(values) => self.map(*values, depth),
            Kind::Record(record) => self.record(record, depth),
            Kind::Union(union) => self.union(union, depth),
            kind => self.scalar(kind),
        }
    }

    /// Counts values.
    fn spend(&mut self) -> Result<(), Fault> {
        match self.values_left.checked_sub(1) {
            Some(left) if self.out.len() <= OUTPUT_BYTES_MAX => self.values_left = left,
            Some(_) => return Err(Fault::limit("its JSON is larger than 16 MiB")),
            None => return Err(Fault::limit("it has too many values for its size")),
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn long(&mut self) -> Result<i64, Fault> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take_array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(Fault::new("a number is longer than 64 bits"))
    }

    fn int(&mut self) -> Result<i32, Fault> {
        i32::try_from(self.long()?).map_err(|_| Fault::new("an int is longer than 32 bits"))
    }

    /// Bytes behind their length.
    fn sized(&mut self) -> Result<&'a [u8], Fault> {
        let size = self.long()?;
        self.take(usize::try_from(size).map_err(|_| Fault::new("a length is negative"))?)
    }

    fn utf8(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.sized()?).map_err(|_| Fault::new("a string is not UTF-8"))
    }

    fn push(&mut self, json: impl AsRef<[u8]>) {
        self.out.extend_from_slice(json.as_ref());
    }

    fn push_number(&mut self, number: i64) {
        self.push(itoa::Buffer::new().format(number));
    }

    fn push_string(&mut self, text: &str) -> Result<(), Fault> {
        serde_json::to_writer(&mut self.out, text).map_err(|_| Fault::new("it has no JSON"))
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self.form {
            Form::Simple => self.push_string(&logical::to_base64(bytes)),
            Form::Avro | Form::Default => {
                let text: String = bytes.iter().copied().map(char::from).collect();
                self.push_string(&text)
            }
        }
    }

    fn scalar(&mut self, kind: &Kind) -> Result<(), Fault> {
        match kind {
            Kind::Null => self.push("null"),
            Kind::Boolean => match self.take_array()? {
                [0] => self.push("false"),
                [1] => self.push("true"),
                _ => return Err(Fault::new("a boolean is neither 0 nor 1")),
            },
            Kind::Int => {
                let number = self.int()?;
                self.push_number(number.into());
            }
            Kind::Long => {
                let number = self.long()?;
                self.push_number(number);
            }
            Kind::Float => {
                let number = f32::from_le_bytes(self.take_array()?);
                return self.float(number, number.into());
            }
            Kind::Double => {
                let number = f64::from_le_bytes(self.take_array()?);
                return self.float(number, number);
            }
            Kind::Bytes => {
                let bytes = self.sized()?;
                return self.push_bytes(bytes);
            }
            Kind::Fixed(size) => {
                let bytes = self.take(*size)?;
                return self.push_bytes(bytes);
            }
            Kind::Enum(symbols) => {
                let symbol = usize::try_from(self.int()?).ok();
                let symbol = symbol.and_then(|symbol| symbols.get(symbol));
                return self.push_string(symbol.ok_or_else(|| Fault::new("no such symbol"))?);
            }
            _ => {
                let text = self.utf8()?;
                return self.push_string(text);
            }
        }
        Ok(())
    }

    /// A float with as few digits as make it again; `wide` is its value.
    fn float(&mut self, float: impl serde::Serialize, wide: f64) -> Result<(), Fault> {
        match number::not_finite_json(wide) {
            Some(json) => self.push(json),
            None => serde_json::to_writer(&mut self.out, &float)
                .map_err(|_| Fault::new("it has no JSON"))?,
        }
        Ok(())
    }

    fn logical(&mut self, logical: Logical, kind: &Kind) -> Result<(), Fault> {
        let bytes = match kind {
            Kind::Bytes => self.sized()?,
            Kind::Fixed(size) => self.take(*size)?,
            kind => return self.scalar(kind),
        };
        match logical {
            Logical::Decimal { scale, .. } => self.push(logical::scaled(bytes, scale)?),
            Logical::Duration => self.push(logical::duration_json(bytes)),
            Logical::Uuid | Logical::Time(..) => {
                let text = logical::uuid_text(bytes);
                return self.push_string(&text.ok_or_else(|| Fault::new("no UUID"))?);
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &Record, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        self.push("{");
        for (place, field) in record.fields.iter().enumerate() {
            if place > 0 {
                self.push(",");
            }
            self.push(&*field.key);
            let name = || record.names.get(place).unwrap_or("");
            self.value(field.of, depth).map_err(|fault| fault.of_member(name()))?;
        }
        self.push("}");
        Ok(())
    }

    /// How many items come next; 0 ends an array or map.
    fn block(&mut self) -> Result<u64, Fault> {
        let items = self.long()?;
        if items < 0 {
            // The block's bytes, for readers that skip it.
            self.long()?;
        }
        Ok(items.unsigned_abs())
    }

    fn array(&mut self, items: Id, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        self.push("[");
        let (mut left, mut index) = (self.block()?, 0);
        while left > 0 {
            if index > 0 {
                self.push(",");
            }
            self.value(items, depth).map_err(|fault| fault.of_item(index))?;
            (left, index) = (left - 1, index + 1);
            if left == 0 {
                left = self.block()?;
            }
        }
        self.push("]");
        Ok(())
    }

    fn map(&mut self, values: Id, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        self.push("{");
        let (mut left, mut is_first) = (self.block()?, true);
        while left > 0 {
            if !std::mem::take(&mut is_first) {
                self.push(",");
            }
            let name = self.utf8()?;
            self.push_string(name)?;
            self.push(":");
            self.value(values, depth).map_err(|fault| fault.of_member(name))?;
            left -= 1;
            if left == 0 {
                left = self.block()?;
            }
        }
        self.push("}");
        Ok(())
    }

    fn union(&mut self, union: &Union, depth: usize) -> Result<(), Fault> {
        let place = usize::try_from(self.long()?).ok();
        let branch = place.and_then(|place| Some((*union.branches.get(place)?, place)));
        let (id, place) = branch.ok_or_else(|| Fault::new("a union has no such branch"))?;
        if self.form != Form::Avro || union.null == Some(place) {
            return self.value(id, depth);
        }
        let tag = union.tags.get(place).unwrap_or("");
        self.push("{");
        self.push_string(tag)?;
        self.push(":");
        self.value(id, depth).map_err(|fault| fault.of_member(tag))?;
        self.push("}");
        Ok(())
    }
}

fn ends_early() -> Fault {
    Fault::new("the payload ends early")
}
