//! Members of groups, in both protocols.

use std::collections::BTreeSet;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::{Assignor, GroupConfig, GroupProtocol};
use crate::fake_broker::{
    CONSUMER_GROUP_HEARTBEAT, HEARTBEAT, JOIN_GROUP, LEAVE_GROUP, SYNC_GROUP,
};
use crate::lock::Lock;

const SESSION: Duration = Duration::from_secs(10);

/// Every way in which partitions come and go.
fn ways() -> [GroupConfig; 3] {
    let classic = GroupConfig::default().session_timeout(SESSION).protocol(GroupProtocol::Classic);
    let sticky = classic.clone().assignors(&[Assignor::CooperativeSticky]);
    [classic, sticky, GroupConfig::default().session_timeout(SESSION)]
}

/// A member whose reader gives back at once what it is asked for.
struct Seat {
    member: Member,
    has: Arc<Lock<BTreeSet<(String, i32)>>>,
    heard: Arc<Lock<Vec<String>>>,
    reader: JoinHandle<()>,
}

fn owned(partitions: &[(Arc<str>, i32)]) -> Vec<(String, i32)> {
    partitions.iter().map(|(topic, index)| (topic.to_string(), *index)).collect()
}

fn sit(cluster: &FakeCluster, topics: &[&str], config: &GroupConfig) -> Seat {
    let (member, mut events) = client(cluster).group("readers").join(topics, config);
    let has = Arc::<Lock<BTreeSet<_>>>::default();
    let heard = Arc::<Lock<Vec<_>>>::default();
    let (holding, hearing) = (has.clone(), heard.clone());
    let reader = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let mut holds = holding.lock();
            let word = match event {
                GroupEvent::Assigned(given) => {
                    let given = owned(&given);
                    assert!(given.iter().all(|it| !holds.contains(it)), "{given:?} twice");
                    holds.extend(given.clone());
                    format!("assigned {}", given.len())
                }
                GroupEvent::Revoked(revocation) => {
                    let gone = owned(&revocation.partitions);
                    assert!(gone.iter().all(|it| holds.remove(it)), "{gone:?} is not here");
                    format!("revoked {}", gone.len())
                }
                GroupEvent::Lost(gone) => {
                    let gone = owned(&gone);
                    holds.retain(|it| !gone.contains(it));
                    format!("lost {}", gone.len())
                }
                GroupEvent::Failed(error) => format!("failed: {error}"),
            };
            hearing.lock().push(word);
        }
    });
    Seat { member, has, heard, reader }
}

impl Seat {
    fn has(&self) -> Vec<(String, i32)> {
        self.has.lock().iter().cloned().collect()
    }

    fn count(&self) -> usize {
        self.has.lock().len()
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().clone()
    }
}

/// A topic of 6 partitions.
fn wide() -> FakeCluster {
    let cluster = cluster(2);
    cluster.create_topic("wide", &[1, 2, 1, 2, 1, 2]);
    cluster
}

async fn settled(seats: &[&Seat], partitions: usize) -> Duration {
    let started = Instant::now();
    loop {
        let all: BTreeSet<_> = seats.iter().flat_map(|seat| seat.has()).collect();
        let total: usize = seats.iter().map(|seat| seat.count()).sum();
        let sizes = seats.iter().map(|seat| seat.count());
        let is_equal = sizes.clone().max() <= sizes.min().map(|least| least + 1);
        if all.len() == partitions && total == partitions && is_equal {
            return started.elapsed();
        }
        let heard: Vec<_> = seats.iter().map(|seat| seat.heard()).collect();
        assert!(started.elapsed() < Duration::from_secs(120), "{all:?} {heard:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn members_share_all_partitions_and_take_over_those_of_one_that_is_gone() {
    for config in ways() {
        let cluster = wide();
        let first = sit(&cluster, &["wide"], &config);
        settled(&[&first], 6).await;
        let second = sit(&cluster, &["wide"], &config);
        settled(&[&first, &second], 6).await;
        let third = sit(&cluster, &["wide"], &config);
        settled(&[&first, &second, &third], 6).await;
        assert_eq!(cluster.members("readers").len(), 3);
        assert_eq!(owned(&first.member.assignment()), first.has());
        third.reader.abort();
        let took = settled(&[&first, &second], 6).await;
        // The one broker has a session of its own in KIP-848.
        let session = if config.protocol == GroupProtocol::Classic { 10 } else { 45 };
        assert!(took <= Duration::from_secs(session + 6), "{config:?}: {took:?}");
        assert!(
            [&first, &second].iter().all(|it| !it.heard().iter().any(|w| w.starts_with("lost")))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_lets_others_have_its_partitions_at_once() {
    for config in ways() {
        let cluster = wide();
        let (first, second) =
            (sit(&cluster, &["wide"], &config), sit(&cluster, &["wide"], &config));
        settled(&[&first, &second], 6).await;
        second.member.leave(WITHIN).await;
        second.reader.await.unwrap();
        let took = settled(&[&first], 6).await;
        assert!(took <= Duration::from_secs(6), "{config:?}: {took:?}");
        assert_eq!(cluster.members("readers").len(), 1);
        let gone = second.member.commit(&[GroupOffset::new("wide", 0, 1)], WITHIN).await;
        assert_eq!(gone, [Err(GroupError::NotAssigned)]);
    }
}

#[tokio::test(start_paused = true)]
async fn cooperative_members_keep_what_does_not_move() {
    let [eager, sticky, modern] = ways();
    for (config, expected) in [(eager, "revoked 6"), (sticky, "revoked 3"), (modern, "revoked 3")] {
        let cluster = wide();
        let first = sit(&cluster, &["wide"], &config);
        settled(&[&first], 6).await;
        let second = sit(&cluster, &["wide"], &config);
        settled(&[&first, &second], 6).await;
        let heard = first.heard();
        assert_eq!(heard[..2], ["assigned 6", expected], "{config:?}: {heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn members_commit_what_they_have_and_who_is_none_commits_nothing() {
    for config in ways() {
        let cluster = wide();
        let seat = sit(&cluster, &["wide"], &config);
        settled(&[&seat], 6).await;
        let offsets = [GroupOffset::new("wide", 0, 7), GroupOffset::new("orders", 0, 7)];
        let kept = seat.member.commit(&offsets, WITHIN).await;
        assert_eq!(kept, [Ok(()), Err(GroupError::NotAssigned)], "{config:?}");
        let group = client(&cluster).group("readers");
        let wide = [GroupOffset::new("wide", 0, 1)];
        assert_eq!(group.commit(&wide, WITHIN).await, [Err(GroupError::InUse)], "{config:?}");
        let read = group.committed(&[("wide", 0)], WITHIN).await.remove(0).unwrap().unwrap();
        assert_eq!(read.offset, 7);
        seat.member.leave(WITHIN).await;
        assert_eq!(group.commit(&wide, WITHIN).await, [Ok(())], "{config:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_given_back_can_be_committed_until_it_is_and_no_later() {
    for config in ways() {
        let config = config.rebalance_timeout(Duration::from_secs(9));
        let cluster = wide();
        let group = client(&cluster).group("readers");
        let (member, mut events) = group.join(&["wide"], &config);
        let Some(GroupEvent::Assigned(all)) = events.next().await else { panic!("{config:?}") };
        assert_eq!(all.len(), 6);
        let second = sit(&cluster, &["wide"], &config);
        let Some(GroupEvent::Revoked(revocation)) = events.next().await else { panic!() };
        let started = Instant::now();
        assert_eq!(revocation.until, started + Duration::from_secs(6));
        let offsets: Vec<_> = revocation
            .partitions
            .iter()
            .map(|(topic, at)| GroupOffset::new(topic, *at, 3))
            .collect();
        let kept = member.commit(&offsets, WITHIN).await;
        assert!(kept.iter().all(Result::is_ok), "{config:?}: {kept:?}");
        // It is slow, and then it is too late.
        sleep(Duration::from_secs(7)).await;
        assert!(second.count() > 0, "{config:?}");
        let gone = second.has();
        let offsets: Vec<_> =
            gone.iter().map(|(topic, at)| GroupOffset::new(topic, *at, 4)).collect();
        let late = member.commit(&offsets, WITHIN).await;
        assert!(late.iter().all(|it| *it == Err(GroupError::NotAssigned)), "{late:?}");
        drop(revocation);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_has_lost_its_partitions_when_its_session_is_over() {
    for config in ways() {
        let cluster = wide();
        let seat = sit(&cluster, &["wide"], &config);
        settled(&[&seat], 6).await;
        cluster.kill(1);
        cluster.kill(2);
        let cut = Instant::now();
        while seat.count() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(cut.elapsed() <= SESSION, "{config:?}: {:?}", cut.elapsed());
        cluster.restart(1);
        cluster.restart(2);
        settled(&[&seat], 6).await;
        assert_eq!(seat.heard(), ["assigned 6", "lost 6", "assigned 6"], "{config:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_hears_of_no_rebalance_has_lost_its_partitions_when_that_is_over() {
    let [eager, sticky, _] = ways();
    for config in [eager, sticky] {
        let config = config.rebalance_timeout(Duration::from_secs(5));
        let cluster = wide();
        let first = sit(&cluster, &["wide"], &config);
        settled(&[&first], 6).await;
        sleep(Duration::from_secs(10)).await;
        cluster.arm(HEARTBEAT, When::PerMille(1000), Fault::NoAnswer);
        let second = sit(&cluster, &["wide"], &config);
        while second.count() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let both: Vec<_> = first.has().into_iter().filter(|it| second.has().contains(it)).collect();
        assert_eq!(both, [], "{config:?}: {:?}", first.heard());
        assert!(first.heard().contains(&"lost 6".to_owned()), "{:?}", first.heard());
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_a_rebalance_overtakes_takes_nothing_away() {
    let [eager, sticky, _] = ways();
    for (config, late_ms) in [(&eager, 120), (&sticky, 60), (&sticky, 120), (&sticky, 180)] {
        let cluster = wide();
        // The second lets the first wait when it joins again, with a heartbeat on its way.
        let late = Fault::SlowStart(Duration::from_millis(late_ms));
        cluster.arm(HEARTBEAT, When::PerMille(1000), late);
        let often = config.clone().heartbeat_interval(Duration::from_millis(200));
        let first = sit(&cluster, &["wide"], &often);
        settled(&[&first], 6).await;
        let second = sit(&cluster, &["wide"], config);
        settled(&[&first, &second], 6).await;
        sleep(Duration::from_secs(5)).await;
        let heard = [first.heard(), second.heard()].concat();
        assert!(!heard.iter().any(|word| word.starts_with("lost")), "{late_ms}: {heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn codes_are_answered_as_the_protocols_say() {
    let [eager, sticky, modern] = ways();
    let classic = [
        (HEARTBEAT, 27, "assigned 6"),
        (HEARTBEAT, 25, "lost 6"),
        (HEARTBEAT, 22, "lost 6"),
        (HEARTBEAT, 16, "assigned 6"),
        (HEARTBEAT, 14, "assigned 6"),
        (HEARTBEAT, 15, "assigned 6"),
    ];
    for (api, code, last) in classic {
        let cluster = wide();
        let seat = sit(&cluster, &["wide"], &sticky);
        settled(&[&seat], 6).await;
        cluster.arm(api, When::Nth(1), refuse(code));
        sleep(Duration::from_secs(5)).await;
        settled(&[&seat], 6).await;
        assert!(seat.heard().contains(&last.to_owned()), "{code}: {:?}", seat.heard());
    }
    for code in [14, 15, 16, 22, 25, 27] {
        for api in [JOIN_GROUP, SYNC_GROUP] {
            let cluster = wide();
            cluster.arm(api, When::Nth(1), refuse(code));
            let seat = sit(&cluster, &["wide"], &eager);
            settled(&[&seat], 6).await;
        }
    }
    for code in [110, 25, 113, 111, 14, 15, 16] {
        let cluster = wide();
        let seat = sit(&cluster, &["wide"], &modern);
        settled(&[&seat], 6).await;
        cluster.arm(CONSUMER_GROUP_HEARTBEAT, When::Nth(2), refuse(code));
        sleep(Duration::from_secs(30)).await;
        settled(&[&seat], 6).await;
        let is_lost = seat.heard().contains(&"lost 6".to_owned());
        assert_eq!(is_lost, matches!(code, 110 | 25), "{code}: {:?}", seat.heard());
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_mended_ends_the_membership() {
    let [eager, _, modern] = ways();
    for (config, api, code, said) in [
        (&eager, JOIN_GROUP, 30, "not authorized: GROUP_AUTHORIZATION_FAILED (30)"),
        (&eager, JOIN_GROUP, 26, "refused with INVALID_SESSION_TIMEOUT (26)"),
        (&eager, SYNC_GROUP, 82, "another member has the same group.instance.id"),
        (&eager, HEARTBEAT, 82, "another member has the same group.instance.id"),
        (&modern, CONSUMER_GROUP_HEARTBEAT, 30, "not authorized: GROUP_AUTHORIZATION_FAILED (30)"),
        (&modern, CONSUMER_GROUP_HEARTBEAT, 112, "UNSUPPORTED_ASSIGNOR (112)"),
    ] {
        let cluster = wide();
        cluster.arm(api, When::Nth(1), refuse(code));
        let seat = sit(&cluster, &["wide"], config);
        while !seat.reader.is_finished() {
            sleep(Duration::from_millis(10)).await;
        }
        let heard = seat.heard();
        assert!(heard.last().unwrap().contains(said), "{code}: {heard:?}");
        assert_eq!(seat.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn where_kip_848_is_not_spoken_or_not_taken_the_classic_protocol_is() {
    let [_, _, modern] = ways();
    for case in 0..4 {
        let cluster = wide();
        match case {
            0 => [1, 2].iter().for_each(|id| cluster.upgrade(*id, CONSUMER_GROUP_HEARTBEAT, 1, 0)),
            1 => cluster.arm(CONSUMER_GROUP_HEARTBEAT, When::Nth(1), refuse(35)),
            2 => cluster.arm(CONSUMER_GROUP_HEARTBEAT, When::Nth(1), refuse(69)),
            _ => {
                let classic = modern.clone().protocol(GroupProtocol::Classic);
                let other = sit(&cluster, &["wide"], &classic);
                settled(&[&other], 6).await;
                let seat = sit(&cluster, &["wide"], &modern);
                settled(&[&other, &seat], 6).await;
                continue;
            }
        }
        let seat = sit(&cluster, &["wide"], &modern);
        settled(&[&seat], 6).await;
        assert!(cluster.requests(JOIN_GROUP) > 0, "case {case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_static_member_that_is_back_has_its_partitions_and_nobody_rebalances() {
    let [_, sticky, _] = ways();
    let named = |name: &str| sticky.clone().instance_id(name);
    let cluster = wide();
    let (first, second) =
        (sit(&cluster, &["wide"], &named("a")), sit(&cluster, &["wide"], &named("b")));
    settled(&[&first, &second], 6).await;
    let (before, joins) = (second.has(), cluster.requests(JOIN_GROUP));
    second.reader.abort();
    sleep(Duration::from_secs(2)).await;
    let again = sit(&cluster, &["wide"], &named("b"));
    settled(&[&first, &again], 6).await;
    assert_eq!(again.has(), before);
    sleep(Duration::from_secs(30)).await;
    assert!(cluster.requests(JOIN_GROUP) <= joins + 3, "{:?}", first.heard());
    let other = sit(&cluster, &["wide"], &named("b"));
    settled(&[&first, &other], 6).await;
    sleep(Duration::from_secs(10)).await;
    assert!(again.heard().last().unwrap().starts_with("failed: another member"));
    other.member.leave(WITHIN).await;
    assert!(settled(&[&first], 6).await <= Duration::from_secs(6), "it has left for good");
    assert_eq!(cluster.requests(LEAVE_GROUP), 1);
}

#[tokio::test(start_paused = true)]
async fn new_partitions_and_topics_are_shared_too() {
    for config in ways() {
        let cluster = wide();
        let seat = sit(&cluster, &["wide", "later"], &config);
        let other = sit(&cluster, &["wide"], &config);
        settled(&[&seat, &other], 6).await;
        cluster.add_partition("wide", 1);
        cluster.add_partition("wide", 2);
        cluster.create_topic("later", &[1]);
        while seat.count() + other.count() < 9 {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_events_is_no_member_for_long() {
    let [_, sticky, _] = ways();
    let cluster = wide();
    let (_member, mut events) = client(&cluster).group("readers").join(&["wide"], &sticky);
    for nth in 1..200 {
        cluster.arm(HEARTBEAT, When::Nth(nth), refuse(25));
    }
    sleep(Duration::from_secs(2000)).await;
    let mut taken = 0;
    while events.next().await.is_some() {
        taken += 1;
    }
    assert_eq!(taken, crate::limits::GROUP_EVENTS);
    assert_eq!(cluster.members("readers"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_created_again_is_given_back_before_it_is_assigned() {
    let config = GroupConfig::default().session_timeout(SESSION);
    // Before the member hears that it was deleted, and while it gives back what it had of it.
    for hears_of_it in [false, true] {
        let cluster = wide();
        let (_member, mut events) = client(&cluster).group("readers").join(&["wide"], &config);
        let given = events.next().await;
        assert!(matches!(&given, Some(GroupEvent::Assigned(all)) if all.len() == 6), "{given:?}");
        cluster.delete_topic("wide");
        let create = || cluster.create_topic("wide", &[1, 2, 1, 2, 1, 2]);
        if !hears_of_it {
            create();
        }
        let revoked = events.next().await;
        let Some(GroupEvent::Revoked(revocation)) = revoked else { panic!("{revoked:?}") };
        assert_eq!(revocation.partitions.len(), 6);
        if hears_of_it {
            create();
        }
        let early = timeout(SESSION, events.next()).await;
        assert!(early.is_err(), "{early:?}");
        drop(revocation);
        let given = timeout(SESSION, events.next()).await;
        assert!(
            matches!(&given, Ok(Some(GroupEvent::Assigned(all))) if all.len() == 6),
            "{given:?}"
        );
    }
}
