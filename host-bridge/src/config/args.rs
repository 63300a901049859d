//! Flags and commands of the process.

use std::path::PathBuf;

use crate::logging::LogFormat;

/// Flags of the process.
#[derive(Debug, Default, clap::Parser)]
#[command(version, about = "Takes records from kafka-upstream filters and produces them to Kafka.")]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A TOML file; a setting of the environment wins over it, a flag over both.
    #[arg(long, value_name = "FILE", env = "HOST_BRIDGE_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Where to listen: `IP:PORT` on a loopback address, `tls:IP:PORT` on any, or `unix:/PATH`.
    /// Repeatable; replaces the file's list and that of `HOST_BRIDGE_LISTEN` [default:
    /// 127.0.0.1:9280].
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub listen: Vec<String>,
    /// `bootstrap.servers` of the cluster `default`; wins over the file's and
    /// `HOST_BRIDGE_CLUSTERS__DEFAULT__BOOTSTRAP_SERVERS`.
    #[arg(long, value_name = "HOST:PORT,…", global = true)]
    pub bootstrap_servers: Option<String>,
    /// How the log is written, to stderr.
    #[arg(long, value_name = "FORMAT", env = "HOST_BRIDGE_LOG_FORMAT", global = true)]
    #[arg(value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the process does but serve.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Checks the configuration and probes the connection to each broker of each cluster; writes nothing to
    /// Kafka. Ends with 0 if all is well, else with 1.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// Also whether this topic of the cluster `default` may be written to, or `CLUSTER/TOPIC`.
        /// Repeatable.
        #[arg(long, value_name = "TOPIC")]
        topic: Vec<String>,
    },
    /// Shows the records of a feed, or of a topic, as they come. Ends with 0 at its limit or when nobody
    /// reads its output, with 130 by Ctrl-C, and with 1 if it cannot go on.
    #[command(after_help = TAIL_EXAMPLES)]
    Tail(Tail),
}

/// What `tail` reads, and how it is shown.
#[derive(Debug, clap::Args)]
pub struct Tail {
    /// A feed of the configuration; with TOPIC, a cluster.
    #[arg(value_name = "FEED|CLUSTER")]
    pub(crate) name: String,
    /// A topic of the cluster.
    pub(crate) topic: Option<String>,
    /// Where to start: `earliest`, `latest`, a time (milliseconds since 1970, or RFC 3339), or a
    /// cursor.
    #[arg(long, value_name = "START", default_value = "latest")]
    pub(crate) from: String,
    /// Ends after so many records [default: it follows].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// How a record is shown.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people: its fields on a line, then the value, JSON indented.
    #[default]
    Pretty,
    /// A line of JSON as readers of a feed get it, with metadata, headers, and the cursor after the record.
    Json,
    /// The value alone, as it is, and a line break.
    Value,
}

const EXAMPLES: &str = "\
Every other setting is in the file, or in a variable: HOST_BRIDGE_ and its path, with __ between levels
and _ for the dots of a property. HOST_BRIDGE_LOG sets the levels of the log [default: info].

Examples:
  host-bridge --listen 127.0.0.1:9280 --bootstrap-servers broker-1:9092,broker-2:9092
  host-bridge --config /etc/host-bridge.toml --log-format json
  host-bridge check --config /etc/host-bridge.toml --topic orders
  host-bridge tail --config /etc/host-bridge.toml orders --from earliest

The bridge serves until SIGTERM or SIGINT, and drains for up to drain_timeout_ms [default: 10000];
SIGHUP has it read certificates and stores again.";

const CHECK_EXAMPLES: &str = "\
Examples:
  host-bridge check --config /etc/host-bridge.toml
  host-bridge check --config /etc/host-bridge.toml --topic orders --topic other-cluster/events";

const TAIL_EXAMPLES: &str = "\
Examples:
  host-bridge tail --config /etc/host-bridge.toml orders
  host-bridge tail --config /etc/host-bridge.toml default orders --from 2026-11-29T12:00:00Z --limit 10
  host-bridge tail --bootstrap-servers broker-1:9092 default orders --from earliest --format json";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn every_documented_command_is_understood() {
        let examples = [EXAMPLES, CHECK_EXAMPLES, TAIL_EXAMPLES].into_iter().flat_map(str::lines);
        let examples = examples.filter_map(|line| line.strip_prefix("  host-bridge "));
        let examples = examples.map(|line| line.split_whitespace().map(str::to_owned).collect());
        let mut count = 0;
        for words in xtask::documents::commands("host-bridge").unwrap().into_iter().chain(examples)
        {
            count += 1;
            let parsed = Args::try_parse_from(std::iter::once("host-bridge".into()).chain(words));
            let fault = parsed.err().filter(clap::Error::use_stderr);
            assert!(fault.is_none(), "{fault:?}");
        }
        assert!(count > 10, "only {count} commands were found");
    }

    #[test]
    fn help_names_defaults_variables_and_examples() {
        let help = |words: &[&str]| {
            let shown = Args::try_parse_from(words).unwrap_err();
            shown.to_string()
        };
        let whole = help(&["host-bridge", "--help"]);
        let of = |command| help(&["host-bridge", command, "--help"]);
        insta::assert_snapshot!(format!("{whole}\n{}\n{}", of("check"), of("tail")));
        Args::command().debug_assert();
    }
}
