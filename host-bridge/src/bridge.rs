//! What every route works with.

use std::sync::Arc;
use std::time::Instant;

use crate::body::BodyBudget;
use crate::clusters::Clusters;
use crate::config::{Config, ConfigError};
use crate::consume::serve::Readers;
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::queued::Queues;
use crate::recent::Recent;
use crate::webhooks::running::Webhooks;

/// The parts of the process that outlive a request.
pub(crate) struct Bridge {
    pub(crate) began: Instant,
    pub(crate) clusters: Clusters,
    pub(crate) profiles: Profiles,
    pub(crate) recent: Recent,
    pub(crate) queued: Arc<Queues>,
    pub(crate) bodies: BodyBudget,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) webhooks: Arc<Webhooks>,
}

impl Bridge {
    /// Makes a client for each configured cluster; none connects yet.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let (metrics, clusters) = (Arc::<Metrics>::default(), Clusters::new(config)?);
        let authorization = config.authorization.clone();
        let readers = Readers::new(&config.feeds, authorization, &clusters, &metrics);
        let feed = |name: &str| readers.reader(name);
        let webhooks = Webhooks::new(&config.webhooks, feed, &metrics.webhooks)?;
        Ok(Self {
            began: Instant::now(),
            clusters,
            profiles: Profiles::default(),
            recent: Recent::default(),
            queued: Queues::new(Arc::clone(&metrics)),
            bodies: BodyBudget::default(),
            metrics,
            readers: Arc::new(readers),
            webhooks: Arc::new(webhooks),
        })
    }
}
