//! Files that the configuration names: read up to a limit, and recognised as changed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The whole file, if it has at most `limit` bytes.
///
/// # Errors
/// What the system says, or that it is no file, or a larger one.
pub fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    // Asked before it is opened: opening a pipe waits for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// What differs when a file was written, replaced or put behind another link: device, inode, the
/// time of its last change in s and ns, and its length. `None`: there is no such file.
pub type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// Equal while the file is the same. Blocks.
#[must_use]
pub fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec(), found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12345").unwrap();
        assert_eq!(read(file.path(), 5).unwrap(), b"12345");
        assert_eq!(read(file.path(), 4).unwrap_err().to_string(), "it has more than 4 bytes");
        assert!(read(Path::new("/dev/zero"), 4).is_err());
        assert!(read(file.path().parent().unwrap(), 4).is_err());
    }

    #[test]
    fn a_replaced_file_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(stamp(&path), None);
        fs::write(&path, "1").unwrap();
        let before = stamp(&path);
        assert_eq!(stamp(&path), before);
        fs::write(&new, "1").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_ne!(stamp(&path), before);
    }
}
