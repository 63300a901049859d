//! The value of `content-type`: which kind of body it names, and its parameters.

/// How a body is put into a Kong message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `multipart/form-data`.
    Multipart,
    /// A type that Kong passes on as text.
    Text,
    /// Anything else, or no type.
    Binary,
}

/// Classifies a media type; its case and its parameters do not matter (RFC 9110, 8.3.1).
#[must_use]
pub fn kind(content_type: Option<&str>) -> Kind {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is = |name: &&str| essence.eq_ignore_ascii_case(name);
    match () {
        () if is(&"application/json") => Kind::Json,
        () if is(&"application/x-www-form-urlencoded") => Kind::Form,
        () if is(&"multipart/form-data") => Kind::Multipart,
        () if TEXT.iter().any(is) => Kind::Text,
        () => Kind::Binary,
    }
}

/// A parameter of a header value such as `form-data; name="a;b"`; quoted strings are read with
/// their escapes (RFC 9110, 5.6.6). The first of a repeated name wins.
#[must_use]
pub fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let key = key.rsplit(';').next().unwrap_or_default().trim();
        let (text, left) = parameter_value(after.trim_start())?;
        if key.eq_ignore_ascii_case(name) {
            return Some(text);
        }
        rest = left;
    }
}

/// The value of a parameter and what follows it; none where a quoted string has no end.
fn parameter_value(value: &str) -> Option<(String, &str)> {
    let Some(quoted) = value.strip_prefix('"') else {
        let (token, rest) = value.split_once(';').unwrap_or((value, ""));
        return Some((token.trim_end().to_owned(), rest));
    };
    let mut text = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((text, chars.as_str())),
            // Browsers send `\` in file names as it is; only `\"` and `\\` are escapes there.
            '\\' => match chars.clone().next()? {
                escaped @ ('"' | '\\') => {
                    text.push(escaped);
                    chars.next();
                }
                _ => text.push('\\'),
            },
            other => text.push(other),
        }
    }
}

/// Kong's list of types that are text.
const TEXT: [&str; 5] =
    ["text/plain", "text/html", "application/xml", "text/xml", "application/soap+xml"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_parameters_do_not_change_the_kind() {
        assert_eq!(kind(Some("Application/JSON; charset=utf-8")), Kind::Json);
        assert_eq!(kind(Some("application/json-patch+json")), Kind::Binary);
        assert_eq!(kind(Some(" text/xml ")), Kind::Text);
        assert_eq!(kind(None), Kind::Binary);
    }

    #[test]
    fn parameters_are_tokens_or_quoted_strings() {
        let value = r#"form-data; name="a;b=\"c\""; filename=x.txt ; Size=3"#;
        assert_eq!(parameter(value, "name").as_deref(), Some("a;b=\"c\""));
        assert_eq!(parameter(value, "filename").as_deref(), Some("x.txt"));
        assert_eq!(parameter(value, "size").as_deref(), Some("3"));
        assert_eq!(parameter(value, "none"), None);
        assert_eq!(parameter("form-data; name=\"open", "name"), None);
        assert_eq!(parameter("form-data", "name"), None);
        assert_eq!(parameter(r#"x; f="C:\dir\""#, "f"), None);
        assert_eq!(parameter(r#"x; f="C:\dir""#, "f").as_deref(), Some("C:\\dir"));
    }
}
