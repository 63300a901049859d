//! What every call of a consumer needs: who leads, the connections to ask on, and the settings.

use std::sync::Arc;

use super::connections::ReaderConnections;
use crate::cluster::Cluster;
use crate::config::ConsumerConfig;
use crate::metadata::Metadata;

/// Cheap to clone but for the settings.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) connections: Arc<ReaderConnections>,
    pub(crate) config: ConsumerConfig,
}
