//! What a registry answers.

use axum::http::StatusCode;
use kafka_upstream_schema::SchemaType;
use serde::Deserialize;

use super::schema::Failure;

/// A schema: what the routes by subject, id and GUID have in common, and what some of them add.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    pub(super) id: Option<u32>,
    pub(super) version: Option<u32>,
    guid: Option<String>,
    #[serde(default)]
    references: Option<Vec<ReferenceAnswer>>,
}

/// By which name a schema refers to which.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ReferenceAnswer {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: u32,
}

#[derive(Default, Deserialize)]
struct Refusal {
    error_code: Option<u32>,
    message: Option<String>,
}

impl Answer {
    /// Reads an answer; `of` says what was asked for.
    pub(super) fn read(status: StatusCode, body: &[u8], of: &str) -> Result<Self, Failure> {
        if status == StatusCode::OK {
            let answer = serde_json::from_slice(body);
            return answer
                .map_err(|_| unavailable("its answer is no schema: is its url right?".to_owned()));
        }
        Err(refusal(status, body, of))
    }

    pub(super) fn schema_type(&self) -> Result<SchemaType, Failure> {
        match self.schema_type.as_deref() {
            None | Some("AVRO") => Ok(SchemaType::Avro),
            Some("JSON") => Ok(SchemaType::Json),
            Some("PROTOBUF") => Ok(SchemaType::Protobuf),
            Some(_) => Err(Failure::Unusable("it is neither AVRO, JSON nor PROTOBUF".into())),
        }
    }

    pub(super) fn guid(&self) -> Option<[u8; 16]> {
        guid(self.guid.as_deref()?)
    }

    pub(super) fn references(&mut self) -> Vec<ReferenceAnswer> {
        self.references.take().unwrap_or_default()
    }
}

/// What an answer that is no success means.
pub(super) fn refusal(status: StatusCode, body: &[u8], of: &str) -> Failure {
    let error: Refusal = serde_json::from_slice(body).unwrap_or_default();
    match (status.as_u16(), error.error_code) {
        // Of a subject, a version, a schema; a version that cannot be.
        (404, Some(40401..=40403)) | (422, _) => {
            let message = crate::credentials::quotable(&error.message.unwrap_or_default());
            Failure::Unknown(format!("{of}: {message}").into())
        }
        (404, _) => {
            Failure::Refused("the schema registry has no such route: is its url right?".into())
        }
        (401 | 403, _) => Failure::Refused(
            format!("the schema registry answered {status}: see authentication").into(),
        ),
        (300..=399, _) => {
            let why = format!("the schema registry answered {status}, and no redirect is followed");
            Failure::Refused(why.into())
        }
        _ => unavailable(format!("it answered {status}")),
    }
}

pub(super) fn unavailable(why: String) -> Failure {
    Failure::Unavailable(why.into())
}

/// A UUID in its usual form, with or without hyphens.
pub(super) fn guid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let is_hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| is_hex)?;
    Some(number.to_be_bytes())
}

/// A GUID in its usual form.
pub(super) fn guid_text(guid: &[u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(*guid));
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_read_and_written_in_its_usual_form() {
        let text = "0123abcd-4567-89ab-cdef-00112233ffee";
        let read = guid(text).unwrap();
        assert_eq!((read[0], read[15], guid_text(&read)), (0x01, 0xee, text.to_owned()));
        for wrong in ["", "0123", "+123abcd-4567-89ab-cdef-00112233ffee", &"ü".repeat(16)] {
            assert_eq!(guid(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_lasts_is_told_from_what_may_pass() {
        let read = |status: u16, body: &str| {
            Answer::read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "orders")
                .unwrap_err()
        };
        let missing = r#"{"error_code":40401,"message":"Subject 'orders' not found."}"#;
        assert!(matches!(read(404, missing), Failure::Unknown(_)));
        for status in [301, 401, 403, 404] {
            assert!(matches!(read(status, "<html>"), Failure::Refused(_)), "{status}");
        }
        for (status, body) in [(200, "<html>"), (200, "{}"), (429, ""), (500, ""), (503, missing)] {
            assert!(matches!(read(status, body), Failure::Unavailable(_)), "{status} {body}");
        }
    }
}
