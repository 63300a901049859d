//! JSON Schema: which documents fit, and what is said of those that do not.

use serde_json::json;

use super::*;
use crate::{Reference, SchemaType};

fn try_parse(schema: &str, references: &[(&str, Value)]) -> Result<Schema, SchemaError> {
    let references = references
        .iter()
        .map(|(name, schema)| Reference { name: (*name).to_owned(), text: schema.to_string() });
    Schema::parse(&Document {
        schema_type: SchemaType::Json,
        text: schema.to_owned(),
        references: references.collect(),
    })
}

fn parse(schema: &Value) -> Schema {
    try_parse(&schema.to_string(), &[]).unwrap()
}

/// What is said of a document; nothing if it fits.
fn said(schema: &Schema, document: &str) -> String {
    match schema.encode(document.as_bytes()) {
        Ok(payload) => {
            assert_eq!(payload.bytes, document.as_bytes());
            assert!(payload.message_index.is_empty());
            String::new()
        }
        Err(invalid) => invalid.to_string(),
    }
}

fn refused(schema: &Value, references: &[(&str, Value)]) -> String {
    try_parse(&schema.to_string(), references).unwrap_err().0
}

#[test]
fn a_document_that_fits_is_its_payload() {
    let schema = parse(&json!({"type": "object", "properties": {"n": {"type": "integer"}}}));
    assert_eq!(said(&schema, " {\"n\" : 9007199254740993, \"o\":1.50 }\n"), "");
    assert_eq!(said(&schema, r#"{"n":1,"n":2}"#), "$.n: it comes twice");
    assert_eq!(said(&schema, "{"), "$: no JSON: byte 1");
}

#[test]
fn each_keyword_has_a_reason_without_the_documents_values() {
    for (schema, document, reason) in [
        (json!({"type": "string"}), "1", "$: type: it must be string"),
        (json!({"type": ["null", "integer"]}), "1.5", "$: type: it must be one of null, integer"),
        (json!({"required": ["a b"]}), "{}", "$: required: \"a b\" is missing"),
        (json!({"enum": ["A", 1]}), "\"secret\"", "$: enum: it must be one of [\"A\",1]"),
        (json!({"const": 7}), "8", "$: const: it must be 7"),
        (json!({"minimum": 3}), "2", "$: minimum: it must be at least 3"),
        (json!({"exclusiveMaximum": 3}), "3", "$: exclusiveMaximum: it must be less than 3"),
        (json!({"multipleOf": 0.5}), "0.7", "$: multipleOf: it must be a multiple of 0.5"),
        (json!({"maxLength": 2}), "\"abc\"", "$: maxLength: it must have at most 2 characters"),
        (json!({"minItems": 1}), "[]", "$: minItems: it must have at least 1 items"),
        (json!({"pattern": "^a+$"}), "\"b\"", "$: pattern: it must match ^a+$"),
        (json!({"format": "date"}), "\"x\"", "$: format: it must be a date"),
        (json!({"uniqueItems": true}), "[1,1.0]", "$: uniqueItems: two of its items are equal"),
        (json!({"not": {}}), "1", "$: not: it fits the schema that it must not fit"),
        (
            json!({"contains": {"const": 1}}),
            "[2]",
            "$: contains: it has not as many items that fit as it must",
        ),
        (
            json!({"properties": {"a": false}}),
            "{\"a\":1}",
            "$.a: falseSchema: there may be no such value",
        ),
        (
            json!({"additionalProperties": false}),
            "{\"a\":1}",
            "$: additionalProperties: it must have no members",
        ),
        (
            json!({"properties": {"a": true}, "additionalProperties": false}),
            "{\"it's\":1}",
            "$['it\\'s']: additionalProperties: there may be no such member",
        ),
        (
            json!({"propertyNames": {"maxLength": 1}}),
            "{\"ab\":1}",
            "$: propertyNames: a name does not fit: maxLength: it must have at most 1 characters",
        ),
        (
            json!({"items": [{}], "additionalItems": false}),
            "[1,2]",
            "$: additionalItems: it must have at most 1 items",
        ),
        (
            json!({"anyOf": [{"type": "null"}, {"maximum": 1}]}),
            "2",
            "$: anyOf: it fits none of 2 schemas (type: it must be null; maximum: it must be at most 1)",
        ),
        (json!({"oneOf": [true, true]}), "2", "$: oneOf: it fits more than one schema"),
        (
            json!({"oneOf": [{"type": "null"}, {"items": {"items": {"type": "null"}}}]}),
            "[[1]]",
            "$[0][0]: type: it must be null",
        ),
        (
            json!({"properties": {"lines": {"items": {"properties": {"count": {"minimum": 0}}}}}}),
            "{\"lines\":[{\"count\":1},{\"count\":-1}]}",
            "$.lines[1].count: minimum: it must be at least 0",
        ),
    ] {
        assert_eq!(said(&parse(&schema), document), reason, "{schema}");
    }
}

#[test]
fn the_draft_is_that_of_the_schema_or_seven() {
    let with = |draft: &str, mut schema: Value| {
        schema["$schema"] = json!(draft);
        parse(&schema)
    };
    let fits = |schema: &Schema, document: &str| said(schema, document).is_empty();
    // Boolean in draft 4, a number from draft 6.
    let four = "http://json-schema.org/draft-04/schema#";
    let schema = with(four, json!({"minimum": 3, "exclusiveMinimum": true}));
    assert!(!fits(&schema, "3") && fits(&schema, "4"));
    // Draft 7's, unknown to draft 6.
    let conditional = json!({"if": {"type": "string"}, "then": {"minLength": 2}});
    assert!(!fits(&parse(&conditional), "\"a\""));
    assert!(fits(&with("http://json-schema.org/draft-06/schema#", conditional), "\"a\""));
    for (draft, is_asserted) in [
        (four, true),
        ("http://json-schema.org/draft-07/schema", true),
        ("https://json-schema.org/draft/2019-09/schema", false),
        ("https://json-schema.org/draft/2020-12/schema", false),
    ] {
        let schema = with(draft, json!({"format": "ipv4"}));
        assert_eq!(!fits(&schema, "\"x\""), is_asserted, "{draft}");
    }
    let schema = with(
        "https://json-schema.org/draft/2020-12/schema",
        json!({"prefixItems": [{"type": "string"}], "unevaluatedItems": false}),
    );
    assert!(fits(&schema, "[\"a\"]"));
    assert!(said(&schema, "[\"a\",1]").starts_with("$: unevaluatedItems: "));
    let schema =
        parse(&json!({"contentMediaType": "application/json", "contentEncoding": "base64"}));
    assert!(fits(&schema, "\"?\""));
    for draft in
        [json!("http://json-schema.org/draft-03/schema"), json!("https://x.test/my"), json!(1)]
    {
        let why = "its $schema names no draft between 4 and 2020-12";
        assert_eq!(refused(&json!({"$schema": draft}), &[]), why);
    }
}

#[test]
fn references_are_found_by_their_names() {
    let line =
        ("line.json", json!({"properties": {"count": {"$ref": "count.json#/definitions/c"}}}));
    let count = ("count.json", json!({"definitions": {"c": {"type": "integer"}}}));
    for (root, name) in [
        (json!({"items": {"$ref": "line.json"}}), "line.json"),
        (json!({"items": {"$ref": "./line.json"}}), "./line.json"),
        (json!({"$id": "https://x.test/a/b.json", "items": {"$ref": "line.json"}}), "line.json"),
        (
            json!({"$id": "https://x.test/a/b.json", "items": {"$ref": "line.json"}}),
            "https://x.test/a/line.json",
        ),
        (json!({"items": {"$ref": "https://y.test/line.json"}}), "https://y.test/line.json"),
    ] {
        let references = [(name, line.1.clone()), count.clone()];
        let schema = try_parse(&root.to_string(), &references).unwrap();
        assert_eq!(said(&schema, "[{\"count\":1}]"), "", "{root}");
        let why = "$[0].count: type: it must be integer";
        assert_eq!(said(&schema, "[{\"count\":\"a\"}]"), why, "{root}");
        let why = refused(&root, &references[..1]);
        assert!(why.contains("count.json\", which is not among its references"), "{why}");
    }
    for name in ["https://x.test/schema.json", "file:///etc/passwd", "a.json"] {
        let why = refused(&json!({"$ref": name}), &[]);
        assert_eq!(why, format!("it refers to \"{name}\", which is not among its references"));
    }
    let why = refused(&json!({"$ref": "airline.json"}), &[("line.json", json!(true))]);
    assert_eq!(why, "it refers to \"airline.json\", which is not among its references");
    let why = refused(&json!({"items": {"$ref": "#/definitions/none"}}), &[]);
    assert_eq!(why, "there is nothing where its reference \"#/definitions/none\" leads");
}

#[test]
fn a_schema_that_cannot_be_used_is_refused() {
    for (schema, why) in [
        (json!({"type": "text"}), "$.type is no JSON Schema: "),
        (json!({"minLength": -1}), "$.minLength is no JSON Schema: "),
        (json!([]), "$ is no JSON Schema: "),
        (json!({"pattern": "("}), "$"),
        (json!({"pattern": "(?=a)"}), "$"),
        (json!({"pattern": "(a)\\1"}), "$"),
        (json!({"pattern": "a{1000}{1000}"}), "$"),
        (json!({"pattern": "a".repeat(1_025)}), "a regular expression is longer than 1024 bytes"),
        (json!({"$ref": "#"}), "one of its schemas refers to itself"),
        (json!({"allOf": [{"anyOf": [{"$ref": "#"}]}]}), "one of its schemas refers to itself"),
        (json!({"$id": "http://[", "type": "null"}), ""),
    ] {
        let said = refused(&schema, &[]);
        println!("{schema}: {said}");
        assert!(said.starts_with(why) && said.len() < 300, "{schema}: {said}");
    }
    assert!(try_parse("{", &[]).is_err());
    assert!(parse(&json!(true)).encode(b"1").is_ok());
    assert!(parse(&json!(false)).encode(b"1").is_err());
}

#[test]
fn recursion_into_the_value_is_no_loop() {
    let schema = parse(&json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}},
        "unevaluatedProperties": false,
    }));
    assert_eq!(said(&schema, r#"{"next":{"next":{"n":1}}}"#), "");
    let why = "$.next.next.n: type: it must be integer";
    assert_eq!(said(&schema, r#"{"next":{"next":{"n":null}}}"#), why);
}

#[test]
fn numbers_are_compared_exactly() {
    let schema = parse(&json!({"maximum": 9007199254740993_u64, "type": "integer"}));
    assert_eq!(said(&schema, "9007199254740993"), "");
    assert_ne!(said(&schema, "9007199254740994"), "");
    let schema = parse(&json!({"const": 18446744073709551615_u64}));
    assert_eq!(said(&schema, "18446744073709551615"), "");
    assert_ne!(said(&schema, "18446744073709551614"), "");
    assert_eq!(said(&schema, "1e400"), "$: it is beyond a double's range");
}

#[test]
fn what_is_read_is_json_and_not_judged_again() {
    let schema = parse(&json!({"type": "string"}));
    assert_eq!(schema.decode(b" {\"a\":1.50} ").unwrap(), b" {\"a\":1.50} ");
    let invalid = schema.decode(b"\"\xff\"").unwrap_err().to_string();
    assert_eq!(invalid, "$: no JSON: byte 1 is not UTF-8");
    let invalid = schema.decode(b"{\"a\":").unwrap_err().to_string();
    assert_eq!(invalid, "$: no JSON: byte 5");
}
