//! The whole configuration of a plugin: one set of settings, or one for each rule of `match`.

use super::document::JsonValue;
use super::field::{ConfigError, fault};
use super::parse::parse;
use super::raw::{self, Host, Raw};
use super::settings::Settings;
use crate::matching::{Condition, HostPattern, PathCondition};

/// A plugin's checked configuration.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The host that the filter must run in.
    pub host: Host,
    /// Whether Envoy gives the filter the body of a request that it holds back at its headers.
    pub stops_at_headers: bool,
    /// Which requests are captured, first match first; one that captures all without `match`.
    pub rules: Vec<Rule>,
    /// The settings of rules; equal ones are here once, and share a queue.
    pub settings: Vec<Settings>,
}

/// A rule of `match`.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which requests it is for.
    pub condition: Condition,
    /// The position of its settings.
    pub settings: usize,
}

impl Plugin {
    /// Parses and checks a plugin configuration.
    ///
    /// # Errors
    /// As [`Settings::parse`]; of a rule the path begins with `match`.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let document = JsonValue::read(json)?;
        let raw: Raw = parse(&document)?;
        let mut plugin = Self {
            host: raw.host.unwrap_or_default(),
            stops_at_headers: raw.allow_on_headers_stop_iteration.unwrap_or(true),
            rules: Vec::new(),
            settings: Vec::new(),
        };
        let Some(rules) = &raw.r#match else {
            plugin.rules.push(Rule { condition: Condition::default(), settings: 0 });
            plugin.settings.push(Settings::check(raw)?);
            return Ok(plugin);
        };
        if !(1..=RULES_MAX).contains(&rules.len()) {
            return Err(fault("match", &format!("must have 1 to {RULES_MAX} rules")));
        }
        let conditions: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| condition(&format!("match[{index}]"), rule))
            .collect::<Result<_, _>>()?;
        Settings::check(raw)?;
        for (index, condition) in conditions.into_iter().enumerate() {
            let own = settings_of_rule(&document, index)?;
            let known = plugin.settings.iter().position(|settings| *settings == own);
            let settings = known.unwrap_or(plugin.settings.len());
            if known.is_none() {
                plugin.settings.push(own);
            }
            plugin.rules.push(Rule { condition, settings });
        }
        Ok(plugin)
    }

    /// The settings for a request, by their position; none where it passes by.
    #[must_use]
    pub fn settings_for(&self, method: &[u8], target: &[u8], authority: &[u8]) -> Option<usize> {
        let fits = |rule: &&Rule| rule.condition.fits(method, target, authority);
        self.rules.iter().find(fits).map(|rule| rule.settings)
    }
}

/// The document's settings with those of a rule's `config` over them.
fn settings_of_rule(document: &JsonValue, index: usize) -> Result<Settings, ConfigError> {
    let rule = document.get("match").and_then(|rules| rules.item(index));
    let own = rule.and_then(|rule| rule.get("config"));
    let merged = document.with(own);
    parse(&merged).and_then(Settings::check).map_err(|error| in_rule(index, own, error))
}

/// The settings that all rules share have passed their checks: the cause is in the rule's own.
fn in_rule(index: usize, own: Option<&JsonValue>, error: ConfigError) -> ConfigError {
    let config = format!("match[{index}].config");
    let has = |name: &str| own.is_some_and(|own| own.get(name).is_some());
    if has(error.path.split(['.', '[']).next().unwrap_or_default()) {
        return ConfigError { path: format!("{config}.{}", error.path), ..error };
    }
    let mut words = error.reason.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let path = match words.find(|word| has(word)) {
        Some(field) => format!("{config}.{field}"),
        None => config,
    };
    let reason = format!("with the fields that all rules share, {} {}", error.path, error.reason);
    ConfigError { path, reason }
}

fn condition(path: &str, rule: &raw::RawRule) -> Result<Condition, ConfigError> {
    let own = rule.config.as_deref();
    for (field, is_there) in [
        ("host", own.is_some_and(|own| own.host.is_some())),
        (
            "allow_on_headers_stop_iteration",
            own.is_some_and(|own| own.allow_on_headers_stop_iteration.is_some()),
        ),
        ("match", own.is_some_and(|own| own.r#match.is_some())),
    ] {
        if is_there {
            return Err(fault(&format!("{path}.config.{field}"), "is the same for all rules"));
        }
    }
    let listed = |field: &str, list: &Option<Vec<String>>| match list {
        Some(list) if list.is_empty() || list.iter().any(String::is_empty) => {
            Err(fault(&format!("{path}.{field}"), "must not be empty, nor have an empty entry"))
        }
        list => Ok(list.clone().unwrap_or_default()),
    };
    let hosts = listed("hosts", &rule.hosts)?;
    if let Some(host) = hosts.iter().find(|host| !HostPattern::is_one(host)) {
        let reason = format!("`{host}` is neither a host name without a port nor `*.` and one");
        return Err(fault(&format!("{path}.hosts"), &reason));
    }
    let methods = listed("methods", &rule.methods)?;
    let upper_case = |c: char| c.is_ascii_graphic() && !c.is_ascii_lowercase();
    if let Some(method) = methods.iter().find(|method| !method.chars().all(upper_case)) {
        let reason = format!("`{method}` is not a method: methods are in upper case");
        return Err(fault(&format!("{path}.methods"), &reason));
    }
    Ok(Condition {
        path: path_condition(path, rule)?,
        methods,
        hosts: hosts.iter().map(|host| HostPattern::new(host)).collect(),
    })
}

fn path_condition(path: &str, rule: &raw::RawRule) -> Result<PathCondition, ConfigError> {
    let rooted = |field: &str, text: &String| match text.starts_with('/') {
        // No path has one, so no request would ever fit.
        true if text.contains(['?', '#']) => {
            Err(fault(&format!("{path}.{field}"), "must not have a query string or a fragment"))
        }
        true => Ok(text.clone()),
        false => Err(fault(&format!("{path}.{field}"), "must begin with /")),
    };
    match (&rule.path, &rule.path_prefix, &rule.path_regex) {
        (None, None, None) => Ok(PathCondition::Any),
        (Some(whole), None, None) => rooted("path", whole).map(PathCondition::Exact),
        (None, Some(prefix), None) => rooted("path_prefix", prefix).map(PathCondition::Prefix),
        (None, None, Some(regex)) => PathCondition::regex(regex)
            .map_err(|error| fault(&format!("{path}.path_regex"), &error)),
        _ => Err(fault(path, "has more than one of path, path_prefix, path_regex")),
    }
}

/// Most rules: each is tried for each request, and has a queue of its own.
const RULES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(rules: &str) -> Result<Plugin, String> {
        let config = format!(r#"{{"bridge":"b","topic":"t","linger":5,"match":{rules}}}"#);
        Plugin::parse(config.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_rule_that_fits_says_what_differs() {
        let plugin = plugin(
            r#"[{"path":"/a","methods":["POST"],"config":{"topic":"a","mode":"tap"}},
                {"path_prefix":"/a"}, {"hosts":["h"],"config":null}]"#,
        );
        let plugin = plugin.unwrap();
        let topic = |method: &str, target: &str, host: &str| {
            let found = plugin.settings_for(method.as_bytes(), target.as_bytes(), host.as_bytes());
            found.map(|index| (plugin.settings[index].topic.as_str(), plugin.settings[index].mode))
        };
        assert_eq!(topic("POST", "/a?b", "x"), Some(("a", crate::config::Mode::Tap)));
        assert_eq!(topic("GET", "/a", "x"), Some(("t", crate::config::Mode::Terminate)));
        assert_eq!(topic("GET", "/b", "h:80"), Some(("t", crate::config::Mode::Terminate)));
        assert_eq!(topic("GET", "/b", "x"), None);
        assert_eq!(plugin.settings.len(), 2, "equal settings share a queue");
        assert_eq!(plugin.settings[0].profile.properties["linger.ms"], "5");
    }

    #[test]
    fn without_rules_every_request_is_captured() {
        let plugin = Plugin::parse(br#"{"bridge":"b","topic":"t"}"#).unwrap();
        assert_eq!(plugin.settings_for(b"GET", b"/", b""), Some(0));
        assert!(plugin.stops_at_headers);
    }

    #[test]
    fn a_tap_whose_headers_go_on_before_the_record_is_written_is_refused() {
        let parse = |fields: &str| {
            let json = format!(
                r#"{{"bridge":"b","topic":"t","mode":"tap","allow_on_headers_stop_iteration":false{fields}}}"#
            );
            Plugin::parse(json.as_bytes()).map_err(|error| error.to_string())
        };
        assert!(!parse("").unwrap().stops_at_headers);
        assert_eq!(
            parse(r#","producer_async":false"#).unwrap_err(),
            "mode: `tap` with `delivery` `acked` lets no request go on before its record is written: \
             it needs allow_on_headers_stop_iteration"
        );
    }

    #[test]
    fn each_fault_of_a_rule_names_its_field() {
        for (rules, error) in [
            ("[]", "match: must have 1 to 64 rules"),
            (r#"[{"pth":"/"}]"#, "match[0].pth: unknown field, did you mean `path`?"),
            (
                r#"[{},{"config":{"topicc":"x"}}]"#,
                "match[1].config.topicc: unknown field, did you mean `topic`?",
            ),
            (
                r#"[{"config":{"topic":"a b"}}]"#,
                "match[0].config.topic: must be 1 to 249 characters of a-z A-Z 0-9 . _ -",
            ),
            (r#"[{"config":{"match":[]}}]"#, "match[0].config.match: is the same for all rules"),
            (r#"[{"config":{"host":"auto"}}]"#, "match[0].config.host: is the same for all rules"),
            (
                r#"[{"config":{"allow_on_headers_stop_iteration":true}}]"#,
                "match[0].config.allow_on_headers_stop_iteration: is the same for all rules",
            ),
            (r#"[{"path":"a"}]"#, "match[0].path: must begin with /"),
            (
                r#"[{"path_prefix":"/a?b=c"}]"#,
                "match[0].path_prefix: must not have a query string or a fragment",
            ),
            (
                r#"[{"path":"/a","path_prefix":"/b"}]"#,
                "match[0]: has more than one of path, path_prefix, path_regex",
            ),
            (r#"[{"methods":[]}]"#, "match[0].methods: must not be empty, nor have an empty entry"),
            (
                r#"[{"methods":["GET","post"]}]"#,
                "match[0].methods: `post` is not a method: methods are in upper case",
            ),
            (
                r#"[{"hosts":["a*"]}]"#,
                "match[0].hosts: `a*` is neither a host name without a port nor `*.` and one",
            ),
            (
                r#"[{"hosts":["a","b:80"]}]"#,
                "match[0].hosts: `b:80` is neither a host name without a port nor `*.` and one",
            ),
            (
                r#"[{"config":{"headers":{"include_headers":[""]}}}]"#,
                "match[0].config.headers.include_headers[0]: must not be empty",
            ),
        ] {
            assert_eq!(plugin(rules).unwrap_err(), error);
        }
        for (base, own, error) in [
            (
                r#""delivery":"acked""#,
                r#""producer_async":true"#,
                "producer_async: with the fields that all rules share, delivery contradicts producer_async",
            ),
            (
                r#""producer_async":true"#,
                r#""delivery":"acked""#,
                "delivery: contradicts producer_async",
            ),
            (
                r#""cluster":"a""#,
                r#""bootstrap_servers":[{"host":"h","port":1}]"#,
                "bootstrap_servers: with the fields that all rules share, cluster excludes bootstrap_servers",
            ),
            (
                r#""message_expression":"message""#,
                r#""message_format":"body""#,
                "message_format: with the fields that all rules share, message_expression needs \
                 message_format `expression`",
            ),
            (r#""linger":5"#, r#""topic":null"#, "topic: is required"),
        ] {
            let config = format!(
                r#"{{"bridge":"b","topic":"t",{base},"match":[{{}},{{}},{{"config":{{{own}}}}}]}}"#
            );
            let refusal = Plugin::parse(config.as_bytes()).unwrap_err().to_string();
            assert_eq!(refusal, format!("match[2].config.{error}"));
        }
        let regex = plugin(r#"[{"path_regex":"("}]"#).unwrap_err();
        assert!(regex.starts_with("match[0].path_regex: "), "{regex}");
        let config = br#"{"bridge":"b","topic":"a b","match":[{}]}"#;
        assert_eq!(Plugin::parse(config).unwrap_err().path, "topic");
    }
}
