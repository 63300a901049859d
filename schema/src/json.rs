//! JSON text as a flat list of its values, in which numbers keep their digits and objects their
//! order and their repeated names.

use std::borrow::Cow;

use crate::fault::Fault;

/// A text that was read.
#[derive(Debug)]
pub(crate) struct Json<'a> {
    text: Cow<'a, str>,
    /// Each value before those inside it, the name of a member before its value.
    nodes: Vec<Node>,
    /// The strings that have escapes, without them.
    unescaped: String,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: Kind,
    /// Where it begins and ends in the text, or in `unescaped`; of an array or object `end` is the
    /// number of its items or members.
    start: u32,
    end: u32,
    /// The node behind it and all that is inside it.
    next: u32,
}

/// What kind of value it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    False,
    True,
    /// A number without fraction and exponent.
    Integer,
    /// Any other number.
    Number,
    String,
    /// A string that has escapes in the text.
    Escaped,
    Array,
    Object,
}

/// A value of a [`Json`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    json: &'a Json<'a>,
    at: u32,
}

impl<'a> Json<'a> {
    /// Reads a text with at most `depth` levels of arrays and objects.
    pub(crate) fn parse(text: Cow<'a, str>, depth: usize) -> Result<Self, Fault> {
        if u32::try_from(text.len()).is_err() {
            return Err(Fault::limit("the document is larger than 4 GiB"));
        }
        let mut parser = Parser { text: &text, at: 0, nodes: Vec::new(), unescaped: String::new() };
        let parsed = parser.document(depth);
        let (at, nodes, unescaped) = (parser.at.min(text.len()), parser.nodes, parser.unescaped);
        match parsed {
            Ok(()) => Ok(Self { text, nodes, unescaped }),
            Err(Stop::Depth) => Err(too_deep()),
            Err(Stop::Malformed) if text.is_empty() => Err(Fault::new("no JSON: it is empty")),
            Err(Stop::Malformed) => Err(Fault::new(format!("no JSON: byte {at}"))),
        }
    }

    /// Reads bytes with at most `depth` levels of arrays and objects.
    pub(crate) fn parse_bytes(bytes: &'a [u8], depth: usize) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Fault::new(format!("no JSON: byte {} is not UTF-8", error.valid_up_to()))
        })?;
        Self::parse(Cow::Borrowed(text), depth)
    }

    pub(crate) fn root(&'a self) -> Value<'a> {
        Value { json: self, at: 0 }
    }
}

/// Of a name that an object has twice: what is checked here would not be what a consumer reads that
/// takes the other one.
pub(crate) fn repeated(name: &str) -> Fault {
    Fault::new("it comes twice").of_member(name)
}

/// Of documents whose levels are too many.
pub(crate) fn too_deep() -> Fault {
    Fault::limit("the document has too many levels")
}

impl<'a> Value<'a> {
    fn node(self) -> Node {
        const NONE: Node = Node { kind: Kind::Null, start: 0, end: 0, next: u32::MAX };
        self.json.nodes.get(self.at as usize).copied().unwrap_or(NONE)
    }

    pub(crate) fn kind(self) -> Kind {
        self.node().kind
    }

    /// A string without its escapes, or a number as it is written; else nothing.
    pub(crate) fn text(self) -> &'a str {
        let node = self.node();
        let text: &str = match node.kind {
            Kind::String | Kind::Integer | Kind::Number => &self.json.text,
            Kind::Escaped => &self.json.unescaped,
            _ => "",
        };
        text.get(node.start as usize..node.end as usize).unwrap_or("")
    }

    /// The string, if it is one.
    pub(crate) fn string(self) -> Option<&'a str> {
        matches!(self.kind(), Kind::String | Kind::Escaped).then(|| self.text())
    }

    /// The number as it is written, if it is one.
    pub(crate) fn number(self) -> Option<&'a str> {
        matches!(self.kind(), Kind::Integer | Kind::Number).then(|| self.text())
    }

    /// How many items an array has, or an object members.
    pub(crate) fn len(self) -> usize {
        match self.kind() {
            Kind::Array | Kind::Object => self.node().end as usize,
            _ => 0,
        }
    }

    /// The items of an array.
    pub(crate) fn items(self) -> impl Iterator<Item = Value<'a>> {
        let items = if self.kind() == Kind::Array { self.len() } else { 0 };
        let mut at = self.at + 1;
        (0..items).map(move |_| {
            let item = Value { json: self.json, at };
            at = item.node().next;
            item
        })
    }

    /// The members of an object, in their order.
    pub(crate) fn members(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let members = if self.kind() == Kind::Object { self.len() } else { 0 };
        let mut at = self.at + 1;
        (0..members).map(move |_| {
            let name = Value { json: self.json, at };
            let value = Value { json: self.json, at: at + 1 };
            at = value.node().next;
            (name.text(), value)
        })
    }

    /// The first member of that name.
    pub(crate) fn get(self, name: &str) -> Option<Value<'a>> {
        self.members().find(|(member, _)| *member == name).map(|(_, value)| value)
    }

    /// The value's own text, for one that is kept longer than the rest.
    pub(crate) fn to_owned(self) -> Json<'static> {
        let mut nodes = Vec::new();
        let end = (self.node().next as usize).min(self.json.nodes.len());
        let (mut text, mut unescaped) = (String::new(), String::new());
        for at in self.at..end as u32 {
            let value = Value { json: self.json, at };
            let mut node = value.node();
            node.next -= self.at;
            let kept = if node.kind == Kind::Escaped { &mut unescaped } else { &mut text };
            if !matches!(node.kind, Kind::Array | Kind::Object) {
                node.start = kept.len() as u32;
                kept.push_str(value.text());
                node.end = kept.len() as u32;
            }
            nodes.push(node);
        }
        Json { text: Cow::Owned(text), nodes, unescaped }
    }
}

/// Whether it is a number as JSON writes them.
pub(crate) fn is_number(text: &str) -> bool {
    let mut parser = Parser { text, at: 0, nodes: Vec::new(), unescaped: String::new() };
    parser.number().is_ok() && parser.at == text.len()
}

enum Stop {
    Malformed,
    Depth,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nodes: Vec<Node>,
    unescaped: String,
}

impl Parser<'_> {
    fn document(&mut self, depth: usize) -> Result<(), Stop> {
        self.value(depth)?;
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(Stop::Malformed) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes `byte`, if it comes next.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.takes(byte) { Ok(()) } else { Err(Stop::Malformed) }
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, next });
    }

    fn value(&mut self, depth: usize) -> Result<(), Stop> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.container(Kind::Object, b'}', depth),
            Some(b'[') => self.container(Kind::Array, b']', depth),
            Some(b'"') => self.string(),
            Some(b'n') => self.word("null", Kind::Null),
            Some(b't') => self.word("true", Kind::True),
            Some(b'f') => self.word("false", Kind::False),
            _ => {
                let start = self.at;
                let kind = self.number()?;
                self.push(kind, start, self.at);
                Ok(())
            }
        }
    }

    fn word(&mut self, word: &str, kind: Kind) -> Result<(), Stop> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(Stop::Malformed);
        }
        self.at += word.len();
        self.push(kind, 0, 0);
        Ok(())
    }

    fn container(&mut self, kind: Kind, close: u8, depth: usize) -> Result<(), Stop> {
        let depth = depth.checked_sub(1).ok_or(Stop::Depth)?;
        let own = self.nodes.len();
        self.push(kind, 0, 0);
        self.at += 1;
        self.skip_space();
        let mut items = 0;
        let mut is_open = !self.takes(close);
        while is_open {
            if kind == Kind::Object {
                self.skip_space();
                self.string()?;
                self.skip_space();
                self.expect(b':')?;
            }
            self.value(depth)?;
            items += 1;
            self.skip_space();
            is_open = self.takes(b',');
            if !is_open {
                self.expect(close)?;
            }
        }
        let next = self.nodes.len() as u32;
        if let Some(node) = self.nodes.get_mut(own) {
            (node.end, node.next) = (items, next);
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Stop> {
        self.expect(b'"')?;
        let start = self.at;
        let mut is_escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_escaped = true;
                    self.at += 2;
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(Stop::Malformed),
            }
        }
        let end = self.at;
        self.at += 1;
        if !is_escaped {
            self.push(Kind::String, start, end);
            return Ok(());
        }
        let quoted = self.text.get(start - 1..=end).ok_or(Stop::Malformed)?;
        let Ok(string) = serde_json::from_str::<Cow<'_, str>>(quoted) else {
            self.at = start;
            return Err(Stop::Malformed);
        };
        let start = self.unescaped.len();
        self.unescaped.push_str(&string);
        self.push(Kind::Escaped, start, self.unescaped.len());
        Ok(())
    }

    fn number(&mut self) -> Result<Kind, Stop> {
        let mut kind = Kind::Integer;
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            kind = Kind::Number;
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            kind = Kind::Number;
            let _ = self.takes(b'-') || self.takes(b'+');
            self.digits()?;
        }
        Ok(kind)
    }

    /// One digit at least.
    fn digits(&mut self) -> Result<(), Stop> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(Stop::Malformed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Serde;

    use super::*;

    fn to_serde(value: Value<'_>) -> Serde {
        match value.kind() {
            Kind::Null => Serde::Null,
            Kind::False => false.into(),
            Kind::True => true.into(),
            Kind::Integer | Kind::Number => serde_json::from_str(value.text()).unwrap(),
            Kind::String | Kind::Escaped => value.text().into(),
            Kind::Array => value.items().map(to_serde).collect(),
            Kind::Object => {
                value.members().map(|(name, value)| (name.to_owned(), to_serde(value))).collect()
            }
        }
    }

    fn parse(text: &str) -> Result<Json<'_>, Fault> {
        Json::parse_bytes(text.as_bytes(), 100)
    }

    #[test]
    fn numbers_keep_their_digits() {
        for text in
            ["0", "-0", "1.50", "9007199254740993", "1e400", "-1.0E-07", "12345678901234567890"]
        {
            assert_eq!(parse(text).unwrap().root().number(), Some(text));
            assert!(is_number(text));
        }
        for text in ["", "01", "+1", "1.", ".5", "1e", "0x1", "-", "NaN", "1 2"] {
            assert!(parse(text).is_err() && !is_number(text), "{text}");
        }
    }

    #[test]
    fn a_part_can_be_kept() {
        let text = r#"{"a":[1,{"b\n":"c\u00e4","d":[]},null],"e":2.50}"#;
        let json = parse(text).unwrap();
        let part = json.root().get("a").unwrap();
        assert_eq!(to_serde(part.to_owned().root()), to_serde(part));
        assert_eq!(json.root().get("e").unwrap().to_owned().root().text(), "2.50");
    }

    #[test]
    fn faults_name_the_byte_and_quote_nothing() {
        for (text, reason) in [
            ("", "no JSON: it is empty"),
            ("{\"a\" 1}", "no JSON: byte 5"),
            ("[1,]", "no JSON: byte 3"),
            ("[1] secret", "no JSON: byte 4"),
            ("\"\\ud800\"", "no JSON: byte 1"),
            ("\"\\", "no JSON: byte 2"),
            ("\"a\nb\"", "no JSON: byte 2"),
            ("tru", "no JSON: byte 0"),
        ] {
            assert_eq!(crate::Invalid::from(parse(text).unwrap_err()).reason, reason, "{text}");
        }
        let fault = Json::parse_bytes(b"\"\xff\"", 1).unwrap_err();
        assert_eq!(crate::Invalid::from(fault).reason, "no JSON: byte 1 is not UTF-8");
    }

    #[test]
    fn levels_are_bounded() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(&nested(100)).is_ok());
        assert!(parse(&nested(101)).unwrap_err().is_limit);
        assert!(parse(&"[".repeat(1_000_000)).unwrap_err().is_limit);
        assert!(parse(&"{\"a\":".repeat(1_000_000)).unwrap_err().is_limit);
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in r#"([\[\]{},:"\\a1.0e +-]|null|true|\\u00e4|\\n|"b":|,2){0,24}"#) {
            match (parse(&text), serde_json::from_str::<Serde>(&text)) {
                (Ok(json), Ok(expected)) => prop_assert_eq!(to_serde(json.root()), expected),
                (Ok(_), Err(error)) => prop_assert!(error.to_string().contains("out of range")),
                (Err(_), expected) => prop_assert!(expected.is_err()),
            }
        }
    }
}
