//! What people see: a request beside its record, and where to try one of their own.

use serde_json::Value;
use xtask::kafka::Kafka;
use xtask::reader::ReadRecord;
use xtask::samples::Sample;
use xtask::stack::{EXAMPLE_TOPIC, Stack};

use super::check::Exchange;

/// Columns of the request and of the record; with the bar between them they fill 100.
const LEFT: usize = 42;
const RIGHT: usize = 55;

/// The fields of a message, as a request has them.
const FIELDS: [&str; 7] =
    ["method", "uri", "uri_args", "headers", "body", "body_args", "body_base64"];

/// A request on the left, its reply and record on the right.
pub(super) fn side_by_side(exchange: &Exchange) -> String {
    let left = fold(&request_text(&exchange.sample), LEFT);
    let right = fold(&record_text(exchange), RIGHT);
    let rule = format!("── {} {}", exchange.sample.name, "─".repeat(100));
    let mut text: String = rule.chars().take(100).chain(['\n']).collect();
    for row in 0..left.len().max(right.len()) {
        let cell = |lines: &[String]| lines.get(row).cloned().unwrap_or_default();
        let line = format!("{:LEFT$} │ {}", cell(&left), cell(&right));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Where everything listens, and commands to try.
pub(super) fn addresses(stack: &Stack) -> anyhow::Result<String> {
    let port = stack.envoy.port("http")?;
    let bridge = stack.bridge.port();
    let bootstrap = stack.kafka.bootstrap();
    Ok(format!(
        "Envoy        http://127.0.0.1:{port}        admin http://127.0.0.1:{admin}\n\
         host-bridge  http://127.0.0.1:{bridge}        metrics, readyz; log {bridge_log}\n\
         Kafka {version}  {bootstrap}        topic {EXAMPLE_TOPIC}\n\n\
         Send a request:\n  \
         curl -i http://127.0.0.1:{port}/orders?from=me -H 'content-type: application/json' \
         -d '{{\"id\":1}}'\n\n\
         Read the topic:\n  {reader}\n\n\
         Ctrl-C stops everything.",
        admin = stack.envoy.admin_port(),
        bridge_log = stack.bridge.process().log().display(),
        version = stack.kafka.version(),
        reader = console_consumer(&stack.kafka)?,
    ))
}

fn console_consumer(kafka: &Kafka) -> anyhow::Result<String> {
    let libs = xtask::tools::kafka_libs(kafka.version())?;
    Ok(format!(
        "java -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp '{}/*' \
         org.apache.kafka.tools.consumer.ConsoleConsumer --from-beginning \
         --bootstrap-server {} --topic {EXAMPLE_TOPIC}",
        libs.display(),
        kafka.bootstrap()
    ))
}

fn request_text(sample: &Sample) -> String {
    let mut text = format!("{} {}\n", sample.method, sample.target);
    for (name, value) in &sample.headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    if let Some(body) = &sample.body {
        text.push('\n');
        text.push_str(&printable(body));
    }
    text
}

fn record_text(exchange: &Exchange) -> String {
    let answer = format!("answered {}", exchange.reply.status);
    match &exchange.record {
        Some(record) => format!("{answer}; {}", value_text(record)),
        None => format!("{answer} {}; no record", exchange.reply.text()),
    }
}

fn value_text(record: &ReadRecord) -> String {
    let place = format!("partition {}, offset {}", record.partition, record.offset);
    match record.json() {
        Ok(value) => format!("{place}\n{}", message_text(&value)),
        Err(_) => format!("{place}\n{}", printable(record.value.as_deref().unwrap_or_default())),
    }
}

/// A message with one line a field and one line a header.
fn message_text(message: &Value) -> String {
    let Some(fields) = message.as_object() else { return message.to_string() };
    let mut lines = Vec::new();
    for name in FIELDS {
        match fields.get(name) {
            Some(Value::Object(headers)) if name == "headers" => {
                let header =
                    |(name, value): (&String, &Value)| format!("\n    \"{name}\": {value}");
                let headers: Vec<String> = headers.iter().map(header).collect();
                lines.push(format!("  \"headers\": {{{}}}", headers.join(",")));
            }
            Some(value) => lines.push(format!("  \"{name}\": {value}")),
            None => {}
        }
    }
    format!("{{\n{}\n}}", lines.join(",\n"))
}

/// Bytes as text: lines stay lines, anything that is no text becomes `\xNN`.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' => text.push(letter),
                '\r' => {}
                '\t' => text.push_str("  "),
                letter if letter.is_control() => {
                    text.push_str(&letter.escape_default().to_string())
                }
                letter => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Lines of at most `width` characters.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let letters: Vec<char> = line.chars().collect();
        if letters.is_empty() {
            lines.push(String::new());
        }
        lines.extend(letters.chunks(width).map(|chunk| chunk.iter().collect::<String>()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_folded_and_empty_ones_kept() {
        assert_eq!(fold("abcde\n\nf", 2), ["ab", "cd", "e", "", "f"]);
    }

    #[test]
    fn a_message_has_a_line_for_each_field_and_header() {
        let message = serde_json::json!({"headers": {"a": "1"}, "method": "GET", "uri_args": {}});
        assert_eq!(
            message_text(&message),
            "{\n  \"method\": \"GET\",\n  \"uri_args\": {},\n  \"headers\": {\n    \"a\": \"1\"}\n}"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(printable(b"a\xff\x00\r\nb"), "a\\xff\\u{0}\nb");
    }
}
