//! Whether the body that the host passes to the filter is the body that the client sent.

use crate::outcome::Code;
use crate::reply::Reply;

/// What a request's headers say of its body.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    /// `content-length`, where the request had one.
    pub content_length: Option<u64>,
}

impl Announced {
    /// Reads the `content-length` values of a request.
    ///
    /// # Errors
    /// 400 for a value that is not a decimal number, or for two different ones (RFC 9110, 8.6);
    /// 413 when it is above `max_body_bytes`.
    pub fn read<'a>(
        values: impl Iterator<Item = &'a [u8]>,
        max_body_bytes: u64,
    ) -> Result<Self, Reply> {
        let mut content_length = None;
        // A gateway may have joined repeated lines by commas.
        for value in values.flat_map(|line| line.split(|byte| *byte == b',')) {
            let length = decimal(value.trim_ascii()).ok_or_else(|| {
                Reply::refused(Code::BadContentLength, "content-length is not a decimal number")
            })?;
            if content_length.is_some_and(|first| first != length) {
                let error = "content-length is given twice with different values";
                return Err(Reply::refused(Code::BadContentLength, error));
            }
            content_length = Some(length);
        }
        match content_length {
            Some(length) if length > max_body_bytes => Err(too_large(max_body_bytes)),
            _ => Ok(Self { content_length }),
        }
    }

    /// Takes a complete body: the host says that it has `size` bytes, and `read` reads so many, in
    /// one piece. A partial read would overwrite the VM's memory on WasmX.
    ///
    /// # Errors
    /// 413 above `max_body_bytes`, without a read, and when the host returns nothing, as nginx does
    /// of a body in a temporary file; 503 for another length than it announced; 400 when that is
    /// not `content-length`.
    pub fn take(
        self,
        size: u64,
        max_body_bytes: u64,
        read: impl FnOnce(usize) -> Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Reply> {
        within(size, max_body_bytes)?;
        let body = match usize::try_from(size) {
            Ok(0) => Vec::new(),
            Ok(size) => read(size).unwrap_or_default(),
            Err(_) => return Err(too_large(max_body_bytes)),
        };
        match (body.len() as u64, self.content_length) {
            (0, _) if size > 0 => Err(Reply::refused(
                Code::BodyNotReadable,
                "the gateway does not pass this body to the filter: raise its body buffer",
            )),
            (got, _) if got != size => Err(Reply::refused(
                Code::HostBodyMismatch,
                &format!(
                    "the gateway announced a body of {size} bytes and passed {got} to the filter"
                ),
            )),
            (_, Some(length)) if length != size => {
                let error = format!("content-length is {length}, the body has {size} bytes");
                Err(Reply::refused(Code::ContentLengthMismatch, &error))
            }
            _ => Ok(body),
        }
    }
}

/// Checks the bytes of a body that have arrived.
///
/// # Errors
/// 413 above `max_body_bytes`.
pub fn within(size: u64, max_body_bytes: u64) -> Result<(), Reply> {
    if size > max_body_bytes { Err(too_large(max_body_bytes)) } else { Ok(()) }
}

/// The refusal of a larger body.
#[must_use]
pub fn too_large(max_body_bytes: u64) -> Reply {
    let error = format!("the body is larger than max_body_bytes, {max_body_bytes}");
    Reply::refused(Code::BodyTooLarge, &error)
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(values: &[&[u8]]) -> Result<Announced, u16> {
        Announced::read(values.iter().copied(), 100).map_err(|reply| reply.status)
    }

    #[test]
    fn a_content_length_must_be_one_number_within_the_limit() {
        assert_eq!(announced(&[]).unwrap().content_length, None);
        assert_eq!(announced(&[b"100", b"100"]).unwrap().content_length, Some(100));
        assert_eq!(announced(&[b"101"]).unwrap_err(), 413);
        for bad in [&b"-1"[..], b"+1", b"", b"1 2", b"1,", b"0x1", b"99999999999999999999"] {
            assert_eq!(announced(&[bad]).unwrap_err(), 400, "{bad:?}");
        }
        assert_eq!(announced(&[b"1", b"2"]).unwrap_err(), 400);
        assert_eq!(announced(&[b"1, 2"]).unwrap_err(), 400);
        assert_eq!(announced(&[b"1, 1", b"1"]).unwrap().content_length, Some(1));
    }

    /// What becomes of a body of which the host passes `handed` bytes to the filter.
    fn taken(announced: Option<u64>, size: u64, handed: Option<usize>) -> Result<usize, Code> {
        let announced = Announced { content_length: announced };
        let body = announced.take(size, 100, |_| handed.map(|length| vec![b'x'; length]));
        body.map(|body| body.len()).map_err(|reply| reply.code.unwrap())
    }

    #[test]
    fn only_the_announced_body_is_taken_whole() {
        for (announced, size, handed, expected) in [
            (None, 0, None, Ok(0)),
            (Some(0), 0, None, Ok(0)),
            (Some(3), 3, Some(3), Ok(3)),
            (None, 100, Some(100), Ok(100)),
            (None, 101, Some(101), Err(Code::BodyTooLarge)),
            (None, u64::MAX, None, Err(Code::BodyTooLarge)),
            (Some(3), 3, None, Err(Code::BodyNotReadable)),
            (Some(2), 3, Some(0), Err(Code::BodyNotReadable)),
            (Some(2), 3, Some(2), Err(Code::HostBodyMismatch)),
            (None, 3, Some(4), Err(Code::HostBodyMismatch)),
            (Some(4), 3, Some(3), Err(Code::ContentLengthMismatch)),
            (Some(3), 0, None, Err(Code::ContentLengthMismatch)),
        ] {
            assert_eq!(taken(announced, size, handed), expected, "{announced:?} {size} {handed:?}");
        }
    }

    #[test]
    fn a_body_that_is_too_large_or_empty_is_not_read() {
        let announced = Announced { content_length: None };
        assert!(announced.take(101, 100, |_| unreachable!()).is_err());
        assert_eq!(announced.take(0, 100, |_| unreachable!()), Ok(Vec::new()));
        assert!(within(100, 100).is_ok() && within(101, 100).is_err());
    }
}
