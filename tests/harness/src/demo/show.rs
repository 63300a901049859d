//! What people see: a request beside its record, and where to try one of their own.

use harness::kafka::Kafka;
use harness::record::ReadRecord;
use harness::samples::Sample;
use serde_json::Value;

use super::broker::Broker;
use super::check::Exchange;
use super::parts::{Parts, TOPIC};

/// Columns of a terminal.
const WIDTH: usize = 80;

/// Columns of the request and of the record; with the bar between them they fill a line.
const LEFT: usize = 34;
const RIGHT: usize = WIDTH - LEFT - 3;

/// The fields of a message, as a request has them.
const FIELDS: [&str; 7] =
    ["method", "uri", "uri_args", "headers", "body", "body_args", "body_base64"];

/// A request on the left, its reply and record on the right.
pub(super) fn side_by_side(exchange: &Exchange) -> String {
    let left = fold(&request_text(&exchange.sample), LEFT);
    let right = fold(&record_text(exchange), RIGHT);
    let rule = format!("── {} {}", exchange.sample.name, "─".repeat(WIDTH));
    let mut text: String = rule.chars().take(WIDTH).chain(['\n']).collect();
    for row in 0..left.len().max(right.len()) {
        let cell = |lines: &[String]| lines.get(row).cloned().unwrap_or_default();
        let line = format!("{:LEFT$} │ {}", cell(&left), cell(&right));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Where everything listens, and commands to try.
pub(super) fn addresses(parts: &Parts) -> anyhow::Result<String> {
    let (port, readers) = (parts.envoy.port("http")?, parts.envoy.port("feeds")?);
    let (admin, bridge) = (parts.envoy.admin_port(), parts.bridge.port());
    let bootstrap = parts.broker.bootstrap();
    let (with, reader, end) = match &parts.broker {
        Broker::Kafka(kafka) => {
            ("by Kafka's own consumer", console_consumer(kafka)?, "Ctrl-C stops everything.")
        }
        Broker::Embedded(_) => (
            "by kcat, a package of Debian",
            format!("kcat -C -b {bootstrap} -t {TOPIC} -e"),
            "Ctrl-C stops everything; the embedded broker forgets its records then.",
        ),
    };
    Ok(format!(
        "\nEverything runs. The broker is {broker}.\n\n  \
         broker       {bootstrap}   topic {TOPIC}\n  \
         Envoy        http://127.0.0.1:{port}   admin http://127.0.0.1:{admin}\n  \
         host-bridge  http://127.0.0.1:{bridge}   /readyz /metrics /v1/status\n  \
         its log      {log}\n\n\
         Send a request, and one that is refused:\n  \
         curl -i http://127.0.0.1:{port}/orders -d 'item=tea&count=2'\n  \
         curl -i http://127.0.0.1:{port}/ -H 'content-type: application/json' -d '{{'\n\n\
         Read the topic over HTTP, or {with}:\n  \
         curl 'http://127.0.0.1:{readers}/v1/feeds/{TOPIC}?from=earliest'\n  \
         {reader}\n\n\
         {end}",
        broker = parts.broker,
        log = parts.bridge.process().log().display(),
    ))
}

/// Kafka's own consumer.
fn console_consumer(kafka: &Kafka) -> anyhow::Result<String> {
    let libs = xtask::tools::kafka_libs(kafka.version())?;
    Ok(format!(
        "java -Dorg.slf4j.simpleLogger.defaultLogLevel=error \\\n    \
         -cp '{}/*' \\\n    \
         org.apache.kafka.tools.consumer.ConsoleConsumer --from-beginning \\\n    \
         --bootstrap-server {} --topic {TOPIC}",
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
