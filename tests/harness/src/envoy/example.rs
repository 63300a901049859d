//! The shipped `envoy/envoy.yaml` with this run's ports and paths in place of its fixed ones.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use xtask::paths;

/// The file, relative to the workspace.
const FILE: &str = "envoy/envoy.yaml";

/// What takes the place of the values in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Instead of the listener's port 10000.
    pub port: u16,
    /// Instead of the admin port 9901.
    pub admin_port: u16,
    /// Instead of `/etc/envoy/kafka_upstream.wasm`.
    pub wasm: PathBuf,
    /// Instead of `/run/host-bridge/socket`.
    pub socket: PathBuf,
    /// Instead of the bridge's TCP port 9280.
    pub bridge_port: u16,
    /// Instead of port 10001, where readers reach the gateway.
    pub readers_port: u16,
    /// Instead of port 9290, where the bridge serves feeds.
    pub feeds_port: u16,
}

/// Reads `envoy/envoy.yaml` and puts this run's values in.
///
/// # Errors
/// When the file, or one of the values that it should have, is missing.
pub fn render_example(example: &Example) -> anyhow::Result<String> {
    let path = paths::workspace().join(FILE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    render(&text, example)
}

fn render(text: &str, example: &Example) -> anyhow::Result<String> {
    let text = replace_port(text, 10_000, example.port)?;
    let text = replace_port(&text, 9_901, example.admin_port)?;
    let text = replace_port(&text, 9_280, example.bridge_port)?;
    let text = replace_port(&text, 10_001, example.readers_port)?;
    let text = replace_port(&text, 9_290, example.feeds_port)?;
    let path = |path: &PathBuf| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    let text = replace(&text, "/etc/envoy/kafka_upstream.wasm", &path(&example.wasm)?)?;
    replace(&text, "/run/host-bridge/socket", &path(&example.socket)?)
}

/// Ports are replaced only where they are ports: a timeout may be 10000, too.
fn replace_port(text: &str, from: u16, to: u16) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let wanted = format!("port_value: {from}");
    let mut found = false;
    while let Some((before, after)) = rest.split_once(&wanted) {
        out.push_str(before);
        if after.starts_with(|next: char| next.is_ascii_digit()) {
            out.push_str(&wanted);
        } else {
            out.push_str(&format!("port_value: {to}"));
            found = true;
        }
        rest = after;
    }
    out.push_str(rest);
    ensure!(found, "{FILE} has no `{wanted}` to replace");
    Ok(out)
}

fn replace(text: &str, from: &str, to: &str) -> anyhow::Result<String> {
    ensure!(text.contains(from), "{FILE} has no `{from}` to replace");
    Ok(text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &str = "admin: {port_value: 9901}\nport_value: 10000\nport_value: 100001\n\
        delivery_timeout: 10000\n/etc/envoy/kafka_upstream.wasm\n/run/host-bridge/socket\n\
        port_value: 9280\nport_value: 10001\nport_value: 9290\n";

    fn example() -> Example {
        let (wasm, socket) = (PathBuf::from("/w"), PathBuf::from("/s"));
        Example {
            port: 1,
            admin_port: 2,
            wasm,
            socket,
            bridge_port: 3,
            readers_port: 4,
            feeds_port: 5,
        }
    }

    #[test]
    fn ports_and_paths_are_replaced_and_nothing_else() {
        assert_eq!(
            render(FIXED, &example()).unwrap(),
            "admin: {port_value: 2}\nport_value: 1\nport_value: 100001\n\
             delivery_timeout: 10000\n/w\n/s\nport_value: 3\nport_value: 4\nport_value: 5\n"
        );
    }

    #[test]
    fn a_value_that_is_not_there_is_named() {
        let text = FIXED.replace("9280", "9281");
        let error = render(&text, &example()).unwrap_err();
        assert_eq!(error.to_string(), "envoy/envoy.yaml has no `port_value: 9280` to replace");
    }
}
