//! Variables and files of the process that AWS's tools read.

use std::fmt;
use std::path::PathBuf;

use kafka_client::SecretSource;

/// The process's environment; an empty variable is none.
pub(super) struct Variables(Box<Lookup>);

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Variables {
    pub(super) fn of_process() -> Self {
        Self::of(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    pub(super) fn of(lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Box::new(lookup))
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Variables")
    }
}

pub(super) async fn read_file(path: String) -> Result<String, String> {
    let missing = format!("{path}: there is no such file");
    read_if_there(path).await?.ok_or(missing)
}

/// `None` if there is no such file.
pub(super) async fn read_if_there(path: String) -> Result<Option<String>, String> {
    let source = SecretSource::File(PathBuf::from(&path));
    let read = tokio::task::spawn_blocking(move || source.read()).await;
    match read.map_err(|error| error.to_string())? {
        Ok(secret) => Ok(Some(secret.expose().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{path}: {error}")),
    }
}
