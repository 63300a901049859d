//! Where readers start, by the rules of the complete vector.

use proptest::prelude::*;

use super::*;
use crate::consume::topics::TopicsPattern;

/// Topics with their tags and numbers of partitions.
fn cluster(topics: &[(&str, u32, i32)]) -> BTreeMap<String, KnownTopic> {
    let known = |(name, tag, partitions): &(&str, u32, i32)| {
        (name.to_string(), KnownTopic { tag: Some(*tag), partitions: *partitions })
    };
    topics.iter().map(known).collect()
}

fn given(cursor: &str) -> Given {
    Given::Cursor(Cursor::parse(cursor).unwrap())
}

/// The starts as a list such as `a0=5 a1=start`, then the gaps as `a0:recreated`.
fn shown(starts: Result<Starts, Refusal>) -> String {
    let starts = match starts {
        Ok(starts) => starts,
        Err(refusal) => return refusal.code.name().to_owned(),
    };
    let mut shown = Vec::new();
    for (topic, of_topic) in &starts.topics {
        if of_topic.partitions.is_empty() {
            shown.push(format!("{topic}="));
        }
        for (partition, start) in &of_topic.partitions {
            let start = match start {
                Start::At { next, epoch: None } => next.to_string(),
                Start::At { next, epoch: Some(epoch) } => format!("{next}.{epoch}"),
                Start::Time(ms) => format!("t{ms}"),
                Start::Earliest => "start".to_owned(),
                Start::Latest => "end".to_owned(),
            };
            shown.push(format!("{topic}{partition}={start}"));
        }
    }
    let reason = |reason| serde_json::to_value(reason).unwrap();
    shown.extend(starts.gaps.iter().map(|gap| {
        let reason = reason(gap.reason);
        format!("{}{}:{}", gap.topic, gap.partition, reason.as_str().unwrap())
    }));
    shown.join(" ")
}

fn list(topics: &[&str]) -> Vec<String> {
    topics.iter().map(|topic| topic.to_string()).collect()
}

fn list_of(topics: &[&str]) -> Topics {
    Topics::List(list(topics))
}

fn pattern(source: &str) -> Topics {
    Topics::Pattern(TopicsPattern::new(source).unwrap())
}

fn scope<'a>(feed: &'a Topics, asked: Option<&'a [String]>) -> Scope<'a> {
    Scope { feed, asked, reset: Reset::Latest, check_topic_existence: true }
}

#[test]
fn what_a_complete_vector_lacks_was_created_later() {
    let topics = list_of(&["a", "b"]);
    let known = cluster(&[("a", 1, 3), ("b", 2, 1)]);
    let of_list = scope(&topics, None);
    let any = pattern(".");
    let of_pattern = scope(&any, None);
    for (cursor, in_list, in_pattern) in [
        // A partition was added.
        ("a@0#5,1#t7;b@0#1.2;", "a0=5 a1=t7 a2=start b0=1.2", "a0=5 a1=t7 a2=start b0=1.2"),
        // The topic had no partition.
        ("a@;b@0#1;", "a0=start a1=start a2=start b0=1", "a0=start a1=start a2=start b0=1"),
        // A topic was added: to the list by somebody, to the pattern by its creation.
        ("a@0#5,1#6,2#7;", "a0=5 a1=6 a2=7 b0=end", "a0=5 a1=6 a2=7 b0=start"),
        (";", "a0=end a1=end a2=end b0=end", "a0=start a1=start a2=start b0=start"),
        // Written by hand.
        ("a@1#0,2#0", "a0=end a1=0 a2=0 b0=end", "a0=end a1=0 a2=0 b0=end"),
        ("a@", "a0=end a1=end a2=end b0=end", "a0=end a1=end a2=end b0=end"),
    ] {
        assert_eq!(shown(of_list.starts(&given(cursor), &known)), in_list, "{cursor}");
        assert_eq!(shown(of_pattern.starts(&given(cursor), &known)), in_pattern, "{cursor}");
    }
}

#[test]
fn the_same_cursor_in_each_form_starts_at_the_same_place() {
    let topics = list_of(&["my-topic"]);
    let known = cluster(&[("my-topic", 1, 3)]);
    for text in ["my-topic@1#0,2#0", "bXktdG9waWNAMSMwLDIjMA==", "bXktdG9waWNAMSMwLDIjMAo="] {
        let starts = scope(&topics, None).starts(&given(text), &known);
        assert_eq!(shown(starts), "my-topic0=end my-topic1=0 my-topic2=0");
    }
}

#[test]
fn topics_of_a_request_narrow_the_feed_and_widening_is_no_creation() {
    let (topics, asked) = (list_of(&["a", "b"]), list(&["b"]));
    let known = cluster(&[("a", 1, 1), ("b", 2, 2)]);
    for feed in [&topics, &pattern(".")] {
        let narrowed = scope(feed, Some(&asked));
        let ignored = narrowed.starts(&given("a@9#9;b@0#1;"), &known);
        assert_eq!(shown(ignored), "b0=1 b1=start");
        assert_eq!(shown(narrowed.starts(&given("a@0#5;"), &known)), "b0=end b1=end");
    }
}

#[test]
fn a_foreign_topic_is_refused_whether_or_not_it_exists() {
    let (topics, foreign) = (list_of(&["a"]), list(&["a", "c"]));
    let known = cluster(&[("a", 1, 1)]);
    for feed in [&topics, &pattern("a")] {
        let refused = scope(feed, None).starts(&given("a@9#0;c@0#0"), &known);
        assert_eq!(shown(refused), "topic_not_allowed");
        let refused = scope(feed, Some(&foreign)).starts(&Given::Nothing, &known);
        assert_eq!(shown(refused), "topic_not_allowed");
    }
}

#[test]
fn a_topic_with_another_id_is_read_from_its_start() {
    let topics = list_of(&["a"]);
    let of = |reset| Scope { reset, ..scope(&topics, None) };
    let known = cluster(&[("a", 2, 2)]);
    // It had more partitions than it has now.
    let cursor = given("a:00000001@0#5,7#t1;");
    let starts = "a0=start a1=start a0:recreated a7:recreated";
    assert_eq!(shown(of(Reset::Latest).starts(&cursor, &known)), starts);
    assert_eq!(shown(of(Reset::None).starts(&cursor, &known)), "offset_out_of_range");
    let gaps = of(Reset::Earliest).starts(&cursor, &known).unwrap().gaps;
    assert_eq!((gaps[0].from, gaps[1].from), (Some(5), None));
    // It had none, so nothing was promised.
    let never_read = of(Reset::None).starts(&given("a:00000001@;"), &known);
    assert_eq!(shown(never_read), "a0=start a1=start");
    let same = of(Reset::Latest).starts(&given("a:00000002@0#5,1#6;"), &known).unwrap();
    assert_eq!(same.topics["a"].tag, Some(2));
    // Without an id on either side there is nothing to compare.
    let old = BTreeMap::from([("a".to_owned(), KnownTopic { tag: None, partitions: 1 })]);
    assert_eq!(shown(of(Reset::Latest).starts(&given("a:00000001@0#5;"), &old)), "a0=5");
}

#[test]
fn a_partition_that_is_not_there_is_refused() {
    let topics = list_of(&["demo1"]);
    let known = cluster(&[("demo1", 1, 3)]);
    let starts = scope(&topics, None).starts(&given("demo1@99#0"), &known);
    let message = "cursor: the topic `demo1` has no partition 99";
    assert_eq!(starts, Err(Code::CursorUnknownPartition.because(message)));
}

#[test]
fn a_topic_that_is_not_there_is_refused_or_waited_for_or_dropped() {
    let topics = list_of(&["a", "b"]);
    let known = cluster(&[("a", 1, 1)]);
    let checked = scope(&topics, None);
    let waiting = Scope { check_topic_existence: false, ..checked };
    let any = pattern(".");
    let of_pattern = scope(&any, None);
    let lost = given("a@0#1;b:00000007@0#5,1#6;");
    assert_eq!(shown(checked.starts(&lost, &known)), "topic_deleted");
    assert_eq!(shown(waiting.starts(&lost, &known)), "a0=1 b0=5 b1=6");
    assert_eq!(waiting.starts(&lost, &known).unwrap().topics["b"].tag, Some(7));
    assert_eq!(shown(of_pattern.starts(&lost, &known)), "a0=1 b0:deleted b1:deleted");
    for never_there in [Given::Nothing, given("a@0#1;"), given("a@0#1;b@;")] {
        assert_eq!(shown(checked.starts(&never_there, &known)), "topic_not_found");
        assert!(shown(waiting.starts(&never_there, &known)).ends_with(" b="));
        assert!(!shown(of_pattern.starts(&never_there, &known)).contains('b'));
    }
    let asked = list(&["b"]);
    let by_name = Scope { asked: Some(&asked), ..of_pattern };
    assert_eq!(shown(by_name.starts(&Given::Nothing, &known)), "topic_not_found");
}

#[test]
fn without_a_cursor_the_request_decides_and_then_the_feed() {
    let topics = list_of(&["a"]);
    let known = cluster(&[("a", 1, 2)]);
    let of = |reset| Scope { reset, ..scope(&topics, None) };
    for (reset, given, starts) in [
        (Reset::Earliest, Given::Nothing, "a0=start a1=start"),
        (Reset::Latest, Given::Nothing, "a0=end a1=end"),
        (Reset::None, Given::Nothing, "position_required"),
        (Reset::None, Given::From(Start::Latest), "a0=end a1=end"),
        (Reset::Latest, Given::From(Start::Time(5)), "a0=t5 a1=t5"),
        (Reset::None, given("a@0#1"), "cursor_incomplete"),
        (Reset::None, given(";"), "cursor_incomplete"),
        (Reset::None, given("a@0#1;"), "a0=1 a1=start"),
    ] {
        assert_eq!(shown(of(reset).starts(&given, &known)), starts, "{given:?}");
    }
}

proptest! {
    /// No position of a partition that exists is skipped silently.
    #[test]
    fn every_partition_has_a_start(text in "([ab](:0000000[12])?@([0-3]#[0-9]{1,2},?){0,2};?){0,3}") {
        let topics = list_of(&["a", "b"]);
        let known = cluster(&[("a", 1, 2), ("b", 2, 3)]);
        let Ok(cursor) = Cursor::parse(&text) else { return Ok(()) };
        let starts = scope(&topics, None)
            .starts(&Given::Cursor(cursor.clone()), &known);
        let Ok(starts) = starts else { return Ok(()) };
        for (topic, of_topic) in &starts.topics {
            prop_assert_eq!(of_topic.partitions.len(), known[topic].partitions as usize);
        }
        for (topic, positions) in &cursor.topics {
            for (partition, position) in &positions.partitions {
                let is_told = starts.gaps.iter().any(|gap| {
                    (&gap.topic, gap.partition) == (topic, *partition)
                });
                let start = starts.topics[topic].partitions.get(partition);
                prop_assert!(is_told || start == Some(&Start::from(*position)));
            }
        }
    }
}
