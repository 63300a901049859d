//! The field's words: terms of our own that a Kafka or Envoy engineer would have to guess.

use super::{report, root, sources};

/// Words that stood for something that has a name in the field, and that name.
const WORDS: [(&str, &str); 16] = [
    ("surely", "leave it out: written, not written, unknown"),
    ("perhaps", "may, or unknown"),
    ("promise holds", "accepted under the delivery mode"),
    ("in good order", "gracefully"),
    ("without a word", "silently"),
    ("in line", "that waits"),
    ("the way to each", "the connection to each"),
    ("the way to a broker", "the connection to a broker"),
    ("story", "test, or scenario"),
    ("stories", "tests, or scenarios"),
    ("impostor", "fake server"),
    ("planted", "mutation"),
    ("Told", "LogThrottle, or a name for what was told"),
    ("Alone", "PerRequestSender"),
    ("Desk", "KerberosWorker, or Fixture"),
    ("Walk", "Probe"),
];

#[test]
fn the_words_are_the_fields() {
    let mut found = Vec::new();
    let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
    let documents = documents
        .map(|name| (name.to_owned(), std::fs::read_to_string(root().join(name)).unwrap()));
    let sources = sources().into_iter().map(|source| (source.path, source.text));
    for (path, text) in sources.chain(documents) {
        if path == "tests/tidy/words.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for (word, instead) in WORDS {
                if has_word(line, word) {
                    found.push(format!("{path}:{}: `{word}`: {instead}", number + 1));
                }
            }
        }
    }
    report(found);
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}
