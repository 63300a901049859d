//! Schemas with references, and those that are refused.

use kafka_upstream_schema::Schema;

use super::{SimpleJson, document, encode, record, refused, schema};

#[test]
fn references_are_found_by_their_full_names() {
    let money = r#"{"type":"record","name":"Money","namespace":"com.acme","fields":[
        {"name":"units","type":"long"},
        {"name":"currency","type":{"type":"enum","name":"Currency","symbols":["EUR"]}}]}"#;
    let line =
        r#"{"type":"record","name":"com.acme.Line","fields":[{"name":"price","type":"Money"}]}"#;
    let order = r#"{"type":"record","name":"Order","namespace":"com.acme.orders","fields":[
        {"name":"line","type":"com.acme.Line"},
        {"name":"currency","type":"com.acme.Currency"}]}"#;
    // A reference that another one has inside is there already.
    let references =
        [("com.acme.Money", money), ("com.acme.Currency", "0"), ("com.acme.Line", line)];
    let schema = Schema::parse(&document(order, &references)).unwrap();
    let json = r#"{"line":{"price":{"units":1,"currency":"EUR"}},"currency":"EUR"}"#;
    assert_eq!(encode(&schema, json, SimpleJson), Ok(vec![2, 0, 0]));
    let missing = Schema::parse(&document(order, &references[..2])).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "field `line` of `com.acme.orders.Order`: the type `com.acme.Line` is not defined"
    );
    let malformed = Schema::parse(&document(order, &[("com.acme.Line", "{")])).unwrap_err();
    assert_eq!(malformed.to_string(), "reference `com.acme.Line`: the schema: no JSON: byte 1");
}

#[test]
fn names_are_as_lenient_as_registries() {
    let names = r#"{"type":"record","name":"Bestellung-2","namespace":"größe.1","fields":[
        {"name":"a b","type":{"type":"enum","name":".Top","symbols":["x-y"]}},
        {"name":"c","type":["null","Top"]},
        {"name":"d","type":["null","größe.1.Bestellung-2"]}]}"#;
    assert_eq!(
        encode(&schema(names), r#"{"a b":"x-y","c":"x-y"}"#, SimpleJson),
        Ok(vec![0, 2, 0, 0])
    );
}

#[test]
fn schemas_that_are_none_are_refused_with_the_place() {
    let field = |kind: &str| record(&format!(r#"{{"name":"a","type":{kind}}}"#));
    for (text, expected) in [
        ("".to_owned(), "the schema: no JSON: it is empty"),
        ("string".to_owned(), "the schema: no JSON: byte 0"),
        ("7".to_owned(), "the schema: a type is a name, an object or an array"),
        ("{}".to_owned(), "the schema: a type has no `type`"),
        ("\"com.acme.Order\"".to_owned(), "the schema: the type `com.acme.Order` is not defined"),
        (
            r#"{"type":"record","fields":[]}"#.to_owned(),
            "the schema: a record, enum or fixed has no name",
        ),
        (r#"{"type":"record","name":"R"}"#.to_owned(), "the schema: `R` has no fields"),
        (record("\"a\""), "the schema: a field of `R` has no name"),
        (record(r#"{"name":"a"}"#), "field `a` of `R`: a type has no `type`"),
        (field("\"bool\""), "field `a` of `R`: the type `bool` is not defined"),
        (field(r#"{"type":"array"}"#), "field `a` of `R`: a type has no `items`"),
        (field(r#"{"type":"map"}"#), "field `a` of `R`: a type has no `values`"),
        (field(r#"{"type":"enum","name":"E"}"#), "field `a` of `R`: an enum has no symbols"),
        (
            field(r#"{"type":"enum","name":"E","symbols":["A","A"]}"#),
            "field `a` of `R`: an enum has the symbol `A` twice",
        ),
        (
            field(r#"{"type":"fixed","name":"F","size":-1}"#),
            "field `a` of `R`: a fixed has no size",
        ),
        (
            field(r#"{"type":"fixed","name":"R","size":1}"#),
            "field `a` of `R`: the type `R` is defined twice",
        ),
        (field(r#"["int","int"]"#), "field `a` of `R`: a union has `int` twice"),
        (field(r#"["int",["long"]]"#), "field `a` of `R`: a union is directly in a union"),
        (
            field(r#"["int",{"type":"int","logicalType":"date"}]"#),
            "field `a` of `R`: a union has `int` twice",
        ),
        (
            field(r#"{"type":"bytes","logicalType":"decimal","precision":1001}"#),
            "field `a` of `R`: a decimal has more than 1000 digits",
        ),
        (
            record(r#"{"name":"a","type":"int"},{"name":"a","type":"int"}"#),
            "the schema: `R` has the field `a` twice",
        ),
        (
            r#"{"type":"record","name":"int","fields":[]}"#.to_owned(),
            "the schema: the type `int` is defined twice",
        ),
    ] {
        assert_eq!(refused(&text), expected, "{text}");
    }
}
