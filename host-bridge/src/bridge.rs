//! What every route works with.

use std::sync::Arc;
use std::time::Instant;

use crate::body::BodyBudget;
use crate::clusters::Clusters;
use crate::config::{Config, ConfigError};
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::queued::Queues;
use crate::recent::Recent;

/// The parts of the process that outlive a request.
pub(crate) struct Bridge {
    pub(crate) began: Instant,
    pub(crate) clusters: Clusters,
    pub(crate) profiles: Profiles,
    pub(crate) recent: Recent,
    pub(crate) queued: Arc<Queues>,
    pub(crate) bodies: BodyBudget,
    pub(crate) metrics: Arc<Metrics>,
}

impl Bridge {
    /// Makes a client for each configured cluster; none connects yet.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let metrics = Arc::<Metrics>::default();
        Ok(Self {
            began: Instant::now(),
            clusters: Clusters::new(config)?,
            profiles: Profiles::default(),
            recent: Recent::default(),
            queued: Queues::new(Arc::clone(&metrics)),
            bodies: BodyBudget::default(),
            metrics,
        })
    }
}
