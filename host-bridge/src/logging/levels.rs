//! `HOST_BRIDGE_LOG`: which events are logged.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The levels that are asked for, and what could not be understood of them.
pub(crate) struct Levels {
    pub(crate) targets: Targets,
    pub(crate) fault: Option<String>,
}

impl Levels {
    /// The variable, read before everything else.
    pub(crate) const VARIABLE: &str = "HOST_BRIDGE_LOG";
    /// What is understood.
    pub(crate) const ACCEPTED: &str = "LEVEL or MODULE=LEVEL, with commas between; LEVEL is one of \
        off, error, warn, info, debug, trace; MODULE begins with host_bridge, kafka_client, hyper, \
        hyper_util, h2, axum or rustls";

    /// Of the variable; without it `info`.
    pub(crate) fn of_environment() -> Self {
        let value = std::env::var_os(Self::VARIABLE).unwrap_or_default();
        Self::parse(&value.to_string_lossy())
    }

    /// What is not understood mutes nothing.
    pub(crate) fn parse(text: &str) -> Self {
        let mut targets = Targets::new().with_default(LevelFilter::INFO);
        let mut wrong = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (module, level) = item.rsplit_once('=').unwrap_or(("", item));
            let module = module.trim().replace('-', "_");
            let known = module.is_empty() && !item.contains('=')
                || MODULES.contains(&module.split("::").next().unwrap_or_default());
            match level.trim().parse::<LevelFilter>() {
                Ok(level) if known && module.is_empty() => targets = targets.with_default(level),
                Ok(level) if known => targets = targets.with_target(module, level),
                _ => wrong.push(format!("`{item}`")),
            }
        }
        let fault =
            (!wrong.is_empty()).then(|| format!("{}: {}", Self::VARIABLE, wrong.join(", ")));
        Self { targets, fault }
    }
}

/// The crates that log.
const MODULES: [&str; 7] =
    ["host_bridge", "kafka_client", "hyper", "hyper_util", "h2", "axum", "rustls"];

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_misspelt_level_is_reported_and_mutes_nothing() {
        for (text, wrong) in [
            ("", None),
            ("debug", None),
            ("warn,kafka-client::tls=trace, hyper=debug", None),
            ("debgu", Some("HOST_BRIDGE_LOG: `debgu`")),
            (
                "info,kafka_client=verbose,kafka=debug",
                Some("HOST_BRIDGE_LOG: `kafka_client=verbose`, `kafka=debug`"),
            ),
            ("=debug", Some("HOST_BRIDGE_LOG: `=debug`")),
        ] {
            let levels = Levels::parse(text);
            assert_eq!(levels.fault.as_deref(), wrong, "{text}");
        }
        let levels = Levels::parse("debgu,kafka-client=trace").targets;
        assert!(levels.would_enable("host_bridge", &Level::INFO));
        assert!(!levels.would_enable("host_bridge", &Level::DEBUG));
        assert!(levels.would_enable("kafka_client::tls", &Level::TRACE));
        assert!(!Levels::parse("off").targets.would_enable("host_bridge", &Level::ERROR));
    }
}
