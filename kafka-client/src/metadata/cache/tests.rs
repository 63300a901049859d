//! Stories about what is known of topics, and when it is asked for.

use super::*;
use crate::calls::metadata::{PartitionAnswer, TopicAnswer};
use crate::error::codes;

const RETRY: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) };
const AGE: Duration = Duration::from_secs(300);

struct Desk {
    cache: Cache,
    start: Instant,
}

impl Desk {
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
    TopicAnswer { name: "orders".into(), code: 0, id, partitions, operations: None }
}

fn refused(code: i16) -> TopicAnswer {
    TopicAnswer { name: "orders".into(), code, id: 0, partitions: vec![], operations: None }
}

#[test]
fn a_new_topic_is_asked_for_at_once() {
    let mut desk = Desk::new();
    assert!(!desk.due(0), "nobody wants anything");
    assert_eq!(desk.lookup(0), Lookup::Wanted);
    assert!(desk.due(0));
    let (number, topics) = desk.cache.start(desk.at(0));
    assert_eq!((number, topics), (1, vec![Arc::from("orders")]));
    desk.answer(1, vec![orders(1, &[(0, 7, 0), (1, 8, 0)])]);
    assert_eq!(desk.lookup(2), Lookup::Known(2));
    assert_eq!(desk.leader(1), Some(8));
    assert!(!desk.due(2));
}

#[test]
fn a_refresh_never_forgets() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 3), (1, 8, 3)])]);
    desk.answer(2, vec![orders(1, &[(0, 9, 4)])]);
    assert_eq!(desk.lookup(3), Lookup::Known(2));
    assert_eq!((desk.leader(0), desk.leader(1)), (Some(9), Some(8)));
    desk.answer(4, vec![refused(3)]);
    assert_eq!(desk.lookup(5), Lookup::Known(2));
}

#[test]
fn a_refresh_never_forgets_who_asks_meanwhile() {
    let mut desk = Desk::new();
    desk.lookup(0);
    let (_, asked) = desk.cache.start(desk.at(1));
    assert_eq!(asked, [Arc::from("orders")]);
    let now = desk.at(2);
    assert_eq!(desk.ask("late", now), Lookup::Wanted);
    let topics = vec![orders(1, &[(0, 7, 3)])];
    desk.cache.apply(MetadataAnswer { topics, ..MetadataAnswer::default() }, desk.at(3));
    assert!(desk.due(3));
    let (_, asked) = desk.cache.start(desk.at(3));
    assert_eq!(asked, [Arc::from("late"), Arc::from("orders")]);
}

#[test]
fn an_older_leader_epoch_is_ignored() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 5)])]);
    desk.answer(2, vec![orders(1, &[(0, 6, 4)])]);
    assert_eq!(desk.leader(0), Some(7));
    assert!(!desk.cache.apply_hint("orders", 0, 6, 5));
    assert!(desk.cache.apply_hint("orders", 0, 6, 6));
    assert_eq!(desk.leader(0), Some(6));
}

#[test]
fn a_recreated_topic_starts_over() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 5), (1, 7, 5)])]);
    desk.answer(2, vec![orders(2, &[(0, 6, 0)])]);
    assert_eq!(desk.lookup(3), Lookup::Known(1));
    assert_eq!(desk.leader(0), Some(6));
}

#[test]
fn an_unknown_topic_is_given_5_seconds_and_then_refused_for_1() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(4999, vec![refused(3)]);
    assert_eq!(desk.lookup(4999), Lookup::Wanted);
    desk.answer(5001, vec![refused(3)]);
    let unknown = Lookup::Refused(Reason::UnknownTopic);
    assert_eq!(desk.lookup(5001), unknown);
    let now = desk.at(6000);
    assert_eq!(desk.ask("orders", now), unknown);
    let now = desk.at(6001);
    assert_eq!(desk.ask("orders", now), Lookup::Wanted);
}

#[test]
fn silence_is_not_taken_for_an_unknown_topic() {
    let mut desk = Desk::new();
    desk.lookup(0);
    let _round = desk.cache.start(desk.at(0));
    desk.cache.fail(desk.at(6000), 20);
    assert_eq!(desk.lookup(6001), Lookup::Wanted);
}

#[test]
fn an_unknown_topic_that_is_asked_for_all_the_time_is_waited_for_once() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(5001, vec![refused(3)]);
    let unknown = Lookup::Refused(Reason::UnknownTopic);
    assert_eq!(desk.lookup(5001), unknown);
    let mut wish = desk.cache.wish(Trust::Believed, desk.at(6002));
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(6002)), Lookup::Wanted);
    desk.answer(6010, vec![refused(3)]);
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(6010)), unknown, "one question is enough");
    assert_eq!(desk.ask("orders", desk.at(7009)), unknown);
    wish = desk.cache.wish(Trust::Believed, desk.at(7011));
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(7011)), Lookup::Wanted);
    desk.answer(7020, vec![orders(1, &[(0, 7, 0)])]);
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(7020)), Lookup::Known(1));
}

#[test]
fn an_unknown_topic_that_nobody_wanted_for_5_seconds_is_waited_for_again() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(5001, vec![refused(3)]);
    assert_eq!(desk.lookup(5001), Lookup::Refused(Reason::UnknownTopic));
    let wish = desk.cache.wish(Trust::Believed, desk.at(10_001));
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(10_001)), Lookup::Wanted);
    desk.answer(10_010, vec![refused(3)]);
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(10_010)), Lookup::Wanted);
}

#[test]
fn a_missing_permission_is_asked_for_by_each_who_is_refused() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![refused(29)]);
    let name = codes::name(29);
    assert_eq!(desk.lookup(2), Lookup::Refused(Reason::Unauthorized { code: 29, name }));
    assert!(!desk.due(2));
    let wish = desk.cache.wish(Trust::Believed, desk.at(3));
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(3)), Lookup::Wanted);
    assert!(!desk.due(50), "questions are paced");
    assert!(desk.due(130));
    desk.answer(130, vec![orders(1, &[(0, 7, 0)])]);
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(131)), Lookup::Known(1));
}

#[test]
fn a_number_of_partitions_that_is_doubted_is_asked_for() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    let _earlier_round = desk.cache.start(desk.at(2));
    let wish = desk.cache.wish(Trust::Doubted, desk.at(2));
    let answer = MetadataAnswer { topics: vec![orders(1, &[(0, 7, 0)])], ..Default::default() };
    desk.cache.apply(answer, desk.at(3));
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(3)), Lookup::Wanted, "asked before");
    desk.answer(103, vec![orders(1, &[(0, 7, 0), (1, 7, 0)])]);
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(104)), Lookup::Known(2));
}

#[test]
fn an_outdated_complaint_changes_nothing() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    let seen = desk.cache.generation();
    desk.answer(2, vec![orders(1, &[(0, 8, 1)])]);
    assert!(!desk.cache.complain(seen, desk.at(3)));
    assert!(!desk.due(1000));
    assert!(desk.cache.complain(desk.cache.generation(), desk.at(3)));
    assert!(desk.due(1000));
}

#[test]
fn complaints_are_paced() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    let generation = desk.cache.generation();
    assert!(desk.cache.complain(generation, desk.at(2)));
    assert!(!desk.due(50));
    assert!(desk.due(130));
    for ms in [200, 300, 400, 500, 600] {
        desk.answer(ms, vec![orders(1, &[(0, -1, 0)])]);
    }
    let generation = desk.cache.generation();
    assert!(desk.cache.complain(generation, desk.at(601)));
    assert!(!desk.due(1300), "a partition has had no leader for long");
    assert!(desk.due(1900));
}

#[test]
fn failures_are_tried_again_ever_more_slowly() {
    let mut desk = Desk::new();
    desk.lookup(0);
    for (ms, pause) in [(0, 100), (200, 200), (500, 400)] {
        let _round = desk.cache.start(desk.at(ms));
        desk.cache.fail(desk.at(ms), 20);
        assert!(!desk.due(ms + pause - 1));
        assert!(desk.due(ms + pause));
    }
}

#[test]
fn knowledge_is_refreshed_by_age_while_it_is_used() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    assert!(!desk.due(299_000));
    assert!(desk.due(300_001));
    let (_, topics) = desk.cache.start(desk.at(300_001));
    assert!(topics.is_empty(), "nobody used it for 5 minutes");
    assert_eq!(desk.leader(0), None);
    assert!(desk.due(1), "and when it is used again, it is asked for");
}

#[test]
fn nothing_is_known_of_another_cluster() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 9)])]);
    desk.cache.forget_cluster(desk.at(1));
    assert_eq!((desk.leader(0), desk.cache.known("orders")), (None, None));
    desk.answer(2, vec![orders(2, &[(0, 8, 0)])]);
    assert_eq!(desk.leader(0), Some(8), "in an epoch that is older only in the former one");
}

#[test]
fn the_number_of_topics_is_bounded() {
    let mut desk = Desk::new();
    let now = desk.start;
    for number in 0..TOPICS {
        desk.ask(&number.to_string(), now);
    }
    assert_eq!(desk.ask("one more", now), Lookup::Refused(Reason::TooManyTopics));
    let later = desk.at(300_000);
    assert_eq!(desk.ask("one more", later), Lookup::Wanted);
}

#[test]
fn names_that_no_broker_knows_keep_no_topic_out() {
    let mut desk = Desk::new();
    desk.lookup(0);
    desk.answer(1, vec![orders(1, &[(0, 7, 0)])]);
    let now = desk.at(2);
    for number in 1..TOPICS {
        desk.ask(&number.to_string(), now);
    }
    let later = desk.at(5001);
    desk.ask("1", later);
    assert_eq!(desk.ask("real", later), Lookup::Refused(Reason::TooManyTopics));
    let later = desk.at(5002);
    assert_eq!(desk.ask("real", later), Lookup::Wanted);
    assert_eq!(desk.cache.known("orders"), Some((1, 1)), "what is known stays");
    assert_eq!(desk.cache.topics.len(), 3, "and whom someone waits for");
}

#[test]
fn ever_new_names_do_not_hurry_the_questions() {
    let mut desk = Desk::new();
    let mut rounds = 0;
    for ms in 0..10_000 {
        let now = desk.at(ms);
        desk.ask(&ms.to_string(), now);
        if desk.due(ms) {
            desk.answer(ms, vec![]);
            rounds += 1;
        }
    }
    assert!((80..130).contains(&rounds), "{rounds} rounds in 10 s");
}

/// A caller that has less time than a topic may be unknown must not wait all of it again and again.
#[test]
fn an_unknown_topic_is_refused_to_impatient_callers_too() {
    let mut desk = Desk::new();
    for at in (0..5000).step_by(1000) {
        let wish = desk.cache.wish(Trust::Believed, desk.at(at));
        assert_eq!(desk.cache.lookup("orders", wish, desk.at(at)), Lookup::Wanted);
        desk.answer(at + 900, vec![refused(3)]);
        assert_eq!(desk.cache.lookup("orders", wish, desk.at(at + 900)), Lookup::Wanted);
    }
    let wish = desk.cache.wish(Trust::Believed, desk.at(5001));
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(5001)), Lookup::Wanted, "not yet asked");
    desk.answer(5100, vec![refused(3)]);
    let unknown = Lookup::Refused(Reason::UnknownTopic);
    assert_eq!(desk.cache.lookup("orders", wish, desk.at(5100)), unknown);
    let now = desk.at(6099);
    assert_eq!(desk.ask("orders", now), unknown);
}
