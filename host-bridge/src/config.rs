//! Configuration: a TOML file, the environment and flags, in rising precedence.

mod lines;
mod places;
mod services;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Group;
pub(crate) use places::Places;
pub use sources::environment;
pub(crate) use sources::{variable, without_value};

use crate::logging::LogFormat;
use crate::security::Tls;

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

/// The checked configuration.
#[derive(Clone)]
pub struct Config {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// Who may connect to unix sockets.
    pub unix_socket: UnixSocketAccess,
    /// The files of listeners with TLS.
    pub listen_tls: Option<ListenTls>,
    /// A file with bearer tokens, one of which every caller must have.
    pub token_file: Option<PathBuf>,
    /// Longest time between SIGTERM and the end.
    pub drain_timeout: Duration,
    /// Kafka's properties by cluster.
    pub clusters: BTreeMap<String, BTreeMap<String, String>>,
    /// `host:port` addresses that a filter may name inline, besides loopback ones.
    pub inline_bootstrap_servers: BTreeSet<String>,
    /// TLS beside the clusters' own.
    pub tls: Tls,
    /// Token endpoints that a filter may name, besides loopback ones.
    pub inline_token_endpoints: BTreeSet<String>,
    /// Where all of that was given.
    pub(crate) places: Places,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A loopback TCP address.
    Tcp(SocketAddr),
    /// A TCP address with TLS.
    Tls(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Mode and group of the files of unix sockets; without, those that the process gives to its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnixSocketAccess {
    /// Permissions; who may connect may write.
    pub mode: Option<u32>,
    /// A group's number.
    pub group: Option<u32>,
}

/// The PEM files of listeners with TLS; they are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenTls {
    /// The bridge's certificate, and those that lead to its authority.
    pub certificate_file: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key_file: PathBuf,
    /// The authority of callers; without it they need no certificate.
    pub client_ca_file: Option<PathBuf>,
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
    /// The file as it is. It is read once: what comes through a pipe is gone after that.
    pub(crate) fn text(args: &Args) -> Result<Option<String>, ConfigError> {
        let Some(path) = &args.config else { return Ok(None) };
        let unreadable = |source| ConfigError::File { path: path.clone(), source };
        std::fs::read_to_string(path).map(Some).map_err(unreadable)
    }

    /// Reads and checks the configuration; what is wrong is added to `faults`. Without the file, if
    /// that is no configuration, there is nothing to check.
    pub(crate) fn read(
        args: &Args,
        text: Option<&str>,
        environment: Vec<(String, String)>,
        faults: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let places = Places::new(args.config.clone(), text.unwrap_or_default(), &environment);
        let raw = sources::merge(args, text, environment.into_iter(), faults)?;
        let texts = raw.listen.unwrap_or_else(|| vec![DEFAULT_LISTEN.to_owned()]);
        if texts.is_empty() {
            faults.push(field("listen", "names no address"));
        }
        let mut listen = Vec::new();
        for text in &texts {
            address(text).map_or_else(|fault| faults.push(fault), |it| listen.push(it));
        }
        check_exposure(&listen, raw.tls.as_ref(), raw.token_file.is_some(), faults);
        let mut tables = |section: &str, tables: BTreeMap<String, toml::Table>| -> BTreeMap<_, _> {
            let mut flat = |(name, table): (String, _)| {
                let properties = sources::flatten(&format!("{section}.{name}"), table, faults);
                (name, properties)
            };
            tables.into_iter().map(&mut flat).collect()
        };
        let mut clusters = tables("clusters", raw.clusters);
        let certificates = tables("certificates", raw.certificates);
        for (name, properties) in &mut clusters {
            services::expand(name, properties).unwrap_or_else(|fault| faults.push(fault));
        }
        Some(Self {
            listen,
            unix_socket: unix_socket(&raw.unix_socket, faults),
            listen_tls: raw.tls,
            token_file: raw.token_file,
            drain_timeout: Duration::from_millis(raw.drain_timeout_ms.unwrap_or(10_000)),
            inline_bootstrap_servers: raw.inline_bootstrap_servers.into_iter().collect(),
            inline_token_endpoints: raw.inline_token_endpoints.into_iter().collect(),
            clusters,
            tls: Tls { certificates, inline: sources::flatten("inline", raw.inline, faults) },
            places,
        })
    }

    /// Reads and checks the configuration; a test wants the first fault.
    #[cfg(test)]
    pub(crate) fn load(
        args: &Args,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (text, mut faults) = (Self::text(args)?, Vec::new());
        let config = Self::read(args, text.as_deref(), environment.collect(), &mut faults);
        faults.into_iter().next().map_or_else(|| Ok(config.unwrap()), Err)
    }
}

impl fmt::Debug for Config {
    /// Kafka's properties hold passwords and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("clusters", &self.clusters.keys())
            .finish_non_exhaustive()
    }
}

fn address(text: &str) -> Result<Listen, ConfigError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(Listen::Unix(path.into())),
            false => Err(field("listen", &format!("`{text}`: the path must be absolute"))),
        };
    }
    let (tls, rest) = match text.strip_prefix("tls:") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let neither = || format!("`{text}` is neither IP:PORT nor tls:IP:PORT nor unix:/PATH");
    let address: SocketAddr = rest.parse().map_err(|_| field("listen", &neither()))?;
    match (tls, is_loopback(address.ip())) {
        (true, _) => Ok(Listen::Tls(address)),
        (false, true) => Ok(Listen::Tcp(address)),
        (false, false) => {
            let reason = format!("`{text}` is not a loopback address: it needs TLS, `tls:{text}`");
            Err(field("listen", &reason))
        }
    }
}

fn unix_socket(raw: &sources::UnixSocket, faults: &mut Vec<ConfigError>) -> UnixSocketAccess {
    let octal = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    let mode = |text: &String| {
        let reason = format!("`{text}` is no octal number such as \"0660\"");
        octal(text).ok_or_else(|| field("unix_socket.mode", &reason))
    };
    let group = |name: &String| {
        let known = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        let reason = format!("there is no group `{name}`");
        let number = name.parse().ok().or_else(known);
        number.ok_or_else(|| field("unix_socket.group", &reason))
    };
    let (mode, group) = (raw.mode.as_ref().map(mode), raw.group.as_ref().map(group));
    let mut valid = |number: Option<Result<u32, ConfigError>>| {
        number.transpose().unwrap_or_else(|fault| {
            faults.push(fault);
            None
        })
    };
    UnixSocketAccess { mode: valid(mode), group: valid(group) }
}

/// Whoever reaches the bridge writes to Kafka: from another machine that takes a credential.
fn check_exposure(
    listen: &[Listen],
    tls: Option<&ListenTls>,
    tokens: bool,
    faults: &mut Vec<ConfigError>,
) {
    for address in listen {
        let Listen::Tls(socket) = address else { continue };
        let Some(tls) = tls else {
            let reason = format!("`{address}` needs certificate_file and key_file");
            faults.push(field("tls", &reason));
            continue;
        };
        if !is_loopback(socket.ip()) && !tokens && tls.client_ca_file.is_none() {
            let reason = format!(
                "`{address}` is not a loopback address: set token_file or tls.client_ca_file"
            );
            faults.push(field("listen", &reason));
        }
    }
}

/// Whether an address is reached from this machine alone.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

pub(crate) fn field(field: &str, reason: &str) -> ConfigError {
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
    fn a_unix_socket_has_the_mode_and_the_group_of_the_file_or_the_environment() {
        let file = "[unix_socket]\nmode = '0660'\ngroup = 'root'";
        let of_file = UnixSocketAccess { mode: Some(0o660), group: Some(0) };
        assert_eq!(load(file, &[], &[]).unwrap().unix_socket, of_file);
        let environment = [("HOST_BRIDGE_UNIX_SOCKET__GROUP", "7")];
        let group = load(file, &environment, &[]).unwrap().unix_socket.group;
        assert_eq!(group, Some(7));
        assert_eq!(load("", &[], &[]).unwrap().unix_socket, UnixSocketAccess::default());
    }

    #[test]
    fn a_variable_that_is_not_utf_8_is_a_fault_if_it_is_ours() {
        let variable = |name: &str, value: &[u8]| {
            (name.into(), std::os::unix::ffi::OsStringExt::from_vec(value.to_vec()))
        };
        let variables = [variable("FOO", b"\xff"), variable("HOST_BRIDGE_LISTEN", b"unix:/a")];
        let own = [("HOST_BRIDGE_LISTEN".to_owned(), "unix:/a".to_owned())];
        assert_eq!(environment(variables.into_iter()).unwrap(), own);
        let variables = [variable("HOST_BRIDGE_CLUSTERS__A__SASL_PASSWORD", b"hunter2\xff")];
        let error = environment(variables.into_iter()).unwrap_err().to_string();
        assert_eq!(error, "HOST_BRIDGE_CLUSTERS__A__SASL_PASSWORD: is not UTF-8");
    }

    #[test]
    fn a_profile_of_the_wrong_form_is_refused_without_its_values() {
        let document = br#"{"bootstrap_servers":[],"properties":{},"authentication":"hunter2"}"#;
        let error = serde_json::from_slice::<kafka_upstream_core::profile::Profile>(document);
        let told = without_value(&error.unwrap_err().to_string());
        assert_eq!(told, "invalid type, expected struct Authentication at line 1 column 66");
    }

    #[test]
    fn debug_shows_no_property() {
        let toml = "[clusters.a]\nsasl.password = 'hunter2'\n[certificates.b]\n\
            ssl.key.password = 'hunter2'\n[inline]\nssl.truststore.password = 'hunter2'";
        let config = load(toml, &[], &[]).unwrap();
        let shown = format!("{config:?}{:?}", config.tls);
        assert!(shown.contains("\"a\"") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn each_fault_names_its_place() {
        let file = |toml| load(toml, &[], &[]).unwrap_err();
        assert!(file("listen = 5").contains("line 1, column 10"), "{}", file("listen = 5"));
        assert!(file("\nlisten_ = []").contains("unknown field `listen_`"));
        for (mistaken, hint) in [
            ("a = \"b \"c\"\"", "stands between single ones"),
            ("a.b = 'c'\na.b.file = 'd'", "of NAME and NAME.file only one can be set"),
            ("a.b.file = 'd'\na.b = 'c'", "duplicate key"),
            ("bootstrap.servers = 'a:1'", "properties of Kafka stand in [clusters.NAME]"),
            ("[clusters.a]\nlisten = []", "clusters.a.listen: belongs above the first section"),
        ] {
            let error = file(mistaken);
            assert!(error.ends_with(hint), "{error}");
        }
        let in_tls = file("[tls]\ncertificate = ''");
        assert!(in_tls.contains("unknown field") && !in_tls.contains("Kafka"), "{in_tls}");
        for misplaced in
            ["[clusters]\n'sasl.password' = 'hunter2, expected a'", "\nclusters = 'hunter2'"]
        {
            let error = file(misplaced);
            assert!(error.contains("line 2, column"), "{error}");
            assert!(error.ends_with(": invalid type, expected a map"), "{error}");
        }
        assert_eq!(
            file("listen = ['host:1']"),
            "listen: `host:1` is neither IP:PORT nor tls:IP:PORT nor unix:/PATH"
        );
        let open = "listen = ['tls:0.0.0.0:1']";
        assert!(file(open).contains("needs certificate_file"), "{}", file(open));
        let tls = "\n[tls]\ncertificate_file = 'c'\nkey_file = 'k'";
        let uncovered = load(&format!("{open}{tls}"), &[], &[]).unwrap_err();
        assert!(uncovered.contains("set token_file or tls.client_ca_file"), "{uncovered}");
        for covered in [
            format!("{open}{tls}\nclient_ca_file = 'a'"),
            format!("{open}\ntoken_file = 't'{tls}"),
            format!("listen = ['tls:127.0.0.1:1']{tls}"),
        ] {
            assert!(load(&covered, &[], &[]).is_ok(), "{covered}");
        }
        assert!(file("listen = ['0.0.0.0:1']").contains("not a loopback address"));
        assert!(file("listen = []").contains("names no address"));
        assert_eq!(
            file("[unix_socket]\nmode = '0860'"),
            "unix_socket.mode: `0860` is no octal number such as \"0660\""
        );
        assert_eq!(
            file("[unix_socket]\ngroup = 'no such group'"),
            "unix_socket.group: there is no group `no such group`"
        );
        let nested = file("[clusters.default]\nacks = [1]");
        assert_eq!(nested, "clusters.default.acks: must be a string, a number or a boolean");
        let variable = load("", &[("HOST_BRIDGE_LISTN", "x")], &[]).unwrap_err();
        assert_eq!(variable, "HOST_BRIDGE_LISTN: no such setting");
        let number = load("", &[("HOST_BRIDGE_DRAIN_TIMEOUT_MS", "x")], &[]).unwrap_err();
        assert_eq!(number, "HOST_BRIDGE_DRAIN_TIMEOUT_MS: invalid digit found in string");
    }
}
