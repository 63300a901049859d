//! Configuration: a TOML file, the environment and flags, in rising precedence.

mod args;
pub(crate) mod captures;
pub(crate) mod error;
mod lines;
mod listen;
mod places;
pub(crate) mod schemas;
mod services;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use args::Format;
pub use args::{Args, Command, Tail};
pub use error::ConfigError;
pub(crate) use error::field;
pub(crate) use listen::is_loopback;
pub(crate) use listen::{Listen, ListenTls, UnixSocketAccess};
use listen::{check_exposure, unix_socket};
pub(crate) use places::Places;
pub use sources::environment;
pub(crate) use sources::without_value;

use self::captures::CaptureConfig;
use self::schemas::Schemas;
use crate::consume::authorization::Authorization;
use crate::consume::feeds::{Feeds, Known};
use crate::security::Tls;
use crate::webhooks::config::WebhookConfig;

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
    /// What is captured without a filter.
    pub(crate) captures: BTreeMap<String, CaptureConfig>,
    /// What is read over HTTP.
    pub(crate) feeds: Feeds,
    /// What is sent to receivers.
    pub(crate) webhooks: BTreeMap<String, WebhookConfig>,
    /// Who reads it.
    pub(crate) authorization: Authorization,
    /// `host:port` addresses that a filter may name inline, besides loopback ones.
    pub inline_bootstrap_servers: BTreeSet<String>,
    /// TLS beside the clusters' own.
    pub tls: Tls,
    /// Token endpoints that a filter may name, besides loopback ones.
    pub inline_token_endpoints: BTreeSet<String>,
    /// Addresses of schema registries that a filter may name, besides loopback ones.
    pub inline_schema_registries: BTreeSet<String>,
    /// Schema registries, and which records have schemas without a filter that says so.
    pub(crate) schemas: Schemas,
    /// Where all of that was given.
    pub(crate) places: Places,
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
        let listen = Listen::parse_all("listen", &texts, faults);
        let tokens = raw.token_file.is_some();
        check_exposure("listen", &listen, raw.tls.as_ref(), tokens, faults);
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
        let known = Known::new(&clusters, &raw.registries);
        let schemas = Schemas::read(raw.registries, raw.schemas, &known.clusters, faults);
        let captures = captures::read(raw.captures, faults);
        let (mut feeds, rules) = (raw.feeds, raw.authorization);
        let authorization = Authorization::read(&mut feeds, rules, faults);
        let feeds = Feeds::read(feeds, &known, faults);
        let webhooks = crate::webhooks::config::read(raw.webhooks, &feeds, faults);
        authorization.check(&feeds, raw.tls.as_ref(), faults);
        let tokens = authorization.takes_tokens(tokens);
        check_exposure("feeds.listen", &feeds.listen, raw.tls.as_ref(), tokens, faults);
        for shared in feeds.listen.iter().filter(|address| listen.contains(address)) {
            faults.push(field("feeds.listen", &format!("`{shared}` is in listen, too")));
        }
        Some(Self {
            listen,
            unix_socket: unix_socket(&raw.unix_socket, faults),
            listen_tls: raw.tls,
            token_file: raw.token_file,
            drain_timeout: Duration::from_millis(raw.drain_timeout_ms.unwrap_or(10_000)),
            inline_bootstrap_servers: raw.inline_bootstrap_servers.into_iter().collect(),
            inline_token_endpoints: raw.inline_token_endpoints.into_iter().collect(),
            inline_schema_registries: raw.inline_schema_registries.into_iter().collect(),
            schemas,
            clusters,
            captures,
            feeds,
            webhooks,
            authorization,
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

/// Where the bridge listens unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:9280";

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
    fn the_configurations_for_kubernetes_have_no_fault() {
        for (file, address) in [
            (include_str!("../../kubernetes/bridge/host-bridge.toml"), "0.0.0.0:9281"),
            (include_str!("../../kubernetes/sidecar/host-bridge.toml"), "127.0.0.1:9280"),
        ] {
            let listen = load(file, &[], &[]).unwrap().listen;
            assert_eq!(listen.first().unwrap().to_string().trim_start_matches("tls:"), address);
        }
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
