//! Checks what a request becomes: its message, and the topic, key and headers of its record.

use super::field::{ConfigError, fault, topic, visible};
use super::raw::{Headers, Raw};
use crate::expression::{Expression, Expressions};
use crate::format::MessageFormat;
use crate::format::kong::Forward;
use crate::record_headers::{RecordHeaders, Selection, TRACE};
use crate::targets::Targets;

pub(super) fn forward(raw: &Raw) -> Result<Forward, ConfigError> {
    let forward = Forward {
        method: raw.forward_method.unwrap_or(false),
        uri: raw.forward_uri.unwrap_or(false),
        headers: raw.forward_headers.unwrap_or(false),
        body: raw.forward_body.unwrap_or(true),
    };
    if forward.method || forward.uri || forward.headers || forward.body {
        Ok(forward)
    } else {
        Err(fault("forward_body", "at least one forward_* must be true"))
    }
}

pub(super) fn format(raw: &Raw) -> Result<MessageFormat, ConfigError> {
    if raw.message_by_lua_functions.as_ref().is_some_and(|functions| !functions.is_empty()) {
        return Err(fault("message_by_lua_functions", LUA));
    }
    match (raw.message_format, &raw.message_expression) {
        (None | Some(MessageFormat::Expression), Some(_)) => Ok(MessageFormat::Expression),
        (Some(_), Some(_)) => Err(fault("message_expression", "needs message_format `expression`")),
        (Some(MessageFormat::Expression), None) => {
            Err(fault("message_expression", "is required by message_format `expression`"))
        }
        (format, None) => Ok(format.unwrap_or(MessageFormat::Kong)),
    }
}

pub(super) fn expressions(raw: &Raw) -> Result<Expressions, ConfigError> {
    let compile = |field, source: &Option<String>| {
        let compiled = source.as_ref().map(|source| Expression::compile(field, source));
        compiled.transpose().map_err(|error| fault(field, &error.reason))
    };
    Ok(Expressions {
        message: compile("message_expression", &raw.message_expression)?,
        topic: compile("topic_expression", &raw.topic_expression)?,
        key: compile("key_expression", &raw.key_expression)?,
        partition: compile("partition_expression", &raw.partition_expression)?,
        headers: compile("record_headers_expression", &raw.record_headers_expression)?,
    })
}

pub(super) fn targets(raw: &Raw) -> Result<Targets, ConfigError> {
    let mut allowed = Vec::new();
    for (index, name) in raw.allowed_topics.iter().flatten().enumerate() {
        allowed.extend(topic(&format!("allowed_topics[{index}]"), Some(name.clone()))?);
    }
    Ok(Targets {
        topics_arg: argument("topics_query_arg", raw.topics_query_arg.as_ref())?,
        allowed,
        key_arg: argument("key_query_arg", raw.key_query_arg.as_ref())?,
    })
}

fn argument(path: &str, name: Option<&String>) -> Result<Option<String>, ConfigError> {
    match name {
        Some(name) if name.is_empty() => Err(fault(path, "must not be empty")),
        name => Ok(name.cloned()),
    }
}

pub(super) fn record_headers(raw: &Raw) -> Result<RecordHeaders, ConfigError> {
    let Some(headers) = &raw.headers else { return Ok(RecordHeaders::default()) };
    let include = names("headers.include_headers", headers.include_headers.as_deref())?;
    let exclude = names("headers.exclude_headers", headers.exclude_headers.as_deref())?;
    let mut mapped = std::collections::BTreeMap::new();
    for (name, to) in headers.name_mappings.iter().flatten() {
        let path = format!("headers.name_mappings.{name}");
        if to.is_empty() {
            return Err(fault(&path, "must not be empty"));
        }
        if mapped.insert(header_name(&path, name)?, to.clone()).is_some() {
            return Err(fault(&path, "is a duplicate: names are compared in lower case"));
        }
    }
    Ok(RecordHeaders {
        selection: selection(headers, include, exclude),
        names: mapped,
        repeated: headers.repeated_headers_behavior.unwrap_or_default(),
    })
}

fn selection(headers: &Headers, mut include: Vec<String>, exclude: Vec<String>) -> Selection {
    if !headers.forward_http_headers_as_record_headers.unwrap_or(true) {
        return Selection::Only(Vec::new());
    }
    if headers.forward_all_by_default.unwrap_or(false) {
        return Selection::AllBut(exclude);
    }
    if headers.trace_context.unwrap_or(false) {
        let trace = TRACE.iter().map(|name| (*name).to_owned());
        include.extend(trace.filter(|name| !exclude.contains(name)));
    }
    Selection::Only(include)
}

fn names(path: &str, listed: Option<&[String]>) -> Result<Vec<String>, ConfigError> {
    let listed = listed.unwrap_or_default().iter().enumerate();
    listed.map(|(index, name)| header_name(&format!("{path}[{index}]"), name)).collect()
}

fn header_name(path: &str, name: &str) -> Result<String, ConfigError> {
    if name.is_empty() {
        return Err(fault(path, "must not be empty"));
    }
    visible(path, name)?;
    Ok(name.to_ascii_lowercase())
}

/// Kong's message, as it is by default, is `message`; this is its body's part written out.
const LUA: &str = "Lua is not supported: message_expression makes the message, in CEL. \
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

    /// As `parse`, of members as they are written.
    fn written(members: &str) -> Result<Settings, String> {
        let config = format!(r#"{{"bridge":"b","topic":"t",{members}}}"#);
        Settings::parse(config.as_bytes()).map_err(|error| error.to_string())
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
                "message_expression: needs message_format `expression`",
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
        assert!(error.starts_with("message_by_lua_functions: Lua is not supported"), "{error}");
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

    #[test]
    fn each_fault_names_its_field() {
        for (fields, error) in [
            (
                r#""allowed_topics":["a","b c"]"#,
                "allowed_topics[1]: must be 1 to 249 characters of a-z A-Z 0-9 . _ -",
            ),
            (r#""topics_query_arg":"""#, "topics_query_arg: must not be empty"),
            (r#""key_query_arg":7"#, "key_query_arg: expected a string, not a number"),
            (
                r#""headers":{"include_headers":["a b"]}"#,
                "headers.include_headers[0]: must be visible ASCII",
            ),
            (
                r#""headers":{"name_mappings":{"a":""}}"#,
                "headers.name_mappings.a: must not be empty",
            ),
            (
                r#""headers":{"name_mappings":{"A":"b","a":"c"}}"#,
                "headers.name_mappings.a: is a duplicate: names are compared in lower case",
            ),
            (
                r#""headers":{"exclude_header":[]}"#,
                "headers.exclude_header: unknown field, did you mean `exclude_headers`?",
            ),
            (
                r#""headers":{"repeated_headers_behavior":"last"}"#,
                "headers.repeated_headers_behavior: expected one of `retain_duplicates`, \
                 `take_first`, `concatenate_by_comma`, not `last`",
            ),
        ] {
            assert_eq!(written(fields).unwrap_err(), error);
        }
    }

    #[test]
    fn allowed_topics_that_nothing_can_choose_are_accepted_as_kong_does() {
        assert!(written(r#""allowed_topics":["a"]"#).is_ok());
    }
}
