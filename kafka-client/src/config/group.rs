//! Settings of a member of a group.

use std::time::Duration;

/// Settings of a membership in a consumer group, with the defaults of Kafka's client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupConfig {
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) assignors: Vec<Assignor>,
    pub(crate) instance: Option<String>,
    pub(crate) protocol: GroupProtocol,
}

/// How the leader of a classic group shares partitions among its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Assignor {
    /// Of each topic a range for each member.
    Range,
    /// As equal parts as can be, with as few moves as can be (KIP-54, KIP-429).
    CooperativeSticky,
}

impl Assignor {
    /// As members of all clients call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }
}

/// Which protocol members and brokers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// That of KIP-848 where brokers have it and take it for this group, else the classic one.
    Negotiated,
    /// The classic one: JoinGroup and SyncGroup.
    Classic,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(60),
            assignors: vec![Assignor::Range, Assignor::CooperativeSticky],
            instance: None,
            protocol: GroupProtocol::Negotiated,
        }
    }
}

impl GroupConfig {
    /// `session.timeout.ms`: a member that is not heard of for this long has lost its partitions, and
    /// knows so itself. 45 s unless set; brokers take 6 s to 30 min unless configured otherwise. With
    /// KIP-848 brokers have a setting of their own (`group.consumer.session.timeout.ms`), which this
    /// one must not exceed.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// `heartbeat.interval.ms`; 3 s unless set, and no more than a third of the session. With KIP-848
    /// the broker says it.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// How long the members of a group have to give partitions back and join again; 60 s unless set. A
    /// member that is not heard of for this long has lost its partitions, too.
    #[must_use]
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.rebalance_timeout = timeout;
        self
    }

    /// `partition.assignment.strategy`, the preferred one first; `range,cooperative-sticky` unless set,
    /// as in Java's client. Partitions are given back one by one (KIP-429) only if
    /// [`Assignor::CooperativeSticky`] is the only one, else all at each rebalance.
    #[must_use]
    pub fn assignors(mut self, assignors: &[Assignor]) -> Self {
        self.assignors = assignors.to_vec();
        self
    }

    /// `group.instance.id`: a static member (KIP-345), which has its partitions again if it comes
    /// back within its session. In the classic protocol only, from Kafka 2.3 on.
    #[must_use]
    pub fn instance_id(mut self, id: &str) -> Self {
        self.instance = Some(id.to_owned());
        self
    }

    /// [`GroupProtocol::Negotiated`] unless set.
    #[must_use]
    pub fn protocol(mut self, protocol: GroupProtocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Heartbeats this far apart leave room for two that are lost.
    pub(crate) fn beat_every(&self) -> Duration {
        self.heartbeat_interval.min(self.session_timeout / 3).max(Duration::from_millis(1))
    }

    /// Whether partitions are given back one by one (KIP-429).
    pub(crate) fn is_cooperative(&self) -> bool {
        self.assignors == [Assignor::CooperativeSticky]
    }

    /// How long a reader may take to give partitions back: the rest is for the broker to hear of it.
    pub(crate) fn give_back_within(&self) -> Duration {
        self.rebalance_timeout * 2 / 3
    }
}
