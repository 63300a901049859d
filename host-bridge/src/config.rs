//! Configuration: a TOML file, the environment and flags, in rising precedence.

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Flags of the process.
#[derive(Debug, Default, clap::Parser)]
#[command(version, about = "Takes records from kafka-upstream filters and produces them to Kafka.")]
pub struct Args {
    /// TOML file.
    #[arg(long, value_name = "FILE", env = "HOST_BRIDGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where to listen: `IP:PORT` on a loopback address, or `unix:/PATH`. Repeatable; replaces the
    /// file's and the environment's list.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// `bootstrap.servers` of the cluster `default`.
    #[arg(long, value_name = "HOST:PORT,…")]
    pub bootstrap_servers: Option<String>,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// Longest time between SIGTERM and the end.
    pub drain_timeout: Duration,
    /// Kafka's properties by cluster.
    pub clusters: BTreeMap<String, BTreeMap<String, String>>,
    /// `host:port` addresses that a filter may name inline, besides loopback ones.
    pub inline_bootstrap_servers: BTreeSet<String>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A loopback TCP address.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a configuration; the text names line and column.
    #[error("{path}: {text}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        text: String,
    },
    /// A variable of the environment means nothing.
    #[error("{0}: no such setting")]
    Variable(String),
    /// A setting has no meaning.
    #[error("{field}: {reason}")]
    Field {
        /// Path of the setting.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn load(
        args: &Args,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let raw = sources::merge(args, environment)?;
        let listen = raw.listen.unwrap_or_else(|| vec![DEFAULT_LISTEN.to_owned()]);
        if listen.is_empty() {
            return Err(field("listen", "names no address"));
        }
        Ok(Self {
            listen: listen.iter().map(|text| address(text)).collect::<Result<_, _>>()?,
            drain_timeout: Duration::from_millis(raw.drain_timeout_ms.unwrap_or(10_000)),
            inline_bootstrap_servers: raw.inline_bootstrap_servers.into_iter().collect(),
            clusters: raw
                .clusters
                .into_iter()
                .map(|(name, properties)| Ok((name.clone(), sources::flatten(&name, properties)?)))
                .collect::<Result<_, ConfigError>>()?,
        })
    }
}

fn address(text: &str) -> Result<Listen, ConfigError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(Listen::Unix(path.into())),
            false => Err(field("listen", &format!("`{text}`: the path must be absolute"))),
        };
    }
    let address: SocketAddr = text
        .parse()
        .map_err(|_| field("listen", &format!("`{text}` is neither IP:PORT nor unix:/PATH")))?;
    if is_loopback(address.ip()) {
        return Ok(Listen::Tcp(address));
    }
    let reason = format!(
        "`{text}` is not a loopback address: the bridge has no TLS and no credential yet, so it \
         must not be reached from elsewhere"
    );
    Err(field("listen", &reason))
}

/// Whether an address is reached from this machine alone.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn field(field: &str, reason: &str) -> ConfigError {
    ConfigError::Field { field: field.to_owned(), reason: reason.to_owned() }
}

/// Where the bridge listens unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:9280";
/// Log filter, read before everything else.
pub(crate) const LOG_VARIABLE: &str = "HOST_BRIDGE_LOG";

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let path = file.path().to_str().unwrap();
        let flags = [&["host-bridge", "--config", path], flags].concat();
        let args = <Args as clap::Parser>::parse_from(flags);
        let environment =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::load(&args, environment).map_err(|error| error.to_string().replace(path, "FILE"))
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = "listen = ['127.0.0.1:1']\n[clusters.default]\nbootstrap.servers = 'a:1'\n\
            linger.ms = 5\n[clusters.other]\n'bootstrap.servers' = 'b:1'";
        let environment = [
            ("HOST_BRIDGE_LISTEN", "127.0.0.1:2,unix:/tmp/s"),
            ("HOST_BRIDGE_CLUSTERS__DEFAULT__BOOTSTRAP_SERVERS", "c:1"),
            ("HOST_BRIDGE_DRAIN_TIMEOUT_MS", "7"),
            ("PATH", "/bin"),
        ];
        let config = load(file, &environment, &["--bootstrap-servers", "d:1"]).unwrap();
        let tcp = Listen::Tcp("127.0.0.1:2".parse().unwrap());
        assert_eq!(config.listen, [tcp, Listen::Unix("/tmp/s".into())]);
        assert_eq!(config.drain_timeout, Duration::from_millis(7));
        assert_eq!(config.clusters["default"]["bootstrap.servers"], "d:1");
        assert_eq!(config.clusters["default"]["linger.ms"], "5");
        assert_eq!(config.clusters["other"]["bootstrap.servers"], "b:1");
    }

    #[test]
    fn each_fault_names_its_place() {
        let file = |toml| load(toml, &[], &[]).unwrap_err();
        assert!(file("listen = 5").contains("line 1, column 10"), "{}", file("listen = 5"));
        assert!(file("\nlisten_ = []").contains("unknown field `listen_`"));
        assert_eq!(
            file("listen = ['host:1']"),
            "listen: `host:1` is neither IP:PORT nor unix:/PATH"
        );
        assert!(file("listen = ['0.0.0.0:1']").contains("not a loopback address"));
        assert!(file("listen = []").contains("names no address"));
        let nested = file("[clusters.default]\nacks = [1]");
        assert_eq!(nested, "clusters.default.acks: must be a string, a number or a boolean");
        let variable = load("", &[("HOST_BRIDGE_LISTN", "x")], &[]).unwrap_err();
        assert_eq!(variable, "HOST_BRIDGE_LISTN: no such setting");
        let number = load("", &[("HOST_BRIDGE_DRAIN_TIMEOUT_MS", "x")], &[]).unwrap_err();
        assert_eq!(number, "HOST_BRIDGE_DRAIN_TIMEOUT_MS: invalid digit found in string");
    }
}
