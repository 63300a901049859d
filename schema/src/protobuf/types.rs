//! The messages and enums of a schema, as its codec needs them.

use std::collections::{HashMap, HashSet};

use prost_reflect::{
    DescriptorPool, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, FileDescriptor,
    Kind as Described, MessageDescriptor, Syntax,
};

/// All types that a schema names.
#[derive(Debug)]
pub(super) struct Types {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    by_name: HashMap<Box<str>, usize>,
    /// The messages of the schema's own file.
    own: Vec<Tree>,
}

/// A message, and those that are declared in it.
#[derive(Debug)]
struct Tree {
    message: usize,
    inside: Vec<Tree>,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// With its package.
    pub(super) name: Box<str>,
    pub(super) form: Form,
    /// By number.
    pub(super) fields: Vec<Field>,
    by_name: HashMap<Box<str>, usize>,
    /// Of some of its fields only one may be there.
    pub(super) has_oneofs: bool,
    /// Fields that must be there.
    pub(super) required: Vec<usize>,
    /// Fields that are always in its JSON.
    pub(super) shown: Vec<usize>,
}

/// What JSON a message becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An object of its fields.
    Object,
    Any,
    Duration,
    FieldMask,
    ListValue,
    Struct,
    Timestamp,
    Value,
    /// The value of its only field.
    Wrapper,
}

/// A field, or an extension.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// As it is in JSON.
    pub(super) name: Box<str>,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    pub(super) oneof: Option<usize>,
}

/// How often a field comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// It is always there, and not written with its default value.
    Implicit,
    /// It may be there.
    Optional,
    Required,
    Repeated,
    Packed,
    /// Of messages with a key and a value.
    Map,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
    /// A message between two tags.
    Group(usize),
}

/// An enum.
#[derive(Debug)]
pub(super) struct Enum {
    names: HashMap<i32, Box<str>>,
    numbers: HashMap<Box<str>, i32>,
    /// JSON's null, as an enum.
    pub(super) is_null: bool,
    /// Only declared numbers are of it.
    pub(super) is_closed: bool,
}

impl Types {
    pub(super) fn of(file: &FileDescriptor) -> Self {
        let pool = file.parent_pool();
        let index = Index::of(pool);
        Self {
            messages: pool.all_messages().map(|message| index.message(&message)).collect(),
            enums: pool.all_enums().map(|described| Enum::of(&described)).collect(),
            own: index.trees(file.messages()),
            by_name: index.messages,
        }
    }

    pub(super) fn message(&self, at: usize) -> Option<&Message> {
        self.messages.get(at)
    }

    pub(super) fn enumeration(&self, at: usize) -> Option<&Enum> {
        self.enums.get(at)
    }

    /// The message with this name and package.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The message at a path of positions.
    pub(super) fn at_index(&self, path: &[usize]) -> Option<usize> {
        let (&first, rest) = path.split_first()?;
        let mut tree = self.own.get(first)?;
        for &at in rest {
            tree = tree.inside.get(at)?;
        }
        Some(tree.message)
    }
}

impl Message {
    pub(super) fn field(&self, name: &str) -> Option<(usize, &Field)> {
        let at = *self.by_name.get(name)?;
        Some((at, self.fields.get(at)?))
    }

    pub(super) fn numbered(&self, number: u32) -> Option<&Field> {
        self.numbered_at(number).map(|(_, field)| field)
    }

    pub(super) fn numbered_at(&self, number: u32) -> Option<(usize, &Field)> {
        let at = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some((at, self.fields.get(at)?))
    }
}

impl Enum {
    fn of(described: &EnumDescriptor) -> Self {
        let mut names = HashMap::new();
        let mut numbers = HashMap::new();
        // As they are declared: the first of several names is the one that is written.
        for value in &described.enum_descriptor_proto().value {
            names.entry(value.number()).or_insert_with(|| value.name().into());
            numbers.insert(value.name().into(), value.number());
        }
        let is_null = described.full_name() == "google.protobuf.NullValue";
        let is_closed = described.parent_file().syntax() == Syntax::Proto2;
        Self { names, numbers, is_null, is_closed }
    }

    pub(super) fn name(&self, number: i32) -> Option<&str> {
        self.names.get(&number).map(|name| &**name)
    }

    pub(super) fn number(&self, name: &str) -> Option<i32> {
        self.numbers.get(name).copied()
    }
}

/// Where each type will be.
struct Index {
    messages: HashMap<Box<str>, usize>,
    enums: HashMap<Box<str>, usize>,
    /// The messages that are groups: they are declared where they are used.
    groups: HashSet<Box<str>>,
}

impl Index {
    fn of(pool: &DescriptorPool) -> Self {
        let messages = pool.all_messages().map(|message| message.full_name().into());
        let enums = pool.all_enums().map(|described| described.full_name().into());
        let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
        let fields = fields.filter(FieldDescriptor::is_group).map(|field| field.kind());
        let extensions = pool.all_extensions().filter(ExtensionDescriptor::is_group);
        let groups = fields.chain(extensions.map(|extension| extension.kind()));
        let groups = groups.filter_map(|kind| Some(kind.as_message()?.full_name().into()));
        Self {
            groups: groups.collect(),
            messages: messages.enumerate().map(|(at, name)| (name, at)).collect(),
            enums: enums.enumerate().map(|(at, name)| (name, at)).collect(),
        }
    }

    /// Messages that a schema's text declares as such, as an index counts them: entries of maps and
    /// groups are not.
    fn trees(&self, messages: impl Iterator<Item = MessageDescriptor>) -> Vec<Tree> {
        messages
            .filter(|message| !message.is_map_entry() && !self.groups.contains(message.full_name()))
            .map(|message| Tree {
                message: self.at(&message),
                inside: self.trees(message.child_messages()),
            })
            .collect()
    }

    fn at(&self, message: &MessageDescriptor) -> usize {
        self.messages.get(message.full_name()).copied().unwrap_or(usize::MAX)
    }

    fn message(&self, described: &MessageDescriptor) -> Message {
        let mut fields: Vec<_> = described.fields().map(|field| self.field(&field)).collect();
        fields.extend(described.extensions().map(|extension| self.extension(&extension)));
        fields.sort_by_key(|field| field.number);
        let numbers = fields.iter().enumerate().map(|(at, field)| (field.number, at));
        let numbers: HashMap<u32, usize> = numbers.collect();
        let mut by_name = HashMap::new();
        for field in described.fields() {
            if let Some(&at) = numbers.get(&field.number()) {
                by_name.insert(field.name().into(), at);
            }
        }
        for (at, field) in fields.iter().enumerate() {
            by_name.insert(field.name.clone(), at);
        }
        let all = |is: fn(Shape) -> bool| {
            let fields = fields.iter().enumerate().filter(|(_, field)| is(field.shape));
            fields.map(|(at, _)| at).collect()
        };
        Message {
            name: described.full_name().into(),
            form: form(described),
            by_name,
            has_oneofs: fields.iter().any(|field| field.oneof.is_some()),
            required: all(|shape| shape == Shape::Required),
            shown: all(|shape| !matches!(shape, Shape::Optional | Shape::Required)),
            fields,
        }
    }

    fn field(&self, field: &FieldDescriptor) -> Field {
        let shape = match () {
            () if field.is_map() => Shape::Map,
            () if field.is_list() && field.is_packed() => Shape::Packed,
            () if field.is_list() => Shape::Repeated,
            () if field.is_required() => Shape::Required,
            () if field.supports_presence() => Shape::Optional,
            () => Shape::Implicit,
        };
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let oneof = oneof.and_then(|oneof| usize::try_from(*oneof.path().last()?).ok());
        let kind = self.kind(&field.kind(), field.is_group());
        Field { number: field.number(), name: field.json_name().into(), shape, kind, oneof }
    }

    fn extension(&self, extension: &ExtensionDescriptor) -> Field {
        let shape = match () {
            () if extension.is_list() && extension.is_packed() => Shape::Packed,
            () if extension.is_list() => Shape::Repeated,
            () => Shape::Optional,
        };
        let kind = self.kind(&extension.kind(), extension.is_group());
        let name = extension.json_name().into();
        Field { number: extension.number(), name, shape, kind, oneof: None }
    }

    fn kind(&self, kind: &Described, is_group: bool) -> Kind {
        match kind {
            Described::Double => Kind::Double,
            Described::Float => Kind::Float,
            Described::Int32 => Kind::Int32,
            Described::Int64 => Kind::Int64,
            Described::Uint32 => Kind::Uint32,
            Described::Uint64 => Kind::Uint64,
            Described::Sint32 => Kind::Sint32,
            Described::Sint64 => Kind::Sint64,
            Described::Fixed32 => Kind::Fixed32,
            Described::Fixed64 => Kind::Fixed64,
            Described::Sfixed32 => Kind::Sfixed32,
            Described::Sfixed64 => Kind::Sfixed64,
            Described::Bool => Kind::Bool,
            Described::String => Kind::String,
            Described::Bytes => Kind::Bytes,
            Described::Message(message) if is_group => Kind::Group(self.at(message)),
            Described::Message(message) => Kind::Message(self.at(message)),
            Described::Enum(described) => {
                Kind::Enum(self.enums.get(described.full_name()).copied().unwrap_or(usize::MAX))
            }
        }
    }
}

/// That of a message of Google's files; others of such a name are objects.
fn form(message: &MessageDescriptor) -> Form {
    match (message.parent_file().name(), message.name()) {
        ("google/protobuf/any.proto", "Any") => Form::Any,
        ("google/protobuf/duration.proto", "Duration") => Form::Duration,
        ("google/protobuf/field_mask.proto", "FieldMask") => Form::FieldMask,
        ("google/protobuf/struct.proto", "ListValue") => Form::ListValue,
        ("google/protobuf/struct.proto", "Struct") => Form::Struct,
        ("google/protobuf/struct.proto", "Value") => Form::Value,
        ("google/protobuf/timestamp.proto", "Timestamp") => Form::Timestamp,
        ("google/protobuf/wrappers.proto", _) => Form::Wrapper,
        _ => Form::Object,
    }
}
