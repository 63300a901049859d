//! The commands that documents name, so that a test can try them.

use std::fs;

use anyhow::Context;

use crate::paths;

/// Every command line of `program` in the documents, in code spans and in blocks; its words without
/// the program's own, a prompt and a comment.
///
/// # Errors
/// When a document cannot be read, or none names the program.
pub fn commands(program: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let mut found = Vec::new();
    for folder in [".", "docs"] {
        let folder = paths::workspace().join(folder);
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path)?;
                found.extend(in_text(&text, program));
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "no document names `{program}`");
    Ok(found)
}

fn in_text(text: &str, program: &str) -> Vec<Vec<String>> {
    let (mut found, mut block) = (Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (None, Some("sh")) => found.extend(words(line.trim_start(), program)),
            (None, Some("console")) => {
                found.extend(line.strip_prefix("$ ").and_then(|line| words(line, program)));
            }
            (None, Some(_)) => {}
            (None, None) => {
                let spans = line.split('`').skip(1).step_by(2);
                found.extend(spans.filter_map(|span| words(span, program)));
            }
        }
    }
    found
}

/// None where it is another command.
fn words(command: &str, program: &str) -> Option<Vec<String>> {
    let rest = command.strip_prefix(program)?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let words = rest.split_whitespace().take_while(|word| !word.starts_with('#'));
    Some(words.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_spans_and_in_blocks() {
        let text =
            "Run `a b --c`, or `ab`.\n```sh\n  a d   # e\n```\n```console\n$ a f\na g\n```\n`a`";
        assert_eq!(in_text(text, "a"), [vec!["b", "--c"], vec!["d"], vec!["f"], vec![]]);
    }
}
