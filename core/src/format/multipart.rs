//! `multipart/form-data` (RFC 7578) taken apart in place, without copying a part.

use super::media::parameter;
use crate::limits::{BOUNDARY_BYTES_MAX, PART_HEADERS_MAX};

/// One part: its form name and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// The `name` of its `content-disposition`.
    pub name: String,
    /// The content, byte for byte.
    pub content: &'a str,
}

/// Why a body is not multipart/form-data; offsets are bytes of the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// `content-type` has no boundary, or one that RFC 2046 does not allow.
    #[error("content-type has no boundary of 1 to 70 bytes")]
    NoBoundary,
    /// The body does not start with the boundary, or a delimiter line has more on it.
    #[error("a delimiter line is expected at byte {0}")]
    NoDelimiter(usize),
    /// The last part has no delimiter behind it.
    #[error("the part at byte {0} has no end")]
    NoEnd(usize),
    /// A part's header section is not one.
    #[error("the part at byte {0} has a malformed header")]
    BadHeader(usize),
    /// A part has no name.
    #[error("the part at byte {0} has no content-disposition with a name")]
    NoName(usize),
}

/// Splits a body into its parts, in order. A preamble and an epilogue are ignored (RFC 2046).
///
/// # Errors
/// Names what is wrong and where; a body that ends without its closing delimiter is refused, as
/// it may have been cut.
pub fn parse<'a>(content_type: &str, body: &'a str) -> Result<Vec<Part<'a>>, MultipartError> {
    let boundary = parameter(content_type, "boundary")
        .filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()))
        .ok_or(MultipartError::NoBoundary)?;
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = match body.strip_prefix(delimiter.trim_start()) {
        Some(rest) => rest,
        None => body.split_once(&delimiter).ok_or(MultipartError::NoDelimiter(0))?.1,
    };
    let mut parts = Vec::new();
    loop {
        let at = body.len() - rest.len();
        if rest.starts_with("--") {
            return Ok(parts);
        }
        let line_end = rest.trim_start_matches([' ', '\t']).strip_prefix("\r\n");
        let part = line_end.ok_or(MultipartError::NoDelimiter(at))?;
        let at = body.len() - part.len();
        let (part, after) = match part.strip_prefix(delimiter.trim_start()) {
            Some(after) => ("", after),
            None => part.split_once(&delimiter).ok_or(MultipartError::NoEnd(at))?,
        };
        parts.push(parse_part(part, at)?);
        rest = after;
    }
}

fn parse_part(part: &str, at: usize) -> Result<Part<'_>, MultipartError> {
    let (head, content) = match part.strip_prefix("\r\n") {
        Some(content) => ("", content),
        None => part.split_once("\r\n\r\n").unwrap_or((part, "")),
    };
    let mut name = None;
    for (count, line) in head.split("\r\n").filter(|line| !line.is_empty()).enumerate() {
        let (field, value) = line.split_once(':').ok_or(MultipartError::BadHeader(at))?;
        if count == PART_HEADERS_MAX {
            return Err(MultipartError::BadHeader(at));
        }
        if field.eq_ignore_ascii_case("content-disposition")
            && value.trim_start().to_ascii_lowercase().starts_with("form-data")
        {
            name = name.or(parameter(value, "name"));
        }
    }
    Ok(Part { name: name.ok_or(MultipartError::NoName(at))?, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=\"x y\"";

    fn named(body: &str) -> Result<Vec<(String, &str)>, MultipartError> {
        parse(TYPE, body).map(|parts| parts.into_iter().map(|p| (p.name, p.content)).collect())
    }

    #[test]
    fn parts_are_read_as_browsers_send_them() {
        let body = "--x y\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n2\r\n--x y\r\n\
            content-type: text/plain\r\ncontent-disposition: form-data; name=f; filename=\"n;\"\r\n\
            \r\n\r\n--x y--\r\nepilogue";
        assert_eq!(named(body).unwrap(), [("a".into(), "1\r\n2"), ("f".into(), "")]);
        assert_eq!(named("preamble\r\n--x y--").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_byte() {
        use MultipartError::*;
        let head = "content-disposition: form-data; name=a";
        assert_eq!(parse("multipart/form-data", "--x--"), Err(NoBoundary));
        assert_eq!(named("nothing"), Err(NoDelimiter(0)));
        assert_eq!(named("--x yz\r\n"), Err(NoDelimiter(5)));
        assert_eq!(named(&format!("--x y\r\n{head}\r\n\r\n1\r\n--x")), Err(NoEnd(7)));
        assert_eq!(named("--x y\r\nno colon\r\n\r\n1\r\n--x y--"), Err(BadHeader(7)));
        assert_eq!(named("--x y\r\n\r\n1\r\n--x y--"), Err(NoName(7)));
        assert_eq!(named("--x y\r\n--x y--"), Err(NoName(7)));
    }

    proptest! {
        #[test]
        fn every_part_comes_back(
            parts in prop::collection::vec(("[a-z\"\\\\;=]{0,6}", "[a-z\r\n-]{0,12}"), 0..6)
        ) {
            let mut body = String::new();
            for (name, content) in &parts {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                let head = format!("Content-Disposition: form-data; name=\"{name}\"");
                body += &format!("--x y\r\n{head}\r\n\r\n{content}\r\n");
            }
            body += "--x y--";
            let read = named(&body).unwrap();
            prop_assert_eq!(read.len(), parts.len());
            for ((name, content), expected) in read.iter().zip(&parts) {
                prop_assert_eq!((name, *content), (&expected.0, expected.1.as_str()));
            }
        }

        #[test]
        fn a_cut_body_is_refused(end in 0_usize..60) {
            let body = "--x y\r\ncontent-disposition: form-data; name=a\r\n\r\n12\r\n--x y--";
            prop_assume!(end < body.len());
            prop_assert!(named(&body[..end]).is_err());
        }

        #[test]
        fn arbitrary_text_never_panics(body in "(--x y|\r\n|-|:|name=|.){0,40}") {
            let _ = named(&body);
        }
    }
}
