//! Why a document does not fit its schema, in the schema's words: the validator's own sentences
//! quote the document.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::paths::{Location, LocationSegment};
use serde_json::Value;

use crate::Invalid;
use crate::fault::{self, Fault};

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
            at(error.instance_path(), Fault::new(reason))
        }
        Kind::AdditionalProperties { unexpected } => unexpected_member(error, unexpected),
        Kind::UnevaluatedProperties { unexpected } => unexpected_member(error, unexpected),
        // Of a schema without properties of its own.
        Kind::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
            let reason = "additionalProperties: it must have no members";
            at(error.instance_path(), Fault::new(reason))
        }
        kind => {
            let reason = format!("{}: {}", kind.keyword(), sentence(kind));
            at(error.instance_path(), Fault::new(reason))
        }
    }
}

/// The first member that no keyword allows.
fn unexpected_member(error: &ValidationError<'_>, names: &[String]) -> Invalid {
    let fault = Fault::new(format!("{}: there may be no such member", error.kind().keyword()));
    at(error.instance_path(), names.iter().take(1).fold(fault, |fault, name| fault.of_member(name)))
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
    let reason = format!("{keyword}: it fits none of {} schemas ({reasons})", branches.len());
    at(error.instance_path(), Fault::new(reason))
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

fn at(location: &Location, fault: Fault) -> Invalid {
    let segments: Vec<_> = location.iter().collect();
    let inside_out = segments.into_iter().rev();
    Invalid::from(inside_out.fold(fault, |fault, segment| match segment {
        LocationSegment::Property(name) => fault.of_member(&name),
        LocationSegment::Index(index) => fault.of_item(index),
    }))
}

/// The beginning of a text of the schema, for an error.
pub(super) fn cut(text: &str) -> String {
    fault::cut(text, SHOWN_CHARS_MAX)
}
