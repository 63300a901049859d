//! The JSON Schema of the plugin configuration, made of the types that read it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::raw::Raw;

/// The schema (draft 2020-12). `default` is what holds without the field, `x-new` marks what
/// Kong's plugin does not have, `writeOnly` what is a secret.
#[must_use]
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let root = settings.into_generator().into_root_schema_for::<Raw>();
    let mut schema = root.to_value();
    tidy(&mut schema);
    set(&mut schema, "$id", json!("kafka-upstream.schema.json"));
    set(&mut schema, "title", json!("kafka-upstream"));
    set(&mut schema, "required", json!(["bridge", "topic"]));
    overrides(&mut schema);
    schema
}

/// The same in draft 4, which Kong reads: a WasmX filter's `config_schema`.
#[must_use]
pub fn draft_4() -> Value {
    let mut schema = schema();
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("$id");
        let definitions = fields.remove("$defs").unwrap_or_default();
        fields.insert("definitions".to_owned(), definitions);
    }
    set(&mut schema, "$schema", json!("http://json-schema.org/draft-04/schema#"));
    let config = "/properties/match/items/properties/config/anyOf/0/$ref";
    if let Some(reference) = schema.pointer_mut(config) {
        *reference = json!("#/definitions/overrides");
    }
    schema
}

/// A rule's `config` has the fields of the whole, but for those that all rules share.
fn overrides(schema: &mut Value) {
    let names = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let names =
        names.map(|(name, _)| name).filter(|name| !matches!(name.as_str(), "host" | "match"));
    let fields: Map<String, Value> = names
        .map(|name| (name.clone(), json!({ "$ref": format!("#/properties/{name}") })))
        .collect();
    let own = json!({ "type": "object", "additionalProperties": false, "properties": fields });
    set(schema, "$defs", json!({ "overrides": own }));
    if let Some(config) = schema.pointer_mut("/properties/match/items/properties/config") {
        let either = json!([{ "$ref": "#/$defs/overrides" }, { "type": "null" }]);
        set(config, "anyOf", either);
        if let Some(fields) = config.as_object_mut() {
            fields.remove("$ref");
        }
    }
}

/// Turns `oneOf` and `anyOf` of constants, and of null, into one `enum`; leaves out formats.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(fields) => {
            fields.values_mut().for_each(tidy);
            fields.remove("format");
            // What an empty list becomes in Lua.
            if let (true, Some(Value::Array(kinds))) =
                (fields.contains_key("items"), fields.get_mut("type"))
            {
                kinds.push(json!("object"));
                fields.insert("maxProperties".to_owned(), json!(0));
            }
            for word in ["oneOf", "anyOf"] {
                let choices = fields.get(word).and_then(constants);
                if let Some(choices) = choices {
                    fields.remove(word);
                    fields.remove("type");
                    fields.insert("enum".to_owned(), Value::Array(choices));
                }
            }
        }
        _ => {}
    }
}

fn constants(choices: &Value) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    for choice in choices.as_array()? {
        match (choice.get("const"), choice.get("enum"), choice.get("type")) {
            (Some(value), ..) => values.push(value.clone()),
            (None, Some(several), _) => values.extend(several.as_array()?.iter().cloned()),
            (None, None, Some(kind)) if kind == "null" => values.push(Value::Null),
            _ => return None,
        }
    }
    Some(values)
}

fn set(schema: &mut Value, name: &str, value: Value) {
    if let Some(fields) = schema.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    /// A configuration with one field set, by its path.
    fn with(path: &[&str], value: &Value) -> Value {
        let mut config = json!({ "bridge": "b", "topic": "t" });
        let mut place = &mut config;
        for name in path {
            place = &mut place[*name];
        }
        *place = value.clone();
        match path {
            ["schema_registry", ..] => {
                config["schema_registry"]["confluent"]["url"] = json!("http://r")
            }
            ["keepalive"] => config["keepalive_enabled"] = json!(true),
            _ => {}
        }
        config
    }

    fn check(path: &[&str], value: &Value) -> Result<Settings, String> {
        let config = with(path, value);
        Settings::parse(config.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    /// Every field that is no object or list, with its path.
    fn leaves<'a>(
        schema: &'a Value,
        path: &mut Vec<&'a str>,
        found: &mut Vec<(Vec<&'a str>, &'a Value)>,
    ) {
        let Some(fields) = schema.get("properties").and_then(Value::as_object) else {
            found.push((path.clone(), schema));
            return;
        };
        for (name, field) in fields.iter().filter(|(name, _)| *name != "match") {
            path.push(name);
            leaves(field, path, found);
            path.pop();
        }
    }

    #[test]
    fn the_bounds_of_the_schema_are_those_that_are_checked() {
        let schema = schema();
        let mut fields = Vec::new();
        leaves(&schema, &mut Vec::new(), &mut fields);
        let mut bounded = 0;
        for (path, field) in fields {
            let (Some(low), Some(high)) = (field["minimum"].as_i64(), field["maximum"].as_i64())
            else {
                let number = field["type"][0] == "integer";
                assert!(!number, "{path:?} has no bounds");
                continue;
            };
            bounded += 1;
            for right in [low, high] {
                check(&path, &json!(right)).unwrap();
            }
            for wrong in [low - 1, high + 1] {
                let error = check(&path, &json!(wrong)).unwrap_err();
                let expected = format!("{}: must be {low} to {high}, is {wrong}", path.join("."));
                assert_eq!(error, expected);
            }
        }
        assert!(bounded >= 20, "{bounded}");
    }

    #[test]
    fn the_defaults_of_the_schema_are_those_that_hold() {
        let schema = schema();
        let mut fields = Vec::new();
        leaves(&schema, &mut Vec::new(), &mut fields);
        let mut defaults = 0;
        for (path, field) in fields {
            let Some(default) = field.get("default").filter(|default| !default.is_null()) else {
                continue;
            };
            defaults += 1;
            let (with, without) = (check(&path, default), check(&path, &Value::Null));
            let (mut with, mut without) = (with.unwrap(), without.unwrap());
            // What is written of the producer goes to the bridge; what is not, is the cluster's.
            for settings in [&mut with, &mut without] {
                settings.profile.properties.clear();
                settings.profile.schema_registry = None;
            }
            assert_eq!(with, without, "{path:?}");
        }
        assert!(defaults >= 30, "{defaults}");
    }

    #[test]
    fn a_list_may_be_an_empty_object_in_the_schema_as_in_the_configuration() {
        let schema = schema();
        let mut fields = Vec::new();
        leaves(&schema, &mut Vec::new(), &mut fields);
        let lists = fields.iter().filter(|(_, field)| field.get("items").is_some());
        for (path, field) in lists.clone() {
            assert_eq!(
                (&field["type"], &field["maxProperties"]),
                (&json!(["array", "null", "object"]), &json!(0))
            );
            let empty = |value: Value| check(path, &value).map_err(|error| error.contains("empty"));
            assert_eq!(empty(json!({})), empty(json!([])), "{path:?}");
            assert!(!matches!(empty(json!({})), Err(false)), "{path:?}");
            assert!(check(path, &json!({ "a": 1 })).unwrap_err().contains("expected a list"));
        }
        assert!(lists.count() >= 8);
    }

    #[test]
    fn every_field_says_what_it_means() {
        let schema = schema();
        let mut fields = Vec::new();
        leaves(&schema, &mut Vec::new(), &mut fields);
        for (path, field) in fields {
            assert!(field["description"].is_string(), "{path:?}");
        }
    }

    #[test]
    fn a_rule_may_set_every_field_but_those_that_all_share() {
        let schema = schema();
        let own = &schema["$defs"]["overrides"]["properties"];
        assert_eq!(own["topic"]["$ref"], "#/properties/topic");
        assert!(own.get("match").is_none() && own.get("host").is_none());
        let draft_4 = draft_4();
        let reference =
            &draft_4["properties"]["match"]["items"]["properties"]["config"]["anyOf"][0];
        assert_eq!(reference["$ref"], "#/definitions/overrides");
        assert!(draft_4.get("$defs").is_none());
    }
}
