//! Checks what the client may choose, which headers a record has, and how clients are answered.

use super::ConfigError;
use super::check::{fault, number, topic, visible};
use super::raw::Raw;
use super::sections::Headers;
use crate::limits;
use crate::record_headers::{RecordHeaders, Selection, TRACE};
use crate::reply::{Replies, Success};
use crate::targets::Targets;

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
            return Err(fault(&path, "is there twice: names are compared in lower case"));
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

pub(super) fn replies(raw: &Raw) -> Result<Replies, ConfigError> {
    let told = raw.error_handling.as_ref().and_then(|handling| handling.return_error_message);
    let replies = Replies { success: Success::default(), reveal: told.unwrap_or(false) };
    let Some(written) = &raw.success_response else { return Ok(replies) };
    let status = number("success_response.status", written.status, (200, 299), 200)?;
    let empty = matches!(status, 204 | 205);
    let body = match &written.body {
        Some(body) if empty && !body.is_empty() => {
            let reason = format!("must be empty with the status {status}");
            return Err(fault("success_response.body", &reason));
        }
        Some(body) if body.len() > limits::SUCCESS_BYTES_MAX => {
            let reason = format!("must have at most {} bytes", limits::SUCCESS_BYTES_MAX);
            return Err(fault("success_response.body", &reason));
        }
        Some(body) => body.clone(),
        None if empty => String::new(),
        None => replies.success.body,
    };
    let content_type = match &written.content_type {
        Some(kind) if kind.is_empty() || kind.chars().any(|c| !(' '..='~').contains(&c)) => {
            return Err(fault("success_response.content_type", "must be printable ASCII"));
        }
        Some(kind) => Some(kind.clone()),
        None => replies.success.content_type,
    };
    let content_type = content_type.filter(|_| !empty);
    Ok(Replies { success: Success { status, content_type, body }, ..replies })
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use crate::reply::Success;

    fn parse(fields: &str) -> Result<Settings, String> {
        let config = format!(r#"{{"bridge":"b","topic":"t",{fields}}}"#);
        Settings::parse(config.as_bytes()).map_err(|error| error.to_string())
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
                "headers.name_mappings.a: is there twice: names are compared in lower case",
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
            (
                r#""success_response":{"status":301}"#,
                "success_response.status: must be 200 to 299, is 301",
            ),
            (
                r#""success_response":{"status":204,"body":"x"}"#,
                "success_response.body: must be empty with the status 204",
            ),
            (
                r#""success_response":{"content_type":"a\nb"}"#,
                "success_response.content_type: must be printable ASCII",
            ),
        ] {
            assert_eq!(parse(fields).unwrap_err(), error);
        }
    }

    #[test]
    fn allowed_topics_that_nothing_can_choose_are_accepted_as_kong_does() {
        assert!(parse(r#""allowed_topics":["a"]"#).is_ok());
    }

    #[test]
    fn a_success_without_content_has_no_content_type() {
        let success = |fields: &str| parse(fields).unwrap().replies.success;
        let empty = Success { status: 204, content_type: None, body: String::new() };
        assert_eq!(success(r#""success_response":{"status":204}"#), empty);
        let body = success(r#""success_response":{"body":"ok","content_type":"text/plain"}"#);
        assert_eq!((body.status, body.content_type.as_deref()), (200, Some("text/plain")));
    }
}
