//! Readers at a time: of all feeds, of each one, and of each client.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::feed_metrics::FeedMetrics;
use super::feeds::Entrypoint;
use super::reader::FeedReader;
use super::refusal::{Code, Refusal};
use super::selection::Identity;

/// The places of all feeds together.
pub(crate) struct Connections {
    pub(super) all: Arc<Semaphore>,
    clients: Arc<Clients>,
}

/// How many places each client has, by the consumer and the client id that a gateway has named.
struct Clients {
    most: usize,
    taken: Mutex<BTreeMap<Client, usize>>,
}

type Client = (Option<String>, Option<String>);

/// A reader's place, for as long as its reply goes on.
pub(crate) struct Connection {
    _all: OwnedSemaphorePermit,
    _of_feed: OwnedSemaphorePermit,
    _of_client: Option<ClientPlace>,
    pub(crate) metrics: Arc<FeedMetrics>,
    entrypoint: Entrypoint,
}

struct ClientPlace {
    clients: Arc<Clients>,
    client: Client,
}

impl Connections {
    pub(crate) fn new(most: usize, most_of_client: usize) -> Self {
        let clients = Clients { most: most_of_client, taken: Mutex::default() };
        Self { all: Arc::new(Semaphore::new(most)), clients: Arc::new(clients) }
    }

    /// # Errors
    /// [`Code::Overloaded`]: there are as many as may be, or the readers' memory is in use;
    /// [`Code::TooManyConnections`].
    pub(crate) fn admit(
        &self,
        reader: &FeedReader,
        identity: &Identity,
        entrypoint: Entrypoint,
    ) -> Result<Connection, Refusal> {
        if reader.hub.resources.is_spent() {
            let message = "the memory of all readers is in use: ask again later";
            return Err(Code::Overloaded.because(message));
        }
        let place = |of: &Arc<Semaphore>, whose| {
            Arc::clone(of).try_acquire_owned().map_err(|_| {
                let message = format!("there are as many readers of {whose} as may be at a time");
                Code::Overloaded.because(message)
            })
        };
        let connection = Connection {
            _of_client: self.clients.admit(identity)?,
            _all: place(&self.all, "all feeds")?,
            _of_feed: place(&reader.connections, "the feed")?,
            metrics: Arc::clone(&reader.metrics),
            entrypoint,
        };
        connection.metrics.by(entrypoint).connections.inc();
        Ok(connection)
    }
}

impl Clients {
    /// Who has neither name is not counted: behind a gateway the address of the peer is the gateway's,
    /// and without one nobody's name is believed.
    fn admit(self: &Arc<Self>, identity: &Identity) -> Result<Option<ClientPlace>, Refusal> {
        let client = (identity.consumer.clone(), identity.id.clone());
        if client == (None, None) {
            return Ok(None);
        }
        let mut taken = self.lock();
        let places = taken.entry(client.clone()).or_insert(0);
        if *places >= self.most {
            let message = format!("the client has {places} connections, as many as one may have");
            return Err(Code::TooManyConnections.because(message));
        }
        *places += 1;
        Ok(Some(ClientPlace { clients: Arc::clone(self), client }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Client, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut taken = self.clients.lock();
        if let Entry::Occupied(mut places) = taken.entry(std::mem::take(&mut self.client)) {
            *places.get_mut() -= 1;
            if *places.get() == 0 {
                places.remove();
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.by(self.entrypoint).connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consume::fixture::Fixture;

    fn identity(consumer: &str, id: &str) -> Identity {
        let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        Identity { consumer: name(consumer), id: name(id), attrs: None }
    }

    #[tokio::test]
    async fn a_client_has_its_own_places_and_gives_them_back() {
        let fixture = Fixture::new(&[1], 1 << 20);
        let (connections, reader) = (Connections::new(8, 2), fixture.reader(|_| {}));
        let admit = |consumer: &str, id: &str| {
            let identity = identity(consumer, id);
            let admitted = connections.admit(&reader, &identity, Entrypoint::Sse);
            admitted.map_err(|refusal| refusal.code)
        };
        let places = [admit("a", "x").unwrap(), admit("a", "x").unwrap()];
        assert_eq!(admit("a", "x").err(), Some(Code::TooManyConnections));
        // The ids of a consumer are its own.
        let others = [admit("a", "y"), admit("b", "x"), admit("", "x"), admit("a", "")];
        assert!(others.iter().all(Result::is_ok));
        let nobody: Vec<_> = (0..3).map(|_| admit("", "").err()).collect();
        assert_eq!(nobody, [None; 3]);
        let open = reader.metrics.by(Entrypoint::Sse);
        assert_eq!(open.connections.get(), 6);
        drop(places);
        let again = [admit("a", "x").unwrap(), admit("a", "x").unwrap()];
        assert_eq!(admit("a", "x").err(), Some(Code::TooManyConnections));
        let rest: Vec<_> = (0..3).map(|_| admit("", "").ok()).collect();
        assert_eq!(rest.iter().filter(|place| place.is_some()).count(), 2, "8 of all feeds");
        assert_eq!(admit("", "").err(), Some(Code::Overloaded));
        drop((again, others, rest));
        assert_eq!(open.connections.get(), 0);
        assert!(connections.clients.lock().is_empty());
    }
}
