//! What a record's value has otherwise than a sample expects.

use serde_json::{Map, Value};

/// Compares two values of Kong's message format; each difference is one line.
///
/// Every field must be equal, and no other may be there; `headers` may have more, because the
/// gateway adds its own.
#[must_use]
pub fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let (Some(expected), Some(actual)) = (expected.as_object(), actual.as_object()) else {
        return vec![format!("the value is not an object: {actual}")];
    };
    let mut lines = Vec::new();
    for (key, wanted) in expected {
        match (key.as_str(), wanted, actual.get(key)) {
            ("headers", Value::Object(wanted), Some(Value::Object(found))) => {
                lines.extend(missing(wanted, found));
            }
            (_, wanted, Some(found)) if wanted == found => {}
            (_, wanted, found) => lines.push(line(key, wanted, found)),
        }
    }
    let extra = actual.iter().filter(|(key, _)| !expected.contains_key(*key));
    lines.extend(extra.map(|(key, found)| format!("{key}: not expected, but is {found}")));
    lines
}

/// The headers that are absent or different.
fn missing(wanted: &Map<String, Value>, found: &Map<String, Value>) -> Vec<String> {
    let wrong = wanted.iter().filter(|(name, value)| found.get(*name) != Some(value));
    wrong.map(|(name, value)| line(&format!("headers.{name}"), value, found.get(name))).collect()
}

fn line(path: &str, wanted: &Value, found: Option<&Value>) -> String {
    match found {
        Some(found) => format!("{path}: expected {wanted}, but is {found}"),
        None => format!("{path}: expected {wanted}, but is absent"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_may_have_more_and_nothing_else_may() {
        let expected = json!({"headers": {"a": "1"}, "body": "x"});
        let same = json!({"headers": {"a": "1", "b": "2"}, "body": "x"});
        assert_eq!(differences(&expected, &same), Vec::<String>::new());
        let more = json!({"headers": {"a": "1"}, "body": "x", "uri": "/"});
        assert_eq!(differences(&expected, &more), ["uri: not expected, but is \"/\""]);
    }

    #[test]
    fn what_differs_is_told_by_its_path() {
        let expected = json!({"headers": {"a": "1"}, "body": "x", "uri": "/"});
        let other = json!({"headers": {}, "body": "y"});
        assert_eq!(
            differences(&expected, &other),
            [
                "body: expected \"x\", but is \"y\"",
                "headers.a: expected \"1\", but is absent",
                "uri: expected \"/\", but is absent"
            ]
        );
    }
}
