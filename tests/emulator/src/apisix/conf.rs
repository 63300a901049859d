//! A plugin's configuration as APISIX hands it over: decoded and encoded anew on the way.

use fastrand::Rng;
use serde_json::Value;

/// Encodes JSON as APISIX does: keys in any order, an empty array as an empty object, and slashes
/// escaped. What is not a JSON object is a string of the operator's, and stays as it is.
pub(crate) fn encode_anew(config: &[u8], rng: &mut Rng) -> Vec<u8> {
    match serde_json::from_slice::<Value>(config) {
        Ok(value @ Value::Object(_)) => encode(&value, rng).into_bytes(),
        _ => config.to_vec(),
    }
}

fn encode(value: &Value, rng: &mut Rng) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            rng.shuffle(&mut fields);
            let fields = fields.into_iter().map(|(key, value)| {
                format!("{}:{}", text(&Value::String(key.clone())), encode(value, rng))
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) if items.is_empty() => "{}".to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| encode(item, rng)).collect();
            format!("[{}]", items.join(","))
        }
        other => text(other),
    }
}

fn text(value: &Value) -> String {
    value.to_string().replace('/', "\\/")
}
