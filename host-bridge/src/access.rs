//! A filter's `authentication` in Kafka's own words.

use std::collections::BTreeMap;

use kafka_client::{HttpsTrust, OAuthClient, SaslLogin, SecretSource, is_extension};
use kafka_upstream_core::access::{Authentication, Mechanism};
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
    ExtensionName(String),
    #[error("authentication.oauthbearer.extensions: the value of `{0}` is empty, or not ASCII")]
    ExtensionValue(String),
}

/// Takes what the cluster says of SASL out of its properties, where the filter says something else;
/// [`login`] says what. The identities at AWS and of Kerberos are never the filter's.
pub(crate) fn apply(
    authentication: &Authentication,
    properties: &mut BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let Some(mechanism) = authentication.mechanism else { return Ok(()) };
    let is_own = properties.get("sasl.mechanism").is_some_and(|own| own == name(mechanism));
    let is_of_aws = match mechanism {
        // Without its role, keys and region a cluster's identity would be the process's own.
        Mechanism::Gssapi | Mechanism::AwsMskIam if is_own => return Ok(()),
        Mechanism::Gssapi => return Err(Refusal::NoKerberos),
        mechanism => mechanism == Mechanism::AwsMskIam,
    };
    properties.retain(|name, _| !name.starts_with("sasl."));
    let has_tls = properties.get("security.protocol").is_some_and(|now| now.ends_with("SSL"));
    let protocol = match (is_of_aws, has_tls) {
        (true, true) => "SASL_SSL",
        (true, false) => "SASL_PLAINTEXT",
        (false, true) => "SSL",
        (false, false) => "PLAINTEXT",
    };
    let mut set = |name: &str, value: &str| properties.insert(name.to_owned(), value.to_owned());
    set("security.protocol", protocol);
    if is_of_aws {
        set("sasl.mechanism", name(mechanism));
    }
    Ok(())
}

/// How the filter authenticates; `trust` is for its token endpoint. None where that is the cluster's.
///
/// # Errors
/// [`Refusal::ExtensionName`], [`Refusal::ExtensionValue`].
pub(crate) fn login(
    authentication: &Authentication,
    trust: HttpsTrust,
) -> Result<Option<SaslLogin>, Refusal> {
    let Some(mechanism) = authentication.mechanism else { return Ok(None) };
    let text = |text: &Option<Secret>| text.as_ref().map_or("", Secret::expose).to_owned();
    let (user, password) = (text(&authentication.user), text(&authentication.password));
    let password = kafka_client::Secret::new(password);
    let is_token = authentication.tokenauth == Some(true);
    Ok(Some(match mechanism {
        Mechanism::Plain => SaslLogin::Plain { user, password },
        Mechanism::ScramSha256 => SaslLogin::Scram { is_sha512: false, user, password, is_token },
        Mechanism::ScramSha512 => SaslLogin::Scram { is_sha512: true, user, password, is_token },
        Mechanism::OAuthBearer => {
            let oauth = authentication.oauthbearer.clone().unwrap_or_default();
            let secret = kafka_client::Secret::new(text(&oauth.client_secret));
            let client = OAuthClient {
                endpoint: oauth.token_endpoint_url.unwrap_or_default(),
                id: oauth.client_id.unwrap_or_default(),
                secret: SecretSource::Given(secret),
                scope: oauth
                    .scopes
                    .map(|scopes| scopes.join(" "))
                    .filter(|scope| !scope.is_empty()),
                trust: match oauth.token_endpoint_tls_verify {
                    Some(false) => HttpsTrust::Anyone,
                    _ => trust,
                },
            };
            let extensions = oauth.extensions.unwrap_or_default();
            for (name, value) in &extensions {
                if !is_extension(name, "any") {
                    return Err(Refusal::ExtensionName(name.clone()));
                }
                if !is_extension(name, value) {
                    return Err(Refusal::ExtensionValue(name.clone()));
                }
            }
            SaslLogin::OAuthBearer { client, extensions }
        }
        Mechanism::AwsMskIam | Mechanism::Gssapi => return Ok(None),
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(authentication: &str, cluster: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let mut properties = cluster.iter().map(owned).collect();
        apply(&serde_json::from_str(authentication).unwrap(), &mut properties).unwrap();
        properties.into_iter().collect()
    }

    fn login_of(authentication: &str) -> Result<Option<SaslLogin>, String> {
        let authentication = serde_json::from_str(authentication).unwrap();
        login(&authentication, HttpsTrust::default()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn the_filters_authentication_replaces_the_clusters() {
        let cluster = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.password.file", "/p"),
            ("acks", "1"),
            ("sasl.username", "bridge"),
        ];
        let authentication =
            r#"{"mechanism":"SCRAM-SHA-256","user":"a\"b","password":"c\\d;","tokenauth":true}"#;
        let expected = [("acks", "1"), ("security.protocol", "SSL")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(applied(authentication, &cluster), expected);
        let (user, password) = ("a\"b".to_owned(), kafka_client::Secret::new("c\\d;"));
        let scram = SaslLogin::Scram { is_sha512: false, user, password, is_token: true };
        assert_eq!(login_of(authentication), Ok(Some(scram)));
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
        let error = "authentication.oauthbearer.extensions: a name has letters only, not \
            `a=\"b\" clientId`";
        assert_eq!(login_of(asked), Err(error.to_owned()));
        let valued = |value: &str| {
            format!(
                r#"{{"mechanism":"OAUTHBEARER","oauthbearer":{{"extensions":{{"a":"{value}"}}}}}}"#
            )
        };
        for value in ["", "ü", "\\u0001"] {
            let error = login_of(&valued(value)).unwrap_err();
            assert!(error.ends_with("the value of `a` is empty, or not ASCII"), "{error}");
        }
        assert!(login_of(&valued("lkc-1")).is_ok());
    }

    #[test]
    fn client_credentials_keep_scopes_and_extensions() {
        let authentication = r#"{"mechanism":"OAUTHBEARER","oauthbearer":{
            "token_endpoint_url":"http://127.0.0.1:1/t","client_id":"i","client_secret":"s",
            "scopes":["a","b"],"extensions":{"logicalCluster":"lkc"},
            "token_endpoint_tls_verify":false}}"#;
        let login = login_of(authentication).unwrap().unwrap();
        let client = OAuthClient {
            endpoint: "http://127.0.0.1:1/t".to_owned(),
            id: "i".to_owned(),
            secret: SecretSource::Given(kafka_client::Secret::new("s")),
            scope: Some("a b".to_owned()),
            trust: HttpsTrust::Anyone,
        };
        let extensions = BTreeMap::from([("logicalCluster".to_owned(), "lkc".to_owned())]);
        assert_eq!(login, SaslLogin::OAuthBearer { client, extensions });
        let config = kafka_client::ClusterConfig::new("a:1").unwrap();
        assert!(config.sasl(login).is_ok());
    }
}
