//! TLS with servers of this process: who is accepted, who is not, and what is said then.

mod authority;
mod client;

use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{ClientCertificate, HttpsTrust, Tls, TlsConfig, TlsTrust, explain};
use crate::Config;
use crate::secret::{Secret, SecretSource};
use crate::stats::Counters;
use authority::{Authority, Issued};

/// A server with a certificate, and what it asks of clients.
fn server(own: &Issued, clients: Option<&Authority>, versions: &str) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[_] = match versions {
        "1.2" => &[&rustls::version::TLS12],
        "1.3" => &[&rustls::version::TLS13],
        _ => rustls::ALL_VERSIONS,
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der()).unwrap();
            let provider = provider.clone();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    // As it is, also a certificate that the library cannot read.
    let key = provider.key_provider.load_private_key(own.key()).unwrap();
    let own = SingleCertAndKey::from(CertifiedKey::new(own.chain.clone(), key));
    TlsAcceptor::from(Arc::new(builder.with_cert_resolver(Arc::new(own))))
}

fn tls(properties: &[(&str, &str)]) -> Tls {
    let first = [("bootstrap.servers", "a:1"), ("security.protocol", "SSL")];
    let config = Config::from_properties(first.into_iter().chain(properties.iter().copied()));
    Tls::new(config.unwrap().cluster.tls, Arc::new(Counters::default()))
}

/// Connects to `host` and exchanges a byte each way; `Ok` has the SNI that the server saw.
async fn connect(tls: &Tls, acceptor: &TlsAcceptor, host: &str) -> Result<Option<String>, String> {
    let (ours, theirs) = duplex(1024);
    let serving = tokio::spawn(serve(acceptor.clone(), theirs));
    let talk = async {
        let (mut stream, _) = tls.connect(ours, host).await.map_err(|error| error.to_string())?;
        let said = async {
            stream.write_all(b"?").await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        match said.await {
            Ok(_) => Ok(()),
            Err(error) => Err(explain(&error).map_or_else(|| error.to_string(), |e| e.to_string())),
        }
    };
    let done = timeout(Duration::from_secs(10), talk).await.unwrap();
    done?;
    Ok(serving.await.unwrap())
}

async fn serve(acceptor: TlsAcceptor, stream: DuplexStream) -> Option<String> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    let name = stream.get_ref().1.server_name().map(str::to_owned);
    stream.read_u8().await.ok()?;
    stream.write_all(b"!").await.ok()?;
    stream.flush().await.ok()?;
    name
}

#[tokio::test]
async fn a_broker_of_a_trusted_issuer_is_accepted_in_tls_1_2_and_1_3() {
    let authority = Authority::new("root");
    let acceptor = |versions| server(&authority.issue(&["kafka.test"]), None, versions);
    for (ours, theirs) in [("TLSv1.2", "1.2"), ("TLSv1.3", "1.3"), ("TLSv1.2,TLSv1.3", "1.2")] {
        let trusted = authority.pem();
        let tls =
            tls(&[("ssl.truststore.certificates", &trusted), ("ssl.enabled.protocols", ours)]);
        let name = connect(&tls, &acceptor(theirs), "kafka.test").await;
        assert_eq!(name, Ok(Some("kafka.test".to_owned())), "{ours}");
    }
    let tls = tls(&[
        ("ssl.truststore.certificates", &authority.pem()),
        ("ssl.enabled.protocols", "TLSv1.3"),
    ]);
    let error = connect(&tls, &acceptor("1.2"), "kafka.test").await.unwrap_err();
    assert!(error.contains("ssl.enabled.protocols"), "{error}");
}

#[tokio::test]
async fn a_broker_whose_chain_has_an_intermediate_is_accepted() {
    let root = Authority::new("root");
    let middle = root.subordinate("middle");
    let acceptor = server(&middle.issue(&["kafka.test"]), None, "");
    for trusted in [
        root.pem(),
        middle.pem(),
        format!("# text\n{}{}", Authority::new("other").pem(), root.pem()),
    ] {
        let tls = tls(&[("ssl.truststore.certificates", &trusted)]);
        assert!(connect(&tls, &acceptor, "kafka.test").await.is_ok());
    }
}

#[tokio::test]
async fn who_is_not_trusted_is_refused_with_what_to_change() {
    let root = Authority::new("root");
    let good = root.issue(&["kafka.test"]);
    let expired = root.issue_for_years(&["kafka.test"], 2001, 2002);
    let early = root.issue_for_years(&["kafka.test"], 4000, 4001);
    let bare = root.issue(&[]);
    let ours = root.pem();
    let (theirs, namesake) = (Authority::new("other").pem(), Authority::new("root").pem());
    for (issued, trusted, host, said) in [
        (
            &good,
            &theirs,
            "kafka.test",
            "issued by nobody whom we trust; is its issuer in ssl.truststore.*?",
        ),
        (&good, &namesake, "kafka.test", "signed with another key"),
        (&good, &ours, "other.test", "is for kafka.test, not for `other.test`"),
        (&good, &ours, "127.0.0.1", "not for `127.0.0.1`"),
        (&bare, &ours, "kafka.test", "names no host"),
        (&expired, &ours, "kafka.test", "expired"),
        (&early, &ours, "kafka.test", "not valid yet"),
    ] {
        let tls = tls(&[("ssl.truststore.certificates", trusted)]);
        let error = connect(&tls, &server(issued, None, ""), host).await.unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_name_or_an_address_of_the_certificate_is_the_one_that_was_dialled() {
    let root = Authority::new("root");
    let acceptor = server(&root.issue(&["*.kafka.test", "127.0.0.1", "::1"]), None, "");
    let tls = tls(&[("ssl.truststore.certificates", &root.pem())]);
    assert_eq!(connect(&tls, &acceptor, "b1.kafka.test").await, Ok(Some("b1.kafka.test".into())));
    for address in ["127.0.0.1", "::1", "::1%lo"] {
        assert_eq!(connect(&tls, &acceptor, address).await, Ok(None), "an address is no SNI");
    }
    for other in ["b1.b2.kafka.test", "kafka.test", "127.0.0.2", "::2"] {
        assert!(connect(&tls, &acceptor, other).await.is_err(), "{other}");
    }
    let error = connect(&tls, &acceptor, "a:b").await.unwrap_err();
    assert!(error.starts_with("`a:b` is neither a host name nor an address"), "{error}");
}

#[tokio::test]
async fn each_switch_turns_off_its_check_alone() {
    let root = Authority::new("root");
    let stranger = Authority::new("stranger").issue(&["kafka.test"]);
    let (ours, theirs) =
        (server(&root.issue(&["kafka.test"]), None, ""), server(&stranger, None, ""));
    let trusted = root.pem();
    let no_name = tls(&[
        ("ssl.truststore.certificates", &trusted),
        ("ssl.endpoint.identification.algorithm", ""),
    ]);
    assert!(connect(&no_name, &ours, "other.test").await.is_ok());
    assert!(connect(&no_name, &theirs, "kafka.test").await.is_err());
    let nothing = tls(&[("enable.ssl.certificate.verification", "false")]);
    assert!(connect(&nothing, &theirs, "other.test").await.is_ok());
}

#[tokio::test]
async fn a_certificate_of_x509_version_1_connects_where_nothing_is_checked() {
    let root = Authority::new("root");
    let nothing = tls(&[("enable.ssl.certificate.verification", "false")]);
    for versions in ["1.2", "1.3"] {
        let acceptor = server(&root.issue_version_1(), None, versions);
        let connected = connect(&nothing, &acceptor, "kafka.test").await;
        assert_eq!(connected, Ok(Some("kafka.test".to_owned())), "TLS {versions}");
        assert_eq!(endpoint(&HttpsTrust::Anyone, &acceptor).await, Ok(()), "TLS {versions}");
    }
}

#[tokio::test]
async fn a_certificate_of_x509_version_1_is_refused_with_how_to_reissue_it() {
    let root = Authority::new("root");
    let trusted = root.pem();
    let all = [("ssl.truststore.certificates", &*trusted)];
    let no_name = [all[0], ("ssl.endpoint.identification.algorithm", "")];
    let own = root.issue_version_1();
    let issued = root.subordinate_of_version_1("middle").issue(&["kafka.test"]);
    for (properties, issued) in [(&all[..], &own), (&no_name, &own), (&all, &issued)] {
        let refused = connect(&tls(properties), &server(issued, None, ""), "kafka.test").await;
        assert_eq!(
            refused.unwrap_err(),
            "the broker's certificate, or its issuer's, is of X.509 version 1 or 2, in which \
             nothing says what it is for: reissue it as version 3 (openssl x509 -req with \
             -extfile, or keytool -gencert), with `kafka.test` as a subject alternative name"
        );
    }
    let ours = tls(&[
        ("ssl.truststore.certificates", &trusted),
        ("ssl.keystore.key", &own.key_pem()),
        ("ssl.keystore.certificate.chain", &own.chain_pem()),
    ]);
    let error = ours.reload().await.unwrap_err().to_string();
    assert!(error.contains("the certificate is of X.509 version 1 or 2"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_itself_in_the_truststore_is_accepted_while_it_is_valid() {
    let own = Authority::new("kafka.test").itself();
    let old = Authority::new_for_years("kafka.test", 2001, 2002).itself();
    for (issued, host, accepted) in
        [(&own, "kafka.test", true), (&own, "other.test", false), (&old, "kafka.test", false)]
    {
        let tls = tls(&[("ssl.truststore.certificates", &issued.chain_pem())]);
        let connected = connect(&tls, &server(issued, None, ""), host).await;
        assert_eq!(connected.is_ok(), accepted, "{connected:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_with_its_chain() {
    let (brokers, clients) = (Authority::new("brokers"), Authority::new("clients"));
    let trusted = brokers.pem();
    let middle = clients.subordinate("middle");
    let right = middle.issue(&["client"]);
    let wrong = Authority::new("strangers").issue(&["client"]);
    for versions in ["1.2", "1.3"] {
        let acceptor = server(&brokers.issue(&["kafka.test"]), Some(&clients), versions);
        let own = |issued: &Issued| {
            tls(&[
                ("ssl.truststore.certificates", &trusted),
                ("ssl.keystore.key", &issued.key_pem()),
                ("ssl.keystore.certificate.chain", &issued.chain_pem()),
            ])
        };
        let connected = connect(&own(&right), &acceptor, "kafka.test").await;
        assert_eq!(connected, Ok(Some("kafka.test".into())));
        let error = connect(&own(&wrong), &acceptor, "kafka.test").await.unwrap_err();
        assert!(error.contains("wants a client certificate that it trusts"), "{versions}: {error}");
        let nobody = tls(&[("ssl.truststore.certificates", &trusted)]);
        let error = connect(&nobody, &acceptor, "kafka.test").await.unwrap_err();
        assert!(
            error.contains("set ssl.keystore.*") || error.contains("misses"),
            "{versions}: {error}"
        );
    }
}

#[tokio::test]
async fn what_does_not_speak_tls_is_recognised() {
    for (answer, said) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "the listener does not speak TLS"),
        (b"", "the listener closed the connection in the TLS handshake"),
    ] {
        let tls = tls(&[("enable.ssl.certificate.verification", "false")]);
        let (ours, mut theirs) = duplex(1024);
        tokio::spawn(async move {
            let _hello = theirs.read_u8().await;
            theirs.write_all(answer).await.unwrap();
        });
        let error = tls.connect(ours, "kafka.test").await.unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

/// What a token endpoint that shows this is told to be.
async fn endpoint(trust: &HttpsTrust, acceptor: &TlsAcceptor) -> Result<(), String> {
    let (ours, theirs) = duplex(1024);
    let acceptor = acceptor.clone();
    tokio::spawn(async move { acceptor.accept(theirs).await.map(|_| ()) });
    let connected = trust.connect(ours, "idp.test").await;
    connected.map(|_| ()).map_err(|cause| cause.to_string())
}

#[tokio::test]
async fn a_token_endpoint_is_trusted_as_https_ca_says() {
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let pem = |authority: &Authority| {
        HttpsTrust::Authorities(SecretSource::Given(Secret::new(authority.pem())))
    };
    let right = server(&authority.issue(&["idp.test"]), None, "");
    let elsewhere = server(&authority.issue(&["a.test"]), None, "");
    assert_eq!(endpoint(&pem(&authority), &right).await, Ok(()));
    assert_eq!(endpoint(&HttpsTrust::Anyone, &elsewhere).await, Ok(()));
    let text = HttpsTrust::Authorities(SecretSource::Given(Secret::new("no PEM")));
    for (trust, acceptor, told) in [
        (
            pem(&other),
            &right,
            "its certificate was issued by nobody whom we trust; is its issuer in \
             https.ca.location?",
        ),
        (
            pem(&authority),
            &elsewhere,
            "its certificate is for a.test, not for `idp.test`; use such a name in its address",
        ),
        (text, &right, "`https.ca.pem`: there is no trusted certificate in it"),
    ] {
        assert_eq!(endpoint(&trust, acceptor).await.unwrap_err(), told);
    }
    let (ours, mut theirs) = duplex(1024);
    theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let plain = HttpsTrust::Anyone.connect(ours, "idp.test").await.map(|_| ()).unwrap_err();
    assert_eq!(&*plain, "it does not speak TLS; should its address begin with http://?");
}

#[tokio::test]
async fn a_server_of_https_that_wants_a_certificate_gets_the_configured_one() {
    let authority = Authority::new("root");
    let acceptor = server(&authority.issue(&["hooks.test"]), Some(&authority), "");
    let own = authority.issue(&["bridge.test"]);
    let given = |text: String| SecretSource::Given(Secret::new(text));
    let trust = TlsConfig::default().trust(TlsTrust::Pem(given(authority.pem())));
    let certificate = ClientCertificate::Pem {
        key: given(own.key_pem()),
        chain: given(own.chain_pem()),
        key_password: None,
    };
    let with = trust.clone().certificate(certificate);
    for (settings, is_accepted) in [(with, true), (trust, false)] {
        let (ours, theirs) = duplex(1024);
        let acceptor = acceptor.clone();
        let accepting = tokio::spawn(async move { acceptor.accept(theirs).await.is_ok() });
        let trust = HttpsTrust::AsConfigured(Box::new(settings));
        trust.check().unwrap();
        // With TLS 1.3 it is the server who notices.
        let connected = trust.connect(ours, "hooks.test").await;
        assert!(connected.is_ok() || !is_accepted);
        assert_eq!(accepting.await.unwrap(), is_accepted);
    }
}
