//! Protobuf schemas, documents and payloads that are made to harm.

use serde_json::json;

use crate::{Case, End, Input, MIB};

fn schema(name: &'static str, schema: String, end: End) -> Case {
    read(name, &schema, Vec::new(), end)
}

fn read(name: &'static str, schema: &str, payload: Vec<u8>, end: End) -> Case {
    case(name, schema, Input::Payload(payload), end)
}

fn written(name: &'static str, schema: &str, json: String, end: End) -> Case {
    case(name, schema, Input::Json(json), end)
}

fn case(name: &'static str, schema: &str, input: Input, end: End) -> Case {
    Case { name, schema: schema.to_owned(), references: Vec::new(), input, end: Some(end) }
}

fn proto3(text: &str) -> String {
    format!("syntax = \"proto3\"; {text}")
}

fn deep(open: &str, close: &str) -> String {
    open.repeat(50_000) + &close.repeat(50_000)
}

/// A message of messages with 10,000 fields.
fn wide(each: &str) -> String {
    let fields: String =
        (1..=10_000).map(|at| format!("{each} f{at} = {};", at + 20_000)).collect();
    proto3(&format!("message A {{ repeated B l = 2; }} message B {{ {fields} }}"))
}

fn delimited(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![tag];
    let mut length = bytes.len();
    while length > 0x7f {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend(bytes);
    field
}

fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |inside, _| delimited(0x0a, &inside))
}

/// An Any in an Any, and so on.
fn anys(levels: usize) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |inside, _| {
        let mut any = delimited(0x0a, b"/google.protobuf.Any");
        any.extend(delimited(0x12, &inside));
        any
    })
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = deep_schemas();
    cases.extend(large_schemas());
    cases.extend(imports());
    cases.extend(payloads());
    cases.extend(documents());
    cases
}

fn deep_schemas() -> Vec<Case> {
    let options = |value: String| format!("message A {{ option (o) = {value}; }}");
    vec![
        schema("deep messages", deep("message A {", "}"), End::NoSchema),
        schema("deep options", options(deep("{a", "}")), End::NoSchema),
        schema("deep lists", options(format!("{{a: {}}}", deep("[", "]"))), End::NoSchema),
        schema("deep behind comments", deep("message A { /* } */ // }\n", "}"), End::NoSchema),
        schema(
            "deep behind strings",
            "message A { option o = '}\\'}';".repeat(30_000),
            End::NoSchema,
        ),
        schema("deep groups", "message A { optional group G = 1 {".repeat(30_000), End::NoSchema),
        schema("open messages", "message A {".repeat(50_000), End::NoSchema),
    ]
}

fn messages_of(count: usize) -> String {
    (0..count).map(|at| format!("message M{at} {{}} ")).collect()
}

fn large_schemas() -> Vec<Case> {
    let names: String = (0..20_000).map(|at| format!("V{at} = {at};")).collect();
    let long = "n".repeat(MIB / 2);
    let long = format!("message A {{ repeated B l = 2; }} message B {{ int32 {long} = 1; }}");
    let empty_messages = || [0x12, 0].repeat(MIB / 2);
    let documents = json!({"l": vec![json!({}); 300_000]}).to_string();
    let package = format!("package {}a; message A {{}}", "a.".repeat(MIB / 4));
    let unknown: String = (1..18_000).map(|at| format!("optional a.B f{at} = {at};")).collect();
    let option = format!("option (mo){} = 1;", ".o".repeat(MIB / 4));
    let options = format!("{option} {}", "option (mo).a = 1;".repeat(20_000));
    vec![
        schema("a long package", package, End::NoSchema),
        schema("many unknown types", format!("message A {{ {unknown} }}"), End::NoSchema),
        schema(
            "many options",
            format!(
                "import \"google/protobuf/descriptor.proto\";
                extend google.protobuf.MessageOptions {{ optional O mo = 50000; }}
                message A {{ {options} }} message O {{ repeated int32 a = 1; optional O o = 2; }}"
            ),
            End::Fits,
        ),
        schema(
            "many messages in a long name",
            format!("message {} {{ {} }}", "A".repeat(MIB / 2), messages_of(20_000)),
            End::NoSchema,
        ),
        schema("no end of errors", "message 1 ".repeat(MIB / 10), End::NoSchema),
        schema("many comments", "// x\n".repeat(200_000) + "message A {}", End::Fits),
        schema("many messages", messages_of(20_000), End::Fits),
        schema("many names", format!("enum E {{ {names} }} message A {{}}"), End::Fits),
        read("many fields", &wide("int32"), empty_messages(), End::Invalid),
        read("many absent fields", &wide("optional int32"), empty_messages(), End::Fits),
        written("many absent fields in JSON", &wide("optional int32"), documents, End::Fits),
        read("a long name", &proto3(&long), [0x12, 2, 8, 1].repeat(1_000), End::Invalid),
    ]
}

fn imports() -> Vec<Case> {
    let text = "import \"0.proto\"; message A {}";
    let chain = (0..1_000).map(|at| {
        let text = format!("import \"{}.proto\"; message M{at} {{}}", at + 1);
        (format!("{at}.proto"), text)
    });
    let chain = Case {
        references: chain.collect(),
        ..schema("a chain of imports", text.to_owned(), End::NoSchema)
    };
    let circle = Case {
        references: vec![("0.proto".into(), text.to_owned())],
        ..schema("imports in a circle", text.to_owned(), End::NoSchema)
    };
    let public = |at: usize| {
        let imports: String = (0..at).map(|at| format!("import public \"{at}\";")).collect();
        (at.to_string(), format!("{imports} message M{at} {{}}"))
    };
    let doubling = Case {
        references: (0..60).map(public).collect(),
        ..schema(
            "public imports of all others",
            "import \"59\"; import \"0\"; message A { optional M0 m = 1; }".to_owned(),
            End::Fits,
        )
    };
    vec![chain, circle, doubling]
}

const TREE: &str = "syntax = \"proto3\";
    message A { A a = 1; repeated A l = 2; map<string, A> m = 3; bytes b = 4; }";
const ANY: &str = "syntax = \"proto3\"; import \"google/protobuf/any.proto\";
    message A { google.protobuf.Any a = 1; }";
const VALUE: &str = "syntax = \"proto3\"; import \"google/protobuf/struct.proto\";
    message A { google.protobuf.Value a = 1; }";

fn payloads() -> Vec<Case> {
    let groups = [vec![0x7b; MIB / 2], vec![0x7c; MIB / 2]].concat();
    let of_4_gib = vec![0x22, 0xff, 0xff, 0xff, 0xff, 0x0f];
    vec![
        read("many messages in a payload", TREE, [0x12, 0].repeat(MIB / 2), End::Fits),
        read("many entries of one key", TREE, [0x1a, 0].repeat(MIB / 2), End::Fits),
        read("many pieces", TREE, [0x0a, 0].repeat(MIB / 2), End::Fits),
        read("deep payload", TREE, nested(20_000), End::Invalid),
        read("deep unknown groups", TREE, groups, End::Invalid),
        read("open groups", TREE, vec![0x7b; MIB], End::Invalid),
        read("a length of 4 GiB", TREE, of_4_gib, End::Invalid),
        read("Any in Any", ANY, delimited(0x0a, &anys(2_000)), End::Invalid),
    ]
}

fn documents() -> Vec<Case> {
    let items = json!({"l": vec![json!({}); 300_000]}).to_string();
    let secret = json!({"a": {"@type": "/acme.Secret"}}).to_string();
    let value = format!("{{\"a\":{}}}", deep("[", "]"));
    vec![
        written("deep JSON", TREE, "{\"a\":".repeat(MIB / 5), End::Invalid),
        written("many items in JSON", TREE, items, End::Fits),
        written("deep value", VALUE, value, End::Invalid),
        written("Any of an unknown type", ANY, secret, End::Invalid),
        written("large bytes", TREE, json!({"b": "A".repeat(MIB)}).to_string(), End::Fits),
    ]
}
