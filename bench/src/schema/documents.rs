//! One order in all languages of schemas.

use serde_json::{Value, json};

pub(super) const AVRO: &str = r#"{"type":"record","name":"Order","namespace":"com.acme","fields":[
    {"name":"id","type":"long"},
    {"name":"customer","type":"string"},
    {"name":"paid","type":"boolean"},
    {"name":"total","type":"double"},
    {"name":"status","type":{"type":"enum","name":"Status","symbols":["OPEN","SHIPPED","PAID"]}},
    {"name":"placed","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"note","type":["null","string"],"default":null},
    {"name":"labels","type":{"type":"map","values":"string"}},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"sku","type":"string"},
        {"name":"count","type":"int"},
        {"name":"price","type":"double"},
        {"name":"gift","type":["null","string"],"default":null}]}}}]}"#;

pub(super) const JSON_SCHEMA: &str = r##"{"type":"object","additionalProperties":false,
    "required":["id","customer","paid","total","status","placed","lines"],
    "properties":{
        "id":{"type":"integer"},
        "customer":{"type":"string","maxLength":64},
        "paid":{"type":"boolean"},
        "total":{"type":"number","minimum":0},
        "status":{"enum":["OPEN","SHIPPED","PAID"]},
        "placed":{"type":"integer","minimum":0},
        "note":{"type":["null","string"]},
        "labels":{"type":"object","additionalProperties":{"type":"string"}},
        "lines":{"type":"array","minItems":1,"items":{"$ref":"#/definitions/line"}}},
    "definitions":{"line":{"type":"object","required":["sku","count","price"],"properties":{
        "sku":{"type":"string","pattern":"^[A-Z]+-[0-9]+$"},
        "count":{"type":"integer","minimum":1},
        "price":{"type":"number","minimum":0},
        "gift":{"type":["null","string"]}}}}}"##;

pub(super) const PROTOBUF: &str = r#"syntax = "proto3";
    package com.acme;
    message Order {
      int64 id = 1;
      string customer = 2;
      bool paid = 3;
      double total = 4;
      Status status = 5;
      int64 placed = 6;
      optional string note = 7;
      map<string, string> labels = 8;
      repeated Line lines = 9;
    }
    enum Status { OPEN = 0; SHIPPED = 1; PAID = 2; }
    message Line {
      string sku = 1;
      int32 count = 2;
      double price = 3;
      optional string gift = 4;
    }"#;

/// An order; a union's value stands by itself, or is tagged with its branch.
pub(super) fn order(lines: u32, is_tagged: bool) -> Vec<u8> {
    let text = |text: &str| if is_tagged { json!({ "string": text }) } else { json!(text) };
    let line = |number| {
        json!({
            "sku": format!("AC-{}", 100_000 + number),
            "count": number % 7 + 1,
            "price": f64::from(number) * 1.25 + 0.99,
            "gift": text("wrap it in blue"),
        })
    };
    let order = json!({
        "id": 9_007_199_254_740_993_i64,
        "customer": "customer-104233",
        "paid": true,
        "total": 1284.35,
        "status": "SHIPPED",
        "placed": 1_796_025_600_123_i64,
        "note": text("ring twice, then wait"),
        "labels": { "channel": "web" },
        "lines": (0..lines).map(line).collect::<Value>(),
    });
    order.to_string().into_bytes()
}
