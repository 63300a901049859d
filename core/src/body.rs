//! Whether the body that the host handed over is the body that the client sent.

use crate::outcome::{Code, Reply};

/// What the filter knows of a request's body once its end is there.
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
        for value in values {
            let length = decimal(value).ok_or_else(|| {
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

    /// Checks the size that the host tells against the announcement, before anything is read.
    ///
    /// # Errors
    /// 413 above `max_body_bytes`; 400 when the body ended at another length than announced.
    pub fn check(self, size: u64, ended: bool, max_body_bytes: u64) -> Result<(), Reply> {
        if size > max_body_bytes {
            return Err(too_large(max_body_bytes));
        }
        match self.content_length {
            Some(length) if ended && length != size => {
                let error = format!("content-length is {length}, the body has {size} bytes");
                Err(Reply::refused(Code::ContentLengthMismatch, &error))
            }
            _ => Ok(()),
        }
    }
}

/// Checks the bytes that a read of `size` bytes gave.
///
/// # Errors
/// 413 when the host has a body but does not hand it over; 503 when it handed over another length.
pub fn check_read(got: Option<&[u8]>, size: u64) -> Result<(), Reply> {
    match got.map_or(0, <[u8]>::len) as u64 {
        length if length == size => Ok(()),
        0 => Err(Reply::refused(
            Code::BodyNotReadable,
            "the host has a body that it does not hand over: raise its body buffer",
        )),
        length => Err(Reply::refused(
            Code::HostBodyMismatch,
            &format!("the host told of {size} bytes of body and handed over {length}"),
        )),
    }
}

fn too_large(max_body_bytes: u64) -> Reply {
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
        for bad in [&b"-1"[..], b"+1", b"", b"1 ", b"0x1", b"99999999999999999999"] {
            assert_eq!(announced(&[bad]).unwrap_err(), 400, "{bad:?}");
        }
        assert_eq!(announced(&[b"1", b"2"]).unwrap_err(), 400);
    }

    #[test]
    fn the_size_must_be_the_announced_one_when_the_body_ends() {
        let announced = Announced { content_length: Some(3) };
        assert!(announced.check(2, false, 100).is_ok());
        assert!(announced.check(3, true, 100).is_ok());
        assert_eq!(announced.check(0, true, 100).unwrap_err().status, 400);
        assert_eq!(announced.check(101, false, 100).unwrap_err().status, 413);
    }

    #[test]
    fn what_is_read_must_be_what_the_host_told() {
        assert!(check_read(Some(b"abc"), 3).is_ok());
        assert_eq!(check_read(None, 3).unwrap_err().status, 413);
        assert_eq!(check_read(Some(b""), 3).unwrap_err().status, 413);
        assert_eq!(check_read(Some(b"ab"), 3).unwrap_err().status, 503);
    }
}
