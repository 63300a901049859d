//! Flags and commands of the process.

use std::path::PathBuf;

use crate::logging::LogFormat;

/// Flags of the process.
#[derive(Debug, Default, clap::Parser)]
#[command(version, about = "Takes records from kafka-upstream filters and produces them to Kafka.")]
pub struct Args {
    /// TOML file.
    #[arg(long, value_name = "FILE", env = "HOST_BRIDGE_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Where to listen: `IP:PORT` on a loopback address, `tls:IP:PORT` on any, or `unix:/PATH`.
    /// Repeatable; replaces the file's and the environment's list.
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub listen: Vec<String>,
    /// `bootstrap.servers` of the cluster `default`.
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
    Check {
        /// Also whether this topic of the cluster `default` may be written to, or `CLUSTER/TOPIC`.
        /// Repeatable.
        #[arg(long, value_name = "TOPIC")]
        topic: Vec<String>,
    },
}
