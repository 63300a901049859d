//! Schemas and documents made to take all time and memory: each ends with an error, or fits, within
//! bounds. A stack that overflows would end this program.

mod json_schema;
mod memory;
mod protobuf;

use std::time::{Duration, Instant};

use kafka_upstream_schema::{Document, PayloadEncoding, Reference, Schema, SchemaType};

/// For one case, in code that is not optimized, on a machine that does other things as well.
const TIME_MAX: Duration = Duration::from_secs(20);
/// For one case whose schema and document are of 1 MiB at most.
const MEMORY_BYTES_MAX: usize = 384 * 1024 * 1024;
const MIB: usize = 1024 * 1024;

/// What becomes of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The schema is refused.
    NoSchema,
    /// The document, or the payload.
    Invalid,
    Fits,
}

/// A schema, and what is encoded or decoded with it.
struct Case {
    name: &'static str,
    schema: String,
    references: Vec<(String, String)>,
    input: Input,
    /// Nothing where only its bounds matter.
    end: Option<End>,
}

enum Input {
    Json(String),
    Payload(Vec<u8>),
}

impl Case {
    fn run(&self, schema_type: SchemaType) -> (End, String) {
        let references = self.references.iter().cloned();
        let document = Document {
            schema_type,
            text: self.schema.clone(),
            references: references.map(|(name, text)| Reference { name, text }).collect(),
        };
        let schema = match Schema::parse(&document) {
            Ok(schema) => schema,
            Err(error) => return (End::NoSchema, error.to_string()),
        };
        let encoding = PayloadEncoding::SimpleJson;
        let result = match &self.input {
            Input::Json(json) => schema.encode(json.as_bytes(), encoding).map(|_| ()),
            Input::Payload(bytes) => schema.decode(Some(&[0]), bytes, encoding).map(|_| ()),
        };
        match result {
            Ok(()) => (End::Fits, String::new()),
            Err(invalid) => (End::Invalid, invalid.to_string()),
        }
    }
}

/// One after the other, because the memory is that of the process.
#[test]
fn every_case_ends_within_bounds() {
    let cases = json_schema::cases().into_iter().map(|case| (SchemaType::Json, case));
    let others = protobuf::cases().into_iter().map(|case| (SchemaType::Protobuf, case));
    let mut wrong = Vec::new();
    for (schema_type, case) in cases.chain(others) {
        let start = Instant::now();
        let ((end, why), bytes) = memory::peak(|| case.run(schema_type));
        let took = start.elapsed();
        let row = format!(
            "{schema_type:?} {}: {end:?} in {took:.1?}, {} KiB: {why}",
            case.name,
            bytes / 1024
        );
        println!("{row}");
        if case.end.is_some_and(|expected| end != expected)
            || took > TIME_MAX
            || bytes > MEMORY_BYTES_MAX
            || why.len() > 1_000
        {
            wrong.push(row);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
