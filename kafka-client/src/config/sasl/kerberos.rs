//! The Kerberos identity: Kafka's properties, and the options of Java's `Krb5LoginModule`.

use super::options::Options;
use crate::config::property::PropertyError;
use crate::sasl::{Kerberos, SaslIdentity, Tickets};

pub(in crate::config) const SERVICE: &str = "sasl.kerberos.service.name";
/// Librdkafka's.
pub(in crate::config) const PRINCIPAL: &str = "sasl.kerberos.principal";
/// Librdkafka's.
pub(in crate::config) const KEYTAB: &str = "sasl.kerberos.keytab";

/// What Java's module does that has no meaning here: nothing is asked on a terminal, and what is
/// kept between authentications is the C library's business.
const WITHOUT_MEANING: [&str; 4] = ["debug", "doNotPrompt", "refreshKrb5Config", "storeKey"];

/// Options that change what happens, by the value that is not possible.
const REFUSED: [(&str, &str, &str); 2] = [
    ("isInitiator", "false", "a client is one"),
    ("renewTGT", "true", "a ticket cache is renewed by who fills it, for instance k5start"),
];

pub(super) fn identity(options: &mut Options) -> Result<SaslIdentity, PropertyError> {
    let service = options.take_text("serviceName").filter(|service| !service.is_empty());
    let service = service.ok_or(PropertyError::Missing(SERVICE))?;
    for option in WITHOUT_MEANING {
        options.take(option);
    }
    for (name, refused, why) in REFUSED {
        let value = options.take_text(name).unwrap_or_default();
        if value.eq_ignore_ascii_case(refused) {
            return Err(PropertyError::Unsupported { name, value, why });
        }
    }
    let principal = options.take_text("principal").filter(|principal| !principal.is_empty());
    let tickets = tickets(options)?;
    Ok(SaslIdentity::Kerberos(Kerberos { service, principal, tickets }))
}

/// As in Java, a place counts if it is to be used; librdkafka's keytab has no such switch.
fn tickets(options: &mut Options) -> Result<Tickets, PropertyError> {
    let keytab = options.take_text("keyTab");
    // Java's module and MIT's tools take either form.
    let keytab = keytab.map(|path| path.strip_prefix("FILE:").unwrap_or(&path).to_owned());
    let cache = options.take_text("ticketCache");
    let keys = switch(options, "useKeyTab").unwrap_or(keytab.is_some());
    let cached = switch(options, "useTicketCache").unwrap_or(cache.is_some());
    match (keys, cached) {
        (true, true) => Err(PropertyError::Excludes { name: "useTicketCache", other: "useKeyTab" }),
        (true, false) => {
            let missing = PropertyError::Needs { name: "useKeyTab", other: "keyTab" };
            keytab.map(Tickets::Keytab).ok_or(missing)
        }
        (false, true) => Ok(cache.map_or(Tickets::Default, Tickets::Cache)),
        (false, false) => Ok(Tickets::Default),
    }
}

fn switch(options: &mut Options, option: &str) -> Option<bool> {
    options.take_text(option).map(|value| value.eq_ignore_ascii_case("true"))
}

#[cfg(test)]
#[cfg(feature = "gssapi")]
mod tests {
    use super::*;
    use crate::Config;

    fn kerberos(properties: &[(&str, &str)]) -> Result<Kerberos, String> {
        let base = [
            ("bootstrap.servers", "a:1"),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "GSSAPI"),
        ];
        let config = Config::from_properties(base.iter().chain(properties).copied());
        let identity = config.map_err(|error| error.to_string())?.cluster.sasl.unwrap().identity;
        let SaslIdentity::Kerberos(kerberos) = identity else { panic!("{identity:?}") };
        Ok(kerberos)
    }

    fn module(options: &str) -> Result<Kerberos, String> {
        let jaas = format!("com.sun.security.auth.module.Krb5LoginModule required {options};");
        kerberos(&[(SERVICE, "kafka"), ("sasl.jaas.config", &jaas)])
    }

    #[test]
    fn what_users_of_java_and_of_librdkafka_paste_is_understood() {
        let java = module(
            "useKeyTab=true storeKey=true doNotPrompt=true useTicketCache=false renewTGT=false \
             debug=true isInitiator=true keyTab=\"/etc/a.keytab\" principal=\"a@REALM\"",
        );
        let tickets = Tickets::Keytab("/etc/a.keytab".into());
        let expected =
            Kerberos { service: "kafka".into(), principal: Some("a@REALM".into()), tickets };
        assert_eq!(java, Ok(expected.clone()));
        let pairs = [(SERVICE, "kafka"), (KEYTAB, "FILE:/etc/a.keytab"), (PRINCIPAL, "a@REALM")];
        assert_eq!(kerberos(&pairs), Ok(expected));
    }

    #[test]
    fn tickets_come_from_a_cache_or_as_kerberos_is_set_up() {
        let cache = module("useTicketCache=true ticketCache=\"/tmp/krb5cc_7\"").unwrap().tickets;
        assert_eq!(cache, Tickets::Cache("/tmp/krb5cc_7".into()));
        assert_eq!(module("useTicketCache=true").unwrap().tickets, Tickets::Default);
        assert_eq!(module("").unwrap().tickets, Tickets::Default);
        let unused = module("keyTab=\"/k\" useKeyTab=false").unwrap().tickets;
        assert_eq!(unused, Tickets::Default);
        let jaas = "x.Krb5LoginModule required serviceName=broker;";
        assert_eq!(kerberos(&[("sasl.jaas.config", jaas)]).unwrap().service, "broker");
    }

    #[test]
    fn what_is_missing_or_not_done_is_named() {
        let needs = "the property `sasl.kerberos.service.name` is required";
        assert_eq!(kerberos(&[]).unwrap_err(), needs);
        for (options, error) in [
            ("useKeyTab=true", "`useKeyTab` needs `keyTab`"),
            (
                "useKeyTab=true keyTab=k useTicketCache=true",
                "`useTicketCache` excludes `useKeyTab`",
            ),
            ("isInitiator=false", "`isInitiator=false` is not supported: a client is one"),
            (
                "useTicketCache=true renewTGT=true",
                "`renewTGT=true` is not supported: a ticket cache is renewed by who fills it, for \
                 instance k5start",
            ),
            ("useFirstPass=true", "`useFirstPass` is not an option of GSSAPI"),
        ] {
            assert_eq!(module(options).unwrap_err(), error);
        }
    }
}
