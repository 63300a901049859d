//! The functions that an expression can call, and CEL's operators among them.

use std::cmp::Ordering;

use super::cost::{Budget, EvaluationError};
use super::operators::{self, Arithmetic};
use super::value::Value;
use super::{convert, strings};

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `f(x)`
    Global,
    /// `x.f()`
    Method,
}

macro_rules! functions {
    ($($variant:ident: $name:literal $style:ident $count:literal,)*) => {
        /// A function with one count of arguments; a method's target is its first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Function { $($variant,)* }

        const TABLE: &[(&str, Style, usize, Function)] =
            &[$(($name, Style::$style, $count, Function::$variant),)*];
    };
}

functions! {
    Add: "_+_" Global 2,
    Subtract: "_-_" Global 2,
    Multiply: "_*_" Global 2,
    Divide: "_/_" Global 2,
    Modulo: "_%_" Global 2,
    Negate: "-_" Global 1,
    Not: "!_" Global 1,
    Equal: "_==_" Global 2,
    NotEqual: "_!=_" Global 2,
    Less: "_<_" Global 2,
    LessEqual: "_<=_" Global 2,
    Greater: "_>_" Global 2,
    GreaterEqual: "_>=_" Global 2,
    In: "@in" Global 2,
    Index: "_[_]" Global 2,
    SizeOf: "size" Global 1,
    Size: "size" Method 1,
    Type: "type" Global 1,
    Dyn: "dyn" Global 1,
    Int: "int" Global 1,
    UInt: "uint" Global 1,
    Double: "double" Global 1,
    String: "string" Global 1,
    Bytes: "bytes" Global 1,
    Contains: "contains" Method 2,
    StartsWith: "startsWith" Method 2,
    EndsWith: "endsWith" Method 2,
    LowerAscii: "lowerAscii" Method 1,
    UpperAscii: "upperAscii" Method 1,
    Trim: "trim" Method 1,
    Replace: "replace" Method 3,
    Split: "split" Method 2,
    Substring: "substring" Method 2,
    SubstringTo: "substring" Method 3,
    IndexOf: "indexOf" Method 2,
    LastIndexOf: "lastIndexOf" Method 2,
    Join: "join" Method 1,
    JoinWith: "join" Method 2,
    Base64Encode: "base64.encode" Global 1,
    Base64Decode: "base64.decode" Global 1,
}

impl Function {
    /// The function of a name, called in a style with a count of arguments.
    pub(super) fn find(name: &str, style: Style, count: usize) -> Result<Self, String> {
        let mut named = TABLE.iter().filter(|(known, ..)| *known == name).peekable();
        if named.peek().is_none() {
            return Err(format!("there is no function `{name}`"));
        }
        let fits = |(_, known, arguments, _): &&(_, Style, usize, _)| {
            *known == style && *arguments == count
        };
        match named.find(fits) {
            Some((.., function)) => Ok(*function),
            None => Err(format!("`{name}` cannot be called with these arguments")),
        }
    }

    /// Calls it. There are as many arguments as `find` was asked for.
    pub(super) fn call<'a>(
        self,
        arguments: &[Value<'a>],
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvaluationError> {
        match arguments {
            [one] => self.call_one(one, budget),
            [one, two] => self.call_two(one, two, budget),
            [one, two, three] => match self {
                Self::Replace => strings::replace(one, two, three, budget),
                _ => strings::substring(one, two, Some(three), budget),
            },
            _ => Err(EvaluationError::new("a function has a wrong number of arguments")),
        }
    }

    fn call_one<'a>(
        self,
        value: &Value<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvaluationError> {
        match self {
            Self::Negate => operators::negate(value),
            Self::Not => match value {
                Value::Bool(bool) => Ok(Value::Bool(!bool)),
                other => Err(EvaluationError::new(format!("`!` is not for {}", other.type_name()))),
            },
            Self::Size | Self::SizeOf => strings::size(value, budget),
            Self::Type => Ok(Value::Type(value.type_name())),
            Self::Int => convert::int(value, budget),
            Self::UInt => convert::uint(value, budget),
            Self::Double => convert::double(value, budget),
            Self::String => convert::string(value, budget),
            Self::Bytes => convert::bytes(value, budget),
            Self::LowerAscii => strings::map(value, str::to_ascii_lowercase, budget),
            Self::UpperAscii => strings::map(value, str::to_ascii_uppercase, budget),
            Self::Trim => strings::trim(value, budget),
            Self::Join => strings::join(value, "", budget),
            Self::Base64Encode => convert::base64_encode(value, budget),
            Self::Base64Decode => convert::base64_decode(value, budget),
            _ => Ok(value.clone()),
        }
    }

    fn call_two<'a>(
        self,
        left: &Value<'a>,
        right: &Value<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvaluationError> {
        match self {
            Self::Add => operators::add(left, right, budget),
            Self::Subtract => operators::arithmetic(Arithmetic::Subtract, left, right),
            Self::Multiply => operators::arithmetic(Arithmetic::Multiply, left, right),
            Self::Divide => operators::arithmetic(Arithmetic::Divide, left, right),
            Self::Modulo => operators::arithmetic(Arithmetic::Modulo, left, right),
            Self::Equal => operators::equal(left, right, budget).map(Value::Bool),
            Self::NotEqual => operators::equal(left, right, budget).map(|is| Value::Bool(!is)),
            Self::Less | Self::LessEqual | Self::Greater | Self::GreaterEqual => {
                let order = operators::order(left, right, budget)?;
                Ok(Value::Bool(order.is_some_and(|order| self.holds(order))))
            }
            Self::In => operators::contains(right, left, budget).map(Value::Bool),
            Self::Index => operators::index(left, right, budget),
            Self::Substring => strings::substring(left, right, None, budget),
            Self::JoinWith => strings::join(left, strings::text(right, "join")?, budget),
            _ => {
                let (text, part) = strings::two(left, right, budget)?;
                match self {
                    Self::Contains => Ok(Value::Bool(text.contains(part))),
                    Self::StartsWith => Ok(Value::Bool(text.starts_with(part))),
                    Self::EndsWith => Ok(Value::Bool(text.ends_with(part))),
                    Self::IndexOf => Ok(strings::position(text, text.find(part))),
                    Self::LastIndexOf => Ok(strings::position(text, text.rfind(part))),
                    _ => strings::split(text, part, budget),
                }
            }
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            _ => order.is_ge(),
        }
    }
}

/// The names that can be called, operators included.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, ..)| *name)
}
