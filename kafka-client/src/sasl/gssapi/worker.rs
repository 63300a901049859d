//! Where the tickets of an identity are had: one question to the KDC at a time, on a thread.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use libgssapi::credential::Cred;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use super::acquire::acquire;
use super::{Gssapi, explained};
use crate::limits::CREDENTIAL_PATIENCE;
use crate::lock::Lock;
use crate::sasl::identity::{Kerberos, Tickets};

/// What clients of one identity share.
#[derive(Clone)]
struct KerberosWorker {
    /// The C library's name of the cache in memory for the tickets that a keytab gives.
    cache: String,
    /// Without turns, clients would empty the cache for each other. It is held until a thread has
    /// ended, and so bounds the threads that wait for a KDC which does not answer.
    turn: Arc<Semaphore>,
}

/// Identities come from properties, not from peers, and are few. The C library keeps a cache in
/// memory for as long as the process lives, so its name is kept as well.
static WORKERS: LazyLock<Lock<HashMap<Kerberos, KerberosWorker>>> = LazyLock::new(Lock::default);

/// A context with the broker that was dialled as `host`, and until when the client's ticket holds.
///
/// The C library blocks while it talks to the KDC. Who does not want to wait any more leaves a
/// thread behind that ends when the library gives up; the end of the process does not wait for it.
pub(in crate::sasl) async fn begin(
    kerberos: &Kerberos,
    host: &str,
) -> Result<(Gssapi, Option<Instant>), String> {
    let late = |_| {
        let patience = CREDENTIAL_PATIENCE.as_millis();
        format!("no answer of the KDC within {patience} ms; check the realm's kdc in krb5.conf")
    };
    timeout(CREDENTIAL_PATIENCE, ask(kerberos.clone(), host.to_owned())).await.map_err(late)?
}

async fn ask(kerberos: Kerberos, host: String) -> Result<(Gssapi, Option<Instant>), String> {
    let worker = worker(&kerberos);
    let turn = worker.turn.acquire_owned().await.map_err(|error| error.to_string())?;
    let (reply, answer) = oneshot::channel();
    let work = move || {
        let answer = tickets(&kerberos, &worker.cache)
            .and_then(|(cred, until)| Ok((Gssapi::new(&kerberos, cred, &host)?, until)));
        drop(turn);
        let _nobody_waits = reply.send(answer);
    };
    let thread = thread::Builder::new().name("kerberos".to_owned());
    thread.spawn(work).map_err(|error| format!("no thread for Kerberos: {error}"))?;
    answer.await.map_err(|_| "the thread for Kerberos has ended".to_owned())?
}

fn worker(kerberos: &Kerberos) -> KerberosWorker {
    let mut desks = WORKERS.lock();
    let cache = format!("MEMORY:kafka-client-{}", desks.len());
    let new = || KerberosWorker { cache, turn: Arc::new(Semaphore::new(1)) };
    desks.entry(kerberos.clone()).or_insert_with(new).clone()
}

/// The client's own ticket, and when it expires. Blocks.
fn tickets(kerberos: &Kerberos, memory: &str) -> Result<(Cred, Option<Instant>), String> {
    let who = kerberos.principal.as_deref();
    let from = kerberos.tickets.to_string();
    let failed = |what: &str| {
        let who = who.map(|who| format!(" for {who}")).unwrap_or_default();
        format!("no ticket{who} from {from}: {what}")
    };
    let store = match &kerberos.tickets {
        Tickets::Default => vec![],
        Tickets::Keytab(path) => {
            // Of a keytab that it cannot read, the C library says only that there is no ticket.
            File::open(path).map_err(|error| failed(&error.to_string()))?;
            vec![("client_keytab", path.as_str()), ("ccache", memory)]
        }
        Tickets::Cache(path) => vec![("ccache", path.as_str())],
    };
    let cred = acquire(who, &store);
    let lifetime = cred.and_then(|cred| Ok((cred.lifetime()?, cred)));
    match lifetime.map_err(|error| failed(&in_other_words(explained(error), &kerberos.tickets)))? {
        (Duration::ZERO, _) => Err(failed("it has expired")),
        (FOR_EVER, cred) => Ok((cred, None)),
        (lifetime, cred) => Ok((cred, Instant::now().checked_add(lifetime))),
    }
}

/// Two texts of the C library do not say what is wrong with a keytab.
fn in_other_words(text: String, tickets: &Tickets) -> String {
    match (tickets, text.as_str()) {
        (Tickets::Keytab(_), "No credentials cache found") => {
            "it has no such principal, as `klist -k` shows".to_owned()
        }
        (Tickets::Keytab(_), "Decrypt integrity check failed" | "Preauthentication failed") => {
            format!("{text}, the KDC has other keys; export the keytab again")
        }
        _ => text,
    }
}

/// `GSS_C_INDEFINITE`.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
