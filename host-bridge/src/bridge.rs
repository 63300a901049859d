//! What every route works with.

use std::sync::Arc;
use std::time::Instant;

use crate::body::BodyBudget;
use crate::bypassed::Bypassed;
use crate::captures::Captures;
use crate::clusters::Clusters;
use crate::limits::CAPTURED_BODY_BYTES;
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::queued::Queues;
use crate::recent::Recent;
use crate::webhooks::running::Webhooks;

/// The parts of the process that outlive a request.
pub(crate) struct Bridge {
    pub(crate) began: Instant,
    pub(crate) clusters: Arc<Clusters>,
    pub(crate) profiles: Profiles,
    pub(crate) recent: Recent,
    pub(crate) queued: Arc<Queues>,
    pub(crate) captures: Captures,
    pub(crate) bodies: BodyBudget,
    /// Of requests that are captured: clients may be slow with them, and leave filters' batches theirs.
    pub(crate) captured_bodies: BodyBudget,
    pub(crate) bypassed: Bypassed,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) webhooks: Arc<Webhooks>,
}

impl Bridge {
    pub(crate) fn new(
        clusters: Arc<Clusters>,
        captures: Captures,
        metrics: Arc<Metrics>,
        webhooks: Webhooks,
    ) -> Self {
        Self {
            began: Instant::now(),
            clusters,
            profiles: Profiles::default(),
            recent: Recent::default(),
            queued: Queues::new(Arc::clone(&metrics)),
            captures,
            bodies: BodyBudget::default(),
            captured_bodies: BodyBudget::of(CAPTURED_BODY_BYTES),
            bypassed: Bypassed::default(),
            metrics,
            webhooks: Arc::new(webhooks),
        }
    }
}
