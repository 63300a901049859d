//! The commands that documents name, so that a test can try them.

use std::fs;

use anyhow::{Context, ensure};

use crate::paths;

/// Every command line of `program` in the documents, in code spans and in blocks; its words without
/// the program's own, a prompt and a comment.
///
/// # Errors
/// When a document cannot be read, or none names the program.
pub fn commands(program: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let found: Vec<_> = texts()?.iter().flat_map(|text| in_text(text, program)).collect();
    ensure!(!found.is_empty(), "no document names `{program}`");
    Ok(found)
}

/// Every command line in the documents' blocks, in their order: the README's come first.
///
/// # Errors
/// When a document cannot be read.
pub fn block_commands() -> anyhow::Result<Vec<String>> {
    Ok(texts()?.iter().flat_map(|text| in_blocks(text)).collect())
}

fn texts() -> anyhow::Result<Vec<String>> {
    let mut paths = Vec::new();
    for folder in [".", "docs"] {
        let folder = paths::workspace().join(folder);
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            paths.push(entry?.path());
        }
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort_by_key(|path| (!path.ends_with("README.md"), path.clone()));
    paths.iter().map(|path| Ok(fs::read_to_string(path)?)).collect()
}

fn in_blocks(text: &str) -> Vec<String> {
    let (mut found, mut block) = (Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (None, Some("sh")) => found.push(line.trim_start()),
            (None, Some("console")) => found.extend(line.strip_prefix("$ ")),
            (None, _) => {}
        }
    }
    let command = |line: &str| line.split(" #").next().unwrap_or_default().trim_end().to_owned();
    let is_command = |line: &String| !line.is_empty() && !line.starts_with('#');
    found.into_iter().map(command).filter(is_command).collect()
}

fn in_text(text: &str, program: &str) -> Vec<Vec<String>> {
    let blocks = in_blocks(text);
    let outside = text.split("```").step_by(2);
    let spans = outside.flat_map(|text| text.split('`').skip(1).step_by(2));
    spans.chain(blocks.iter().map(String::as_str)).filter_map(|line| words(line, program)).collect()
}

/// None where it is another command.
fn words(command: &str, program: &str) -> Option<Vec<String>> {
    let rest = command.strip_prefix(program)?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    // What follows a pipe is another command.
    let rest = rest.split(" | ").next().unwrap_or_default();
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_spans_and_in_blocks() {
        let text = "Run `a b --c`, or `ab`.\n```sh\n  a d   # e\n```\n```console\n$ a f | b\na g\n```\n`a`";
        assert_eq!(in_text(text, "a"), [vec!["b", "--c"], vec![], vec!["d"], vec!["f"]]);
        assert_eq!(in_blocks(text), ["a d", "a f | b"]);
    }
}
