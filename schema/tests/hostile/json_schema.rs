//! JSON Schemas, and documents, that are made to harm.

use serde_json::{Map, Value, json};

use crate::{Case, End, Input, MIB};

fn case(name: &'static str, schema: &Value, document: String, end: impl Into<Option<End>>) -> Case {
    let schema = schema.to_string();
    Case { name, schema, references: Vec::new(), input: Input::Json(document), end: end.into() }
}

/// Definitions `a0` to `a{count}`, of which `each` makes one that may refer to the next.
fn chain(count: usize, each: impl Fn(&str) -> Value) -> Value {
    let definitions: Map<_, _> = (0..count)
        .map(|at| (format!("a{at}"), each(&format!("#/definitions/a{}", at + 1))))
        .chain([(format!("a{count}"), json!({"type": "null"}))])
        .collect();
    json!({"definitions": definitions, "$ref": "#/definitions/a0"})
}

fn nested(open: &str, inside: &str, close: &str, levels: usize) -> String {
    open.repeat(levels) + inside + &close.repeat(levels)
}

/// An array of as many items as fit into 1 MiB.
fn items(item: &str) -> String {
    let count = MIB / (item.len() + 1);
    format!("[{}]", vec![item; count].join(","))
}

fn text(unit: &str) -> String {
    Value::from(unit.repeat(MIB / unit.len())).to_string()
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = schemas();
    cases.extend(schemas_and_references());
    cases.extend(documents());
    cases.extend(large_documents());
    for format in [
        "date",
        "date-time",
        "time",
        "duration",
        "email",
        "idn-email",
        "hostname",
        "idn-hostname",
        "ipv4",
        "ipv6",
        "uri",
        "uri-reference",
        "iri",
        "iri-reference",
        "uri-template",
        "uuid",
        "json-pointer",
        "relative-json-pointer",
        "regex",
    ] {
        for unit in ["\\d", "a.", "1", "{a}", "/~0", "::", "\u{e9}"] {
            cases.push(case("a format of 1 MiB", &json!({"format": format}), text(unit), None));
        }
    }
    cases
}

fn schemas() -> Vec<Case> {
    let null = || "null".to_owned();
    let twice = |next: &str| json!({"allOf": [{"$ref": next}, {"$ref": next}]});
    let twice_inside = |next: &str| json!({"properties": {"a": {"$ref": next}, "b": {"$ref": next}, "c": {"$ref": next}}});
    let all: Vec<_> = (0..9).map(|at| json!({"$ref": format!("#/definitions/a{at}")})).collect();
    let each_other: Map<_, _> =
        (0..9).map(|at| (format!("a{at}"), json!({"anyOf": all}))).collect();
    let many: Map<_, _> = (0..20_000).map(|at| (format!("p{at}"), json!({"$ref": "#"}))).collect();
    let patterns: Map<_, _> = (0..5_000).map(|at| (format!("^{at}+$"), json!(true))).collect();
    let modern = "https://json-schema.org/draft/2020-12/schema";
    vec![
        case("references that double", &chain(40, twice), null(), End::NoSchema),
        case("references that triple inside", &chain(40, twice_inside), "{}".into(), End::Fits),
        case("a long chain", &chain(20_000, |next| json!({"$ref": next})), null(), End::NoSchema),
        case(
            "a long chain inside",
            &chain(20_000, |next| json!({"items": {"$ref": next}})),
            nested("[", "1", "]", 60),
            End::NoSchema,
        ),
        case(
            "a chain inside",
            &chain(2_000, |next| json!({"items": {"$ref": next}})),
            nested("[", "1", "]", 60),
            End::Fits,
        ),
        case("a loop", &json!({"not": {"$ref": "#"}}), null(), End::NoSchema),
        case(
            "loops in each other",
            &json!({"definitions": each_other, "$ref": "#/definitions/a0"}),
            "1".into(),
            End::NoSchema,
        ),
        case(
            "a dynamic loop",
            &json!({"$schema": modern, "$dynamicAnchor": "a", "anyOf": [{"$dynamicRef": "#a"}]}),
            null(),
            End::NoSchema,
        ),
        case(
            "a loop of unevaluated properties",
            &json!({"$schema": modern, "$ref": "#/$defs/a", "$defs": {
                "a": {"unevaluatedProperties": {"$ref": "#/$defs/b"}},
                "b": {"unevaluatedProperties": {"$ref": "#/$defs/a"}}}}),
            nested("{\"a\":", "1", "}", 60),
            End::Fits,
        ),
        case("many properties", &json!({"properties": many}), "{\"p7\":{}}".into(), End::Fits),
        case("many expressions", &json!({"patternProperties": patterns}), null(), End::NoSchema),
        case("a large expression", &json!({"pattern": "((a{99}){99}){99}"}), null(), End::NoSchema),
        case(
            "a deep expression",
            &json!({"pattern": nested("(", "a", ")", 500)}),
            null(),
            End::NoSchema,
        ),
    ]
}

fn schemas_and_references() -> Vec<Case> {
    let null = || "null".to_owned();
    vec![
        Case {
            name: "deep schema",
            schema: nested("{\"not\":", "{}", "}", MIB / 8),
            references: Vec::new(),
            input: Input::Json(null()),
            end: Some(End::NoSchema),
        },
        Case {
            name: "references in a circle",
            schema: json!({"properties": {"a": {"$ref": "b"}}}).to_string(),
            references: vec![
                ("b".into(), json!({"properties": {"a": {"$ref": "c"}}}).to_string()),
                ("c".into(), json!({"properties": {"a": {"$ref": "b"}}}).to_string()),
            ],
            input: Input::Json(nested("{\"a\":", "1", "}", 60)),
            end: Some(End::Fits),
        },
        Case {
            name: "references that apply each other",
            schema: json!({"$ref": "b"}).to_string(),
            references: vec![
                ("b".into(), json!({"$ref": "c"}).to_string()),
                ("c".into(), json!({"$ref": "b"}).to_string()),
            ],
            input: Input::Json(null()),
            end: Some(End::NoSchema),
        },
    ]
}

fn documents() -> Vec<Case> {
    let branch = json!({"properties": {"a": {"$ref": "#"}}, "required": ["a"]});
    let tree = json!({"oneOf": [branch, branch, {"type": "integer"}, branch]});
    let expression = json!({"anyOf": [
        {"properties": {"a": {"$ref": "#"}, "op": {"const": "+"}}, "required": ["a", "op"]},
        {"properties": {"a": {"$ref": "#"}, "op": {"const": "-"}}, "required": ["a", "op"]},
        {"type": "integer"}]});
    let patterns: Vec<_> =
        (0..20).map(|at| json!({"pattern": format!("a{at}b|(c|d)+e$")})).collect();
    vec![
        case("a tree of doubles", &tree, nested("{\"a\":", "null", "}", 60), End::Invalid),
        case(
            "an expression",
            &expression,
            nested("{\"op\":\"x\",\"a\":", "null", "}", 60),
            End::Invalid,
        ),
        case("a deep document", &json!({}), nested("[", "", "]", MIB / 2), End::Invalid),
        case("a catastrophic expression", &json!({"pattern": "^(a+)+$"}), text("a"), End::Fits),
        case(
            "an expression that backtracks",
            &json!({"pattern": "^(a|a)*b$"}),
            text("a"),
            End::Invalid,
        ),
        case("many expressions at a time", &json!({"anyOf": patterns}), text("a"), End::Invalid),
    ]
}

fn large_documents() -> Vec<Case> {
    let distinct = |from: u64| (from..from + 50_000).map(Value::from).collect::<Vec<_>>();
    let close = 9_007_199_254_740_992_u64;
    let numbers: Vec<_> = (0..1_000).collect();
    let any: Vec<_> = (0..1_000).map(|at| json!({"maxLength": at, "type": "string"})).collect();
    vec![
        case("many items", &json!({"items": {"type": "null"}}), items("0"), End::Invalid),
        case("many unique items", &json!({"uniqueItems": true}), items("0"), End::Invalid),
        case(
            "many numbers",
            &json!({"uniqueItems": true}),
            json!(distinct(0)).to_string(),
            End::Fits,
        ),
        case(
            "close numbers",
            &json!({"uniqueItems": true}),
            json!(distinct(close << 10)).to_string(),
            End::Fits,
        ),
        case(
            "many items of many schemas",
            &json!({"items": {"anyOf": any}}),
            items("0"),
            End::Invalid,
        ),
        case("many schemas of many items", &json!({"anyOf": any}), items("0"), End::Invalid),
        case(
            "many items of a large enum",
            &json!({"items": {"enum": numbers}}),
            items("999"),
            End::Fits,
        ),
        case(
            "many items that none contains",
            &json!({"items": {"contains": {"const": 1}}}),
            items("[0]"),
            End::Invalid,
        ),
        case(
            "a long name",
            &json!({"propertyNames": {"pattern": "^(a|b)*c$"}}),
            format!("{{{}:1}}", text("a")),
            End::Invalid,
        ),
        case("a small divisor", &json!({"multipleOf": 1e-300}), "1e300".into(), End::Fits),
        case("a large number", &json!({"multipleOf": 0.1}), "1e308".into(), End::Fits),
    ]
}
