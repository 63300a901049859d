//! What `sasl.*` means together, and what it may not be.

use super::{Property, PropertyError, SaslLogin, USER, mechanism};
use crate::Config;
use crate::sasl::{
    AwsBase, AwsClient, AwsKeys, AwsRole, Mechanism, OAuthClient, Sasl, SaslIdentity,
};
use crate::secret::{Secret, SecretSource};
use crate::tls::HttpsTrust;

fn sasl(properties: &[(&str, &str)]) -> Result<Sasl, String> {
    let base = [("bootstrap.servers", "a:1"), ("security.protocol", "SASL_PLAINTEXT")];
    let all = base.iter().chain(properties).copied();
    Config::from_properties(all).map(|c| c.cluster.sasl.unwrap()).map_err(|error| error.to_string())
}

fn password(user: &str, password: &str, is_token: bool) -> SaslIdentity {
    let password = SecretSource::Given(Secret::new(password));
    SaslIdentity::Password { user: user.into(), password, is_token }
}

#[test]
fn user_and_password_are_properties_or_options_of_a_login_module() {
    let plain = sasl(&[
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "alice"),
        ("sasl.password", " with blanks "),
    ])
    .unwrap();
    assert_eq!(plain.mechanism, Mechanism::Plain);
    assert_eq!(plain.identity, password("alice", " with blanks ", false));
    let jaas = "x.ScramLoginModule required username=\"id\" password=\"mac\" tokenauth=\"true\";";
    let token = sasl(&[("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.jaas.config", jaas)]).unwrap();
    assert_eq!(token.mechanism, Mechanism::ScramSha512);
    assert_eq!(token.identity, password("id", "mac", true));
}

#[test]
fn a_password_may_stand_in_a_file_of_its_own() {
    let user = [("sasl.mechanism", "PLAIN"), ("sasl.username", "u")];
    let file = ("sasl.password.file", "/run/secrets/kafka");
    let password = SecretSource::File("/run/secrets/kafka".into());
    let identity = SaslIdentity::Password { user: "u".into(), password, is_token: false };
    assert_eq!(sasl(&[user[0], user[1], file]).unwrap().identity, identity);
    let both = sasl(&[user[0], user[1], file, ("sasl.password", "p")]).unwrap_err();
    assert_eq!(both, "`sasl.password.file` excludes `sasl.password`");
}

#[test]
fn client_credentials_have_scope_and_extensions() {
    let bearer = [("sasl.mechanism", "OAUTHBEARER")];
    let endpoint = ("sasl.oauthbearer.token.endpoint.url", "https://idp/token");
    let by_properties = sasl(&[
        bearer[0],
        endpoint,
        ("sasl.oauthbearer.client.credentials.client.id", "me"),
        ("sasl.oauthbearer.client.credentials.client.secret", "s"),
        ("sasl.oauthbearer.scope", "a b"),
        ("sasl.oauthbearer.extensions", "logicalCluster=lkc-1, identityPoolId=pool-2"),
    ])
    .unwrap();
    let jaas = "x.OAuthBearerLoginModule required clientId='me' clientSecret='s' scope='a b' \
        extension_logicalCluster='lkc-1' extension_identityPoolId='pool-2';";
    assert_eq!(sasl(&[bearer[0], endpoint, ("sasl.jaas.config", jaas)]).unwrap(), by_properties);
    assert_eq!(by_properties.extensions["logicalCluster"], "lkc-1");
    let client = OAuthClient {
        endpoint: "https://idp/token".into(),
        id: "me".into(),
        secret: SecretSource::Given(Secret::new("s")),
        scope: Some("a b".into()),
        trust: HttpsTrust::System,
    };
    assert_eq!(by_properties.identity, SaslIdentity::OAuth(client));
}

#[test]
fn whose_certificates_a_token_endpoint_may_have_is_a_property() {
    let client = [
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", "https://idp/token"),
        ("sasl.oauthbearer.client.credentials.client.id", "me"),
        ("sasl.oauthbearer.client.credentials.client.secret", "s"),
    ];
    let trust = |more: &[(&str, &str)]| match sasl(&[&client[..], more].concat()).unwrap().identity
    {
        SaslIdentity::OAuth(client) => client.trust,
        other => panic!("{other:?}"),
    };
    let pem = "-----BEGIN CERTIFICATE-----";
    let file = HttpsTrust::Authorities(SecretSource::File("/ca.pem".into()));
    assert_eq!(trust(&[]), HttpsTrust::System);
    assert_eq!(trust(&[("https.ca.location", "/ca.pem")]), file);
    let given = HttpsTrust::Authorities(SecretSource::Given(Secret::new(pem)));
    assert_eq!(trust(&[("https.ca.pem", pem)]), given);
    let unverified = ("sasl.oauthbearer.token.endpoint.tls.verify", "false");
    assert_eq!(trust(&[("https.ca.location", "/ca.pem"), unverified]), HttpsTrust::Anyone);
    let base = [("bootstrap.servers", "a:1"), ("https.ca.location", "/no/such/file")];
    let unused = Config::from_properties(base).unwrap();
    assert_eq!(
        unused.cluster.check_files().unwrap_err().to_string(),
        "`https.ca.location`: /no/such/file: No such file or directory (os error 2)"
    );
}

#[test]
fn what_java_says_of_a_token_endpoint_names_the_property_to_set() {
    let url = ("sasl.oauthbearer.token.endpoint.url", "https://idp/token");
    let jaas = "x.OAuthBearerLoginModule required clientId=me clientSecret=s \
        ssl.truststore.location='/t.jks' ssl.truststore.password=hunter2;";
    let both = [("sasl.mechanism", "OAUTHBEARER"), url, ("sasl.jaas.config", jaas)];
    assert_eq!(
        sasl(&both).unwrap_err(),
        "the option `ssl.truststore.location` of `sasl.jaas.config` is not read: set \
         `https.ca.location`, a PEM file"
    );
    let url = ("sasl.oauthbearer.token.endpoint.url", "https://me:hunter2@idp/token");
    let error = sasl(&[both[0], url, ("sasl.jaas.config", "A required clientId=me;")]).unwrap_err();
    assert_eq!(
        error,
        "`sasl.oauthbearer.token.endpoint.url` must be an address without a user and a password, \
         not `(secret)`"
    );
}

#[test]
fn a_password_in_the_address_of_a_token_endpoint_is_not_shown() {
    let told = |url: &str| {
        let url = ("sasl.oauthbearer.token.endpoint.url", url);
        let jaas = ("sasl.jaas.config", "A required clientId=me clientSecret=s;");
        sasl(&[("sasl.mechanism", "OAUTHBEARER"), url, jaas]).map(|_| ())
    };
    for url in ["me:hunter2@idp/t", "HTTPS://me:hunter2@idp/t", "https://me:hun/ter2@idp/t"] {
        let error = told(url).unwrap_err();
        assert!(!error.contains("hun") && !error.contains("ter2"), "{error}");
    }
    for url in ["http://[::1]/t", "https://[::1]:1/a@b", "https://idp:443/a@b", "https://idp/a@b"] {
        assert_eq!(told(url), Ok(()), "{url}");
    }
    let error = crate::Config::from_properties([("bootstrap.servers", "kafka://me:hunter2@a:1")]);
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("not `(secret)@a:1`"), "{error}");
}

#[test]
fn aws_is_asked_unless_there_are_keys() {
    let aws = ("sasl.mechanism", "AWS_MSK_IAM");
    assert_eq!(sasl(&[aws]).unwrap().identity, SaslIdentity::Aws(AwsClient::default()));
    let jaas = "software.amazon.msk.auth.iam.IAMLoginModule required awsProfileName=\"p\" \
        awsRegion=\"eu-west-1\";";
    let profile = sasl(&[aws, ("sasl.jaas.config", jaas)]).unwrap();
    let base = AwsBase::Profile("p".into());
    let client = AwsClient { base, ..AwsClient::default() };
    assert_eq!(profile.identity, SaslIdentity::Aws(client));
    assert_eq!(profile.region.as_deref(), Some("eu-west-1"));
    let jaas = "A required awsAccessKeyId=\"i\" awsSecretAccessKey=\"s\";";
    let keys = AwsKeys { id: "i".into(), secret: Secret::new("s"), session_token: None };
    let fixed = sasl(&[aws, ("sasl.jaas.config", jaas)]).unwrap();
    let client = AwsClient { base: AwsBase::Keys(keys), ..AwsClient::default() };
    assert_eq!(fixed.identity, SaslIdentity::Aws(client));
}

const IAM: &str = "software.amazon.msk.auth.iam.IAMClientCallbackHandler";
const IAM_TOKEN: &str = "software.amazon.msk.auth.iam.IAMOAuthBearerLoginCallbackHandler";

#[test]
fn the_properties_of_amazons_documentation_are_understood() {
    let role = "software.amazon.msk.auth.iam.IAMLoginModule required \
        awsRoleArn=\"arn:aws:iam::123456789012:role/msk\" awsRoleAccessKeyId=\"i\" \
        awsRoleSecretAccessKey=\"s\" awsRoleSessionToken=\"t\" awsRoleSessionName=\"producer\" \
        awsStsRegion=\"us-west-2\" awsRoleExternalId=\"e\" awsDebugCreds=\"false\";";
    let by_role = sasl(&[
        ("sasl.mechanism", "AWS_MSK_IAM"),
        ("sasl.jaas.config", role),
        ("sasl.client.callback.handler.class", IAM),
    ]);
    let session_token = Some(Secret::new("t"));
    let keys = AwsKeys { id: "i".into(), secret: Secret::new("s"), session_token };
    let role = AwsRole {
        arn: "arn:aws:iam::123456789012:role/msk".into(),
        session: Some("producer".into()),
        external_id: Some("e".into()),
        sts_region: Some("us-west-2".into()),
    };
    let client = AwsClient { base: AwsBase::Keys(keys), role: Some(role), ..AwsClient::default() };
    assert_eq!(by_role.unwrap().identity, SaslIdentity::Aws(client));

    let module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
        awsProfileName=p;";
    let token = sasl(&[
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.jaas.config", module),
        ("sasl.login.callback.handler.class", IAM_TOKEN),
        ("sasl.client.callback.handler.class", IAM_TOKEN),
    ])
    .unwrap();
    assert_eq!(token.mechanism, Mechanism::OAuthBearer);
    let client = AwsClient { base: AwsBase::Profile("p".into()), ..AwsClient::default() };
    assert_eq!(token.identity, SaslIdentity::Aws(client));
}

#[test]
fn an_option_of_aws_that_cannot_be_honoured_is_named() {
    for (options, error) in [
        ("awsAccessKeyId=i", "`awsAccessKeyId` needs `awsSecretAccessKey`"),
        ("awsSessionToken=hunter2", "`awsSessionToken` needs `awsAccessKeyId`"),
        ("awsRoleSessionName=x", "`awsRoleSessionName` needs `awsRoleArn`"),
        (
            "awsRoleAccessKeyId=i awsRoleSecretAccessKey=hunter2",
            "`awsRoleAccessKeyId` needs `awsRoleArn`",
        ),
        ("awsProfileName=p awsRoleArn='arn:x'", "`awsProfileName` excludes `awsRoleArn`"),
        ("awsRoleArn=me", "`awsRoleArn` must be the ARN of a role, `arn:aws:iam::…`, not `me`"),
        (
            "awsRegion='evil.example/'",
            "`awsRegion` must be a region of AWS, such as eu-west-1, not `evil.example/`",
        ),
        (
            "awsMaxRetries=3",
            "`awsMaxRetries=3` is not supported: leave it out, keys are asked for until there are \
             some",
        ),
        (
            "awsDebugCreds=true",
            "`awsDebugCreds=true` is not supported: it would write into the log whose keys are \
             used; `aws sts get-caller-identity` says that",
        ),
        ("awsSecretKey=hunter2", "`awsSecretKey` is not an option of AWS_MSK_IAM"),
    ] {
        let jaas = format!("A required {options};");
        let refused = sasl(&[("sasl.mechanism", "AWS_MSK_IAM"), ("sasl.jaas.config", &jaas)]);
        assert_eq!(refused, Err(error.to_owned()));
    }
}

#[test]
fn a_callback_handler_is_a_name_that_is_known_and_goes_with_the_mechanism() {
    let login = "sasl.login.callback.handler.class";
    let client = "sasl.client.callback.handler.class";
    let endpoint = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler";
    let bearer = ("sasl.mechanism", "OAUTHBEARER");
    for (properties, error) in [
        (
            &[bearer, (client, "com.example.Mine")][..],
            format!(
                "`sasl.client.callback.handler.class` must be one of {IAM}, {IAM_TOKEN}, not \
                 `com.example.Mine`"
            ),
        ),
        (&[bearer, (client, IAM)], format!("`{client}` needs `sasl.mechanism=AWS_MSK_IAM`")),
        (
            &[bearer, (login, endpoint), (client, IAM_TOKEN)],
            format!("`{login}` excludes `{client}`"),
        ),
        (
            &[bearer, (login, IAM_TOKEN), ("sasl.oauthbearer.token.endpoint.url", "http://h/")],
            "`sasl.oauthbearer.token.endpoint.url` is not an option of OAUTHBEARER".to_owned(),
        ),
        (
            &[bearer, (login, endpoint)],
            "the property `sasl.oauthbearer.token.endpoint.url` is required".to_owned(),
        ),
    ] {
        assert_eq!(sasl(properties), Err(error));
    }
}

#[test]
fn what_is_missing_or_means_nothing_is_named_and_no_secret_is() {
    let plain = ("sasl.mechanism", "PLAIN");
    for (properties, error) in [
        (&[][..], "the property `sasl.mechanism` is required"),
        (&[plain], "the property `sasl.username` is required"),
        (&[plain, ("sasl.username", "u")], "the property `sasl.password` is required"),
        (
            &[("sasl.mechanism", "PLAINER")],
            "`sasl.mechanism` must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, \
             AWS_MSK_IAM, GSSAPI, not `PLAINER`",
        ),
        (
            &[plain, ("sasl.jaas.config", "A required password=hunter2")],
            "`sasl.jaas.config` must be a login module: `class required name=\"value\" …;`, with \
             the `;`, lines without a last `\\`, not `(secret)`",
        ),
        (
            &[plain, ("sasl.password", "hunter2\0")],
            "`sasl.password` must be a text without NUL, not `(secret)`",
        ),
        (
            &[plain, ("sasl.jaas.config", "A required username=u password=p keyTab=k;")],
            "`keyTab` is not an option of PLAIN",
        ),
        (
            &[("sasl.mechanism", "OAUTHBEARER"), ("sasl.oauthbearer.extensions", "auth=x")],
            "`sasl.oauthbearer.extensions` must be `name=value` with commas between, names of \
             letters only and not `auth`, not `auth=x`",
        ),
    ] {
        assert_eq!(sasl(properties), Err(error.to_owned()));
    }
}

#[test]
fn a_build_without_kerberos_says_how_to_make_one_with_it() {
    let property = Property { name: "sasl.mechanism", value: "GSSAPI" };
    assert_eq!(
        mechanism(property, false).unwrap_err().to_string(),
        "`sasl.mechanism=GSSAPI` is not supported: this build has no Kerberos; with libkrb5-dev \
         and libclang-dev, `cargo build --release -p host-bridge --features gssapi` makes one \
         that has"
    );
}

#[test]
fn sasl_without_a_protocol_that_has_it_is_refused() {
    let error = Config::from_properties([("bootstrap.servers", "a:1"), ("sasl.username", "u")]);
    assert_eq!(error.unwrap_err().to_string(), "`sasl.username` needs `security.protocol=SASL_…`");
}

#[test]
fn a_configuration_shows_no_secret_and_differs_by_it() {
    let with = |password| {
        let user =
            [("sasl.mechanism", "PLAIN"), ("sasl.username", "u"), ("sasl.password", password)];
        sasl(&user).unwrap()
    };
    assert_ne!(with("one"), with("two"));
    assert!(!format!("{:?}", with("hunter2")).contains("hunter2"));
}

#[test]
fn a_login_in_types_is_the_same_as_in_properties() {
    let typed = |login| crate::ClusterConfig::new("a:1").unwrap().sasl(login);
    let cluster = |properties: &[(&str, &str)]| {
        let all = properties.iter().copied().chain([("bootstrap.servers", "a:1")]);
        Config::from_properties(all).unwrap().cluster
    };
    let (user, password) = ("u".to_owned(), Secret::new("p,\";"));
    let plain = SaslLogin::Plain { user: user.clone(), password: password.clone() };
    let named = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "u"),
        ("sasl.password", "p,\";"),
    ];
    assert_eq!(typed(plain), Ok(cluster(&named)));
    let scram = SaslLogin::Scram { is_sha512: true, user, password, is_token: true };
    let jaas = "M required username=\"u\" password=\"p,\\\";\" tokenauth=\"true\";";
    let named = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.jaas.config", jaas),
    ];
    assert_eq!(typed(scram), Ok(cluster(&named)));
    let nobody = SaslLogin::Plain { user: String::new(), password: Secret::new("p") };
    assert_eq!(typed(nobody), Err(PropertyError::Missing(USER)));
    let cut = SaslLogin::Plain { user: "a\0b".to_owned(), password: Secret::new("p") };
    assert!(typed(cut).is_err());
}
