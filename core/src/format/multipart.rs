//! `multipart/form-data` (RFC 7578) taken apart in place, without copying a part.

use memchr::memmem::Finder;

use super::media::parameter;
use crate::limits::{BOUNDARY_BYTES_MAX, PART_HEADERS_MAX};
use crate::request::header_text;

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// The `name` of its `content-disposition`.
    pub name: String,
    /// The `filename` of its `content-disposition`.
    pub filename: Option<String>,
    /// Its `content-type`.
    pub content_type: Option<String>,
    /// The content, byte for byte.
    pub content: &'a [u8],
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
pub fn parse<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<Part<'a>>, MultipartError> {
    let boundary = parameter(content_type, "boundary")
        .filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()))
        .ok_or(MultipartError::NoBoundary)?;
    let at_start = format!("--{boundary}");
    let delimiter = format!("\r\n{at_start}");
    let (at_start, delimiter) = (at_start.as_bytes(), Finder::new(&delimiter));
    let mut rest = match body.strip_prefix(at_start) {
        Some(rest) => rest,
        None => split_once(body, &delimiter).ok_or(MultipartError::NoDelimiter(0))?.1,
    };
    let mut parts = Vec::new();
    loop {
        let at = body.len() - rest.len();
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let line_end = rest.get(padding..).and_then(|rest| rest.strip_prefix(b"\r\n"));
        let part = line_end.ok_or(MultipartError::NoDelimiter(at))?;
        let at = body.len() - part.len();
        let (part, after) = match part.strip_prefix(at_start) {
            Some(after) => (&b""[..], after),
            None => split_once(part, &delimiter).ok_or(MultipartError::NoEnd(at))?,
        };
        parts.push(parse_part(part, at)?);
        rest = after;
    }
}

fn parse_part(part: &[u8], at: usize) -> Result<Part<'_>, MultipartError> {
    let (head, content) = match part.strip_prefix(b"\r\n") {
        Some(content) => (&b""[..], content),
        None => split_once(part, &Finder::new("\r\n\r\n")).unwrap_or((part, b"")),
    };
    let (mut name, mut filename, mut content_type) = (None, None, None);
    let head = header_text(head);
    for (count, line) in head.split("\r\n").filter(|line| !line.is_empty()).enumerate() {
        let (field, value) = line.split_once(':').ok_or(MultipartError::BadHeader(at))?;
        if count == PART_HEADERS_MAX {
            return Err(MultipartError::BadHeader(at));
        }
        let value = value.trim();
        if field.eq_ignore_ascii_case("content-disposition")
            && value.to_ascii_lowercase().starts_with("form-data")
        {
            name = name.or(parameter(value, "name"));
            filename = filename.or(parameter(value, "filename"));
        } else if field.eq_ignore_ascii_case("content-type") {
            content_type = content_type.or(Some(value.to_owned()));
        }
    }
    let name = name.ok_or(MultipartError::NoName(at))?;
    Ok(Part { name, filename, content_type, content })
}

fn split_once<'a>(bytes: &'a [u8], separator: &Finder<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let (before, found) = bytes.split_at_checked(separator.find(bytes)?)?;
    Some((before, found.get(separator.needle().len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=\"x y\"";

    fn named(body: &str) -> Result<Vec<(String, &str)>, MultipartError> {
        let text = |content| std::str::from_utf8(content).unwrap();
        let parts = parse(TYPE, body.as_bytes())?.into_iter();
        Ok(parts.map(|part| (part.name, text(part.content))).collect())
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
    fn a_part_of_bytes_has_its_file_name_and_type() {
        let body = b"--x y\r\nContent-Type: image/png\r\n\
            Content-Disposition: form-data; filename=\"Z\xfcrich\"; name=f\r\n\r\n\x89\xff\r\n--x y--";
        let part = Part {
            name: "f".to_owned(),
            filename: Some("Zürich".to_owned()),
            content_type: Some("image/png".to_owned()),
            content: b"\x89\xff",
        };
        assert_eq!(parse(TYPE, body), Ok(vec![part]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_byte() {
        use MultipartError::*;
        let head = "content-disposition: form-data; name=a";
        assert_eq!(parse("multipart/form-data", b"--x--"), Err(NoBoundary));
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
        fn arbitrary_bytes_never_panic(
            pieces in prop::collection::vec(
                prop_oneof![
                    "(--x y|\r\n|-|:|name=|.)".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..4),
                ],
                0..40,
            ),
        ) {
            let _ = parse(TYPE, &pieces.concat());
        }
    }
}
