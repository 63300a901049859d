//! Where readers of a group start, by what it has committed.

use super::*;

fn committed(offsets: &[(&str, i32, i64)], metadata: &str) -> Committed {
    let mut committed = Committed::default();
    for (topic, partition, next) in offsets {
        committed.read((topic, *partition), (*next, None), metadata);
    }
    committed
}

fn known(topics: &[(&str, i32)]) -> BTreeMap<String, KnownTopic> {
    let known = |(topic, partitions): &(&str, i32)| {
        (topic.to_string(), KnownTopic { tag: None, partitions: *partitions })
    };
    topics.iter().map(known).collect()
}

fn feed(qos: Qos, reset: Reset) -> Feed {
    let mut feed = Feed { reset, ..Feed::of_topics(&["a", "b"]) };
    feed.delivery.qos = qos;
    feed
}

fn cursor(text: &str) -> Given {
    Given::Cursor(Cursor::parse(text).unwrap())
}

/// The cursor as text, and partitions that start where the group began.
fn start(committed: &Committed, asked: &Given, feed: &Feed) -> (String, usize) {
    let start = committed.start(asked, &known(&[("a", 2), ("b", 1)]), feed);
    let start = match start {
        Ok(start) => start,
        Err(refusal) => return (refusal.code.name().to_owned(), 0),
    };
    let text = match start.given {
        Given::Cursor(cursor) => cursor.encode(false),
        Given::From(start) => format!("{start:?}"),
        Given::Nothing => "nothing".to_owned(),
    };
    (text, start.uncommitted.len())
}

#[test]
fn a_reader_goes_on_where_the_group_is() {
    let feed = feed(Qos::AtLeastOnce, Reset::Latest);
    let all = committed(&[("a", 0, 5), ("a", 1, 6), ("b", 0, 7)], "anchor=100");
    assert_eq!(start(&all, &Given::Nothing, &feed), ("a@0#5,1#6;b@0#7;".to_owned(), 0));
    let from = Given::From(crate::consume::start::Start::Earliest);
    assert_eq!(start(&all, &from, &feed).0, "invalid_parameter", "not silently ignored");
    let new = Committed::default();
    assert_eq!(start(&new, &from, &feed).0, "Earliest");
    assert_eq!(start(&new, &Given::Nothing, &feed).0, "nothing");
}

#[test]
fn a_cursor_wins_and_what_it_does_not_name_is_where_the_group_is() {
    let all = committed(&[("a", 0, 5), ("a", 1, 6), ("b", 0, 7)], "anchor=100");
    for (qos, asked, starts) in [
        (Qos::AtLeastOnce, "a@0#2,1#9;", "a@0#2,1#9;b@0#7;"),
        (Qos::AtBest, "a@0#9", "a@0#9,1#6;b@0#7"),
        (Qos::AtMostOnce, "a@0#2,1#9;b@0#t5;", "a@0#5,1#9;b@0#7;"),
    ] {
        let feed = feed(qos, Reset::Latest);
        assert_eq!(start(&all, &cursor(asked), &feed).0, starts, "{qos:?}");
    }
    // It is not the group's to refuse: who may read what is looked at later.
    let foreign = start(&all, &cursor("x@0#1;"), &feed(Qos::AtBest, Reset::Latest));
    assert_eq!(foreign.0, "a@0#5,1#6;b@0#7;x@0#1;");
}

#[test]
fn a_partition_whose_position_is_gone_starts_where_the_group_began() {
    let some = committed(&[("a", 0, 5)], "anchor=100");
    for qos in [Qos::AtLeastOnce, Qos::AtBest, Qos::Balanced] {
        let feed = feed(qos, Reset::Latest);
        let started = start(&some, &Given::Nothing, &feed);
        assert_eq!(started, ("a@0#5,1#t100;b@0#t100;".to_owned(), 2), "{qos:?}");
    }
    let foreign = committed(&[("a", 0, 5)], "of somebody else");
    let started = |qos, reset| start(&foreign, &Given::Nothing, &feed(qos, reset));
    assert_eq!(started(Qos::AtLeastOnce, Reset::Latest), ("a@0#5;b@;".to_owned(), 0));
    assert_eq!(started(Qos::AtLeastOnce, Reset::None), ("a@0#5;b@;".to_owned(), 0));
    // Without a trailing `;` the reset policy decides.
    assert_eq!(started(Qos::AtBest, Reset::Latest), ("a@0#5;b@".to_owned(), 0));
    assert_eq!(started(Qos::AtBest, Reset::None).0, "position_required");
}

#[test]
fn the_reader_is_told_unless_nothing_was_before() {
    let some = committed(&[("a", 0, 5)], "anchor=100");
    let feed = feed(Qos::AtBest, Reset::Latest);
    let start = some.start(&Given::Nothing, &known(&[("a", 4)]), &feed).unwrap();
    let gaps = start.gaps(&Cursor::parse("a@0#5,1#0,2#9,3#t100;").unwrap());
    let gaps: Vec<_> = gaps.iter().map(|gap| (gap.partition, gap.to, gap.reason.name())).collect();
    assert_eq!(gaps, [(2, Some(9), "uncommitted"), (3, None, "uncommitted")]);
}

#[test]
fn positions_go_forward_only() {
    let mut some = committed(&[("a", 0, 5), ("a", 1, 6)], "anchor=100");
    some.read(("b", 0), (3, Some(1)), "anchor=90");
    assert_eq!(some.anchor_ms, Some(90), "the earliest");
    some.advance(&Cursor::parse("a@0#4,1#7.2,2#1;b@0#t5;c@;").unwrap());
    let all: Vec<_> =
        some.iter().map(|(topic, it, next)| (topic, it, next.offset, next.epoch)).collect();
    assert_eq!(
        all,
        [("a", 0, 5, None), ("a", 1, 7, Some(2)), ("a", 2, 1, None), ("b", 0, 3, Some(1))]
    );
}

#[test]
fn what_was_committed_of_a_former_topic_means_nothing() {
    let feed = feed(Qos::AtBest, Reset::Latest);
    let mut known = known(&[("a", 2)]);
    known.insert("a".to_owned(), KnownTopic { tag: Some(10), partitions: 2 });
    let text = |some: &Committed| match some.start(&Given::Nothing, &known, &feed).unwrap().given {
        Given::Cursor(cursor) => cursor.encode(false),
        given => panic!("{given:?}"),
    };
    let mut some = Committed::default();
    let metadata = |tag| Next { offset: 0, epoch: None, tag }.of("a", 0, 90).metadata.into_owned();
    assert_eq!(metadata(None), "anchor=90");
    assert_eq!(metadata(Some(10)), "anchor=90 topic=0000000a");
    some.read(("a", 0), (5, None), &metadata(Some(10)));
    // By another consumer, or without ids.
    some.read(("a", 1), (7, None), "");
    assert_eq!(text(&some), "a:0000000a@0#5,1#7;");
    some.read(("a", 0), (500, None), &metadata(Some(9)));
    assert_eq!(text(&some), "a:0000000a@0#t90,1#7;");
    // Neither goes before the other.
    some.advance(&Cursor::parse("a:0000000a@0#2,1#8").unwrap());
    assert_eq!(text(&some), "a:0000000a@0#2,1#8;");
    some.advance(&Cursor::parse("a:00000009@0#500,1#500").unwrap());
    assert_eq!(text(&some), "a:0000000a@0#t90,1#t90;");
    some.advance(&Cursor::parse("a:0000000a@0#3,1#8").unwrap());
    assert_eq!(text(&some), "a:0000000a@0#3,1#8;");
}
