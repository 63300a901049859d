//! What is read from files and read again when they change; a broken new file keeps the old value.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kafka_client::files::{self, Stamp};
use tracing::{info, warn};

use crate::limits::{FILE_BYTES, FILES_LOOK};

/// A value that follows its files.
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    /// Never locked while a file is read.
    current: Mutex<Arc<T>>,
    seen: Mutex<Seen>,
}

/// What the last look at the files found.
struct Seen {
    stamps: Vec<Stamp>,
    /// What the log says of the files that cannot be used now.
    failure: Option<String>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Loads the value. Blocks.
    ///
    /// # Errors
    /// What `load` says.
    pub(crate) fn new(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        let stamps = paths.iter().map(|path| files::stamp(path)).collect();
        let current = Mutex::new(Arc::new(load()?));
        let seen = Mutex::new(Seen { stamps, failure: None });
        Ok(Arc::new(Self { paths, load: Box::new(load), current, seen }))
    }

    /// The value as it was last read.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&lock(&self.current))
    }

    /// Looks at the files from time to time; a disk that does not answer holds up nothing else.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(FILES_LOOK).await;
            let own = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || own.look()).await;
            if let Err(Ok(panic)) = looked.map_err(tokio::task::JoinError::try_into_panic) {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// Loads the value again if a file has changed. Blocks.
    fn look(&self) {
        let mut seen = lock(&self.seen);
        let stamps: Vec<_> = self.paths.iter().map(|path| files::stamp(path)).collect();
        if stamps == seen.stamps {
            return;
        }
        let files = self.paths.iter().map(|path| path.display().to_string());
        let files = files.collect::<Vec<_>>().join(",");
        match (self.load)() {
            Ok(value) => {
                *lock(&self.current) = Arc::new(value);
                (seen.stamps, seen.failure) = (stamps, None);
                info!(files, "reloaded");
            }
            // Tried again at the next look: the process may only have been out of descriptors.
            Err(error) if seen.failure.as_ref() != Some(&error) => {
                warn!(files, error, effect = "old_files_stay", "reload_failed");
                seen.failure = Some(error);
            }
            Err(_) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a file of at most `FILE_BYTES`. Blocks.
///
/// # Errors
/// The path and what the system says.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    files::read(path, FILE_BYTES).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fs;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_keeps_the_old_value() {
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
            watched.look();
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
        file.as_file().set_len(FILE_BYTES as u64 + 1).unwrap();
        assert!(read(file.path()).unwrap_err().ends_with("it has more than 1048576 bytes"));
    }

    #[test]
    fn a_change_that_could_not_be_read_is_read_at_the_next_look() {
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
            watched.look();
            assert_eq!(*watched.get(), expected.as_bytes());
        }
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_up_nobody_who_uses_the_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        fs::write(&path, "old").unwrap();
        let (reading, is_read) = channel();
        let (answer, answered) = channel();
        let answered = Mutex::new(answered);
        answer.send("old").unwrap();
        let load = move || {
            reading.send(()).unwrap();
            Ok(answered.lock().unwrap().recv().unwrap())
        };
        let watched = Watched::new(vec![path.clone()], load).unwrap();
        is_read.recv().unwrap();
        fs::write(&path, "another").unwrap();
        let own = Arc::clone(&watched);
        let looking = std::thread::spawn(move || own.look());
        is_read.recv().unwrap();
        assert_eq!(*watched.get(), "old");
        answer.send("another").unwrap();
        looking.join().unwrap();
        assert_eq!(*watched.get(), "another");
    }
}
