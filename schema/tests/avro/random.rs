//! Random values of random schemas: through JSON and back, and beside apache-avro.

use apache_avro::Schema as Apache;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use fastrand::Rng;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{AvroJson, SimpleJson, decode, encode, schema};

/// A type. What is named has a number.
#[derive(Debug, Clone)]
enum Type {
    /// A type that JSON has a word for, with its logical type.
    Simple(&'static str, Option<&'static str>),
    Decimal {
        precision: u32,
        scale: u32,
        fixed: Option<usize>,
    },
    Fixed(usize, usize, Option<&'static str>),
    Enum(usize, usize),
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    Record(usize, Vec<Type>),
    /// A record around it.
    Outer(usize),
}

const SIMPLE: [(&str, Option<&str>); 15] = [
    ("null", None),
    ("boolean", None),
    ("int", None),
    ("int", Some("date")),
    ("int", Some("time-millis")),
    ("long", None),
    ("long", Some("time-micros")),
    ("long", Some("timestamp-millis")),
    ("long", Some("timestamp-nanos")),
    ("long", Some("local-timestamp-micros")),
    ("float", None),
    ("double", None),
    ("bytes", None),
    ("string", None),
    ("string", Some("uuid")),
];

impl Type {
    fn json(&self) -> Value {
        match self {
            Self::Simple(name, None) => json!(name),
            Self::Simple(name, logical) => json!({"type": name, "logicalType": logical}),
            Self::Decimal { precision, scale, fixed: None } => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
            }
            Self::Decimal { precision, scale, fixed: Some(number) } => {
                json!({"type": "fixed", "size": 9, "name": format!("N{number}"),
                    "logicalType": "decimal", "precision": precision, "scale": scale})
            }
            Self::Fixed(number, size, logical) => {
                let name = format!("com.acme.N{number}");
                match logical {
                    None => json!({"type": "fixed", "name": name, "size": size}),
                    logical => {
                        json!({"type": "fixed", "name": name, "size": size, "logicalType": logical})
                    }
                }
            }
            Self::Enum(number, symbols) => {
                let symbols: Vec<_> = (0..*symbols).map(|symbol| format!("S{symbol}")).collect();
                json!({"type": "enum", "name": format!("N{number}"), "symbols": symbols})
            }
            Self::Array(items) => json!({"type": "array", "items": items.json()}),
            Self::Map(values) => json!({"type": "map", "values": values.json()}),
            Self::Union(branches) => branches.iter().map(Self::json).collect(),
            Self::Record(number, fields) => {
                let field = |(place, of): (usize, &Self)| json!({"name": format!("f{place}"), "type": of.json()});
                let fields: Vec<_> = fields.iter().enumerate().map(field).collect();
                json!({"type": "record", "name": format!("N{number}"), "namespace": "", "fields": fields})
            }
            Self::Outer(number) => json!(["null", format!(".N{number}")]),
        }
    }

    /// What kind of JSON it is: a union of two that are of one kind is read as the first of them.
    fn class(&self) -> u8 {
        match self {
            Self::Simple("null", _) => 0,
            Self::Simple("boolean", _) => 1,
            Self::Simple("int" | "long" | "float" | "double", _) | Self::Decimal { .. } => 2,
            Self::Array(_) => 3,
            Self::Map(_) | Self::Record(..) | Self::Fixed(_, 12, _) => 4,
            _ => 5,
        }
    }

    /// Of these a union has one, whatever they mean.
    fn is_bytes(&self) -> bool {
        matches!(self, Self::Simple("bytes", _) | Self::Decimal { fixed: None, .. })
    }
}

/// Makes types, and values of them.
struct Maker {
    rng: Rng,
    names: usize,
    /// The records that are under way, or were.
    records: Vec<(usize, Vec<Type>)>,
    open: Vec<usize>,
}

impl Maker {
    fn name(&mut self) -> usize {
        self.names += 1;
        self.names
    }

    fn of(&mut self, depth: usize) -> Type {
        let kinds = if depth == 0 { 5 } else { 9 };
        match self.rng.u8(0..kinds) {
            0..=2 => {
                let (name, logical) = self.rng.choice(SIMPLE).unwrap();
                Type::Simple(name, logical)
            }
            3 => match self.rng.u8(0..3) {
                0 => {
                    let precision = self.rng.u32(1..18);
                    let scale = self.rng.u32(0..=precision);
                    let fixed = self.rng.bool().then(|| self.name());
                    Type::Decimal { precision, scale, fixed }
                }
                1 => Type::Enum(self.name(), self.rng.usize(1..5)),
                _ => Type::Fixed(self.name(), self.rng.usize(0..6), None),
            },
            4 => match (self.open.last(), self.rng.u8(0..3)) {
                (Some(outer), 0) => Type::Outer(*outer),
                (_, 1) => Type::Fixed(self.name(), 12, Some("duration")),
                _ => Type::Fixed(self.name(), 16, Some("uuid")),
            },
            5 => Type::Array(Box::new(self.of(depth - 1))),
            6 => Type::Map(Box::new(self.of(depth - 1))),
            7 => self.union(depth - 1),
            _ => {
                let number = self.name();
                self.open.push(number);
                let fields = (0..self.rng.usize(0..4)).map(|_| self.of(depth - 1)).collect();
                self.open.pop();
                self.records.push((number, fields));
                let (number, fields) = self.records.last().unwrap().clone();
                Type::Record(number, fields)
            }
        }
    }

    fn union(&mut self, depth: usize) -> Type {
        let mut branches: Vec<Type> = Vec::new();
        for _ in 0..self.rng.usize(1..5) {
            let branch = self.of(depth);
            let is_union = matches!(branch, Type::Union(_) | Type::Outer(_));
            let differs = |other: &Type| {
                other.class() != branch.class() && !(other.is_bytes() && branch.is_bytes())
            };
            if !is_union && branches.iter().all(differs) {
                branches.push(branch);
            }
        }
        if branches.is_empty() {
            branches.push(Type::Simple("null", None));
        }
        Type::Union(branches)
    }

    fn long(&mut self, out: &mut Vec<u8>, number: i64) {
        let mut rest = ((number << 1) ^ (number >> 63)) as u64;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn sized(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        self.long(out, bytes.len() as i64);
        out.extend(bytes);
    }

    fn simple(&mut self, out: &mut Vec<u8>, name: &str, logical: Option<&str>) {
        match name {
            "null" => {}
            "boolean" => out.push(self.rng.u8(0..2)),
            "int" => {
                let number = self.rng.i32(..) >> self.rng.u32(0..32);
                self.long(out, number.into());
            }
            "long" => {
                let number = self.rng.i64(..) >> self.rng.u32(0..64);
                self.long(out, number);
            }
            "float" => {
                let number = f32::from_bits(self.rng.u32(..));
                out.extend(if number.is_nan() { f32::NAN } else { number }.to_le_bytes());
            }
            "double" => {
                let number = f64::from_bits(self.rng.u64(..));
                out.extend(if number.is_nan() { f64::NAN } else { number }.to_le_bytes());
            }
            "bytes" => {
                let bytes: Vec<u8> = (0..self.rng.usize(0..9)).map(|_| self.rng.u8(..)).collect();
                self.sized(out, &bytes);
            }
            _ if logical.is_some() => {
                let number = self.rng.u128(..);
                let hex = format!("{number:032x}");
                let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
                self.sized(out, parts.join("-").as_bytes());
            }
            _ => {
                let text: String = (0..self.rng.usize(0..9)).map(|_| self.rng.char(..)).collect();
                self.sized(out, text.as_bytes());
            }
        }
    }

    /// A value in Avro's binary encoding, written here once more.
    fn value(&mut self, out: &mut Vec<u8>, of: &Type, depth: usize) {
        match of {
            Type::Simple(name, logical) => self.simple(out, name, *logical),
            Type::Decimal { precision, fixed, .. } => {
                let number = self.rng.i64(..) % 10_i64.pow(*precision);
                let bytes = number.to_be_bytes();
                let sign = if number < 0 { 0xff } else { 0 };
                if fixed.is_some() {
                    out.push(sign);
                    out.extend(bytes);
                    return;
                }
                let needless = |at: &usize| bytes[*at] == sign && bytes[at + 1] >> 7 == sign >> 7;
                let start = (0..7).take_while(needless).count();
                self.sized(out, &bytes[start..]);
            }
            Type::Fixed(_, size, _) => out.extend((0..*size).map(|_| self.rng.u8(..))),
            Type::Enum(_, symbols) => {
                let symbol = self.rng.usize(0..*symbols);
                self.long(out, symbol as i64);
            }
            // Of one entry: apache-avro does not keep the order of more.
            Type::Map(values) if self.rng.bool() => {
                self.long(out, 1);
                self.simple(out, "string", None);
                self.value(out, values, depth);
                out.push(0);
            }
            Type::Array(items) => {
                let number = self.rng.usize(0..4);
                if number > 0 {
                    self.long(out, number as i64);
                }
                (0..number).for_each(|_| self.value(out, items, depth));
                out.push(0);
            }
            Type::Map(_) => out.push(0),
            Type::Union(branches) => {
                let branch = self.rng.usize(0..branches.len());
                self.long(out, branch as i64);
                self.value(out, &branches[branch], depth);
            }
            Type::Record(_, fields) => fields.iter().for_each(|of| self.value(out, of, depth)),
            Type::Outer(_) if depth == 0 || self.rng.bool() => out.push(0),
            Type::Outer(outer) => {
                out.push(2);
                let record = self.records.iter().find(|(number, _)| number == outer).unwrap();
                let fields = record.1.clone();
                fields.iter().for_each(|of| self.value(out, of, depth - 1));
            }
        }
    }
}

/// A schema's text, and some values of it.
fn made(seed: u64) -> (String, Vec<Vec<u8>>) {
    let mut maker =
        Maker { rng: Rng::with_seed(seed), names: 0, records: Vec::new(), open: Vec::new() };
    let of = maker.of(4);
    let values = (0..8).map(|_| {
        let mut value = Vec::new();
        maker.value(&mut value, &of, 3);
        value
    });
    let values = values.collect();
    (of.json().to_string(), values)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_value_comes_back(seed: u64) {
        let (text, values) = made(seed);
        let schema = schema(&text);
        for bytes in values {
            for encoding in [AvroJson, SimpleJson] {
                let json = decode(&schema, &bytes, encoding).unwrap();
                prop_assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
                let again = encode(&schema, &json, encoding);
                prop_assert_eq!(again, Ok(bytes.clone()), "{}\n{}", text, json);
            }
        }
    }

    #[test]
    fn apache_avro_reads_and_writes_the_same(seed: u64) {
        let (text, values) = made(seed);
        let (schema, apache) = (schema(&text), Apache::parse_str(&text).unwrap());
        let reader = GenericDatumReader::builder(&apache).build().unwrap();
        let writer = GenericDatumWriter::builder(&apache).build().unwrap();
        for bytes in values {
            let json = decode(&schema, &bytes, SimpleJson).unwrap();
            let written = encode(&schema, &json, SimpleJson).unwrap();
            let value = reader.read_value(&mut &*written).unwrap();
            prop_assert_eq!(writer.write_value_to_vec(value).unwrap(), bytes, "{}\n{}", text, json);
        }
    }

    #[test]
    fn no_bytes_and_no_text_make_it_panic(
        seed: u64,
        noise in prop::collection::vec(any::<u8>(), 0..64),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let (text, values) = made(seed);
        let schema = schema(&text);
        for encoding in [AvroJson, SimpleJson] {
            let _ = decode(&schema, &noise, encoding);
            for mut bytes in values.clone() {
                let mut json = decode(&schema, &bytes, encoding).unwrap().into_bytes();
                let place = at.index(json.len());
                json[place] = byte;
                let _ = schema.encode(&json, encoding);
                let _ = schema.encode(&json[..place], encoding);
                if !bytes.is_empty() {
                    let place = at.index(bytes.len());
                    bytes[place] = byte;
                    let _ = decode(&schema, &bytes, encoding);
                    let _ = decode(&schema, &bytes[..place], encoding);
                }
            }
        }
    }
}
