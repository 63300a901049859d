//! Checks of one field: the error that names it, and what a number, a name or a header may be.

use crate::limits;

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConfigError {
    /// Path of the field, `.` for the document.
    pub path: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

pub(super) fn fault(path: &str, reason: &str) -> ConfigError {
    ConfigError { path: path.to_owned(), reason: reason.to_owned() }
}

pub(super) fn required(path: &str) -> ConfigError {
    fault(path, "is required")
}

pub(super) fn number<T>(
    path: &str,
    value: Option<i64>,
    range: (T, T),
    default: T,
) -> Result<T, ConfigError>
where
    T: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
{
    let Some(value) = value else { return Ok(default) };
    let (low, high) = range;
    T::try_from(value)
        .ok()
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| fault(path, &format!("must be {low} to {high}, is {value}")))
}

/// A topic's name.
pub(super) fn topic(path: &str, value: Option<String>) -> Result<Option<String>, ConfigError> {
    match value.as_deref() {
        Some("." | "..") => Err(fault(path, "must be neither . nor ..")),
        _ => name(path, value, limits::TOPIC_BYTES_MAX),
    }
}

/// A topic's or cluster's name, in the characters that Kafka allows for topics.
pub(super) fn name(
    path: &str,
    value: Option<String>,
    most: usize,
) -> Result<Option<String>, ConfigError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match value {
        Some(name) if !(1..=most).contains(&name.len()) || !name.chars().all(allowed) => {
            let reason = format!("must be 1 to {most} characters of a-z A-Z 0-9 . _ -");
            Err(fault(path, &reason))
        }
        value => Ok(value),
    }
}

/// What goes into a header of a callout: a control character would fail the whole call.
pub(super) fn visible(path: &str, value: &str) -> Result<(), ConfigError> {
    match value.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(fault(path, "must be visible ASCII")),
    }
}
