//! Why a document does not fit its schema, in the schema's words: the validator's own sentences
//! quote the document.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::paths::{Location, LocationSegment};
use serde_json::Value;

use crate::Invalid;
use crate::path::Name;

/// Branches of `anyOf` and `oneOf` that a reason tells of.
const BRANCHES_MAX: usize = 4;

/// Characters of the schema that an error shows.
const SHOWN_CHARS_MAX: usize = 200;

/// The reason for an error: of one with branches, what the branch that came furthest has.
pub(super) fn of(error: &ValidationError<'_>) -> Invalid {
    match error.kind() {
        Kind::AnyOf { context } => branches("anyOf", error, context),
        Kind::OneOfNotValid { context } => branches("oneOf", error, context),
        Kind::PropertyNames { error: inner } => {
            let reason = format!("propertyNames: a name does not fit: {}", of(inner).reason);
            Invalid { path: path(error.instance_path()), reason }
        }
        Kind::AdditionalProperties { unexpected } => unexpected_member(error, unexpected),
        Kind::UnevaluatedProperties { unexpected } => unexpected_member(error, unexpected),
        // Of a schema without properties of its own.
        Kind::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
            let reason = "additionalProperties: it must have no members".to_owned();
            Invalid { path: path(error.instance_path()), reason }
        }
        kind => {
            let reason = format!("{}: {}", kind.keyword(), sentence(kind));
            Invalid { path: path(error.instance_path()), reason }
        }
    }
}

/// The first member that no keyword allows.
fn unexpected_member(error: &ValidationError<'_>, names: &[String]) -> Invalid {
    let mut path = path(error.instance_path());
    if let Some(name) = names.first() {
        path.push_str(&Name(name).to_string());
    }
    Invalid { path, reason: format!("{}: there may be no such member", error.kind().keyword()) }
}

fn branches(
    keyword: &str,
    error: &ValidationError<'_>,
    branches: &[Vec<ValidationError<'static>>],
) -> Invalid {
    let here = error.instance_path().iter().count();
    let firsts = || branches.iter().filter_map(|errors| errors.first());
    let depth = |error: &&ValidationError<'_>| error.instance_path().iter().count();
    if let Some(deepest) = firsts().max_by_key(depth).filter(|deepest| depth(deepest) > here) {
        return of(deepest);
    }
    let mut reasons: Vec<_> = firsts().take(BRANCHES_MAX).map(|first| of(first).reason).collect();
    if branches.len() > BRANCHES_MAX {
        reasons.push("…".to_owned());
    }
    let reasons = cut(&reasons.join("; "));
    Invalid {
        path: path(error.instance_path()),
        reason: format!("{keyword}: it fits none of {} schemas ({reasons})", branches.len()),
    }
}

fn sentence(kind: &Kind) -> String {
    match kind {
        Kind::Type { kind: TypeKind::Single(kind) } => format!("it must be {kind}"),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => {
            let kinds: Vec<_> = kinds.iter().map(|kind| kind.to_string()).collect();
            format!("it must be one of {}", kinds.join(", "))
        }
        Kind::Required { property } => format!("{} is missing", shown(property)),
        Kind::Enum { options } => format!("it must be one of {}", shown(options)),
        Kind::Constant { expected_value } => format!("it must be {}", shown(expected_value)),
        Kind::Minimum { limit } => format!("it must be at least {limit}"),
        Kind::Maximum { limit } => format!("it must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("it must be greater than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("it must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("it must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("it must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("it must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("it must have at least {limit} items"),
        Kind::MaxItems { limit } => format!("it must have at most {limit} items"),
        Kind::AdditionalItems { limit } => format!("it must have at most {limit} items"),
        Kind::MinProperties { limit } => format!("it must have at least {limit} members"),
        Kind::MaxProperties { limit } => format!("it must have at most {limit} members"),
        Kind::Pattern { pattern } => format!("it must match {}", cut(pattern)),
        Kind::Format { format } => format!("it must be a {}", cut(format)),
        Kind::OneOfMultipleValid { .. } => "it fits more than one schema".to_owned(),
        Kind::Not { .. } => "it fits the schema that it must not fit".to_owned(),
        Kind::Contains => "it has not as many items that fit as it must".to_owned(),
        Kind::UniqueItems => "two of its items are equal".to_owned(),
        Kind::UnevaluatedItems { .. } => "it has more items than are allowed".to_owned(),
        Kind::FalseSchema => "there may be no such value".to_owned(),
        Kind::Referencing(error) => cut(&error.to_string()),
        _ => "it does not fit".to_owned(),
    }
}

fn shown(value: &Value) -> String {
    cut(&value.to_string())
}

fn path(location: &Location) -> String {
    let mut path = "$".to_owned();
    for segment in location.iter() {
        match segment {
            LocationSegment::Property(name) => path.push_str(&Name(&name).to_string()),
            LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// The beginning of a text of the schema, for an error.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
