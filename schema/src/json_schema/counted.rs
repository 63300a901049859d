//! Documents as the validator sees them: what it looks at is counted, and ends at a limit.
//!
//! A schema that refers to itself, or that is met by a document made for it, can take time that
//! grows exponentially. When the steps are used up, whatever is left looks empty, so that the
//! validator returns within what it has under way; its verdict says nothing then.

use std::borrow::Cow;
use std::cell::Cell;
use std::slice;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp, unique};
use serde_json::{Map, Number, Value, map};

/// The representation of JSON that counts.
pub(super) struct Counted;

/// What a validation may still take.
pub(super) struct Steps {
    left: Cell<u64>,
    /// For a member or item: how many schemas may apply to it.
    each: u64,
}

impl Steps {
    pub(super) fn new(limit: u64, each: u64) -> Self {
        Self { left: Cell::new(limit), each }
    }

    pub(super) fn are_used_up(&self) -> bool {
        self.left.get() == 0
    }

    fn take(&self, steps: u64) {
        self.left.set(self.left.get().saturating_sub(steps));
    }
}

/// A value; what stands alone, as a member's name does, is not counted.
pub(super) struct Counting<'a, T: ?Sized> {
    value: &'a T,
    steps: Option<&'a Steps>,
}

impl<T: ?Sized> Clone for Counting<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Counting<'_, T> {}

impl<'a, T: ?Sized> Counting<'a, T> {
    pub(super) fn new(value: &'a T, steps: &'a Steps) -> Self {
        Self { value, steps: Some(steps) }
    }

    fn with<U: ?Sized>(&self, value: &'a U) -> Counting<'a, U> {
        Counting { value, steps: self.steps }
    }

    /// Counts a look at `bytes` of content; false at the limit.
    fn look(&self, bytes: usize) -> bool {
        let Some(steps) = self.steps else { return true };
        steps.take(1 + bytes as u64 / BYTES_A_STEP);
        !steps.are_used_up()
    }

    /// Counts a step inside; false at the limit.
    fn enter(&self) -> bool {
        let Some(steps) = self.steps else { return true };
        steps.take(steps.each);
        !steps.are_used_up()
    }
}

impl Json for Counted {
    type Node<'a> = Counting<'a, Value>;
    type PreparedKey = String;
    type StringBuffer = Value;

    /// As a tree is: a cycle of `$ref` can only meet the value that is being validated.
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(
        buffer: &mut Value,
        string: &str,
        f: impl FnOnce(Self::Node<'_>) -> T,
    ) -> T {
        *buffer = Value::String(string.to_owned());
        f(Counting { value: buffer, steps: None })
    }
}

impl<'a> Node<'a, Counted> for Counting<'a, Value> {
    type Object = Counting<'a, Map<String, Value>>;
    type Array = Counting<'a, [Value]>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Self::Object> {
        self.value.as_object().filter(|_| self.look(0)).map(|members| self.with(members))
    }

    fn as_array(&self) -> Option<Self::Array> {
        self.value.as_array().filter(|_| self.look(0)).map(|items| self.with(items.as_slice()))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.value.as_str().filter(|text| self.look(text.len())).map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<&'a Number> {
        self.value.as_number().filter(|_| self.look(0))
    }

    fn as_boolean(&self) -> Option<bool> {
        self.value.as_bool().filter(|_| self.look(0))
    }

    fn is_null(&self) -> bool {
        self.value.is_null()
    }

    fn is_number(&self) -> bool {
        self.value.is_number()
    }

    fn json_type(&self) -> JsonType {
        if self.look(0) { JsonType::from(self.value) } else { JsonType::Null }
    }

    fn string_length(&self) -> Option<u64> {
        self.as_string().map(|text| text.chars().count() as u64)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        self.look(0) && cmp::equal(self.value, expected)
    }

    /// For an error, which holds the value that it is about: here it needs none, and would copy it.
    fn to_value(&self) -> Cow<'a, Value> {
        if let Some(steps) = self.steps {
            steps.take(STEPS_AN_ERROR);
        }
        Cow::Owned(Value::Null)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(self.value).addr()))
    }

    fn container_identity(&self) -> Option<NodeIdentity> {
        if self.value.is_object() || self.value.is_array() { self.identity() } else { None }
    }
}

impl<'a> Object<'a, Counted> for Counting<'a, Map<String, Value>> {
    type Node = Counting<'a, Value>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.value.len()
    }

    fn get(&self, key: &String) -> Option<Self::Node> {
        if !self.look(0) {
            return None;
        }
        self.value.get(key).filter(|_| self.enter()).map(|value| self.with(value))
    }

    fn members(&self) -> Members<'a> {
        Members { of: *self, iter: self.value.iter() }
    }
}

impl<'a> Array<'a, Counted> for Counting<'a, [Value]> {
    type Node = Counting<'a, Value>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        self.value.len()
    }

    fn elements(&self) -> Elements<'a> {
        Elements { of: *self, iter: self.value.iter() }
    }

    fn is_unique(&self) -> bool {
        self.value.iter().all(|_| self.look(0)) && unique::is_unique(self.value)
    }
}

/// The members of an object, until the steps are used up.
pub(super) struct Members<'a> {
    of: Counting<'a, Map<String, Value>>,
    iter: map::Iter<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Counting<'a, Value>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.iter.next()?;
        let goes_on = self.of.look(name.len()) && self.of.enter();
        goes_on.then(|| (name.as_str(), self.of.with(value)))
    }
}

/// The items of an array, until the steps are used up.
pub(super) struct Elements<'a> {
    of: Counting<'a, [Value]>,
    iter: slice::Iter<'a, Value>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Counting<'a, Value>;

    fn next(&mut self) -> Option<Self::Item> {
        self.iter.next().filter(|_| self.of.enter()).map(|value| self.of.with(value))
    }
}

/// Bytes of a text that a validator reads in about the time of a step.
const BYTES_A_STEP: u64 = 64;
/// Errors are kept until one is chosen: some hundred bytes each.
const STEPS_AN_ERROR: u64 = 100;
