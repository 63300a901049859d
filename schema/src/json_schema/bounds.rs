//! What a schema can make its validator do, found out before it is compiled.
//!
//! A compiler and a validator follow `$ref` by recursion, and apply a schema that is referred to
//! twice two times. Thirty schemas that each refer twice to the next apply the last one 2^30 times
//! to one value; a schema that refers to itself without going into the value never ends.

use std::collections::{HashMap, HashSet};

use referencing::{Draft, Resolver};
use serde_json::Value;

use super::reason::cut;
use crate::SchemaError;

/// Schemas that apply to one value.
const APPLIED_MAX: u64 = 10_000;
/// Schemas that apply to one value, one inside the other.
const APPLIED_LEVELS_MAX: usize = 64;
/// Schemas that are compiled one inside the other.
const COMPILED_LEVELS_MAX: usize = 16 * 1024;
/// Regular expressions of a schema.
const PATTERNS_MAX: usize = 256;
/// Bytes of a regular expression.
const PATTERN_BYTES_MAX: usize = 1024;

/// The bounds of a schema.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    /// The most schemas that apply to one value.
    pub(super) applied: u64,
    /// The most of them, one inside the other.
    pub(super) applied_levels: usize,
    /// The most schemas that are compiled one inside the other.
    pub(super) compiled_levels: usize,
}

/// Finds the bounds of a schema, where `resolver` knows what it refers to.
pub(super) fn find(
    schema: &Value,
    draft: Draft,
    resolver: Resolver<'_>,
) -> Result<Bounds, SchemaError> {
    let mut search = Search::default();
    let root = Place { schema, resolver, draft };
    search.entered.insert(root.key());
    let mut waiting = vec![root];
    while let Some(place) = waiting.pop() {
        search.bounds.compiled_levels += search.levels(&place, &mut waiting)?;
    }
    if search.bounds.compiled_levels > COMPILED_LEVELS_MAX {
        return Err(SchemaError(format!("it has more than {COMPILED_LEVELS_MAX} nested schemas")));
    }
    for place in std::mem::take(&mut search.places) {
        let (applied, levels) = search.applied(&place, 1)?;
        search.bounds.applied = search.bounds.applied.max(applied);
        search.bounds.applied_levels = search.bounds.applied_levels.max(levels);
    }
    Ok(search.bounds)
}

/// A schema, and where its references begin.
#[derive(Clone)]
struct Place<'r> {
    schema: &'r Value,
    resolver: Resolver<'r>,
    draft: Draft,
}

impl<'r> Place<'r> {
    fn key(&self) -> usize {
        std::ptr::from_ref(self.schema).addr()
    }

    fn inside(&self, schema: &'r Value) -> Result<Self, SchemaError> {
        let draft = self.draft.detect(schema);
        let resolver = self.resolver.in_subresource(draft.create_resource_ref(schema));
        let resolver = resolver.map_err(|error| SchemaError(cut(&error.to_string())))?;
        Ok(Self { schema, resolver, draft })
    }

    /// The schemas that it refers to.
    fn targets(&self) -> Result<Vec<Self>, SchemaError> {
        let dynamic = self.dynamic_keyword();
        let references = ["$ref"].into_iter().chain(dynamic);
        let references = references.filter_map(|keyword| self.schema.get(keyword)?.as_str());
        references.map(|reference| self.target(reference)).collect()
    }

    fn target(&self, reference: &str) -> Result<Self, SchemaError> {
        let found = self.resolver.lookup(reference).map_err(|_| {
            SchemaError(format!(
                "there is nothing where its reference \"{}\" leads",
                cut(reference)
            ))
        })?;
        let (schema, resolver, draft) = found.into_inner();
        Ok(Self { schema, resolver, draft })
    }

    /// The reference whose target depends on the schemas from which it was reached.
    fn dynamic_keyword(&self) -> Option<&'static str> {
        match self.draft {
            Draft::Draft201909 => Some("$recursiveRef"),
            Draft::Draft202012 => Some("$dynamicRef"),
            _ => None,
        }
    }

    fn is_anchor(&self) -> bool {
        self.schema.get("$dynamicAnchor").is_some() || self.schema.get("$recursiveAnchor").is_some()
    }

    /// The schemas inside that apply to the same value.
    fn in_place(&self) -> Result<Vec<Self>, SchemaError> {
        let lists = ["allOf", "anyOf", "oneOf"].into_iter();
        let lists = lists.filter_map(|keyword| self.schema.get(keyword)?.as_array()).flatten();
        let single = ["not", "if", "then", "else"].into_iter();
        let single = single.filter_map(|keyword| self.schema.get(keyword));
        let maps = ["dependentSchemas", "dependencies"].into_iter();
        let maps = maps.filter_map(|keyword| self.schema.get(keyword)?.as_object());
        let inside = lists.chain(single).chain(maps.flat_map(|map| map.values()));
        inside.map(|schema| self.inside(schema)).collect()
    }

    fn patterns(&self) -> impl Iterator<Item = &'r str> {
        let schema = self.schema;
        let names = schema.get("patternProperties").and_then(Value::as_object);
        let names = names.into_iter().flat_map(|map| map.keys().map(String::as_str));
        schema.get("pattern").and_then(Value::as_str).into_iter().chain(names)
    }
}

#[derive(Default)]
struct Search<'r> {
    bounds: Bounds,
    patterns: usize,
    /// Schemas that a reference leads to.
    entered: HashSet<usize>,
    /// All schemas, and how many are nested in each.
    places: Vec<Place<'r>>,
    nested: HashMap<usize, usize>,
    /// Those to which a dynamic reference may lead.
    anchors: Vec<Place<'r>>,
    /// How many apply to one value from each, and how deep; nothing while that is being found.
    weights: HashMap<usize, Option<(u64, usize)>>,
}

impl<'r> Search<'r> {
    /// Levels of the schemas inside this one, without what they refer to.
    fn levels(
        &mut self,
        place: &Place<'r>,
        waiting: &mut Vec<Place<'r>>,
    ) -> Result<usize, SchemaError> {
        if let Some(levels) = self.nested.get(&place.key()) {
            return Ok(*levels);
        }
        self.count_patterns(place)?;
        for target in place.targets()? {
            if self.entered.insert(target.key()) {
                waiting.push(target);
            }
        }
        let mut deepest = 0;
        for schema in place.draft.subresources_of(place.schema) {
            deepest = deepest.max(self.levels(&place.inside(schema)?, waiting)?);
        }
        self.nested.insert(place.key(), deepest + 1);
        self.places.push(place.clone());
        if place.is_anchor() {
            self.anchors.push(place.clone());
        }
        Ok(deepest + 1)
    }

    fn count_patterns(&mut self, place: &Place<'r>) -> Result<(), SchemaError> {
        for pattern in place.patterns() {
            self.patterns += 1;
            if self.patterns > PATTERNS_MAX {
                let reason = format!("it has more than {PATTERNS_MAX} regular expressions");
                return Err(SchemaError(reason));
            }
            if pattern.len() > PATTERN_BYTES_MAX {
                let reason =
                    format!("a regular expression is longer than {PATTERN_BYTES_MAX} bytes");
                return Err(SchemaError(reason));
            }
        }
        Ok(())
    }

    /// How many schemas apply to a value that this one applies to, and on how many levels.
    fn applied(&mut self, place: &Place<'r>, level: usize) -> Result<(u64, usize), SchemaError> {
        match self.weights.get(&place.key()) {
            Some(Some(weight)) => return Ok(*weight),
            Some(None) => {
                let reason = "one of its schemas refers to itself without going into the value";
                return Err(SchemaError(reason.to_owned()));
            }
            None => self.weights.insert(place.key(), None),
        };
        let mut inside = place.in_place()?;
        inside.extend(place.targets()?);
        if place.dynamic_keyword().is_some_and(|keyword| place.schema.get(keyword).is_some()) {
            inside.extend(self.anchors.iter().cloned());
        }
        let mut weight = (1_u64, 1);
        for place in inside {
            if level == APPLIED_LEVELS_MAX {
                return Err(too_many(APPLIED_LEVELS_MAX, "levels of schemas"));
            }
            let (applied, levels) = self.applied(&place, level + 1)?;
            weight = (weight.0.saturating_add(applied), weight.1.max(levels + 1));
        }
        if weight.0 > APPLIED_MAX {
            return Err(too_many(APPLIED_MAX, "schemas"));
        }
        if weight.1 > APPLIED_LEVELS_MAX {
            return Err(too_many(APPLIED_LEVELS_MAX, "levels of schemas"));
        }
        self.weights.insert(place.key(), Some(weight));
        Ok(weight)
    }
}

fn too_many(limit: impl std::fmt::Display, what: &str) -> SchemaError {
    SchemaError(format!("more than {limit} {what} apply to one value"))
}
