//! What is wrong with a configuration.

use std::path::PathBuf;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a configuration; the text names line and column.
    #[error("{path}: {text}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        text: String,
    },
    /// A variable of the environment means nothing.
    #[error("{0}: no such setting")]
    Variable(String),
    /// A setting has no meaning.
    #[error("{field}: {reason}")]
    Field {
        /// Path of the setting.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

/// A setting without a meaning.
pub(crate) fn field(field: &str, reason: &str) -> ConfigError {
    ConfigError::Field { field: field.to_owned(), reason: reason.to_owned() }
}
