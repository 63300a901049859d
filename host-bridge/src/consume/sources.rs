//! What feeds are read with where a gateway says so: hubs by cluster and credential.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kafka_client::{Client, IsolationLevel, Secret};
use tokio::time::Instant;

use super::hub::{Hub, Resources};
use super::reader::FeedReader;
use super::refusal::{Code, Refusal};
use super::source::Source;
use crate::clusters::Clusters;
use crate::limits::FEED_CREDENTIALS;

/// Hubs by what they read, and the readers of feeds that are read elsewhere than by their own cluster's
/// credential.
pub(super) struct Sources {
    clusters: Arc<Clusters>,
    resources: Arc<Resources>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    hubs: HashMap<(Source, IsolationLevel), Weak<Hub>>,
    /// By the feed's number.
    readers: HashMap<(usize, Source), Elsewhere>,
}

struct Elsewhere {
    reader: Arc<FeedReader>,
    used: Instant,
}

impl Sources {
    pub(super) fn new(clusters: &Arc<Clusters>, resources: Arc<Resources>) -> Self {
        Self { clusters: Arc::clone(clusters), resources, made: Mutex::default() }
    }

    /// What reads a cluster at this level: one for all feeds.
    pub(super) fn hub(&self, cluster: &str, level: IsolationLevel) -> Option<Arc<Hub>> {
        self.made().hub(Source::of(cluster), level, &self.resources, || self.client(cluster))
    }

    /// A feed at another cluster, or by another credential, than its own.
    ///
    /// # Errors
    /// [`Code::Overloaded`], while so many credentials are in use that no other one may be.
    pub(super) fn reader(
        &self,
        of: &FeedReader,
        cluster: &str,
        token: Option<Secret>,
    ) -> Result<Arc<FeedReader>, Refusal> {
        let source = Source::new(cluster, token.as_ref());
        let mut made = self.made();
        let key = (of.number, source.clone());
        if let Some(found) = made.readers.get_mut(&key) {
            found.used = Instant::now();
            return Ok(Arc::clone(&found.reader));
        }
        made.readers.retain(|_, elsewhere| elsewhere.is_used());
        made.hubs.retain(|_, hub| hub.strong_count() > 0);
        let with_credential = |(source, _): &&(Source, IsolationLevel)| source.credential.is_some();
        if token.is_some() && made.hubs.keys().filter(with_credential).count() >= FEED_CREDENTIALS {
            let message = format!("{FEED_CREDENTIALS} credentials are in use, as many as may be");
            return Err(Code::Overloaded.because(message));
        }
        let client = || match token {
            Some(token) => self.clusters.by_token(cluster, token),
            None => self.client(cluster),
        };
        let level = of.feed.isolation_level;
        let hub = made.hub(source.clone(), level, &self.resources, client);
        let hub =
            hub.ok_or_else(|| Code::Internal.because(format!("there is no cluster `{cluster}`")))?;
        let reader = Arc::new(of.elsewhere(source, hub));
        let elsewhere = Elsewhere { reader: Arc::clone(&reader), used: Instant::now() };
        made.readers.insert(key, elsewhere);
        Ok(reader)
    }

    /// By the cluster's own credential.
    fn client(&self, cluster: &str) -> Option<Client> {
        self.clusters.named(cluster).map(|pipeline| pipeline.client().clone())
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Made {
    fn hub(
        &mut self,
        source: Source,
        level: IsolationLevel,
        resources: &Arc<Resources>,
        client: impl FnOnce() -> Option<Client>,
    ) -> Option<Arc<Hub>> {
        let key = (source, level);
        if let Some(hub) = self.hubs.get(&key).and_then(Weak::upgrade) {
            return Some(hub);
        }
        let hub = Hub::new(client()?, level, resources);
        self.hubs.insert(key, Arc::downgrade(&hub));
        Some(hub)
    }
}

impl Elsewhere {
    /// Whether somebody reads it, or has lately.
    fn is_used(&self) -> bool {
        self.used.elapsed() < UNUSED || Arc::strong_count(&self.reader) > 1 || self.reader.is_held()
    }
}

/// A reader that is asked for no more is kept for so long: whoever polls comes again.
const UNUSED: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
