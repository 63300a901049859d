//! A compiled expression: names are resolved, macros are loops, nothing is left to look up.

use super::functions::Function;
use super::pattern::Pattern;
use super::value::{RcCow, Value};

/// One node; its children are evaluated left to right.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Literal(Literal),
    Variable(Variable),
    /// A loop's variable: 0 is the innermost loop's.
    Local(usize),
    Select(Box<Node>, String),
    Has(Box<Node>, String),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Conditional(Box<(Node, Node, Node)>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Loop(Box<Loop>),
    Matches(Box<Node>, Pattern),
    Call(Function, Vec<Node>),
}

/// What an expression names that costs something to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) message: bool,
    pub(super) source: bool,
    pub(super) headers: bool,
    pub(super) client: bool,
    /// Anything at all.
    pub(super) variables: bool,
}

/// What is known of a request or of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Variable {
    /// `request` as a whole, or one of its fields.
    Request(Option<Field>),
    /// `source` as a whole.
    Source,
    /// `source.address`.
    Address,
    /// `message`: Kong's message.
    Message,
    /// A part of a record.
    Record(Part),
}

/// What is written down.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Type(&'static str),
}

impl Literal {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::Int(*int),
            Self::UInt(uint) => Value::UInt(*uint),
            Self::Double(double) => Value::Double(*double),
            Self::Text(text) => Value::String(RcCow::Borrowed(text)),
            Self::Bytes(bytes) => Value::Bytes(RcCow::Borrowed(bytes)),
            Self::Type(name) => Value::Type(name),
        }
    }
}

/// A comprehension: one of CEL's macros over the elements of a list or the keys of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loop {
    pub(super) range: Node,
    pub(super) step: Fold,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fold {
    All(Node),
    Exists(Node),
    ExistsOne(Node),
    /// `map` and `filter`: the items of the elements for which the guard holds.
    Collect {
        guard: Option<Node>,
        item: Node,
    },
}

macro_rules! fields {
    ($(#[$doc:meta])* $type:ident: $($variant:ident = $name:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $type { $($variant,)* }

        impl $type {
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)*];

            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

fields! {
    /// A field of `request`.
    Field:
    Body = "body",
    BodyBytes = "body_bytes",
    ContentType = "content_type",
    Headers = "headers",
    Host = "host",
    Id = "id",
    Method = "method",
    Path = "path",
    Query = "query",
    Scheme = "scheme",
    Time = "time",
    Uri = "uri",
}

fields! {
    /// A part of a record.
    Part:
    Topic = "topic",
    Partition = "partition",
    Offset = "offset",
    Timestamp = "timestamp",
    Key = "key",
    Value = "value",
    Headers = "headers",
    Client = "client",
}
