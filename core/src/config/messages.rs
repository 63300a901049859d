//! The fields that say what a request becomes: the format of the message, and the expressions.

use super::ConfigError;
use super::check::fault;
use super::raw::Raw;
use crate::expression::{Expression, Expressions};
use crate::format::MessageFormat;

pub(super) fn format(raw: &Raw) -> Result<MessageFormat, ConfigError> {
    if raw.message_by_lua_functions.as_ref().is_some_and(|functions| !functions.is_empty()) {
        return Err(fault("message_by_lua_functions", LUA));
    }
    match (raw.message_format, &raw.message_expression) {
        (None | Some(MessageFormat::Expression), Some(_)) => Ok(MessageFormat::Expression),
        (Some(_), Some(_)) => {
            Err(fault("message_expression", "goes with message_format `expression` alone"))
        }
        (Some(MessageFormat::Expression), None) => {
            Err(fault("message_expression", "is required by message_format `expression`"))
        }
        (format, None) => Ok(format.unwrap_or(MessageFormat::Kong)),
    }
}

pub(super) fn expressions(raw: &Raw) -> Result<Expressions, ConfigError> {
    let compile = |field, source: &Option<String>| {
        source.as_ref().map(|source| Expression::compile(field, source)).transpose()
    };
    Ok(Expressions {
        message: compile("message_expression", &raw.message_expression)?,
        topic: compile("topic_expression", &raw.topic_expression)?,
        key: compile("key_expression", &raw.key_expression)?,
        partition: compile("partition_expression", &raw.partition_expression)?,
        headers: compile("record_headers_expression", &raw.record_headers_expression)?,
    })
}

/// Kong's message, as it is by default, is `message`; this is its body's part written out.
const LUA: &str = "there is no Lua here: message_expression makes the message, in CEL. \
    Kong's own message is `message`, and written out as by default \
    `has(message.body_base64) \
    ? {\"body_base64\": true, \"body_args\": message.body_args, \"body\": message.body} \
    : {\"body_args\": message.body_args, \"body\": message.body}`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use serde_json::{Value, json};

    fn parse(fields: Value) -> Result<Settings, String> {
        let mut config = json!({ "bridge": "b", "topic": "t" });
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Settings::parse(config.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_message_expression_is_a_format_of_its_own() {
        let format = |fields| parse(fields).map(|settings| settings.message_format);
        assert_eq!(format(json!({})), Ok(MessageFormat::Kong));
        assert_eq!(
            format(json!({"message_format": "cloudevents"})),
            Ok(MessageFormat::CloudEvents)
        );
        let expression = json!({"message_expression": "message"});
        assert_eq!(format(expression), Ok(MessageFormat::Expression));
        let faults = [
            (
                json!({"message_format": "body", "message_expression": "message"}),
                "message_expression: goes with message_format `expression` alone",
            ),
            (
                json!({"message_format": "expression"}),
                "message_expression: is required by message_format `expression`",
            ),
            (
                json!({"message_format": "avro"}),
                "message_format: expected one of \
                 `kong`, `body`, `cloudevents`, `expression`, not `avro`",
            ),
            (
                json!({"key_expression": "request.\nbdy"}),
                "key_expression: line 2, column 1: `request` has no `bdy`, but body, body_bytes, \
                 content_type, headers, host, id, method, path, query, scheme, time, uri",
            ),
        ];
        for (fields, message) in faults {
            assert_eq!(format(fields), Err(message.to_owned()));
        }
    }

    #[test]
    fn lua_is_refused_with_the_same_message_in_cel() {
        let error = parse(json!({"message_by_lua_functions": ["return function(m) end"]}));
        let error = error.unwrap_err();
        assert!(error.starts_with("message_by_lua_functions: there is no Lua here"), "{error}");
        let shown = error.split('`').nth(3).unwrap();
        let settings = parse(json!({ "message_expression": shown })).unwrap();
        let default = parse(json!({"message_by_lua_functions": []})).unwrap();
        for (kind, body) in
            [("text/plain", &b"hello"[..]), ("application/json", b"[1]"), ("", b"\0")]
        {
            let mut request = crate::request::Request { body: body.into(), ..Default::default() };
            request.headers.push((b"content-type".to_vec(), kind.into()));
            let captured = |settings| crate::capture::capture(settings, &request, 7).unwrap();
            assert_eq!(captured(&settings), captured(&default), "{kind}");
        }
    }
}
