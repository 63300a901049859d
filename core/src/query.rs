//! Single arguments of a query string, decoded, for settings that name one.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The values of an argument in order of arrival; one without `=` has no value.
pub fn values<'a>(query: &'a [u8], name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    query.split(|byte| *byte == b'&').filter_map(move |piece| {
        let equals = piece.iter().position(|byte| *byte == b'=')?;
        let (key, value) = piece.split_at_checked(equals)?;
        (decoded(key) == name.as_bytes()).then(|| decoded(value.get(1..).unwrap_or_default()))
    })
}

/// A name or value of `application/x-www-form-urlencoded` (WHATWG URL, 5.1): `+` is a space, `%`
/// begins a byte.
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_found_by_its_decoded_name() {
        let all = |query: &'static str, name| -> Vec<_> {
            values(query.as_bytes(), name).map(|value| value.into_owned()).collect()
        };
        assert_eq!(all("a=1&b=2&a=3", "a"), [b"1".to_vec(), b"3".to_vec()]);
        assert_eq!(all("a+b=%C3%BC%26+x", "a b"), ["ü& x".as_bytes()]);
        assert_eq!(all("k=%ff%00=", "k"), [b"\xff\x00=".to_vec()]);
        assert_eq!(all("k", "k"), Vec::<Vec<u8>>::new());
        assert_eq!(all("", "k"), Vec::<Vec<u8>>::new());
        assert_eq!(all("k=", "k"), [b"".to_vec()]);
    }
}
