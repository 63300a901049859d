//! JSON Schema: a document that fits is its own payload, byte for byte.
//!
//! As Confluent's serializers have it: `$schema` says the draft, and without it draft 7 holds;
//! `format` is asserted up to draft 7 and a note after it; `contentEncoding` and `contentMediaType`
//! are notes.

mod bounds;
mod counted;
mod reason;
mod references;
mod tree;

use std::fmt;
use std::thread;

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use referencing::{Draft, Registry};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::fault::Fault;
use crate::json::Json;
use crate::limits::TEXT_DEPTH_MAX;
use crate::{Document, Invalid, Payload, SchemaError};
use bounds::Bounds;
use counted::{Counted, Counting, Steps};
use reason::cut;
use references::{BASE, References};

/// Looks at a document, weighted by how many schemas may apply: for each of its bytes and in all, a fraction
/// of a second.
const STEPS_A_BYTE: u64 = 2_000;
const STEPS_LEAST: u64 = 4_000_000;
const STEPS_MAX: u64 = 50_000_000;
/// The same, to find out where and why a document does not fit.
const REASON_STEPS_MAX: u64 = 5_000_000;
/// Bytes of a compiled regular expression, and of what it remembers while it matches.
const PATTERN_MEMORY_BYTES: usize = 256 * 1024;
/// Bytes of stack that a schema inside another one takes, where the code is not optimized.
const LEVEL_STACK_BYTES: usize = 16 * 1024;
/// Levels for which any thread has the stack.
const LEVELS_ON_ANY_STACK: usize = 32;

pub(crate) struct Schema {
    /// There but while it is dropped.
    validator: Option<Validator<Counted>>,
    bounds: Bounds,
}

impl fmt::Debug for Schema {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Schema").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Schema {
    pub(crate) fn parse(document: &Document) -> Result<Self, SchemaError> {
        let schema = tree::read(document.text.as_bytes());
        let schema = schema.map_err(|fault| SchemaError(Invalid::from(fault).to_string()))?.value;
        let draft = draft(&schema)?;
        let references = References::read(document)?;
        // The registry's own walk follows references by recursion as well.
        let most = usize::MAX;
        let bounds = on_stack(most, || bounds(&schema, draft, &references))??;
        let validator = on_stack(bounds.compiled_levels, || compile(&schema, draft, references))??;
        Ok(Self { validator: Some(validator), bounds })
    }

    pub(crate) fn encode(&self, json: &[u8]) -> Result<Payload, Invalid> {
        let document = tree::read(json)?;
        let levels = document.levels.saturating_mul(self.bounds.applied_levels);
        let checked = on_stack(levels, || self.check(&document.value, json.len() as u64));
        checked.unwrap_or_else(|SchemaError(reason)| Err(Fault::new(reason).into()))?;
        Ok(Payload { message_index: Vec::new(), bytes: json.to_vec() })
    }

    /// As in Confluent's deserializers, what was written is not judged again.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, Invalid> {
        let text = std::str::from_utf8(bytes).ok();
        match text.map(serde_json::from_str::<IgnoredAny>) {
            Some(Ok(_)) => Ok(bytes.to_vec()),
            _ => {
                let fault = Json::parse_bytes(bytes, TEXT_DEPTH_MAX).err();
                Err(fault.unwrap_or_else(|| Fault::new("no JSON")).into())
            }
        }
    }

    fn check(&self, value: &Value, bytes: u64) -> Result<(), Invalid> {
        let Some(validator) = &self.validator else { return Ok(()) };
        let most = (STEPS_LEAST + bytes.saturating_mul(STEPS_A_BYTE)).min(STEPS_MAX);
        let steps = Steps::new(most, self.bounds.applied);
        let fits = validator.is_valid(Counting::new(value, &steps));
        if steps.are_used_up() {
            return Err(Fault::new("to check it against its schema takes too long").into());
        }
        if fits {
            return Ok(());
        }
        let steps = Steps::new(REASON_STEPS_MAX, 1);
        match validator.validate(Counting::new(value, &steps)) {
            Err(error) if !steps.are_used_up() => Err(reason::of(&error)),
            _ => Err(Fault::new("it does not fit its schema; to say where takes too long").into()),
        }
    }
}

impl Drop for Schema {
    /// What is compiled inside each other is dropped inside each other.
    fn drop(&mut self) {
        let validator = self.validator.take();
        // Without a thread for it, it is dropped here.
        drop(on_stack(self.bounds.compiled_levels, || drop(validator)));
    }
}

fn draft(schema: &Value) -> Result<Draft, SchemaError> {
    let Some(named) = schema.get("$schema") else { return Ok(Draft::Draft7) };
    match Draft::from_schema_uri(named.as_str().unwrap_or_default()) {
        Draft::Unknown => {
            Err(SchemaError("its $schema names no draft between 4 and 2020-12".to_owned()))
        }
        draft => Ok(draft),
    }
}

fn bounds(schema: &Value, draft: Draft, references: &References) -> Result<Bounds, SchemaError> {
    let id = schema.get(draft.id_keyword()).and_then(Value::as_str).unwrap_or(BASE);
    let base =
        referencing::uri::from_str(id.trim_end_matches('#')).map_err(|e| cannot_refer(&e))?;
    let resource = draft.create_resource_ref(schema);
    let registry = Registry::new().draft(draft).retriever(references.clone());
    let registry = registry.add(base.as_str(), resource).and_then(|registry| registry.prepare());
    let registry = registry.map_err(|error| cannot_refer(&error))?;
    bounds::find(schema, draft, registry.resolver(base))
}

fn compile(
    schema: &Value,
    draft: Draft,
    references: References,
) -> Result<Validator<Counted>, SchemaError> {
    let patterns = PatternOptions::regex()
        .size_limit(PATTERN_MEMORY_BYTES)
        .dfa_size_limit(PATTERN_MEMORY_BYTES);
    jsonschema::options_for::<Counted>()
        .with_draft(draft)
        .with_retriever(references)
        .with_pattern_options(patterns)
        .without_content_encoding_support("base64")
        .without_content_media_type_support("application/json")
        // To translate a regular expression takes time that grows with the square of its length.
        .with_format("regex", |_: &str| true)
        .build(schema)
        .map_err(|error| cannot_compile(&error))
}

fn cannot_refer(error: &referencing::Error) -> SchemaError {
    match error {
        referencing::Error::Unretrievable { uri, .. } => {
            let document = uri.split('#').next().unwrap_or_default();
            let name = cut(document.strip_prefix(BASE).unwrap_or(document));
            SchemaError(format!("it refers to \"{name}\", which is not among its references"))
        }
        error => SchemaError(cut(&error.to_string())),
    }
}

fn cannot_compile(error: &ValidationError<'_>) -> SchemaError {
    let Invalid { path, reason } = reason::of(error);
    match error.kind() {
        Kind::Format { format } if format == "regex" => SchemaError(format!(
            "{path} is no regular expression, too large a one, or has look-around or back-references"
        )),
        _ => SchemaError(format!("{path} is no JSON Schema: {reason}")),
    }
}

/// Runs `work` where there is a stack for `levels` schemas inside each other; an error if there is
/// none, or if `work` panicked in a thread of its own.
fn on_stack<T: Send>(levels: usize, work: impl FnOnce() -> T + Send) -> Result<T, SchemaError> {
    if levels <= LEVELS_ON_ANY_STACK {
        return Ok(work());
    }
    let bytes = levels.saturating_mul(LEVEL_STACK_BYTES).min(STACK_BYTES_MAX);
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(bytes).spawn_scoped(scope, work);
        let thread = thread.map_err(|_| SchemaError("there is no thread for it".to_owned()))?;
        thread.join().map_err(|_| SchemaError("its validator failed".to_owned()))
    })
}

/// Bytes of stack for the deepest of schemas; memory is taken only for what is used.
const STACK_BYTES_MAX: usize = 256 * 1024 * 1024;

#[cfg(test)]
mod tests;
