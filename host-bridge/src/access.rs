//! A filter's `authentication` in Kafka's own words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kafka_upstream_core::access::{Authentication, Mechanism, OAuthBearer};
use kafka_upstream_core::secret::Secret;

/// Why a filter does not get the authentication that it asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "authentication.mechanism: GSSAPI is the identity of a cluster in the bridge's \
         configuration; name one as `cluster` that has sasl.mechanism = \"GSSAPI\""
    )]
    NoKerberos,
    #[error("authentication.oauthbearer.extensions: a name has letters only, not `{0}`")]
    Extension(String),
}

/// Replaces what the cluster says of SASL by what the filter says.
pub(crate) fn apply(
    authentication: &Authentication,
    properties: &mut BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let Some(mechanism) = authentication.mechanism else { return Ok(()) };
    let is_own = properties.get("sasl.mechanism").is_some_and(|own| own == name(mechanism));
    match mechanism {
        // Without its role, keys and region a cluster's identity would be the process's own.
        Mechanism::Gssapi | Mechanism::AwsMskIam if is_own => return Ok(()),
        Mechanism::Gssapi => return Err(Refusal::NoKerberos),
        _ => {}
    }
    properties.retain(|name, _| !name.starts_with("sasl."));
    let has_tls = properties.get("security.protocol").is_some_and(|now| now.ends_with("SSL"));
    let protocol = if has_tls { "SASL_SSL" } else { "SASL_PLAINTEXT" };
    let mut set = |name: &str, value: &str| properties.insert(name.to_owned(), value.to_owned());
    set("security.protocol", protocol);
    set("sasl.mechanism", name(mechanism));
    let mut options = Options::new();
    match mechanism {
        Mechanism::Plain => options.user(authentication),
        Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
            options.user(authentication);
            if authentication.tokenauth == Some(true) {
                options.add("tokenauth", "true");
            }
        }
        Mechanism::OAuthBearer => {
            let oauth = authentication.oauthbearer.clone().unwrap_or_default();
            if let Some(url) = &oauth.token_endpoint_url {
                set("sasl.oauthbearer.token.endpoint.url", url);
            }
            if oauth.token_endpoint_tls_verify == Some(false) {
                set("sasl.oauthbearer.token.endpoint.tls.verify", "false");
            }
            // Unlike a value, a name could become another option.
            let names = oauth.extensions.iter().flatten().map(|(name, _)| name);
            let is_name = |name: &&String| name.bytes().all(|byte| byte.is_ascii_alphabetic());
            if let Some(wrong) = names.into_iter().find(|name| !is_name(name)) {
                return Err(Refusal::Extension(wrong.clone()));
            }
            options.client(&oauth);
        }
        // The identity is the bridge's own.
        Mechanism::AwsMskIam | Mechanism::Gssapi => return Ok(()),
    }
    set("sasl.jaas.config", &options.finish());
    Ok(())
}

fn name(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::ScramSha256 => "SCRAM-SHA-256",
        Mechanism::ScramSha512 => "SCRAM-SHA-512",
        Mechanism::OAuthBearer => "OAUTHBEARER",
        Mechanism::AwsMskIam => "AWS_MSK_IAM",
        Mechanism::Gssapi => "GSSAPI",
    }
}

/// `sasl.jaas.config`, which takes every text and tells of a delegation token.
struct Options(String);

impl Options {
    fn new() -> Self {
        Self("LoginModule required".to_owned())
    }

    fn user(&mut self, authentication: &Authentication) {
        self.secret("username", authentication.user.as_ref());
        self.secret("password", authentication.password.as_ref());
    }

    fn client(&mut self, oauth: &OAuthBearer) {
        self.add("clientId", oauth.client_id.as_deref().unwrap_or_default());
        self.secret("clientSecret", oauth.client_secret.as_ref());
        if let Some(scopes) = &oauth.scopes {
            self.add("scope", &scopes.join(" "));
        }
        for (name, value) in oauth.extensions.iter().flatten() {
            self.add(&format!("extension_{name}"), value);
        }
    }

    fn secret(&mut self, name: &str, secret: Option<&Secret>) {
        self.add(name, secret.map(Secret::expose).unwrap_or_default());
    }

    fn add(&mut self, name: &str, value: &str) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        // Writing to a String cannot fail.
        let _infallible = write!(self.0, " {name}=\"{value}\"");
    }

    fn finish(mut self) -> String {
        self.0.push(';');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(authentication: &str, cluster: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let mut properties = cluster.iter().map(owned).collect();
        apply(&serde_json::from_str(authentication).unwrap(), &mut properties).unwrap();
        properties.into_iter().collect()
    }

    #[test]
    fn the_filters_authentication_replaces_the_clusters() {
        let cluster = [
            ("security.protocol", "SSL"),
            ("sasl.password.file", "/p"),
            ("acks", "1"),
            ("sasl.username", "bridge"),
        ];
        let authentication =
            r#"{"mechanism":"SCRAM-SHA-256","user":"a\"b","password":"c\\d;","tokenauth":true}"#;
        let expected = [
            ("acks", "1"),
            (
                "sasl.jaas.config",
                r#"LoginModule required username="a\"b" password="c\\d;" tokenauth="true";"#,
            ),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("security.protocol", "SASL_SSL"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(applied(authentication, &cluster), expected);
    }

    #[test]
    fn kerberos_is_the_clusters_own_or_refused() {
        let own = [("sasl.kerberos.service.name", "kafka"), ("sasl.mechanism", "GSSAPI")];
        let kept = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(applied(r#"{"mechanism":"GSSAPI"}"#, &own), kept);
        let asked = serde_json::from_str(r#"{"mechanism":"GSSAPI"}"#).unwrap();
        let error = apply(&asked, &mut BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(
            error,
            "authentication.mechanism: GSSAPI is the identity of a cluster in the bridge's \
             configuration; name one as `cluster` that has sasl.mechanism = \"GSSAPI\""
        );
    }

    #[test]
    fn the_identity_at_aws_is_the_clusters_own_if_it_has_one() {
        let jaas = "A required awsRoleArn=\"arn:aws:iam::1:role/r\";";
        let own = [
            ("sasl.jaas.config", jaas),
            ("sasl.mechanism", "AWS_MSK_IAM"),
            ("security.protocol", "SASL_SSL"),
        ];
        let kept = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(applied(r#"{"mechanism":"AWS_MSK_IAM"}"#, &own), kept);
        let other = [("sasl.username", "a"), ("security.protocol", "SASL_SSL")];
        let of_process = [("sasl.mechanism", "AWS_MSK_IAM"), ("security.protocol", "SASL_SSL")];
        let of_process = of_process.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(applied(r#"{"mechanism":"AWS_MSK_IAM"}"#, &other), of_process);
    }

    #[test]
    fn the_name_of_an_extension_is_no_way_to_another_option() {
        let asked = r#"{"mechanism":"OAUTHBEARER","oauthbearer":{"client_id":"i",
            "extensions":{"a=\"b\" clientId":"other"}}}"#;
        let asked = serde_json::from_str(asked).unwrap();
        let error = apply(&asked, &mut BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(
            error,
            "authentication.oauthbearer.extensions: a name has letters only, not `a=\"b\" clientId`"
        );
    }

    #[test]
    fn client_credentials_keep_scopes_and_extensions() {
        let authentication = r#"{"mechanism":"OAUTHBEARER","oauthbearer":{
            "token_endpoint_url":"http://127.0.0.1:1/t","client_id":"i","client_secret":"s",
            "scopes":["a","b"],"extensions":{"logicalCluster":"lkc"},
            "token_endpoint_tls_verify":false}}"#;
        let applied = applied(authentication, &[]);
        let jaas = "LoginModule required clientId=\"i\" clientSecret=\"s\" scope=\"a b\" \
            extension_logicalCluster=\"lkc\";";
        assert!(applied.contains(&("sasl.jaas.config".into(), jaas.into())), "{applied:?}");
        let verify = "sasl.oauthbearer.token.endpoint.tls.verify";
        assert!(applied.contains(&(verify.into(), "false".into())), "{applied:?}");
        let all = applied.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let config =
            kafka_client::Config::from_properties(all.chain([("bootstrap.servers", "a:1")]));
        assert!(config.is_ok(), "{config:?}");
    }
}
