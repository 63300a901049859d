//! The types of a schema. They refer to each other by number, so that they can be recursive.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::logical::Logical;
use crate::json::Json;

/// A type's number.
pub(super) type Id = usize;

/// The types of a schema.
#[derive(Debug)]
pub(super) struct Types {
    pub(super) all: Vec<Type>,
    pub(super) root: Id,
}

/// A type.
#[derive(Debug)]
pub(super) struct Type {
    /// The full name of a named type, `int`, `array` and so on of others: a union's tag.
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    /// What its values mean, in plain JSON.
    pub(super) logical: Option<Logical>,
}

/// What its values are.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    /// Its size in bytes.
    Fixed(usize),
    /// Its symbols.
    Enum(Names),
    /// The type of its items.
    Array(Id),
    /// The type of its values.
    Map(Id),
    Union(Union),
    Record(Record),
}

/// Types of which a value has one.
#[derive(Debug)]
pub(super) struct Union {
    pub(super) branches: Vec<Id>,
    /// The branches' names.
    pub(super) tags: Names,
    /// Which branch is null.
    pub(super) null: Option<usize>,
}

/// Fields in their order.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) fields: Vec<Field>,
    pub(super) names: Names,
}

/// A field of a record.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) of: Id,
    /// Its name as the key of a JSON object, with the colon.
    pub(super) key: Box<str>,
    pub(super) default: Option<Json<'static>>,
}

impl Types {
    pub(super) fn get(&self, id: Id) -> &Type {
        const NONE: &Type = &Type { name: Cow::Borrowed("null"), kind: Kind::Null, logical: None };
        self.all.get(id).unwrap_or(NONE)
    }
}

/// Names of which none comes twice.
#[derive(Default)]
pub(super) struct Names {
    list: Vec<Arc<str>>,
    places: HashMap<Arc<str>, usize>,
}

impl Names {
    /// How many a message has.
    pub(super) const SHOWN: usize = 20;

    /// Adds one, unless it is there.
    pub(super) fn push(&mut self, name: &str) -> bool {
        let name: Arc<str> = name.into();
        let is_new = self.places.insert(Arc::clone(&name), self.list.len()).is_none();
        self.list.push(name);
        is_new
    }

    /// The place of a name; `guess` is looked at first.
    pub(super) fn find(&self, name: &str, guess: usize) -> Option<usize> {
        match self.get(guess) {
            Some(guessed) if guessed == name => Some(guess),
            _ => self.places.get(name).copied(),
        }
    }

    pub(super) fn get(&self, place: usize) -> Option<&str> {
        self.list.get(place).map(|name| &**name)
    }
}

/// The first of them, for a message.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.list.iter().take(Self::SHOWN).enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}`{name:.64}`")?;
        }
        match self.list.len() {
            0 => f.write_str("none"),
            names if names > Self::SHOWN => write!(f, " and {} more", names - Self::SHOWN),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}
