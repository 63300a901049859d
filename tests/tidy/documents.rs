//! The documents: links and anchors lead somewhere, and what they name of the code is there.

use std::collections::BTreeMap;
use std::fs;

use kafka_upstream_core::config::Plugin;
use kafka_upstream_core::outcome::Code;

use super::{report, root, sources};

/// A Markdown file of the repository's root or of `docs`.
struct Document {
    folder: &'static str,
    name: String,
    text: String,
}

fn documents() -> Vec<Document> {
    let mut found = Vec::new();
    for folder in [".", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                found.push(Document { folder, name, text: fs::read_to_string(path).unwrap() });
            }
        }
    }
    assert!(found.len() > 10, "only {} documents were found", found.len());
    found
}

impl Document {
    /// The lines outside code blocks, or those inside blocks of one language.
    fn lines(&self, language: Option<&str>) -> String {
        let (mut inside, mut text) = (None, String::new());
        for line in self.text.lines() {
            match (line.trim_start().strip_prefix("```"), inside) {
                (Some(begins), None) => inside = Some(begins),
                (Some(_), Some(_)) => {
                    inside = None;
                    // A block is a paragraph.
                    text.push('\n');
                }
                (None, _) if inside == language => text.extend([line, "\n"]),
                (None, _) => {}
            }
        }
        text
    }

    /// Targets of links, outside code.
    fn links(&self) -> Vec<String> {
        let prose: String = self.lines(None).split('`').step_by(2).collect();
        let targets = prose.split("](").skip(1);
        targets.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
    }

    /// Anchors of headings, as GitHub makes them.
    fn anchors(&self) -> Vec<String> {
        let (mut times, mut anchors) = (BTreeMap::new(), Vec::new());
        for line in self.lines(None).lines().filter(|line| line.starts_with('#')) {
            let anchor = anchor(line.trim_start_matches('#'));
            let before = times.entry(anchor.clone()).or_insert(0);
            anchors.push(if *before == 0 { anchor } else { format!("{anchor}-{before}") });
            *before += 1;
        }
        anchors
    }

    /// What is wrong with a link, if anything is.
    fn fault(&self, target: &str, documents: &[Self]) -> Option<String> {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let folder = root().join(self.folder);
        let file = if path.is_empty() { folder.join(&self.name) } else { folder.join(path) };
        let Ok(file) = file.canonicalize() else { return Some("no such file".to_owned()) };
        let is_it = |other: &&Self| {
            let other = root().join(other.folder).join(&other.name);
            other.canonicalize().is_ok_and(|other| other == file)
        };
        let document = documents.iter().find(is_it);
        let is_there = |other: &Self| other.anchors().iter().any(|known| known == anchor);
        let good = anchor.is_empty() || document.is_some_and(is_there);
        (!good).then(|| "no such heading".to_owned())
    }
}

fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let kept = heading.trim().chars().filter(kept).flat_map(char::to_lowercase);
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let documents = documents();
    let (mut faults, mut count) = (Vec::new(), 0);
    for document in &documents {
        for target in document.links().iter().filter(|target| !target.contains("://")) {
            count += 1;
            let fault = document.fault(target, &documents);
            faults.extend(fault.map(|fault| format!("{}: {target}: {fault}", document.name)));
        }
    }
    assert!(count > 100, "only {count} links were found");
    report(faults);
}

#[test]
fn anchors_are_those_of_github() {
    assert_eq!(anchor(" `[clusters.NAME]` of host-bridge"), "clustersname-of-host-bridge");
    assert_eq!(anchor(" 200, but nothing in Kafka"), "200-but-nothing-in-kafka");
    assert_eq!(anchor(" `not_connected stage=…`"), "not_connected-stage");
}

#[test]
fn the_readme_fits_a_few_screens() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(text.lines().count() <= 150, "README.md has {} lines", text.lines().count());
}

#[test]
fn the_filter_accepts_each_plugin_configuration_of_a_document() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for document in documents() {
        let blocks = document.lines(Some("json"));
        for block in blocks.split("\n\n").filter(|block| block.contains("\"bridge\":")) {
            count += 1;
            let fault = Plugin::parse(block.as_bytes()).err();
            faults.extend(fault.map(|fault| format!("{}: {fault} in {block}", document.name)));
        }
    }
    assert!(count > 2, "only {count} plugin configurations were found");
    report(faults);
}

#[test]
fn the_page_of_replies_lists_every_kafka_error_with_its_status() {
    let page = fs::read_to_string(root().join("docs/replies.md")).unwrap();
    let row = |code: &Code| format!("| `{}` | {} |", code.name(), code.status());
    let missing = Code::ALL.iter().map(row).filter(|row| !page.contains(row));
    report(missing.collect());
}

#[test]
fn every_log_event_that_a_document_names_is_in_the_source() {
    let sources = sources();
    let mut faults = Vec::new();
    for document in documents() {
        for rest in document.text.split("event=").skip(1) {
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
            let quoted = [format!("event={name} "), format!("\"{name}\"")];
            let is_there = sources.iter().any(|source| {
                !source.path.starts_with("tests/")
                    && quoted.iter().any(|quoted| source.text.contains(quoted))
            });
            if !name.is_empty() && !is_there {
                faults.push(format!("{}: event={name}", document.name));
            }
        }
    }
    report(faults);
}
