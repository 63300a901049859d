//! Reads a document, and tells its first fault by its path, without showing a secret.

use serde::Deserialize;

use super::ConfigError;

/// Reads the document; the first fault is told with its path.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ConfigError> {
    let mut document = serde_json::Deserializer::from_slice(json);
    let parsed = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        // A document that ends too early has no path.
        let path = error.path().to_string().replace('?', ".");
        fault(&path, &error.into_inner().to_string())
    })?;
    document.end().map_err(|error| fault(".", &error.to_string()))?;
    Ok(parsed)
}

/// serde lists the known names in its message: the nearest of them is what was meant.
fn fault(path: &str, message: &str) -> ConfigError {
    let message = message.split(" at line ").next().unwrap_or(message);
    let mut names = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return ConfigError { path: path.to_owned(), reason: without_secret(path, message) };
    }
    let unknown = names.next().unwrap_or_default();
    let nearest = names
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3));
    let reason = match nearest {
        Some((_, known)) => format!("unknown field, did you mean `{known}`?"),
        None => "unknown field".to_owned(),
    };
    let parent = path.strip_suffix(unknown).unwrap_or(path).trim_end_matches('.');
    let path = if parent.is_empty() { unknown.to_owned() } else { format!("{parent}.{unknown}") };
    ConfigError { path, reason }
}

/// serde shows the value that it did not expect, which may be a password in the wrong place.
fn without_secret(path: &str, message: &str) -> String {
    let hidden = SECRET.iter().any(|section| path.contains(section));
    match message.split_once(", expected") {
        Some((_, expected)) if hidden && message.starts_with("invalid") => {
            format!("invalid type, expected{expected}")
        }
        _ => message.to_owned(),
    }
}

/// Where secrets are.
const SECRET: [&str; 3] = ["authentication", "bridge_token", "schema_registry"];
