//! Tests of groups against the fake cluster.

mod members;

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::config::ClusterConfig;
use crate::fake_broker::{
    FIND_COORDINATOR, FakeCluster, FakeSettings, Fault, OFFSET_COMMIT, OFFSET_FETCH, Trace, When,
};
use crate::{Client, Config, Reason};

const WITHIN: Duration = Duration::from_secs(10);

fn cluster(brokers: i32) -> FakeCluster {
    let cluster = FakeCluster::new(FakeSettings { brokers, ..FakeSettings::default() });
    cluster.create_topic("orders", &[1, 1]);
    cluster.create_topic("payments", &[1]);
    cluster
}

fn client(cluster: &FakeCluster) -> Client {
    let bootstrap = cluster.bootstrap();
    let properties = [("bootstrap.servers", &*bootstrap), ("request.timeout.ms", "1000")];
    cluster.client(Config::from_properties(properties).unwrap())
}

fn refuse(code: i16) -> Fault {
    Fault::Refuse { code, trace: Trace::Nothing }
}

async fn commit(group: &Group, offset: i64) -> Result<(), GroupError> {
    group.commit(&[GroupOffset::new("orders", 0, offset)], WITHIN).await.remove(0)
}

async fn committed(group: &Group) -> Result<Option<i64>, GroupError> {
    let found = group.committed(&[("orders", 0)], WITHIN).await.remove(0);
    found.map(|found| found.map(|found| found.offset))
}

#[tokio::test(start_paused = true)]
async fn offsets_are_kept_with_epoch_and_metadata_and_what_was_never_committed_is_none() {
    let cluster = cluster(2);
    let group = client(&cluster).group("readers");
    let offsets = [
        GroupOffset::new("payments", 0, 7),
        GroupOffset::new("orders", 1, 42).epoch(Some(3)).metadata("since Monday"),
    ];
    assert_eq!(group.commit(&offsets, WITHIN).await, [Ok(()), Ok(())]);
    let wanted = [("orders", 0), ("orders", 1), ("payments", 0)];
    let found = group.committed(&wanted, WITHIN).await;
    let metadata = "since Monday".to_owned();
    let second = Committed { offset: 42, epoch: Some(3), metadata };
    let third = Committed { offset: 7, epoch: None, metadata: String::new() };
    assert_eq!(found, [Ok(None), Ok(Some(second)), Ok(Some(third))]);
    assert_eq!(cluster.requests(FIND_COORDINATOR), 1, "it is remembered");
    assert_eq!(group.committed(&[], WITHIN).await, []);
    assert_eq!(
        client(&cluster).group("others").committed(&wanted, WITHIN).await,
        [Ok(None), Ok(None), Ok(None)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_coordinator_is_found_again_wherever_it_has_gone() {
    let cluster = cluster(3);
    let group = client(&cluster).group("readers");
    assert_eq!(commit(&group, 1).await, Ok(()));
    cluster.coordinate("readers", 2);
    assert_eq!(commit(&group, 2).await, Ok(()), "another broker, which says so");
    cluster.kill(2);
    cluster.coordinate("readers", 3);
    assert_eq!(commit(&group, 3).await, Ok(()), "that it was on is gone");
    for (nth, code) in [14, 15, 16].into_iter().enumerate() {
        cluster.arm(OFFSET_FETCH, When::Nth(nth as u64 + 1), refuse(code));
        cluster.arm(FIND_COORDINATOR, When::Nth(nth as u64 + 1), refuse(code));
    }
    assert_eq!(committed(&group).await, Ok(Some(3)), "loading, away, elsewhere");
}

#[tokio::test(start_paused = true)]
async fn a_group_with_members_refuses_who_is_none_at_once() {
    let cluster = cluster(1);
    let group = client(&cluster).group("readers");
    cluster.arm(OFFSET_COMMIT, When::Nth(1), refuse(25));
    let started = Instant::now();
    assert_eq!(commit(&group, 1).await, Err(GroupError::InUse));
    assert!(started.elapsed() < Duration::from_millis(100));
    assert_eq!(cluster.committed("readers", "orders", 0), None);
}

#[tokio::test(start_paused = true)]
async fn open_transactions_are_waited_for() {
    let cluster = cluster(1);
    let group = client(&cluster).group("readers");
    assert_eq!(commit(&group, 9).await, Ok(()));
    for nth in 1..=5 {
        cluster.arm(OFFSET_FETCH, When::Nth(nth), refuse(88));
    }
    assert_eq!(committed(&group).await, Ok(Some(9)));
    assert_eq!(cluster.requests(OFFSET_FETCH), 6);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_use_the_group_is_told_at_once_and_one_partition_hinders_no_other() {
    let cluster = cluster(1);
    let group = client(&cluster).group("readers");
    cluster.arm(FIND_COORDINATOR, When::Nth(1), refuse(30));
    let refused = GroupError::Failed(Reason::of_code(30));
    assert!(matches!(refused, GroupError::Failed(Reason::Unauthorized { .. })));
    assert_eq!(commit(&group, 1).await, Err(refused.clone()));
    cluster.arm(OFFSET_FETCH, When::Nth(1), refuse(30));
    assert_eq!(committed(&group).await, Err(refused));
    let offsets = [GroupOffset::new("nothing", 0, 5), GroupOffset::new("orders", 0, 5)];
    let unknown = GroupError::Failed(Reason::UnknownTopic);
    assert_eq!(group.commit(&offsets, WITHIN).await, [Err(unknown), Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_asked_for_again_and_silence_ends_at_the_deadline() {
    let cluster = cluster(1);
    let group = client(&cluster).group("readers");
    cluster.arm(OFFSET_COMMIT, When::Nth(1), Fault::CloseAfter);
    cluster.arm(OFFSET_COMMIT, When::Nth(2), Fault::MissingPartition);
    cluster.arm(OFFSET_COMMIT, When::Nth(3), Fault::NoAnswer);
    assert_eq!(commit(&group, 4).await, Ok(()));
    cluster.arm(OFFSET_FETCH, When::PerMille(1000), Fault::NoAnswer);
    let started = Instant::now();
    let Err(GroupError::Failed(Reason::DeadlineExceeded { last })) = committed(&group).await else {
        panic!("nobody answers")
    };
    assert!(last.is_some());
    assert_eq!(started.elapsed(), WITHIN);
    cluster.kill(1);
    let started = Instant::now();
    assert!(matches!(commit(&group, 5).await, Err(GroupError::Failed(_))));
    assert_eq!(started.elapsed(), WITHIN);
}

#[tokio::test(start_paused = true)]
async fn every_version_of_a_broker_will_do_and_none_is_told() {
    for (api, versions) in
        [(FIND_COORDINATOR, 1..=4), (OFFSET_COMMIT, 2..=9), (OFFSET_FETCH, 2..=9)]
    {
        for version in versions {
            let cluster = cluster(1);
            cluster.upgrade(1, api, 0, version);
            let group = client(&cluster).group("readers");
            assert_eq!(commit(&group, 8).await, Ok(()), "{api} v{version}");
            assert_eq!(committed(&group).await, Ok(Some(8)), "{api} v{version}");
        }
        let cluster = cluster(1);
        cluster.upgrade(1, api, 1, 0);
        let group = client(&cluster).group("readers");
        let said = (commit(&group, 8).await, committed(&group).await);
        let is_told =
            |error: &GroupError| matches!(error, GroupError::Failed(Reason::Unsupported(_)));
        assert!(said.0.is_err_and(|e| is_told(&e)) || said.1.is_err_and(|e| is_told(&e)), "{api}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_and_another_cluster_answer_nothing_of_the_former_one() {
    let cluster = cluster(1);
    let client = cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into());
    let group = client.group("readers");
    assert_eq!(commit(&group, 5).await, Ok(()));
    cluster.rebuild("another");
    cluster.create_topic("orders", &[1]);
    assert_eq!(client.ready(WITHIN).await, Ok(()));
    assert_eq!(committed(&group).await, Ok(None));
    client.close(Instant::now()).await;
    assert_eq!(committed(&group).await, Err(Reason::Closed.into()));
}
