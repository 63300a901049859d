//! What is read from files and read again when they change; a broken new file keeps the old value.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// A value that follows its files.
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    checked: Instant,
    /// What the log says of the files that cannot be used now.
    failure: Option<String>,
}

/// What differs when a file was written or replaced: inode, change in s and ns, length.
type Stamp = Option<(u64, i64, i64, u64)>;

impl<T> Watched<T> {
    /// Loads the value.
    ///
    /// # Errors
    /// What `load` says.
    pub(crate) fn new(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamps = paths.iter().map(|path| stamp(path)).collect();
        let value = Arc::new(load()?);
        let current = Mutex::new(Current { value, stamps, checked: Instant::now(), failure: None });
        Ok(Self { paths, load: Box::new(load), current })
    }

    /// The value, after a look at the files when the last one was a while ago.
    pub(crate) fn get(&self) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() < CHECK_EVERY {
            return Arc::clone(&current.value);
        }
        current.checked = Instant::now();
        let stamps: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        if stamps != current.stamps {
            let files = self.paths.iter().map(|path| path.display().to_string());
            let files = files.collect::<Vec<_>>().join(",");
            match (self.load)() {
                Ok(value) => {
                    current.value = Arc::new(value);
                    (current.stamps, current.failure) = (stamps, None);
                    info!(files, "reloaded");
                }
                // Tried again at the next look: the process may only have been out of descriptors.
                Err(error) if current.failure.as_ref() != Some(&error) => {
                    warn!(files, error, effect = "old_files_stay", "reload_failed");
                    current.failure = Some(error);
                }
                Err(_) => {}
            }
        }
        Arc::clone(&current.value)
    }
}

/// Reads a file of at most `FILE_BYTES`.
///
/// # Errors
/// The path and what the system says.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let named = |error: io::Error| format!("{}: {error}", path.display());
    // Asked before it is opened: opening a pipe waits for a writer.
    if !fs::metadata(path).map_err(named)?.is_file() {
        return Err(format!("{}: it is not a file", path.display()));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(named)?;
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(named)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(format!("{}: it has more than {FILE_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.ctime(), found.ctime_nsec(), found.len()))
}

/// How old a look at the files may be.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Largest file: a bundle of every public authority has a quarter of it.
const FILE_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again_and_a_broken_one_keeps_the_old_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let file = path.clone();
        let load = move || {
            let text = String::from_utf8(read(&file)?).map_err(|error| error.to_string())?;
            text.parse::<u32>().map_err(|error| error.to_string())
        };
        let watched = Watched::new(vec![path.clone()], load).unwrap();
        for (text, expected) in [("2", 2), ("broken", 2), ("34", 34)] {
            fs::write(&path, text).unwrap();
            tokio::time::advance(CHECK_EVERY).await;
            assert_eq!(*watched.get(), expected, "{text}");
        }
        fs::write(&path, "5").unwrap();
        assert_eq!(*watched.get(), 34, "not yet");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        for path in ["/dev/zero", "/tmp"] {
            assert_eq!(read(Path::new(path)), Err(format!("{path}: it is not a file")));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES + 1).unwrap();
        assert!(read(file.path()).unwrap_err().ends_with("it has more than 1048576 bytes"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_could_not_be_read_is_read_at_the_next_look() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        fs::write(&path, "old").unwrap();
        let failures = Arc::new(Mutex::new(VecDeque::from([false, true, true])));
        let file = path.clone();
        let load = move || match failures.lock().unwrap().pop_front() {
            Some(true) => Err("too many open files".to_owned()),
            _ => read(&file),
        };
        let watched = Watched::new(vec![path.clone()], load).unwrap();
        fs::write(&path, "new").unwrap();
        for expected in ["old", "old", "new"] {
            tokio::time::advance(CHECK_EVERY).await;
            assert_eq!(*watched.get(), expected.as_bytes());
        }
    }
}
