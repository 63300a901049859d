//! Values of an expression: cheap to copy, borrowed from the request or shared.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// A value. A copy of a string, list or map shares its content.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Blob<'a>),
    List(Rc<[Value<'a>]>),
    Map(Rc<Map<'a>>),
    Type(&'static str),
}

pub(super) type Text<'a> = RcCow<'a, str>;
pub(super) type Blob<'a> = RcCow<'a, [u8]>;

/// Borrowed from the request or the expression, or made during evaluation.
pub(super) enum RcCow<'a, T: ToOwned + ?Sized> {
    Borrowed(&'a T),
    Owned(Rc<T::Owned>),
}

impl<T: ToOwned + ?Sized> Clone for RcCow<'_, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Borrowed(content) => Self::Borrowed(content),
            Self::Owned(content) => Self::Owned(Rc::clone(content)),
        }
    }
}

impl<T: ToOwned + fmt::Debug + ?Sized> fmt::Debug for RcCow<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(out)
    }
}

impl<T: ToOwned + ?Sized> Deref for RcCow<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(content) => content,
            Self::Owned(content) => T::Owned::borrow(content),
        }
    }
}

impl<'a> RcCow<'a, str> {
    /// A part of it, found by `find`; borrowed where the whole is.
    pub(super) fn part(&self, find: impl Fn(&str) -> Option<&str>) -> Option<Value<'a>> {
        match self {
            Self::Borrowed(text) => Some(Value::String(RcCow::Borrowed(find(text)?))),
            Self::Owned(text) => Some(Value::text(find(text)?.to_owned())),
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(text: String) -> Self {
        Self::String(RcCow::Owned(Rc::new(text)))
    }

    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self::Bytes(RcCow::Owned(Rc::new(bytes)))
    }

    pub(super) fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(items.into())
    }

    /// Of a name that is there twice the last value counts.
    pub(super) fn map(entries: Vec<(Key<'a>, Value<'a>)>) -> Self {
        Self::Map(Rc::new(Map::new(entries, Repeats::LastWins).unwrap_or_default()))
    }

    /// The name of its type, as `type()` gives it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::UInt(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Type(_) => "type",
        }
    }
}

/// The types that an expression can name.
pub(super) const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// A key of a map. Whole numbers are one kind of key: `m[1]` finds `1u`.
#[derive(Debug, Clone)]
pub(super) enum Key<'a> {
    Bool(bool),
    Int(i64),
    UInt(u64),
    String(Text<'a>),
}

/// A name is compared with about this many others before it has its place in a map.
pub(super) const SORTING: usize = 16;

impl<'a> Key<'a> {
    pub(super) fn text(text: Cow<'a, str>) -> Self {
        Self::String(match text {
            Cow::Borrowed(text) => RcCow::Borrowed(text),
            Cow::Owned(text) => RcCow::Owned(Rc::new(text)),
        })
    }

    /// A value as a key; none when its type cannot be one.
    pub(super) fn of(value: &Value<'a>) -> Option<Self> {
        match value {
            Value::Bool(bool) => Some(Self::Bool(*bool)),
            Value::Int(int) => Some(Self::Int(*int)),
            Value::UInt(uint) => Some(Self::UInt(*uint)),
            Value::String(text) => Some(Self::String(text.clone())),
            _ => None,
        }
    }

    /// A value with which a map is asked: a whole double finds the number that it equals.
    pub(super) fn asked(value: &Value<'a>) -> Option<Self> {
        match value {
            Value::Double(double) if double.trunc() == *double && double.abs() < 9e15 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
                Some(Self::Int(*double as i64))
            }
            other => Self::of(other),
        }
    }

    pub(super) fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::Int(*int),
            Self::UInt(uint) => Value::UInt(*uint),
            Self::String(text) => Value::String(text.clone()),
        }
    }

    pub(super) fn order(&self, other: &Key<'_>) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Key::Bool(b)) => a.cmp(b),
            (Self::String(a), Key::String(b)) => (**a).cmp(&**b),
            _ => (self.rank(), self.number()).cmp(&(other.rank(), other.number())),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) | Self::UInt(_) => 1,
            Self::String(_) => 2,
        }
    }

    fn number(&self) -> i128 {
        match self {
            Self::Int(int) => i128::from(*int),
            Self::UInt(uint) => i128::from(*uint),
            Self::Bool(_) | Self::String(_) => 0,
        }
    }
}

/// A map that keeps the order in which it was written.
#[derive(Debug, Default)]
pub(super) struct Map<'a> {
    entries: Vec<(Key<'a>, Value<'a>)>,
    /// Positions of the entries in the order of their keys.
    sorted: Vec<u32>,
}

impl<'a> Map<'a> {
    /// A map of entries; the last of equal keys wins, and `Err` has the first key that is there
    /// twice where that is a fault.
    pub(super) fn new(
        mut entries: Vec<(Key<'a>, Value<'a>)>,
        repeats: Repeats,
    ) -> Result<Self, Key<'a>> {
        let mut sorted: Vec<u32> = (0..).take(entries.len()).collect();
        let key = |at: u32| entries.get(at as usize).map(|(key, _)| key);
        let order = |a: u32, b: u32| match (key(a), key(b)) {
            (Some(a), Some(b)) => a.order(b),
            _ => Ordering::Equal,
        };
        sorted.sort_by(|a, b| order(*a, *b));
        let twice = |pair: &[u32]| match pair {
            [a, b] if order(*a, *b).is_eq() => Some(*a),
            _ => None,
        };
        let Some(first) = sorted.windows(2).find_map(twice) else {
            return Ok(Self { entries, sorted });
        };
        if let (Repeats::EvaluationError, Some(key)) = (repeats, key(first)) {
            return Err(key.clone());
        }
        let mut lost = vec![false; entries.len()];
        for at in sorted.windows(2).filter_map(twice) {
            if let Some(lost) = lost.get_mut(at as usize) {
                *lost = true;
            }
        }
        let mut lost = lost.into_iter();
        entries.retain(|_| !lost.next().unwrap_or(false));
        Self::new(entries, repeats)
    }

    pub(super) fn get(&self, key: &Key<'_>) -> Option<&Value<'a>> {
        let entry = |at: &u32| self.entries.get(*at as usize);
        let order = |at: &u32| entry(at).map_or(Ordering::Less, |(found, _)| found.order(key));
        let at = self.sorted.binary_search_by(order).ok()?;
        Some(&entry(self.sorted.get(at)?)?.1)
    }

    pub(super) fn field(&self, name: &str) -> Option<&Value<'a>> {
        self.get(&Key::String(RcCow::Borrowed(name)))
    }

    pub(super) fn entries(&self) -> &[(Key<'a>, Value<'a>)] {
        &self.entries
    }
}

/// What a key that is there twice means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Repeats {
    /// In an expression.
    EvaluationError,
    /// In JSON.
    LastWins,
}
