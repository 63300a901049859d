//! A connection to every broker of a cluster, tried stage by stage for whoever checks a configuration.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument as _;

use crate::calls::metadata::{AskMetadata, MetadataAnswer, TopicsAsked};
use crate::cluster::{Cluster, anyone};
use crate::error::{Cause, Reason};
use crate::metadata::Metadata;
use crate::resolve::Endpoint;
use crate::stage::Stage;

/// How far the connection to one broker comes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// `host:port`.
    pub server: String,
    /// The broker's number, if the cluster advertises this address; else a bootstrap server.
    pub broker: Option<i32>,
    /// The stages that were taken without a fault.
    pub passed: Vec<Stage>,
    /// The stage that failed and why, if one did.
    pub fault: Option<(Stage, Cause)>,
}

/// Probes each bootstrap server, and then each broker that the cluster advertises.
pub(crate) async fn all(cluster: &Arc<Cluster>, metadata: &Metadata) -> Vec<Probe> {
    let bootstrap = cluster.config.bootstrap.iter().cloned();
    let mut probes = probe_all(cluster, bootstrap.map(|endpoint| (None, endpoint))).await;
    if probes.iter().all(|probe| probe.fault.is_some()) {
        return probes;
    }
    // Fills in who is advertised; what else fails is for `ready` to say.
    let deadline = Instant::now() + cluster.config.request_timeout.min(PATIENCE);
    let _told_by_ready = metadata.ask_now(deadline).await;
    let advertised = cluster.brokers().into_iter();
    probes.extend(probe_all(cluster, advertised.map(|(id, endpoint)| (Some(id), endpoint))).await);
    let without = cluster.without_address().into_iter();
    probes.extend(without.map(|(id, server, error)| Probe {
        server,
        broker: Some(id),
        passed: Vec::new(),
        fault: Some((error.stage(), error.what())),
    }));
    probes
}

/// What is done to a topic, as ACLs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicOperation {
    /// Fetch its records.
    Read,
    /// Produce to it.
    Write,
}

impl TopicOperation {
    /// Its bit among the operations that a broker says are allowed.
    fn bit(self) -> i32 {
        match self {
            Self::Read => 1 << 3,
            Self::Write => 1 << 4,
        }
    }

    fn acl(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
        }
    }
}

/// Asks a broker whether what we are may do that to a topic (KIP-430).
pub(crate) async fn may(
    cluster: &Arc<Cluster>,
    operation: TopicOperation,
    topic: &str,
) -> Result<(), (Stage, Cause)> {
    let topics = TopicsAsked::Named(vec![topic.into()]);
    let question = AskMetadata { topics, asks_operations: true };
    let candidates = cluster.bootstrap().into_iter().map(|endpoint| (endpoint, None));
    let asked = anyone::ask(cluster, question, candidates, |_, answer| Ok::<_, Cause>(answer));
    let (answer, ..) = asked.await.map_err(|cause| (Stage::Handshake, cause))?;
    judge(operation, topic, &answer).map_err(|cause| (Stage::Authorization, cause))
}

/// All of them at once; the results are in the order of the addresses.
async fn probe_all(
    cluster: &Arc<Cluster>,
    candidates: impl Iterator<Item = (Option<i32>, Endpoint)>,
) -> Vec<Probe> {
    let probing: Vec<_> = candidates
        .map(|(broker, endpoint)| {
            tokio::spawn(probe(Arc::clone(cluster), broker, endpoint).in_current_span())
        })
        .collect();
    let mut probes = Vec::new();
    for probe in probing {
        probes.extend(probe.await);
    }
    probes
}

async fn probe(cluster: Arc<Cluster>, broker: Option<i32>, endpoint: Endpoint) -> Probe {
    let connected = match broker {
        Some(id) => cluster.connect_broker(id, 0).await,
        None => cluster.connect(&endpoint, 0).await,
    };
    let error = connected.err();
    let is_passed = |stage: &Stage| match &error {
        Some(error) if error.is_before_connecting() => false,
        Some(error) => *stage < error.stage(),
        None => true,
    };
    let passed = cluster.stages().filter(is_passed).collect();
    let fault = error.map(|error| (error.stage(), error.what()));
    Probe { server: endpoint.to_string(), broker, passed, fault }
}

/// Who is advertised may take as long to be told; a request of a producer may take longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// So Kafka answers of a topic that we may not see, whether there is one or not.
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;

fn judge(operation: TopicOperation, topic: &str, answer: &MetadataAnswer) -> Result<(), Cause> {
    let found = answer.topics.iter().find(|found| found.name == topic);
    let acl = operation.acl();
    match found.map(|found| (found.code, found.operations)) {
        None => Err("the broker's answer lacks the topic".into()),
        Some((0, Some(allowed))) if allowed & operation.bit() == 0 => {
            Err(format!("the topic is visible, but needs an ACL for {acl}").into())
        }
        Some((0, _)) => Ok(()),
        Some((TOPIC_AUTHORIZATION_FAILED, _)) => {
            let cause = "the topic does not exist, or is not visible; it needs an ACL for";
            Err(format!("{cause} {acl}").into())
        }
        Some((code, _)) => Err(Reason::of_code(code).to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::metadata::TopicAnswer;
    use crate::fake_broker::{self as broker, FakeCluster, FakeSasl, FakeSettings, When};
    use crate::versions::METADATA;
    use crate::{Client, Config, NotReady};

    #[tokio::test(start_paused = true)]
    async fn bootstrap_servers_and_advertised_brokers_are_probed() {
        let cluster = FakeCluster::new(FakeSettings { brokers: 2, ..FakeSettings::default() });
        let bootstrap = format!("nobody:1,{}", cluster.bootstrap().split(',').next().unwrap());
        let config = Config::from_properties([("bootstrap.servers", &*bootstrap)]).unwrap();
        let probes = cluster.client(config).probe().await;
        let shown: Vec<_> = probes
            .iter()
            .map(|probe| {
                (probe.broker, probe.passed.len(), probe.fault.as_ref().map(|(stage, _)| *stage))
            })
            .collect();
        let expected = [(None, 1, Some(Stage::Tcp)), (None, 3, None), (Some(1), 3, None)];
        assert_eq!(shown[..3], expected);
        assert_eq!(shown[3], (Some(2), 3, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_shows_its_stage_and_for_how_long() {
        let sasl = Some(FakeSasl::default());
        let cluster = FakeCluster::new(FakeSettings { sasl, ..FakeSettings::default() });
        let bootstrap = cluster.bootstrap();
        let properties = [
            ("bootstrap.servers", &*bootstrap),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "alice"),
            ("sasl.password", "hunter2"),
        ];
        let client = cluster.client(Config::from_properties(properties).unwrap());
        let [probe] = &*client.probe().await else { panic!("nobody is advertised") };
        assert_eq!(probe.passed, [Stage::Name, Stage::Tcp, Stage::Handshake, Stage::Mechanism]);
        tokio::time::sleep(Duration::from_secs(7)).await;
        let [fault] = &*client.faults() else { panic!("one broker") };
        assert_eq!((fault.stage, fault.lasts.as_secs()), (Stage::Credential, 7));
        assert!(!format!("{fault:?}{probe:?}").contains("hunter2"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_shakes_hands_and_says_no_more_is_told_soon_however_long_a_request_may_take() {
        let cluster = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
        for nth in 1..=9 {
            cluster.arm(METADATA.key, When::Nth(nth), broker::Fault::NoAnswer);
        }
        let bootstrap = cluster.bootstrap();
        let properties = [("bootstrap.servers", &*bootstrap), ("request.timeout.ms", "200000")];
        let client = cluster.client(Config::from_properties(properties).unwrap());
        let started = Instant::now();
        let [probe] = &*client.probe().await else { panic!("nobody is advertised") };
        assert_eq!((probe.passed.len(), &probe.fault), (3, &None));
        assert!(started.elapsed() <= PATIENCE, "{:?}", started.elapsed());
    }

    /// A client of brokers at sockets, the first of which is its bootstrap server.
    async fn with_sockets(cluster: &FakeCluster) -> (Client, String) {
        cluster.listen().await.unwrap();
        let bootstrap = cluster.bootstrap().split(',').next().unwrap().to_owned();
        let config = Config::from_properties([("bootstrap.servers", &*bootstrap)]).unwrap();
        (Client::new(config), bootstrap)
    }

    #[tokio::test]
    async fn an_advertised_address_that_is_none_is_a_fault_though_bootstrap_answers() {
        let cluster = FakeCluster::new(FakeSettings { brokers: 3, ..FakeSettings::default() });
        let (client, bootstrap) = with_sockets(&cluster).await;
        cluster.advertise(2, "", 9092);
        cluster.advertise(3, "broker-3", 0);
        assert_eq!(client.ready(PATIENCE).await, Ok(()), "one broker can be reached");
        let faults = client.faults();
        for (fault, id, text) in [(&faults[0], 2, ":9092"), (&faults[1], 3, "broker-3:0")] {
            assert_eq!((fault.server.as_deref(), fault.stage), (Some(text), Stage::Name));
            let told = format!("broker {id} advertises `{text}`: that is not a host and port");
            assert!(fault.cause.starts_with(&told), "{fault:?}");
            assert!(fault.cause.ends_with(&format!("advertised by {bootstrap}")), "{fault:?}");
        }
        let probes = client.probe().await;
        let failed = probes.iter().filter(|probe| probe.fault.is_some());
        let failed: Vec<_> = failed.map(|probe| (probe.broker, probe.server.as_str())).collect();
        assert_eq!(failed, [(Some(2), ":9092"), (Some(3), "broker-3:0")]);
    }

    #[tokio::test]
    async fn a_cluster_that_nobody_can_reach_where_it_says_it_is_is_not_ready() {
        let cluster = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
        let (client, bootstrap) = with_sockets(&cluster).await;
        let port = bootstrap.rsplit_once(':').unwrap().1.parse().unwrap();
        for (host, at, told) in [
            ("no-such-host.invalid", port, "the host name has no address: "),
            ("kafka", 0, "that is not a host and port"),
        ] {
            cluster.advertise(1, host, at);
            let Err(NotReady::Unreachable(cause)) = client.ready(PATIENCE).await else {
                panic!("{host} cannot be reached")
            };
            assert!(cause.starts_with(&format!("{host}:{at}: ")), "{cause}");
            assert!(cause.contains(told), "{cause}");
            assert!(cause.ends_with(&format!("advertised by {bootstrap}")), "{cause}");
            let [fault] = &*client.faults() else { panic!("one broker") };
            assert_eq!(fault.stage, Stage::Name);
        }
        cluster.advertise(1, "127.0.0.1", port);
        assert_eq!(client.ready(PATIENCE).await, Ok(()));
        assert_eq!(client.faults(), []);
    }

    #[test]
    fn who_may_not_read_or_write_hears_which_acl_is_missing() {
        let answer = |code, operations| MetadataAnswer {
            topics: vec![TopicAnswer {
                name: "t".into(),
                code,
                id: 0,
                is_internal: false,
                partitions: Vec::new(),
                operations,
            }],
            ..MetadataAnswer::default()
        };
        for (operation, bit, acl) in
            [(TopicOperation::Read, 0b1000, "READ"), (TopicOperation::Write, 0b1_0000, "WRITE")]
        {
            let judge = |topic, answer| judge(operation, topic, &answer);
            assert_eq!(judge("t", answer(0, Some(bit))), Ok(()));
            assert_eq!(judge("t", answer(0, None)), Ok(()), "an old broker does not say");
            let denied = judge("t", answer(0, Some(!bit))).unwrap_err();
            assert!(denied.ends_with(&format!("needs an ACL for {acl}")), "{denied}");
            let unseen = judge("t", answer(29, None)).unwrap_err();
            let told = format!("or is not visible; it needs an ACL for {acl}");
            assert!(unseen.ends_with(&told), "{unseen}");
            let unknown = judge("t", answer(3, None)).unwrap_err();
            assert_eq!(&*unknown, "the topic does not exist");
            assert!(judge("other", answer(0, None)).is_err());
        }
    }
}
