//! Where the bridge listens, and who may connect there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use nix::unistd::Group;
use serde::Deserialize;

use super::error::{ConfigError, field};

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

/// Who may connect to unix sockets, as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnixSocket {
    /// Octal, as chmod takes it.
    pub(super) mode: Option<String>,
    /// A name or a number.
    pub(super) group: Option<String>,
}

impl Listen {
    /// Reads the addresses of the setting `setting`. What is wrong is added to `faults`.
    pub(crate) fn parse_all(
        setting: &str,
        texts: &[String],
        faults: &mut Vec<ConfigError>,
    ) -> Vec<Self> {
        let address =
            |text: &String| Self::parse(setting, text).map_err(|fault| faults.push(fault)).ok();
        texts.iter().filter_map(address).collect()
    }

    /// Reads an address of the setting `setting`.
    fn parse(setting: &str, text: &str) -> Result<Self, ConfigError> {
        let fault = |reason: &str| field(setting, reason);
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(fault(&format!("`{text}`: the path must be absolute"))),
            };
        }
        let (tls, rest) = match text.strip_prefix("tls:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let neither = || format!("`{text}` is neither IP:PORT nor tls:IP:PORT nor unix:/PATH");
        let address: SocketAddr = rest.parse().map_err(|_| fault(&neither()))?;
        match (tls, is_loopback(address.ip())) {
            (true, _) => Ok(Self::Tls(address)),
            (false, true) => Ok(Self::Tcp(address)),
            (false, false) => {
                let reason =
                    format!("`{text}` is not a loopback address: it needs TLS, `tls:{text}`");
                Err(fault(&reason))
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address) => write!(f, "tls:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) fn unix_socket(raw: &UnixSocket, faults: &mut Vec<ConfigError>) -> UnixSocketAccess {
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

/// Whoever reaches the bridge writes to Kafka, or reads from it: from another machine that takes a
/// credential.
pub(super) fn check_exposure(
    setting: &str,
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
            faults.push(field(setting, &reason));
        }
    }
}

/// Whether an address is reached from this machine alone.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
