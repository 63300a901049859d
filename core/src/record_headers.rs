//! Which of a request's headers become headers of the record, and under which names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::request::Request;

/// The rules; all names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordHeaders {
    /// Which headers are taken.
    pub selection: Selection,
    /// Names of record headers that differ from those of the request's.
    pub names: BTreeMap<String, String>,
    /// What becomes of repeated ones.
    pub repeated: Repeated,
}

/// Which headers are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Only(Vec<String>),
    /// All but these.
    AllBut(Vec<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// `repeated_headers_behavior`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Repeated {
    /// One record header each.
    #[default]
    RetainDuplicates,
    /// The first alone.
    TakeFirst,
    /// One record header with commas between the values.
    ConcatenateByComma,
}

/// The headers by which a trace goes on (W3C Trace Context), and the request's id.
pub const TRACE: [&str; 3] = ["traceparent", "tracestate", "x-request-id"];

/// A record header that is not yet part of a record.
pub type CapturedHeader<'a> = (&'a [u8], Cow<'a, [u8]>);

impl RecordHeaders {
    /// The record headers of a request, in order of arrival.
    #[must_use]
    pub fn of<'a>(&'a self, request: &'a Request) -> Vec<CapturedHeader<'a>> {
        if matches!(&self.selection, Selection::Only(names) if names.is_empty()) {
            return Vec::new();
        }
        let mut taken: Vec<CapturedHeader<'a>> = Vec::new();
        for (name, value) in request.headers.iter().filter(|(name, _)| self.takes(name)) {
            let name = self.renamed(name);
            let first = match self.repeated {
                Repeated::RetainDuplicates => None,
                _ => taken.iter_mut().find(|(known, _)| *known == name),
            };
            match (first, self.repeated) {
                (None, _) => taken.push((name, Cow::Borrowed(value))),
                (Some((_, all)), Repeated::ConcatenateByComma) => {
                    let all = all.to_mut();
                    all.push(b',');
                    all.extend_from_slice(value);
                }
                (Some(_), _) => {}
            }
        }
        taken
    }

    fn takes(&self, name: &[u8]) -> bool {
        let names = |names: &[String]| names.iter().any(|listed| listed.as_bytes() == name);
        match &self.selection {
            Selection::Only(listed) => names(listed),
            Selection::AllBut(listed) => !names(listed),
        }
    }

    fn renamed<'a>(&'a self, name: &'a [u8]) -> &'a [u8] {
        let mapped = std::str::from_utf8(name).ok().and_then(|name| self.names.get(name));
        mapped.map_or(name, |mapped| mapped.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn of(headers: &str) -> String {
        let config = format!(r#"{{"bridge":"b","topic":"t","headers":{headers}}}"#);
        let settings = Settings::parse(config.as_bytes()).unwrap();
        let pairs = [
            ("X-Tag", "1"),
            ("authorization", "secret"),
            ("x-tag", "2"),
            ("x-request-id", "id"),
            ("traceparent", "00-1"),
        ];
        let pairs = pairs.map(|(name, value)| (name.into(), value.into()));
        let request = Request::from_host(pairs.into());
        let taken = settings.record_headers.of(&request);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let shown = taken.iter().map(|(name, value)| format!("{}={}", text(name), text(value)));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn by_default_no_header_is_taken() {
        assert_eq!(of("{}"), "");
        assert_eq!(of(r#"{"exclude_headers":["a"],"name_mappings":{"x-tag":"b"}}"#), "");
    }

    #[test]
    fn one_list_says_what_is_taken_and_the_other_what_is_left_out() {
        assert_eq!(of(r#"{"include_headers":["X-TAG"]}"#), "x-tag=1 x-tag=2");
        let all = r#"{"forward_all_by_default":true,"exclude_headers":["Authorization"],
            "include_headers":["authorization"]}"#;
        assert_eq!(of(all), "x-tag=1 x-tag=2 x-request-id=id traceparent=00-1");
        let off = r#"{"forward_http_headers_as_record_headers":false,
            "forward_all_by_default":true,"trace_context":true}"#;
        assert_eq!(of(off), "");
    }

    #[test]
    fn repeated_headers_stay_or_are_joined_or_the_first_wins() {
        let repeated = |behavior: &str| {
            of(&format!(
                r#"{{"include_headers":["x-tag","x-request-id"],
                    "name_mappings":{{"X-Tag":"Tag"}},"repeated_headers_behavior":"{behavior}"}}"#
            ))
        };
        assert_eq!(repeated("retain_duplicates"), "Tag=1 Tag=2 x-request-id=id");
        assert_eq!(repeated("take_first"), "Tag=1 x-request-id=id");
        assert_eq!(repeated("concatenate_by_comma"), "Tag=1,2 x-request-id=id");
    }

    #[test]
    fn a_trace_goes_on_where_it_is_asked_to_unless_a_header_is_excluded() {
        assert_eq!(of(r#"{"trace_context":true}"#), "x-request-id=id traceparent=00-1");
        let one = r#"{"trace_context":true,"exclude_headers":["X-Request-Id"]}"#;
        assert_eq!(of(one), "traceparent=00-1");
    }
}
