//! One property at a time: text to a value within its bounds.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

pub(super) const BOOTSTRAP: &str = "bootstrap.servers";
pub(super) const CLUSTER_ID: &str = "cluster.id.pin";
/// Kafka's durations are Java ints.
pub(super) const INT_MAX: u64 = 2_147_483_647;
pub(super) const DAY_MS: u64 = 86_400_000;
pub(super) const MIB: u64 = 1024 * 1024;

pub(super) const BOOLEANS: &[(&str, bool)] = &[("true", true), ("false", false)];

/// Why properties are not a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PropertyError {
    /// No such property.
    #[error("unknown property `{name}`{}", did_you_mean(nearest))]
    Unknown {
        /// As given.
        name: String,
        /// The known property that looks most like it, if one does.
        nearest: Option<&'static str>,
    },
    /// A required property is absent.
    #[error("the property `{0}` is required")]
    Missing(&'static str),
    /// Wrong type or out of bounds.
    #[error("`{name}` must be {expected}, not `{value}`")]
    Invalid {
        /// The property.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// A value that Kafka knows and this client does not.
    #[error("`{name}={value}` is not supported: {why}")]
    Unsupported {
        /// The property.
        name: &'static str,
        /// The value given.
        value: String,
        /// Why, and what is possible.
        why: &'static str,
    },
    /// Two properties of which only one may be set.
    #[error("`{name}` excludes `{other}`")]
    Excludes {
        /// The one.
        name: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A property that means nothing without another.
    #[error("`{name}` needs `{other}`")]
    Needs {
        /// The one that is set.
        name: &'static str,
        /// The one that is not.
        other: &'static str,
    },
    /// A property, or an option of `sasl.jaas.config`, that the mechanism does not know.
    #[error("`{option}` is not an option of {mechanism}")]
    Option {
        /// The property or option.
        option: String,
        /// The mechanism.
        mechanism: &'static str,
    },
    /// An option of `sasl.jaas.config` that Java reads, and for which there is a property here.
    #[error("the option `{option}` of `sasl.jaas.config` is not read: set `{name}`, a PEM file")]
    Elsewhere {
        /// The option.
        option: String,
        /// The property.
        name: &'static str,
    },
    /// Two properties that contradict each other.
    #[error("`{name}` must not exceed `{other}`")]
    Conflict {
        /// The larger one.
        name: &'static str,
        /// The one it must not exceed.
        other: &'static str,
    },
}

impl PropertyError {
    /// The property to look at, or the option of `sasl.jaas.config`.
    #[must_use]
    pub fn property(&self) -> &str {
        match self {
            Self::Unknown { name, .. }
            | Self::Option { option: name, .. }
            | Self::Elsewhere { option: name, .. } => name,
            Self::Missing(name)
            | Self::Invalid { name, .. }
            | Self::Unsupported { name, .. }
            | Self::Excludes { name, .. }
            | Self::Needs { name, .. }
            | Self::Conflict { name, .. } => name,
        }
    }
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// A property's name and its value as given.
#[derive(Clone, Copy)]
pub(super) struct Property<'a> {
    pub(super) name: &'static str,
    pub(super) value: &'a str,
}

impl Property<'_> {
    pub(super) fn number<T>(self, least: T, most: T) -> Result<T, PropertyError>
    where
        T: Copy + Display + FromStr + PartialOrd,
    {
        let number = self.value.parse().ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| self.invalid(format!("a whole number in {least}..={most}")))
    }

    pub(super) fn size(self, least: u64, most: u64) -> Result<usize, PropertyError> {
        Ok(usize::try_from(self.number(least, most)?).unwrap_or(usize::MAX))
    }

    pub(super) fn millis(self, least: u64, most: u64) -> Result<Duration, PropertyError> {
        self.number(least, most).map(Duration::from_millis)
    }

    pub(super) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Result<T, PropertyError> {
        choices.iter().find(|(name, _)| *name == self.value).map(|(_, value)| *value).ok_or_else(
            || {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                self.invalid(format!("one of {}", names.join(", ")))
            },
        )
    }

    /// What stands before an `@` is not shown: mostly a user and a password of an address.
    pub(super) fn invalid(self, expected: String) -> PropertyError {
        let value = match self.value.rsplit_once('@') {
            Some((_, rest)) => format!("(secret)@{rest}"),
            None => self.value.to_owned(),
        };
        PropertyError::Invalid { name: self.name, value, expected }
    }

    /// As `invalid`, for a value that must not be shown.
    pub(super) fn invalid_secret(self, expected: &str) -> PropertyError {
        let (value, expected) = ("(secret)".to_owned(), expected.to_owned());
        PropertyError::Invalid { name: self.name, value, expected }
    }

    pub(super) fn unsupported(self, why: &'static str) -> PropertyError {
        PropertyError::Unsupported { name: self.name, value: self.value.to_owned(), why }
    }
}

/// The known name that is close enough to `name` to be what was meant.
pub(super) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
