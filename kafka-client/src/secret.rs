//! Passwords and keys: never shown, and wiped when they are dropped.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::files;
use crate::limits::SECRET_BYTES;

/// A text that goes where it is needed and nowhere else: no `Display`, and a `Debug` that hides it. It
/// cannot be serialized, unlike the type of the same name in the filter's configuration, which is what
/// carries a credential from the filter to the bridge; here it has arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for whoever must use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A text of a peer who was told this secret, without it.
    #[must_use]
    pub fn hidden_in(&self, text: &str) -> String {
        match self.expose() {
            "" => text.to_owned(),
            secret => text.replace(secret, "(secret)"),
        }
    }
}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A secret of the configuration: written there, or in a file that it names (a property with the
/// ending `.file`), which is read whenever the secret is needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// Written there.
    Given(Secret),
    /// In this file.
    File(PathBuf),
}

impl SecretSource {
    /// The secret as it is now; of a file without the newline at its end. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read, is too large, or is not UTF-8.
    pub fn read(&self) -> io::Result<Secret> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let bytes = Zeroizing::new(files::read(path, SECRET_BYTES)?);
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))?;
                let text = text.strip_suffix('\n').unwrap_or(text);
                Ok(Secret::new(text.strip_suffix('\r').unwrap_or(text)))
            }
        }
    }

    pub(crate) fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Given(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let source = SecretSource::Given(Secret::new("hunter2"));
        assert_eq!(format!("{source:?}"), "Given((secret))");
        let secret = source.read().unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(secret.hidden_in("no hunter2, hunter"), "no (secret), hunter");
        assert_eq!(Secret::new("").hidden_in("no"), "no");
    }

    #[test]
    fn a_secret_file_loses_its_last_newline_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = SecretSource::File(file.path().to_owned());
        for (written, read) in [("a b \n", "a b "), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")] {
            std::fs::write(file.path(), written).unwrap();
            assert_eq!(source.read().unwrap().expose(), read);
        }
        std::fs::write(file.path(), vec![b'x'; SECRET_BYTES + 1]).unwrap();
        assert!(source.read().is_err());
        std::fs::write(file.path(), [0xff]).unwrap();
        assert!(source.read().is_err());
    }
}
