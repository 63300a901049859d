//! Stories about what is known of topics, and when it is asked for.

use super::*;
use crate::calls::metadata::{PartitionAnswer, TopicAnswer};
use crate::error::codes;

const RETRY: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) };
const AGE: Duration = Duration::from_secs(300);

struct Fixture {
    cache: Cache,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self { cache: Cache::new(RETRY, AGE), start: Instant::now() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// A caller who waits since the start asks.
    fn lookup(&mut self, ms: u64) -> Lookup {
        let now = self.at(ms);
        let wish = Wish { since: self.start, round: 0, trust: Trust::Believed };
        self.cache.lookup("orders", wish, now)
    }

    /// Someone who comes now asks.
    fn ask(&mut self, topic: &str, now: Instant) -> Lookup {
        let wish = self.cache.wish(Trust::Believed, now);
        self.cache.lookup(topic, wish, now)
    }

    fn answer(&mut self, ms: u64, topics: Vec<TopicAnswer>) {
        let now = self.at(ms);
        let _round = self.cache.start(now);
        let answer = MetadataAnswer { topics, ..MetadataAnswer::default() };
        self.cache.apply(answer, now);
    }

    fn leader(&mut self, partition: i32) -> Option<i32> {
        let now = self.start;
        self.cache.leader("orders", partition, now)
    }

    fn due(&mut self, ms: u64) -> bool {
        let now = self.at(ms);
        self.cache.poll_due(now).is_some_and(|at| at <= now)
    }
}

/// (index, leader, epoch) of each partition.
fn orders(id: u128, partitions: &[(usize, i32, i32)]) -> TopicAnswer {
    let partitions = partitions.iter().map(|(index, leader, epoch)| PartitionAnswer {
        index: *index,
        leader: Some(*leader).filter(|leader| *leader >= 0),
        epoch: *epoch,
    });
    let partitions = partitions.collect();
    TopicAnswer {
        name: "orders".into(),
        code: 0,
        id,
        is_internal: false,
        partitions,
        operations: None,
    }
}

fn refused(code: i16) -> TopicAnswer {
    TopicAnswer {
        name: "orders".into(),
        code,
        id: 0,
        is_internal: false,
        partitions: vec![],
        operations: None,
    }
}

#[test]
fn a_new_topic_is_asked_for_at_once() {
    let mut fixture = Fixture::new();
    assert!(!fixture.due(0), "nobody wants anything");
    assert_eq!(fixture.lookup(0), Lookup::Wanted);
    assert!(fixture.due(0));
    let (number, topics) = fixture.cache.start(fixture.at(0));
    assert_eq!((number, topics), (1, vec![Arc::from("orders")]));
    fixture.answer(1, vec![orders(1, &[(0, 7, 0), (1, 8, 0)])]);
    assert_eq!(fixture.lookup(2), Lookup::Known(2));
    assert_eq!(fixture.leader(1), Some(8));
    assert!(!fixture.due(2));
}

#[test]
fn a_refresh_never_forgets() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 3), (1, 8, 3)])]);
    fixture.answer(2, vec![orders(1, &[(0, 9, 4)])]);
    assert_eq!(fixture.lookup(3), Lookup::Known(2));
    assert_eq!((fixture.leader(0), fixture.leader(1)), (Some(9), Some(8)));
    fixture.answer(4, vec![refused(3)]);
    assert_eq!(fixture.lookup(5), Lookup::Known(2));
}

#[test]
fn a_refresh_never_forgets_who_asks_meanwhile() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    let (_, asked) = fixture.cache.start(fixture.at(1));
    assert_eq!(asked, [Arc::from("orders")]);
    let now = fixture.at(2);
    assert_eq!(fixture.ask("late", now), Lookup::Wanted);
    let topics = vec![orders(1, &[(0, 7, 3)])];
    fixture.cache.apply(MetadataAnswer { topics, ..MetadataAnswer::default() }, fixture.at(3));
    assert!(fixture.due(3));
    let (_, asked) = fixture.cache.start(fixture.at(3));
    assert_eq!(asked, [Arc::from("late"), Arc::from("orders")]);
}

#[test]
fn an_older_leader_epoch_is_ignored() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 5)])]);
    fixture.answer(2, vec![orders(1, &[(0, 6, 4)])]);
    assert_eq!(fixture.leader(0), Some(7));
    assert!(!fixture.cache.apply_hint("orders", 0, 6, 5));
    assert!(fixture.cache.apply_hint("orders", 0, 6, 6));
    assert_eq!(fixture.leader(0), Some(6));
}

#[test]
fn a_recreated_topic_starts_over() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 5), (1, 7, 5)])]);
    fixture.answer(2, vec![orders(2, &[(0, 6, 0)])]);
    assert_eq!(fixture.lookup(3), Lookup::Known(1));
    assert_eq!(fixture.leader(0), Some(6));
}

#[test]
fn an_unknown_topic_is_given_5_seconds_and_then_refused_for_1() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(4999, vec![refused(3)]);
    assert_eq!(fixture.lookup(4999), Lookup::Wanted);
    fixture.answer(5001, vec![refused(3)]);
    let unknown = Lookup::Refused(Reason::UnknownTopic);
    assert_eq!(fixture.lookup(5001), unknown);
    let now = fixture.at(6000);
    assert_eq!(fixture.ask("orders", now), unknown);
    let now = fixture.at(6001);
    assert_eq!(fixture.ask("orders", now), Lookup::Wanted);
}

#[test]
fn silence_is_not_taken_for_an_unknown_topic() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    let _round = fixture.cache.start(fixture.at(0));
    fixture.cache.fail(fixture.at(6000), 20);
    assert_eq!(fixture.lookup(6001), Lookup::Wanted);
}

#[test]
fn an_unknown_topic_that_is_asked_for_all_the_time_is_waited_for_once() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(5001, vec![refused(3)]);
    let unknown = Lookup::Refused(Reason::UnknownTopic);
    assert_eq!(fixture.lookup(5001), unknown);
    let mut wish = fixture.cache.wish(Trust::Believed, fixture.at(6002));
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(6002)), Lookup::Wanted);
    fixture.answer(6010, vec![refused(3)]);
    assert_eq!(
        fixture.cache.lookup("orders", wish, fixture.at(6010)),
        unknown,
        "one question is enough"
    );
    assert_eq!(fixture.ask("orders", fixture.at(7009)), unknown);
    wish = fixture.cache.wish(Trust::Believed, fixture.at(7011));
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(7011)), Lookup::Wanted);
    fixture.answer(7020, vec![orders(1, &[(0, 7, 0)])]);
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(7020)), Lookup::Known(1));
}

#[test]
fn an_unknown_topic_that_nobody_wanted_for_5_seconds_is_waited_for_again() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(5001, vec![refused(3)]);
    assert_eq!(fixture.lookup(5001), Lookup::Refused(Reason::UnknownTopic));
    let wish = fixture.cache.wish(Trust::Believed, fixture.at(10_001));
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(10_001)), Lookup::Wanted);
    fixture.answer(10_010, vec![refused(3)]);
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(10_010)), Lookup::Wanted);
}

#[test]
fn a_missing_permission_is_asked_for_by_each_who_is_refused() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![refused(29)]);
    let name = codes::name(29);
    assert_eq!(fixture.lookup(2), Lookup::Refused(Reason::Unauthorized { code: 29, name }));
    assert!(!fixture.due(2));
    let wish = fixture.cache.wish(Trust::Believed, fixture.at(3));
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(3)), Lookup::Wanted);
    assert!(!fixture.due(50), "questions are paced");
    assert!(fixture.due(130));
    fixture.answer(130, vec![orders(1, &[(0, 7, 0)])]);
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(131)), Lookup::Known(1));
}

#[test]
fn a_number_of_partitions_that_is_doubted_is_asked_for() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    let _earlier_round = fixture.cache.start(fixture.at(2));
    let wish = fixture.cache.wish(Trust::Doubted, fixture.at(2));
    let answer = MetadataAnswer { topics: vec![orders(1, &[(0, 7, 0)])], ..Default::default() };
    fixture.cache.apply(answer, fixture.at(3));
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(3)), Lookup::Wanted, "asked before");
    fixture.answer(103, vec![orders(1, &[(0, 7, 0), (1, 7, 0)])]);
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(104)), Lookup::Known(2));
}

#[test]
fn an_outdated_complaint_changes_nothing() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    let seen = fixture.cache.generation();
    fixture.answer(2, vec![orders(1, &[(0, 8, 1)])]);
    assert!(!fixture.cache.complain(seen, fixture.at(3)));
    assert!(!fixture.due(1000));
    assert!(fixture.cache.complain(fixture.cache.generation(), fixture.at(3)));
    assert!(fixture.due(1000));
}

#[test]
fn complaints_are_paced() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    let generation = fixture.cache.generation();
    assert!(fixture.cache.complain(generation, fixture.at(2)));
    assert!(!fixture.due(50));
    assert!(fixture.due(130));
    for ms in [200, 300, 400, 500, 600] {
        fixture.answer(ms, vec![orders(1, &[(0, -1, 0)])]);
    }
    let generation = fixture.cache.generation();
    assert!(fixture.cache.complain(generation, fixture.at(601)));
    assert!(!fixture.due(1300), "a partition has had no leader for long");
    assert!(fixture.due(1900));
}

#[test]
fn failures_are_tried_again_ever_more_slowly() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    for (ms, pause) in [(0, 100), (200, 200), (500, 400)] {
        let _round = fixture.cache.start(fixture.at(ms));
        fixture.cache.fail(fixture.at(ms), 20);
        assert!(!fixture.due(ms + pause - 1));
        assert!(fixture.due(ms + pause));
    }
}

#[test]
fn knowledge_is_refreshed_by_age_while_it_is_used() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    assert!(!fixture.due(299_000));
    assert!(fixture.due(300_001));
    let (_, topics) = fixture.cache.start(fixture.at(300_001));
    assert!(topics.is_empty(), "nobody used it for 5 minutes");
    assert_eq!(fixture.leader(0), None);
    assert!(fixture.due(1), "and when it is used again, it is asked for");
}

#[test]
fn nothing_is_known_of_another_cluster() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 9)])]);
    fixture.cache.forget_cluster(fixture.at(1));
    assert_eq!((fixture.leader(0), fixture.cache.known("orders")), (None, None));
    fixture.answer(2, vec![orders(2, &[(0, 8, 0)])]);
    assert_eq!(fixture.leader(0), Some(8), "in an epoch that is older only in the former one");
}

#[test]
fn the_number_of_topics_is_bounded() {
    let mut fixture = Fixture::new();
    let now = fixture.start;
    for number in 0..TOPICS {
        fixture.ask(&number.to_string(), now);
    }
    assert_eq!(fixture.ask("one more", now), Lookup::Refused(Reason::TooManyTopics));
    let later = fixture.at(300_000);
    assert_eq!(fixture.ask("one more", later), Lookup::Wanted);
}

#[test]
fn names_that_no_broker_knows_keep_no_topic_out() {
    let mut fixture = Fixture::new();
    fixture.lookup(0);
    fixture.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    let now = fixture.at(2);
    for number in 1..TOPICS {
        fixture.ask(&number.to_string(), now);
    }
    let later = fixture.at(5001);
    fixture.ask("1", later);
    assert_eq!(fixture.ask("real", later), Lookup::Refused(Reason::TooManyTopics));
    let later = fixture.at(5002);
    assert_eq!(fixture.ask("real", later), Lookup::Wanted);
    assert_eq!(fixture.cache.known("orders"), Some((1, 1)), "what is known stays");
    assert_eq!(fixture.cache.topics.len(), 3, "and whom someone waits for");
}

#[test]
fn ever_new_names_do_not_hurry_the_questions() {
    let mut fixture = Fixture::new();
    let mut rounds = 0;
    for ms in 0..10_000 {
        let now = fixture.at(ms);
        fixture.ask(&ms.to_string(), now);
        if fixture.due(ms) {
            fixture.answer(ms, vec![]);
            rounds += 1;
        }
    }
    assert!((80..130).contains(&rounds), "{rounds} rounds in 10 s");
}

/// A caller that has less time than a topic may be unknown must not wait all of it again and again.
#[test]
fn an_unknown_topic_is_refused_to_impatient_callers_too() {
    let mut fixture = Fixture::new();
    for at in (0..5000).step_by(1000) {
        let wish = fixture.cache.wish(Trust::Believed, fixture.at(at));
        assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(at)), Lookup::Wanted);
        fixture.answer(at + 900, vec![refused(3)]);
        assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(at + 900)), Lookup::Wanted);
    }
    let wish = fixture.cache.wish(Trust::Believed, fixture.at(5001));
    assert_eq!(
        fixture.cache.lookup("orders", wish, fixture.at(5001)),
        Lookup::Wanted,
        "not yet asked"
    );
    fixture.answer(5100, vec![refused(3)]);
    let unknown = Lookup::Refused(Reason::UnknownTopic);
    assert_eq!(fixture.cache.lookup("orders", wish, fixture.at(5100)), unknown);
    let now = fixture.at(6099);
    assert_eq!(fixture.ask("orders", now), unknown);
}
