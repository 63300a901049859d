//! The types that the text of a schema declares.

use std::borrow::Cow;
use std::collections::HashMap;

use super::logical::{self, Iso, Logical};
use super::types::{Field, Id, Kind, Names, Record, Type, Types, Union};
use crate::json::{self, Json, Value};
use crate::limits::{DECIMAL_DIGITS_MAX, DEPTH_MAX};
use crate::{Document, Invalid, SchemaError};

/// Levels of a schema's text: a record in a union takes four of them a level.
const TEXT_DEPTH_MAX: usize = 4 * DEPTH_MAX;

pub(super) fn parse(document: &Document) -> Result<Types, SchemaError> {
    let mut parser = Parser::new();
    for reference in &document.references {
        // Defined by another one that has it inside.
        if !parser.named.contains_key(&reference.name) {
            let parsed = parser.text(&reference.text);
            parsed.map_err(|SchemaError(reason)| {
                SchemaError(format!("reference `{:.200}`: {reason}", reference.name))
            })?;
        }
    }
    let root = parser.text(&document.text)?;
    Ok(Types { all: parser.types, root })
}

struct Parser {
    types: Vec<Type>,
    named: HashMap<String, Id>,
    /// The record and field that are read, for errors.
    place: String,
}

impl Parser {
    fn new() -> Self {
        let primitives = [
            ("null", Kind::Null),
            ("boolean", Kind::Boolean),
            ("int", Kind::Int),
            ("long", Kind::Long),
            ("float", Kind::Float),
            ("double", Kind::Double),
            ("bytes", Kind::Bytes),
            ("string", Kind::String),
        ];
        let mut parser =
            Self { types: Vec::new(), named: HashMap::new(), place: "the schema".to_owned() };
        for (name, kind) in primitives {
            let id = parser.push(Cow::Borrowed(name), kind);
            parser.named.insert(name.to_owned(), id);
        }
        parser
    }

    fn wrong(&self, reason: &str) -> SchemaError {
        // Names are the schema's own, of any length.
        SchemaError(format!("{:.200}: {reason:.300}", self.place))
    }

    fn push(&mut self, name: Cow<'static, str>, kind: Kind) -> Id {
        self.types.push(Type { name, kind, logical: None });
        self.types.len() - 1
    }

    fn text(&mut self, text: &str) -> Result<Id, SchemaError> {
        let json = Json::parse(Cow::Borrowed(text), TEXT_DEPTH_MAX)
            .map_err(|fault| self.wrong(&Invalid::from(fault).reason))?;
        self.schema(json.root(), "", DEPTH_MAX)
    }

    fn schema(
        &mut self,
        value: Value<'_>,
        namespace: &str,
        depth: usize,
    ) -> Result<Id, SchemaError> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.wrong("it has too many levels"))?;
        match value.kind() {
            json::Kind::String | json::Kind::Escaped => self.reference(value.text(), namespace),
            json::Kind::Array => self.union(value, namespace, depth),
            json::Kind::Object => self.object(value, namespace, depth),
            _ => Err(self.wrong("a type is a name, an object or an array")),
        }
    }

    /// A type that is defined already. As in Java a name without a dot is looked for in the
    /// namespace first, then outside of any.
    fn reference(&self, name: &str, namespace: &str) -> Result<Id, SchemaError> {
        let here = self.named.get(&full_name(name, namespace));
        let found = here.or_else(|| self.named.get(name)).copied();
        found.ok_or_else(|| {
            self.wrong(&format!("the type `{}` is not defined", full_name(name, namespace)))
        })
    }

    fn object(
        &mut self,
        value: Value<'_>,
        namespace: &str,
        depth: usize,
    ) -> Result<Id, SchemaError> {
        let of = value.get("type").ok_or_else(|| self.wrong("a type has no `type`"))?;
        let id = match of.string() {
            Some("record" | "error") => self.record(value, namespace, depth)?,
            Some("enum") => {
                let (name, _) = self.name(value, namespace)?;
                let symbols = self.symbols(value)?;
                self.define(name, Kind::Enum(symbols))?
            }
            Some("fixed") => {
                let (name, _) = self.name(value, namespace)?;
                let size = value.get("size").and_then(Value::number);
                let size = size.and_then(|size| size.parse().ok());
                let size = size.ok_or_else(|| self.wrong("a fixed has no size"))?;
                self.define(name, Kind::Fixed(size))?
            }
            Some("array") => {
                let items = self.part(value, "items", namespace, depth)?;
                self.push(Cow::Borrowed("array"), Kind::Array(items))
            }
            Some("map") => {
                let values = self.part(value, "values", namespace, depth)?;
                self.push(Cow::Borrowed("map"), Kind::Map(values))
            }
            _ => self.schema(of, namespace, depth)?,
        };
        self.with_logical(id, value)
    }

    /// The type with the logical type that the object names, if that fits.
    fn with_logical(&mut self, id: Id, value: Value<'_>) -> Result<Id, SchemaError> {
        let Some(of) = self.types.get(id) else { return Ok(id) };
        let Some(logical) = logical(&of.kind, value).map_err(|reason| self.wrong(reason))? else {
            return Ok(id);
        };
        // A primitive is shared with those that mean nothing by it.
        let own = match of.kind {
            Kind::Int => self.push(Cow::Borrowed("int"), Kind::Int),
            Kind::Long => self.push(Cow::Borrowed("long"), Kind::Long),
            Kind::Bytes => self.push(Cow::Borrowed("bytes"), Kind::Bytes),
            Kind::String => self.push(Cow::Borrowed("string"), Kind::String),
            _ if value.get("size").is_some() => id,
            // A fixed that is only referred to here.
            _ => return Ok(id),
        };
        if let Some(of) = self.types.get_mut(own) {
            of.logical = Some(logical);
        }
        Ok(own)
    }

    fn part(
        &mut self,
        value: Value<'_>,
        name: &str,
        namespace: &str,
        depth: usize,
    ) -> Result<Id, SchemaError> {
        let part = value.get(name);
        let part = part.ok_or_else(|| self.wrong(&format!("a type has no `{name}`")))?;
        self.schema(part, namespace, depth)
    }

    /// The full name of a named type, and its namespace.
    fn name(&self, value: Value<'_>, namespace: &str) -> Result<(String, String), SchemaError> {
        let name = value.get("name").and_then(Value::string).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| self.wrong("a record, enum or fixed has no name"))?;
        let own = value.get("namespace").and_then(Value::string);
        let name = full_name(name, own.unwrap_or(namespace));
        let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        Ok((name, namespace))
    }

    fn define(&mut self, name: String, kind: Kind) -> Result<Id, SchemaError> {
        let id = self.push(Cow::Owned(name.clone()), kind);
        match self.named.insert(name.clone(), id) {
            Some(_) => Err(self.wrong(&format!("the type `{name}` is defined twice"))),
            None => Ok(id),
        }
    }

    fn symbols(&self, value: Value<'_>) -> Result<Names, SchemaError> {
        let list = value.get("symbols").filter(|list| list.kind() == json::Kind::Array);
        let list = list.ok_or_else(|| self.wrong("an enum has no symbols"))?;
        let mut symbols = Names::default();
        for symbol in list.items() {
            let symbol = symbol.string().ok_or_else(|| self.wrong("a symbol is no string"))?;
            if !symbols.push(symbol) {
                return Err(self.wrong(&format!("an enum has the symbol `{symbol}` twice")));
            }
        }
        Ok(symbols)
    }

    fn union(
        &mut self,
        value: Value<'_>,
        namespace: &str,
        depth: usize,
    ) -> Result<Id, SchemaError> {
        let mut union = Union { branches: Vec::new(), tags: Names::default(), null: None };
        for branch in value.items() {
            let id = self.schema(branch, namespace, depth)?;
            let Some(of) = self.types.get(id) else { continue };
            match of.kind {
                Kind::Union(_) => return Err(self.wrong("a union is directly in a union")),
                Kind::Null => union.null = Some(union.branches.len()),
                _ => {}
            }
            if !union.tags.push(&of.name) {
                return Err(self.wrong(&format!("a union has `{}` twice", of.name)));
            }
            union.branches.push(id);
        }
        Ok(self.push(Cow::Borrowed("union"), Kind::Union(union)))
    }

    fn record(
        &mut self,
        value: Value<'_>,
        namespace: &str,
        depth: usize,
    ) -> Result<Id, SchemaError> {
        let (name, namespace) = self.name(value, namespace)?;
        // Its fields may refer to it.
        let id = self.define(name.clone(), Kind::Record(Record::default()))?;
        let fields = value.get("fields").filter(|fields| fields.kind() == json::Kind::Array);
        let fields = fields.ok_or_else(|| self.wrong(&format!("`{name}` has no fields")))?;
        let mut record = Record::default();
        for field in fields.items() {
            let own = field.get("name").and_then(Value::string).filter(|name| !name.is_empty());
            let own = own.ok_or_else(|| self.wrong(&format!("a field of `{name}` has no name")))?;
            if !record.names.push(own) {
                return Err(self.wrong(&format!("`{name}` has the field `{own}` twice")));
            }
            let outer = std::mem::replace(&mut self.place, format!("field `{own}` of `{name}`"));
            let of = self.part(field, "type", &namespace, depth)?;
            self.place = outer;
            let key = serde_json::to_string(own).map_err(|_| self.wrong("a field has no name"))?;
            let default = field.get("default").map(Value::to_owned);
            record.fields.push(Field { of, key: format!("{key}:").into(), default });
        }
        if let Some(of) = self.types.get_mut(id) {
            of.kind = Kind::Record(record);
        }
        Ok(id)
    }
}

/// A name with its namespace: a dot in it says that it has one.
fn full_name(name: &str, namespace: &str) -> String {
    match name.strip_prefix('.') {
        Some(name) => name.to_owned(),
        None if name.contains('.') || namespace.is_empty() => name.to_owned(),
        None => format!("{namespace}.{name}"),
    }
}

/// The logical type that a schema names, unless it does not fit `kind`: then it is as if there were
/// none.
fn logical(kind: &Kind, schema: Value<'_>) -> Result<Option<Logical>, &'static str> {
    let Some(name) = schema.get("logicalType").and_then(Value::string) else { return Ok(None) };
    Ok(Some(match (kind, name) {
        (Kind::Bytes | Kind::Fixed(_), "decimal") => return decimal(schema),
        (Kind::String | Kind::Fixed(16), "uuid") => Logical::Uuid,
        (Kind::Fixed(12), "duration") => Logical::Duration,
        (Kind::Int, "date") => Logical::Time(Iso::Date, logical::DAY),
        (Kind::Int, "time-millis") => Logical::Time(Iso::Time, logical::MILLIS),
        (Kind::Long, "time-micros") => Logical::Time(Iso::Time, logical::MICROS),
        (Kind::Long, name) => {
            let (iso, name) = match name.strip_prefix("local-") {
                Some(name) => (Iso::Local, name),
                None => (Iso::Instant, name),
            };
            match name {
                "timestamp-millis" => Logical::Time(iso, logical::MILLIS),
                "timestamp-micros" => Logical::Time(iso, logical::MICROS),
                "timestamp-nanos" => Logical::Time(iso, logical::NANOS),
                _ => return Ok(None),
            }
        }
        _ => return Ok(None),
    }))
}

fn decimal(schema: Value<'_>) -> Result<Option<Logical>, &'static str> {
    let number = |name| schema.get(name).map(|value| value.number()?.parse::<usize>().ok());
    let (Some(Some(precision)), Some(scale)) =
        (number("precision"), number("scale").unwrap_or(Some(0)))
    else {
        return Ok(None);
    };
    if precision > DECIMAL_DIGITS_MAX {
        return Err("a decimal has more than 1000 digits");
    }
    let is_valid = precision > 0 && scale <= precision;
    Ok(is_valid.then_some(Logical::Decimal { precision, scale }))
}
